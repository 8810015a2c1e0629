"""One episode: observe, ask, execute a chunk, count. Knows nothing of the command line or of files."""
