"""Statistics of a dataset's columns, exact and without decoding an image."""
