"""Backward recurrence for any H, in one launch. Equations, passes and arrays as in `lanes`; weights as in `forward`."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import cuda

from rnnbench.kernels.cuda.layout import emitted_row, spare_row, state_row, step_row
from rnnbench.kernels.cuda.plan import compiled_once


@compiled_once
def backward_general(dtype: str, threads: int, rows: int) -> Any:
    """delta for any H: a block of `threads` threads. spare (2 b, H): the deltas of two steps of the pass at hand."""
    kind = getattr(numba, dtype)
    zero, one = np.dtype(dtype).type(0), np.dtype(dtype).type(1)

    @cuda.jit
    def kernel(delta, spare, h, dh, W, blocks, b, T, S, H):
        sums = cuda.local.array(rows, kind)
        first = cuda.blockIdx.x * rows
        count = min(rows, b - first)
        seen = 0
        for n in range(blocks.shape[0]):
            start, emit, end = blocks[n, 0], blocks[n, 1], blocks[n, 2]
            for back in range(end - start):
                t = end - 1 - back
                emits = t >= emit and t >= T - S
                here, after = spare_row(t, b, first), spare_row(t + 1, b, first)
                # A column at a time: the head's part, then the deltas of the step after, from memory, times row j of W
                for j in range(cuda.threadIdx.x, H, threads):
                    for r in range(rows):
                        sums[r] = zero
                        if emits and r < count:
                            sums[r] = dh[emitted_row(t, T, S, b, first + r), j]
                    for k in range(H if back > 0 else 0):
                        x = W[j, k]
                        for r in range(rows):
                            if r < count:
                                sums[r] += spare[after + r, k] * x
                    for r in range(rows):
                        if r < count:
                            p = step_row(t, b, first + r)
                            state = h[state_row(t + 1, b, first + r), j]
                            # `spare` has what this pass alone gives, delta the sum over passes
                            d = sums[r] * (one - state * state)
                            spare[here + r, j] = d
                            delta[p, j] = delta[p, j] + d if t < seen else d
                cuda.syncthreads()
            seen = end

    return kernel
