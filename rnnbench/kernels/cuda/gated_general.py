"""The recurrences of cells with gates for any H, as `forward` and `backward` have that of the tanh cell. Right, slow.

Arrays as in `gated_lanes`. The weights are read from memory at each step, and the states from h, which a block reads
after its own barrier.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import cuda

from rnnbench.cells import cell_of
from rnnbench.kernels.cuda.gated import inner_gates, recurrent, tape_is_state, unit_backward, unit_forward
from rnnbench.kernels.cuda.layout import emitted_row, spare_row, state_row, step_row
from rnnbench.kernels.cuda.plan import compiled_once

u32 = numba.uint32


@compiled_once
def forward_gated_general(dtype: str, cell: str, threads: int, rows: int) -> Any:
    """h, gates and tape for any H: a block of `threads` threads, each with some units of `rows` rows."""
    kind, zero = getattr(numba, dtype), np.dtype(dtype).type(0)
    G, has_bias, has_c = len(cell_of(cell).gates), inner_gates(cell) > 0, tape_is_state(cell)
    of_cell, held = unit_forward(dtype, cell), G * rows

    @cuda.jit
    def kernel(h, gates, tape, W, bias, initial, first_c, b, T, H):
        sums = cuda.local.array(held, kind)
        given = cuda.local.array(held, kind)
        first = cuda.blockIdx.x * rows
        count = min(rows, b - first)
        for j in range(cuda.threadIdx.x, H, threads):
            for r in range(count):
                h[first + r, j] = initial[first + r, j]
                if has_c:
                    tape[first + r, j] = first_c[first + r, j]
        cuda.syncthreads()
        for t in range(T):
            before, after, at = state_row(t, b, first), state_row(t + 1, b, first), step_row(t, b, first)
            # A unit at a time: the columns of its gates are read once for all rows, the states before from h itself
            for j in range(cuda.threadIdx.x, H, threads):
                for q in range(held):
                    sums[q] = zero
                for k in range(H):
                    for g in range(G):
                        x = W[k, g * H + j]
                        for r in range(rows):
                            if r < count:
                                sums[r * G + g] += h[before + r, k] * x
                inner = bias[j] if has_bias else zero
                for r in range(rows):
                    if r < count:
                        for g in range(G):
                            given[r * G + g] = gates[at + r, g * H + j]
                        own = tape[before + r, j] if has_c else h[before + r, j]
                        value, beside = of_cell(sums, given, u32(r * G), own, inner)
                        h[after + r, j] = value
                        tape[after + r, j] = beside
                        for g in range(G):
                            gates[at + r, g * H + j] = given[r * G + g]
            cuda.syncthreads()  # before any thread reads the new states

    return kernel


@compiled_once
def backward_gated_general(dtype: str, cell: str, threads: int, rows: int) -> Any:
    """delta for any H: a block of `threads` threads. spare (2 b, G H): the derivatives by h W_hh of two steps of the
    pass at hand, carried (b, H): what `gated` says of its last one.
    """
    kind, zero = getattr(numba, dtype), np.dtype(dtype).type(0)
    G, has_c = len(cell_of(cell).gates), tape_is_state(cell)
    of_cell, of_gate, D = unit_backward(dtype, cell), recurrent(cell), G + inner_gates(cell)

    @cuda.jit
    def kernel(delta, spare, carried, h, gates, tape, dh, W, blocks, b, T, S, H):
        sums = cuda.local.array(rows, kind)
        acts = cuda.local.array(G, kind)
        d = cuda.local.array(D, kind)
        first = cuda.blockIdx.x * rows
        count = min(rows, b - first)
        seen = 0
        for n in range(blocks.shape[0]):
            start, emit, end = blocks[n, 0], blocks[n, 1], blocks[n, 2]
            for back in range(end - start):
                t = end - 1 - back
                emits = t >= emit and t >= T - S
                here, after = spare_row(t, b, first), spare_row(t + 1, b, first)
                # A unit at a time: the head's part, then what the step after has, from memory, times row j of W
                for j in range(cuda.threadIdx.x, H, threads):
                    for r in range(rows):
                        sums[r] = zero
                        if emits and r < count:
                            sums[r] = dh[emitted_row(t, T, S, b, first + r), j]
                    for k in range(G * H if back > 0 else 0):
                        x = W[j, k]
                        for r in range(rows):
                            if r < count:
                                sums[r] += spare[after + r, k] * x
                    for r in range(rows):
                        if r < count:
                            p, before = step_row(t, b, first + r), state_row(t, b, first + r)
                            for g in range(G):
                                acts[g] = gates[p, g * H + j]
                            own = tape[before, j] if has_c else h[before, j]
                            carry = carried[first + r, j] if back > 0 else zero
                            beside = tape[state_row(t + 1, b, first + r), j]
                            carried[first + r, j] = of_cell(acts, u32(0), own, beside, sums[r], carry, d)
                            # `spare` has what this pass alone gives, delta the sum over passes
                            for g in range(G):
                                spare[here + r, g * H + j] = d[of_gate(u32(g))]
                            for g in range(D):
                                q = g * H + j
                                delta[p, q] = delta[p, q] + d[g] if t < seen else d[g]
                cuda.syncthreads()
            seen = end

    return kernel
