"""Kernels for one NVIDIA GPU: `passes` is the door, every other file one concern."""

import numba

numba.config.CUDA_LOW_OCCUPANCY_WARNINGS = 0  # a small problem has few blocks, and that is not a mistake
