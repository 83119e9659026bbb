"""Kernels for one NVIDIA GPU: `passes` is the door, every other file one concern."""
