"""Forward recurrence for any H: all T steps in one launch, and no block waits for another. Right, not fast.

Equations, arrays and rows of a block as in `lanes`. The weights are read from memory at each step, and the states from
h, which a block reads after its own barrier.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from numba import cuda

from rnnbench.kernels.cuda.layout import state_row
from rnnbench.kernels.cuda.plan import compiled_once


@compiled_once
def forward_general(dtype: str, threads: int, rows: int) -> Any:
    """h, with h_0 = initial, for any H: a block of `threads` threads, each with some columns of `rows` rows."""
    kind, zero = getattr(numba, dtype), np.dtype(dtype).type(0)

    @cuda.jit
    def kernel(h, W, initial, b, T, H):
        sums = cuda.local.array(rows, kind)
        first = cuda.blockIdx.x * rows
        count = min(rows, b - first)
        for j in range(cuda.threadIdx.x, H, threads):
            for r in range(count):
                h[first + r, j] = initial[first + r, j]
        cuda.syncthreads()
        for t in range(T):
            before, after = state_row(t, b, first), state_row(t + 1, b, first)
            # A column at a time: W[:, j] is read once for all rows, and the states before from h itself
            for j in range(cuda.threadIdx.x, H, threads):
                for r in range(rows):
                    sums[r] = h[after + r, j] if r < count else zero
                for k in range(H):
                    x = W[k, j]
                    for r in range(rows):
                        if r < count:
                            sums[r] += h[before + r, k] * x
                for r in range(rows):
                    if r < count:
                        h[after + r, j] = math.tanh(sums[r])
            cuda.syncthreads()  # before any thread reads the new states

    return kernel
