"""The recurrences of cells with gates where W_hh fits no block: units spread over many, as `spread` has columns.

A block has all gates of a few units: forward their columns of W_hh, and back their rows, whose k runs along all gates.
The products, the barrier and the staging of rows are those of `spread`; then a thread is the cell of one row and unit,
whose states and derivatives it finds again at the next step. Arrays as in `gated_lanes` and `gated_tiles`.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import cuda

from rnnbench.cells import cell_of
from rnnbench.kernels.cuda.gated import inner_gates, recurrent, tape_is_state, unit_backward, unit_forward
from rnnbench.kernels.cuda.launch import bounded
from rnnbench.kernels.cuda.layout import emitted_row, spare_row, state_row, step_row
from rnnbench.kernels.cuda.plan import Shape, compiled_once
from rnnbench.kernels.cuda.spread import barrier_reset, grid_barrier, row_multiplier, weights_of_block

u32 = numba.uint32


@compiled_once
def _forward_body(dtype: str, cell: str, shape: Shape) -> Any:
    """h[(t + 1) b :], tape and gates of the block's units, from `first_unit` on; with step 0 the states before it."""
    kind, zero = getattr(numba, dtype), np.dtype(dtype).type(0)
    G, has_bias, has_c, of_cell = (
        len(cell_of(cell).gates),
        inner_gates(cell) > 0,
        tape_is_state(cell),
        unit_forward(dtype, cell),
    )
    rows, units, adders = u32(shape.rows), u32(shape.columns // G), u32(shape.adders)
    multiply = row_multiplier(dtype, shape)

    @cuda.jit(device=True)
    def step(h, gates, tape, bias, initial, first_c, w, staged, partial, first_unit, t, b, H):
        totals = cuda.local.array(G, kind)
        given = cuda.local.array(G, kind)
        x = u32(cuda.threadIdx.x)
        # Besides its lane of the product, a thread is the cell of row r and unit j of the rows at hand
        r, j = u32(x // units), u32(first_unit + x % units)
        inner = bias[j] if has_bias and j < H else zero
        for low in range(u32(0), b, rows):
            count = u32(min(rows, b - low))
            here = (r < count) & (j < H)
            i = u32(low + r)
            p, before, after = step_row(t, b, i), state_row(t, b, i), state_row(u32(t + u32(1)), b, i)
            # What the inputs give is asked for before the sums, and added last
            own = zero
            for g in range(G):
                given[g] = gates[p, u32(u32(g) * H + j)] if here else zero
            if here:
                if t == 0:
                    h[before, j] = initial[i, j]
                    if has_c:
                        tape[before, j] = first_c[i, j]
                own = tape[before, j] if has_c else h[before, j]
            if t == 0:
                multiply(initial, u32(low), count, w, staged, partial, H)
            else:
                multiply(h, u32(state_row(t, b, low)), count, w, staged, partial, H)
            if here:
                for g in range(G):
                    total = zero
                    for s in range(adders):
                        total += partial[u32(x * u32(G) + u32(g)), s]
                    totals[g] = total
                value, beside = of_cell(totals, given, u32(0), own, inner)
                h[after, j] = value
                tape[after, j] = beside
                for g in range(G):
                    gates[p, u32(u32(g) * H + j)] = given[g]

    return step


@compiled_once
def _backward_body(dtype: str, cell: str, shape: Shape) -> Any:
    """delta[t b :], spare and carried of the block's units. `more`: a later step of this pass is in spare; `again`:
    add to delta.
    """
    kind, zero = getattr(numba, dtype), np.dtype(dtype).type(0)
    G, has_c = len(cell_of(cell).gates), tape_is_state(cell)
    of_cell, of_gate, D = unit_backward(dtype, cell), recurrent(cell), G + inner_gates(cell)
    rows, units, adders = u32(shape.rows), u32(shape.columns), u32(shape.adders)
    multiply = row_multiplier(dtype, shape)

    @cuda.jit(device=True)
    def step(
        delta,
        spare,
        carried,
        h,
        gates,
        tape,
        dh,
        w,
        staged,
        partial,
        first_unit,
        t,
        more,
        emits,
        again,
        b,
        T,
        S,
        H,
    ):
        acts = cuda.local.array(G, kind)
        d = cuda.local.array(D, kind)
        x = u32(cuda.threadIdx.x)
        r, j = u32(x // units), u32(first_unit + x % units)
        for low in range(u32(0), b, rows):
            count = u32(min(rows, b - low))
            here = (r < count) & (j < H)
            i = u32(low + r)
            p, before, after = step_row(t, b, i), state_row(t, b, i), state_row(u32(t + u32(1)), b, i)
            # What the step left and the head's part, before the sums of what the step after has
            own, beside, carry, to_h = zero, zero, zero, zero
            for g in range(G):
                acts[g] = gates[p, u32(u32(g) * H + j)] if here else zero
            if here:
                own = tape[before, j] if has_c else h[before, j]
                beside = tape[after, j]
                if more:
                    carry = carried[i, j]
                if emits:
                    to_h = dh[emitted_row(t, T, S, b, i), j]
            if more:
                multiply(spare, u32(spare_row(u32(t + u32(1)), b, low)), count, w, staged, partial, u32(u32(G) * H))
            if here:
                if more:
                    total = zero
                    for s in range(adders):
                        total += partial[x, s]
                    to_h += total
                carried[i, j] = of_cell(acts, u32(0), own, beside, to_h, carry, d)
                # `spare` has what this pass alone gives, for the step before; delta the sum over passes
                now = u32(spare_row(t, b, i))
                for g in range(G):
                    spare[now, u32(u32(g) * H + j)] = d[of_gate(u32(g))]
                for g in range(D):
                    q = u32(u32(g) * H + j)
                    delta[p, q] = delta[p, q] + d[g] if again else d[g]

    return step


@compiled_once
def forward_gated_spread(dtype: str, cell: str, shape: Shape) -> Any:
    """h, gates and tape, for H <= width. A block of `threads` for all gates of some units; all are resident."""
    kind, held, staged_shape, sums_shape = getattr(numba, dtype), shape.depth * shape.per, shape.staged, shape.sums
    G = len(cell_of(cell).gates)
    units = shape.columns // G
    read, step = weights_of_block(dtype, shape, False, G), _forward_body(dtype, cell, shape)
    wait, reset = grid_barrier(), barrier_reset()

    @bounded(shape.threads)
    def kernel(h, gates, tape, W, bias, initial, first_c, b, T, H, arrived):
        staged = cuda.shared.array(staged_shape, kind)
        partial = cuda.shared.array(sums_shape, kind)
        w = cuda.local.array(held, kind)
        first_unit = u32(u32(cuda.blockIdx.x) * u32(units))
        b, H = u32(b), u32(H)
        read(w, W, first_unit, H, H)
        # A step of this block's units reads all states of the step before: no block is a step ahead
        for t in range(T):
            step(h, gates, tape, bias, initial, first_c, w, staged, partial, first_unit, u32(t), b, H)
            if t + 1 < T:
                wait(arrived, (t + 1) * cuda.gridDim.x)
        reset(arrived, T - 1)

    return kernel


@compiled_once
def backward_gated_spread(dtype: str, cell: str, shape: Shape) -> Any:
    """delta for G H <= width. spare (2 b, G H): the derivatives by h W_hh of two steps of the pass at hand; carried
    (b, H).
    """
    kind, held, staged_shape, sums_shape = getattr(numba, dtype), shape.depth * shape.per, shape.staged, shape.sums
    G, units = len(cell_of(cell).gates), shape.columns
    read, step = weights_of_block(dtype, shape, True), _backward_body(dtype, cell, shape)
    wait, reset = grid_barrier(), barrier_reset()

    @bounded(shape.threads)
    def kernel(delta, spare, carried, h, gates, tape, dh, W, blocks, b, T, S, H, arrived):
        staged = cuda.shared.array(staged_shape, kind)
        partial = cuda.shared.array(sums_shape, kind)
        w = cuda.local.array(held, kind)
        first_unit = u32(u32(cuda.blockIdx.x) * u32(units))
        b, T, S, H = u32(b), u32(T), u32(S), u32(H)
        read(w, W, first_unit, u32(u32(G) * H), H)
        # Passes in order of time, each from its last step to its first; steps before `seen` have a delta already
        seen, barriers, silent, one = u32(0), u32(0), u32(T - S), u32(1)
        n, passes = u32(0), u32(blocks.shape[0])
        while n != passes:
            start, emit, end = u32(blocks[n, 0]), max(u32(blocks[n, 1]), silent), u32(blocks[n, 2])
            t = end
            while t != start:
                t = u32(t - one)
                more, emits, again = u32(t + one) < end, t >= emit, t < seen
                step(
                    delta,
                    spare,
                    carried,
                    h,
                    gates,
                    tape,
                    dh,
                    w,
                    staged,
                    partial,
                    first_unit,
                    t,
                    more,
                    emits,
                    again,
                    b,
                    T,
                    S,
                    H,
                )
                if (t != start) | (u32(n + one) != passes):  # no block reads what the last step gives
                    barriers = u32(barriers + one)
                    wait(arrived, u32(barriers * u32(cuda.gridDim.x)))
            seen, n = end, u32(n + one)
        reset(arrived, barriers)

    return kernel
