"""A whole evaluation: the options, the spec held against the simulator, the fixed list of episodes and its run."""
