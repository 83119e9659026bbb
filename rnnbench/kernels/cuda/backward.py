"""Backward recurrence: (truncated) BPTT in one launch, every reverse pass restarted from the stored states.

    delta_t = (dh_t + delta_{t+1} W_hh^T) (1 - h_t^2)        dh_t = dz_t W_hy^T, where step t emits

In: dh (S b, H), the head's gradient of the last S states, and h. Out: delta (T b, H), the gradient of the gates, from
which `products` forms the gradients of the weights and inputs. Passes of `blocks` run in order of time; the deltas of
all that reach a step are added, and the weight gradients are formed once from the sum. `delta` is set by the first pass
that reaches a step; steps before the first pass are not written. Rows and regimes as in `forward`; thread j keeps row j
of W_hh.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import cuda

from rnnbench.kernels.cuda.forward import SUMS
from rnnbench.kernels.cuda.layout import emitted_row, spare_row, state_row, step_row
from rnnbench.kernels.cuda.plan import compiled_once


@compiled_once
def backward_in_registers(dtype: str, width: int, rows: int) -> Any:
    """delta for H <= width. A block of `width` threads for `rows` rows; `width` is a multiple of 4.

    delta (T b, H), spare not used, h ((T + 1) b, H), dh (S b, H) of the last S steps, W (H, H), blocks (., 3) of
    start, emit, end.
    """
    kind = getattr(numba, dtype)
    zero, one = np.dtype(dtype).type(0), np.dtype(dtype).type(1)
    buffers, held = (2, rows, width), rows * SUMS

    @cuda.jit
    def kernel(delta, spare, h, dh, W, blocks, b, T, S, H):
        deltas = cuda.shared.array(buffers, kind)
        w = cuda.local.array(width, kind)
        sums = cuda.local.array(held, kind)
        j, first = cuda.threadIdx.x, cuda.blockIdx.x * rows
        # Row j of W to registers, once for all passes; where H is padded, zeros
        for k in range(width):
            w[k] = W[j, k] if k < H and j < H else zero
        # Steps before `seen` have a delta of an earlier pass; `now`: which of the two buffers is written
        seen, now = 0, 0
        for n in range(blocks.shape[0]):
            start, emit, end = blocks[n, 0], blocks[n, 1], blocks[n, 2]
            # Nothing comes from the step after the last of the pass
            for q in range(held):
                sums[q] = zero
            before = end - start
            while before > 0:  # not a range: the number of steps before this one is all that is counted
                before -= 1
                t = start + before
                emits = t >= emit and t >= T - S
                # delta of this step: the sums of the step after it, the head's part, the cell; to memory and to shared
                for r in range(rows):
                    i, q = first + r, r * SUMS
                    d = zero
                    if i < b and j < H:
                        d = (sums[q] + sums[q + 1]) + (sums[q + 2] + sums[q + 3])
                        if emits:
                            d += dh[emitted_row(t, T, S, b, i), j]
                        state = h[state_row(t + 1, b, i), j]
                        d *= one - state * state
                        p = step_row(t, b, i)
                        delta[p, j] = delta[p, j] + d if t < seen else d
                    deltas[now, r, j] = d
                    for s in range(SUMS):
                        sums[q + s] = zero
                cuda.syncthreads()
                # delta W^T for the step before, if there is one: all threads' deltas times this thread's row
                if before > 0:
                    for k in range(0, width, SUMS):
                        for r in range(rows):
                            for s in range(SUMS):
                                sums[r * SUMS + s] += deltas[now, r, k + s] * w[k + s]
                    now = 1 - now
            seen = end

    return kernel


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
