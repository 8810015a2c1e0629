"""The verbs of `serve`, one a file; a command's docstring is its help."""
