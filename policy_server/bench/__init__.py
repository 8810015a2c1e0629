"""What `serve bench` does: clients that ask a running server random questions, and what they measure."""
