"""Whether an answer is right, and whether what is timed is all of the work."""
