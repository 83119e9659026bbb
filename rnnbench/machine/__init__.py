"""What the machine is and does: its facts, cores, GPU, peak, energy, and what else runs on it."""
