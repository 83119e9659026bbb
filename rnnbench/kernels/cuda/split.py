"""The recurrences where W_hh is too large for the registers of a thread a column: two threads a column.

Thread x of 2 width serves column x % width and one half of k. It keeps `kept` of its width / 2 weights in registers,
and the rest in dynamic shared memory, number m of thread x at m 2 width + x, so that a warp reads 32 neighbours. The
halves meet in `halves`, which costs a second barrier a step. Arrays and equations as in `forward` and `backward`.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from numba import cuda

from rnnbench.kernels.cuda.forward import SUMS
from rnnbench.kernels.cuda.launch import bounded
from rnnbench.kernels.cuda.layout import emitted_row, state_row, step_row
from rnnbench.kernels.cuda.plan import compiled_once


@compiled_once
def half_products(dtype: str, width: int, kept: int, rows: int) -> Any:
    """sums (rows SUMS,) += states (rows, width)[:, low:] times the half column in w (kept,) and pool (., 2 width)."""
    rest, threads = width // 2 - kept, 2 * width

    @cuda.jit(device=True)
    def multiply(sums, states, w, pool, low, x):
        # The weights in registers, then those in shared memory: of each, the states of all rows
        for k in range(0, kept, SUMS):
            for r in range(rows):
                for s in range(SUMS):
                    sums[r * SUMS + s] += states[r, low + k + s] * w[k + s]
        # as long as the pool, which the compiler does not know: unrolled in full it would want more registers
        for m in range(0, pool.shape[0] // threads if rest > 0 else 0, SUMS):
            for s in range(SUMS):
                weight = pool[(m + s) * threads + x]
                for r in range(rows):
                    sums[r * SUMS + s] += states[r, low + kept + m + s] * weight

    return multiply


@compiled_once
def forward_split(dtype: str, width: int, kept: int, rows: int) -> Any:
    """h, with h_0 = initial, for H <= width. A block of 2 width threads for `rows` rows; width and kept in fours."""
    kind, zero = getattr(numba, dtype), np.dtype(dtype).type(0)
    held, half, threads, tile = rows * SUMS, width // 2, 2 * width, (rows, width)
    multiply = half_products(dtype, width, kept, rows)

    @bounded(threads)
    def kernel(h, W, initial, b, T, H):
        pool = cuda.shared.array(0, kind)
        states = cuda.shared.array(tile, kind)
        halves = cuda.shared.array(tile, kind)
        w = cuda.local.array(kept, kind)
        sums = cuda.local.array(held, kind)
        ahead = cuda.local.array(rows, kind)
        x, first = cuda.threadIdx.x, cuda.blockIdx.x * rows
        # Column j; `low`: where the half of k of this thread begins; of the two threads of a column the first leads
        j, low, leads = x % width, numba.uint32(x // width * half), x < width
        for k in range(kept):
            w[k] = W[low + k, j] if low + k < H and j < H else zero
        for m in range(half - kept):
            k = low + kept + m
            pool[m * threads + x] = W[k, j] if k < H and j < H else zero
        # The states before step 0, and what the inputs give to step 0: the leading thread alone adds it
        for r in range(rows):
            i = first + r
            real = leads and i < b and j < H
            ahead[r] = h[state_row(1, b, i), j] if real else zero
            if leads:
                value = initial[i, j] if real else zero
                states[r, j] = value
                if real:
                    h[i, j] = value
        cuda.syncthreads()
        for t in range(T):
            for r in range(rows):
                sums[r * SUMS] = ahead[r]
                for s in range(1, SUMS):
                    sums[r * SUMS + s] = zero
                if t + 1 < T and leads and first + r < b and j < H:  # read while the sums run
                    ahead[r] = h[state_row(t + 2, b, first + r), j]
            multiply(sums, states, w, pool, low, x)
            # The second half's sums go to the leading thread, which adds them and is the cell
            for r in range(rows):
                q = r * SUMS
                sums[q] = (sums[q] + sums[q + 1]) + (sums[q + 2] + sums[q + 3])
                if not leads:
                    halves[r, j] = sums[q]
            cuda.syncthreads()
            for r in range(rows):
                if leads:
                    value = math.tanh(sums[r * SUMS] + halves[r, j]) if j < H else zero
                    states[r, j] = value
                    if first + r < b and j < H:
                        h[state_row(t + 1, b, first + r), j] = value
            cuda.syncthreads()

    return kernel


@compiled_once
def backward_split(dtype: str, width: int, kept: int, rows: int) -> Any:
    """delta for H <= width; spare is not used. Blocks and threads as `forward`, halves of the rows of W_hh."""
    kind = getattr(numba, dtype)
    zero, one = np.dtype(dtype).type(0), np.dtype(dtype).type(1)
    held, half, threads, tile = rows * SUMS, width // 2, 2 * width, (rows, width)
    multiply = half_products(dtype, width, kept, rows)

    @bounded(threads)
    def kernel(delta, spare, h, dh, W, blocks, b, T, S, H):
        pool = cuda.shared.array(0, kind)
        deltas = cuda.shared.array(tile, kind)
        halves = cuda.shared.array(tile, kind)
        w = cuda.local.array(kept, kind)
        sums = cuda.local.array(held, kind)
        x, first = cuda.threadIdx.x, cuda.blockIdx.x * rows
        # Column j; `low`: where the half of k of this thread begins; of the two threads of a column the first leads
        j, low, leads = x % width, numba.uint32(x // width * half), x < width
        for k in range(kept):
            w[k] = W[j, low + k] if low + k < H and j < H else zero
        for m in range(half - kept):
            k = low + kept + m
            pool[m * threads + x] = W[j, k] if k < H and j < H else zero
        seen = 0
        for n in range(blocks.shape[0]):
            start, emit, end = blocks[n, 0], blocks[n, 1], blocks[n, 2]
            for q in range(held):
                sums[q] = zero
            before = end - start
            while before > 0:
                before -= 1
                t = start + before
                emits = t >= emit and t >= T - S
                # What comes from the step after: its sums in two halves, which meet in the leading thread
                for r in range(rows):
                    q = r * SUMS
                    sums[q] = (sums[q] + sums[q + 1]) + (sums[q + 2] + sums[q + 3])
                    if not leads:
                        halves[r, j] = sums[q]
                cuda.syncthreads()
                # delta of this step: with the head's part, through the cell; to memory and to shared for both halves
                for r in range(rows):
                    i, q = first + r, r * SUMS
                    if leads:
                        d = zero
                        if i < b and j < H:
                            d = sums[q] + halves[r, j]
                            if emits:
                                d += dh[emitted_row(t, T, S, b, i), j]
                            state = h[state_row(t + 1, b, i), j]
                            d *= one - state * state
                            p = step_row(t, b, i)
                            delta[p, j] = delta[p, j] + d if t < seen else d
                        deltas[r, j] = d
                    for s in range(SUMS):
                        sums[q + s] = zero
                cuda.syncthreads()
                if before > 0:  # else no step reads what would come of it
                    multiply(sums, deltas, w, pool, low, x)
            seen = end

    return kernel
