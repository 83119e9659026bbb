"""How work is split: how many workers are worth waking, and which rows each of them has."""

from __future__ import annotations

import numpy as np

from rnnbench.kernels.cpu.compiling import kernel

# Multiply-adds that take one thread about as long as waking another.
LEAST_WORK = 500_000
# Rows of a product's widest tile: a share that is a multiple of it wastes nothing.
TILE_ROWS = np.int64(4)


@kernel()
def workers_for(work, n, most):
    """How many workers, 1 to `most`, for n rows and `work` multiply-adds in all."""
    return max(1, min(most, work // LEAST_WORK, -(-n // TILE_ROWS)))


@kernel()
def share(n, worker, workers, unit):
    """Rows [lo, hi) of n for one worker, in multiples of `unit` but for the end; empty where nothing is left."""
    size = -(-n // (workers * unit)) * unit
    return min(n, worker * size), min(n, (worker + 1) * size)
