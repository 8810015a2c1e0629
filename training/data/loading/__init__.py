"""Batches: what a step is made of, made ahead of its use."""
