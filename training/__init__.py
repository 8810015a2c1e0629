"""Training: LeRobot datasets in, checkpoints out."""
