"""The verbs of `eval-stack`, one a file; a command's docstring is its help."""
