"""What an evaluation leaves behind: records, the run's description, statistics, the report."""
