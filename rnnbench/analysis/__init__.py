"""What is derived from records: times with intervals, rankings, comparisons, history, warnings."""
