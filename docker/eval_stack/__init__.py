"""The eval stack: a matrix of checkpoints and tasks, measured in containers on one Docker engine."""
