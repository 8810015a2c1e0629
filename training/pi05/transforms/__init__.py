"""Between the wire and the model: images, prompts, states and actions, one implementation for training and serving."""
