"""The ways in: thin shells that move bytes between a connection and its session."""
