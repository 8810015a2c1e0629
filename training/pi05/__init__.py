"""The Pi0 and Pi0.5 models, and all that a checkpoint needs to be a policy again."""
