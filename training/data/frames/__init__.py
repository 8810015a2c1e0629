"""Frames decoded once: the memory-mapped cache and how it is built."""
