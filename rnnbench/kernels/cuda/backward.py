"""Backward recurrence: (truncated) BPTT in one launch, every reverse pass restarted from the stored states.

    delta_t = dh_t (1 - h_t^2)        dh_{t-1} = delta_t W_hh^T  (+ slope_{t-1} where step t - 1 emits)

slope = dz W_hy^T is there before. Passes of `blocks` run in order of time; the deltas of all that reach a step are
added, and the weight gradients are formed once from the sum. `delta` (T b, H) is set by the first pass that reaches a
step; steps before the first pass are not written. Rows and regimes as in `forward`; thread j keeps row j of W_hh.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import cuda

from rnnbench.kernels.cuda.forward import SUMS
from rnnbench.kernels.cuda.plan import compiled_once


@compiled_once
def in_registers(dtype: str, width: int, rows: int) -> Any:
    """delta for H <= width. A block of `width` threads for `rows` rows; `width` is a multiple of 4.

    delta (T b, H), spare not used, h ((T + 1) b, H), slope (S b, H) of the last S steps, W (H, H), blocks (., 3) of
    start, emit, end.
    """
    kind = getattr(numba, dtype)
    zero, one = np.dtype(dtype).type(0), np.dtype(dtype).type(1)
    buffers, held = (2, rows, width), rows * SUMS

    @cuda.jit
    def kernel(delta, spare, h, slope, W, blocks, b, T, S, H):
        deltas = cuda.shared.array(buffers, kind)
        w = cuda.local.array(width, kind)
        sums = cuda.local.array(held, kind)
        j, first = cuda.threadIdx.x, cuda.blockIdx.x * rows
        for k in range(width):
            w[k] = W[j, k] if k < H and j < H else zero
        seen, now = 0, 0
        for n in range(blocks.shape[0]):
            start, emit, end = blocks[n, 0], blocks[n, 1], blocks[n, 2]
            for q in range(held):
                sums[q] = zero
            before = end - start
            while before > 0:  # not a range: the number of steps before this one is all that is counted
                before -= 1
                t = start + before
                emits = t >= emit and t >= T - S
                for r in range(rows):
                    i, q = first + r, r * SUMS
                    d = zero
                    if i < b and j < H:
                        d = (sums[q] + sums[q + 1]) + (sums[q + 2] + sums[q + 3])
                        if emits:
                            d += slope[(t - (T - S)) * b + i, j]
                        state = h[(t + 1) * b + i, j]
                        d *= one - state * state
                        p = t * b + i
                        delta[p, j] = delta[p, j] + d if t < seen else d
                    deltas[now, r, j] = d
                    for s in range(SUMS):
                        sums[q + s] = zero
                cuda.syncthreads()
                if before > 0:  # else no step reads what would come of it
                    for k in range(0, width, SUMS):
                        for r in range(rows):
                            for s in range(SUMS):
                                sums[r * SUMS + s] += deltas[now, r, k + s] * w[k + s]
                    now = 1 - now
            seen = end

    return kernel


@compiled_once
def general(dtype: str, threads: int, rows: int) -> Any:
    """The same for any H: a block of `threads` threads. spare (2 b, H): the deltas of two steps of the pass at hand."""
    kind = getattr(numba, dtype)
    zero, one = np.dtype(dtype).type(0), np.dtype(dtype).type(1)

    @cuda.jit
    def kernel(delta, spare, h, slope, W, blocks, b, T, S, H):
        sums = cuda.local.array(rows, kind)
        first = cuda.blockIdx.x * rows
        count = min(rows, b - first)
        seen = 0
        for n in range(blocks.shape[0]):
            start, emit, end = blocks[n, 0], blocks[n, 1], blocks[n, 2]
            for back in range(end - start):
                t = end - 1 - back
                emits = t >= emit and t >= T - S
                here, after = (t & 1) * b + first, (1 - (t & 1)) * b + first
                for j in range(cuda.threadIdx.x, H, threads):
                    for r in range(rows):
                        sums[r] = zero
                        if emits and r < count:
                            sums[r] = slope[(t - (T - S)) * b + first + r, j]
                    for k in range(H if back > 0 else 0):
                        x = W[j, k]
                        for r in range(rows):
                            if r < count:
                                sums[r] += spare[after + r, k] * x
                    for r in range(rows):
                        if r < count:
                            p = t * b + first + r
                            state = h[p + b, j]
                            d = sums[r] * (one - state * state)
                            spare[here + r, j] = d
                            delta[p, j] = delta[p, j] + d if t < seen else d
                cuda.syncthreads()
            seen = end

    return kernel
