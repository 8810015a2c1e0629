"""The verbs of `train`, one per file; each function's docstring is its help."""
