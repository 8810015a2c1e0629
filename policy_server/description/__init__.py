"""What `serve describe` says of a checkpoint."""
