"""The verbs of `sim-client`, one per file; the docstring of a command is its help."""
