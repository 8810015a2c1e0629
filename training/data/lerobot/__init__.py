"""LeRobot datasets, v2.1 and v3.0: what is in them and how their numbers and frames are read."""
