"""One training step over many devices: the batch is cut over all of them, the state over some."""
