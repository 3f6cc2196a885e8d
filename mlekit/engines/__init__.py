"""Where a job runs: each engine fits the groups of a table and leaves a directory of Parquet parts."""
