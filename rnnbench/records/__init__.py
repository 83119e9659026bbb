"""What is kept of a run: its records, its folder, and how older files are read."""
