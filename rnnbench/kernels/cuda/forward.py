"""Forward recurrence: all T steps in one launch, and no block waits for another.

    h_t = tanh(x_t W_xh + b_h + h_{t-1} W_hh)

Rows of a batch never meet here, so a block owns a few of them through all steps. In: h ((T + 1) b, H), where the state
after step t will stand, holds x_t W_xh + b_h. Out: h, all states, which is all that backward needs. `layout` says which
row is which. The cell is tanh, of one gate: the gate width is H.

`forward_in_registers`: thread j keeps column j of W_hh, and the states of the block's rows go round in shared memory,
in two buffers: one barrier a step. `forward_general`: any H; the weights are read from memory at each step and the
states from h, which a block reads after its own barrier.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from numba import cuda

from rnnbench.kernels.cuda.layout import state_row
from rnnbench.kernels.cuda.plan import compiled_once

SUMS = 4  # of each row, added up at the end: one alone would wait for itself at every k


@compiled_once
def forward_in_registers(dtype: str, width: int, rows: int) -> Any:
    """h, with h_0 = initial, for H <= width. A block of `width` threads for `rows` rows; `width` is a multiple of 4.

    h ((T + 1) b, H), W (H, H), initial (b, H).
    """
    kind, zero = getattr(numba, dtype), np.dtype(dtype).type(0)
    buffers, held = (2, rows, width), rows * SUMS

    @cuda.jit
    def kernel(h, W, initial, b, T, H):
        states = cuda.shared.array(buffers, kind)
        w = cuda.local.array(width, kind)
        sums = cuda.local.array(held, kind)
        ahead = cuda.local.array(rows, kind)
        j, first = cuda.threadIdx.x, cuda.blockIdx.x * rows
        # Column j of W to registers, once for all steps; where H is padded, zeros
        for k in range(width):
            w[k] = W[k, j] if k < H and j < H else zero
        # The states before step 0, to shared memory and to h, and what the inputs give to step 0
        for r in range(rows):
            i = first + r
            real = i < b and j < H
            value = initial[i, j] if real else zero
            states[0, r, j] = value
            ahead[r] = h[state_row(1, b, i), j] if real else zero
            if real:
                h[i, j] = value
        cuda.syncthreads()
        for t in range(T):
            now = t & 1
            # The sums begin at what the inputs give; that of the next step is asked for
            for r in range(rows):
                sums[r * SUMS] = ahead[r]
                for s in range(1, SUMS):
                    sums[r * SUMS + s] = zero
                if t + 1 < T and first + r < b and j < H:  # read while the sums run
                    ahead[r] = h[state_row(t + 2, b, first + r), j]
            # ... plus the states, which all threads read, times the column, which is this thread's
            for k in range(0, width, SUMS):
                for r in range(rows):
                    for s in range(SUMS):
                        sums[r * SUMS + s] += states[now, r, k + s] * w[k + s]
            # The cell; the new states go to the other buffer, so that one barrier is enough
            for r in range(rows):
                i, q = first + r, r * SUMS
                value = math.tanh((sums[q] + sums[q + 1]) + (sums[q + 2] + sums[q + 3])) if j < H else zero
                states[1 - now, r, j] = value
                if i < b and j < H:
                    h[state_row(t + 1, b, i), j] = value
            cuda.syncthreads()

    return kernel


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
