"""Tables, plots and pages from records. Knows records and nothing else."""
