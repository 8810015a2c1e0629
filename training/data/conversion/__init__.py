"""ManiSkill's HDF5 recordings, and how they become a LeRobot dataset."""
