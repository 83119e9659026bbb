"""The recurrences of cells with gates where a block holds all of W_hh, as `lanes` has those of the tanh cell.

    forward    gates, tape, h of each step, from gates, which hold x_t W_xh + b_h
    backward   delta of each step, from dh_t + r_{t+1} W_hh^T, where r are the derivatives by h W_hh of the step after

`gated` has the cells. All gates of a unit end in one thread: forward it has the sums of its columns, and what a step
takes from the last one of the same unit stays in a register; back, k runs along all gates, and the sums are those of
one row of W_hh. `layout` says which row of gates ((T b), G H), tape and h ((T + 1) b, H) and delta is which.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import cuda

from rnnbench.cells import cell_of
from rnnbench.kernels.cuda.gated import inner_gates, recurrent, tape_is_state, unit_backward, unit_forward
from rnnbench.kernels.cuda.lanes import lane_adder, lane_multiplier, real_cells, steps_of_block, weights_reader
from rnnbench.kernels.cuda.launch import bounded
from rnnbench.kernels.cuda.layout import state_row, step_row
from rnnbench.kernels.cuda.plan import Lanes, compiled_once

u32, u64 = numba.uint32, numba.uint64


@compiled_once
def forward_gated_in_lanes(dtype: str, cell: str, shape: Lanes, ends: bool, far: bool = False) -> Any:
    """h, gates and tape, with h_0 = initial and for lstm c_0 = first_c, for H <= width; bias (H,) is b_hn of gru.

    A block of `threads` for `rows` rows. W (H, G H), initial and first_c (b, H). `ends` as in `lanes`.
    """
    kind, zero, place = getattr(numba, dtype), np.dtype(dtype).type(0), u64 if far else u32
    rows, mine, turns = shape.rows, shape.mine, shape.turns
    buffers, held, kept = shape.buffers, rows * shape.columns * shape.apart, shape.kept
    read, multiply, add = weights_reader(dtype, shape, False), lane_multiplier(dtype, shape), lane_adder(dtype, shape)
    steps_of, is_real = steps_of_block(rows, ends), real_cells(shape)
    G, has_bias, has_c, of_cell = shape.gates, inner_gates(cell) > 0, tape_is_state(cell), unit_forward(dtype, cell)
    given, width, full, alone = mine * G, shape.width, shape.full, rows == 1
    one = u32(1)

    @bounded(shape.threads)
    def kernel(h, gates, tape, W, bias, initial, first_c, order, offset, lengths, b, T, H):
        pool = cuda.shared.array(0, kind)
        states = cuda.shared.array(buffers, kind)
        w = cuda.local.array(kept, kind)
        sums = cuda.local.array(held, kind)
        totals = cuda.local.array(given, kind)
        ahead = cuda.local.array(given, kind)
        own = cuda.local.array(mine, kind)
        x, first = u32(cuda.threadIdx.x), u32(u32(cuda.blockIdx.x) * u32(rows))
        b, H = u32(b), (u32(width) if full else u32(H))
        # The unit j of this thread as a cell, and the first of its rows
        j, turn = u32(x // u32(turns)), u32(x % u32(turns))
        writes, turn = (not alone) | (turn == u32(0)), (u32(0) if alone else turn)
        read(w, pool, W, H)
        inner = bias[j] if has_bias and j < H else zero
        step, row = place(place(b) * H), place(u32(G) * H)
        # The states before step 0, to shared memory and to h
        left, now = steps_of(order, offset, lengths, first, b, T), u32(0)
        for m in range(mine):
            r = u32(u32(m * turns) + turn)
            i = u32(first + r)
            real = is_real(r, first, b, j, H)
            value = initial[i, j] if real else zero
            own[m] = value
            if real:
                h[i, j] = value
                if has_c:
                    own[m] = first_c[i, j]
                    tape[i, j] = own[m]
            if writes & (r < u32(rows)):
                states[u32(0), r, j] = value
        cuda.syncthreads()
        # Where the state after the step stands in memory, and its gates, of the first of this thread's rows
        h_flat, tape_flat, gates_flat = h.flat, tape.flat, gates.flat
        at = place(place(state_row(u32(1), b, u32(first + turn))) * H + j)
        at_gates = place(place(step_row(u32(0), b, u32(first + turn))) * row + j)
        while left != u32(0):
            # What the inputs give is asked for before the sums, and added last
            for m in range(mine):
                r = u32(u32(m * turns) + turn)
                real = is_real(r, first, b, j, H)
                for g in range(G):
                    here = u64(place(at_gates + u32(m * turns) * row)) + u64(u32(g) * H)
                    ahead[m * G + g] = gates_flat[here] if real else zero
            multiply(sums, states, now, w, pool)
            add(totals, sums)
            now, left = u32(one - now), u32(left - one)
            for m in range(mine):
                r = u32(u32(m * turns) + turn)
                real = is_real(r, first, b, j, H)
                value, beside = of_cell(totals, ahead, u32(m * G), own[m], inner)
                own[m] = beside if has_c else value
                if writes & (r < u32(rows)):
                    states[now, r, j] = value
                # The gates where the inputs' part stood
                if real:
                    h_flat[place(at + u32(m * turns) * H)] = value
                    tape_flat[place(at + u32(m * turns) * H)] = beside
                    for g in range(G):
                        gates_flat[u64(place(at_gates + u32(m * turns) * row)) + u64(u32(g) * H)] = ahead[m * G + g]
            at, at_gates = place(at + step), place(at_gates + step * u32(G))
            cuda.syncthreads()

    return kernel


@compiled_once
def backward_gated_in_lanes(dtype: str, cell: str, shape: Lanes, ends: bool, far: bool = False) -> Any:
    """delta (T b, .) for H <= width; spare and carried are not used. Blocks and threads as `forward`, rows of W_hh for
    columns.

    h, tape ((T + 1) b, H), gates (T b, G H), dh (S b, H) of the last S steps, blocks (., 3) of start, emit, end.
    """
    kind, zero, place = getattr(numba, dtype), np.dtype(dtype).type(0), u64 if far else u32
    rows, mine, turns = shape.rows, shape.mine, shape.turns
    buffers, held, kept = shape.buffers, rows * shape.columns * shape.apart, shape.kept
    read, multiply, add = weights_reader(dtype, shape, True), lane_multiplier(dtype, shape), lane_adder(dtype, shape)
    steps_of, is_real = steps_of_block(rows, ends), real_cells(shape)
    G, width, full, has_c = len(cell_of(cell).gates), shape.width, shape.full, tape_is_state(cell)
    of_cell, of_gate = unit_backward(dtype, cell), recurrent(cell)
    D, held_gates, alone, one = G + inner_gates(cell), mine * G, rows == 1, u32(1)

    @bounded(shape.threads)
    def kernel(delta, spare, carried, h, gates, tape, dh, W, order, offset, lengths, blocks, b, T, S, H):
        pool = cuda.shared.array(0, kind)
        deltas = cuda.shared.array(buffers, kind)
        w = cuda.local.array(kept, kind)
        sums = cuda.local.array(held, kind)
        totals = cuda.local.array(mine, kind)
        acts = cuda.local.array(held_gates, kind)
        own = cuda.local.array(mine, kind)
        beside = cuda.local.array(mine, kind)
        head = cuda.local.array(mine, kind)
        carry = cuda.local.array(mine, kind)
        d = cuda.local.array(D, kind)
        x, first = u32(cuda.threadIdx.x), u32(u32(cuda.blockIdx.x) * u32(rows))
        silent, b, H = u32(T - S), u32(b), (u32(width) if full else u32(H))
        # The unit j of this thread as a cell, and the first of its rows
        j, turn = u32(x // u32(turns)), u32(x % u32(turns))
        writes, turn = (not alone) | (turn == u32(0)), (u32(0) if alone else turn)
        read(w, pool, W, H)
        cuda.syncthreads()
        # A step is so many numbers of h, whose state after it is one further; dh begins `gap` later. Steps before
        # `seen` have a delta of an earlier pass; `now`: which of the two buffers is written
        befores, tapes, heads = tape.flat if has_c else h.flat, tape.flat, dh.flat
        gates_flat, flat = gates.flat, delta.flat
        step = place(place(b) * H)
        gap, step_gates, step_delta = place(silent * step), place(step * u32(G)), place(step * u32(D))
        seen, now, steps = u32(0), u32(0), steps_of(order, offset, lengths, first, b, T)
        for n in range(u32(blocks.shape[0])):
            start, emit, t = u32(blocks[n, 0]), max(u32(blocks[n, 1]), silent), u32(blocks[n, 2])
            if ends:
                t = max(start, min(t, steps))
            end, row = t, place(step_row(t, b, u32(first + turn)))
            # Of the step after the one at hand, and the first of this thread's rows: its place in h, gates and delta
            at = place(row * H + j)
            at_gates, at_delta = place(row * u32(u32(G) * H) + j), place(row * u32(u32(D) * H) + j)
            for m in range(mine):
                totals[m], carry[m], own[m] = zero, zero, zero
                r = u32(u32(m * turns) + turn)
                real = is_real(r, first, b, j, H)
                if has_c and real:
                    own[m] = tapes[place(at + u32(m * turns) * H)]
            while t != start:
                t, at = u32(t - one), place(at - step)
                at_gates, at_delta = place(at_gates - step_gates), place(at_delta - step_delta)
                for m in range(mine):
                    r = u32(u32(m * turns) + turn)
                    real = is_real(r, first, b, j, H)
                    here = place(at + u32(m * turns) * H)
                    there = u64(place(at_gates + u32(m * turns) * u32(u32(G) * H)))
                    # What the step left and the head's part are asked for before the sums, and needed after them. A
                    # state that a step ends with is the one that the next begins with
                    beside[m] = own[m]
                    own[m] = befores[here] if real else zero
                    for g in range(G):
                        acts[m * G + g] = gates_flat[there + u64(u32(g) * H)] if real else zero
                    if not has_c:
                        beside[m] = tapes[place(here + step)] if real else zero
                    # A select and not a branch, which the compiler would double all of these loads for
                    value = heads[place(here - gap) if real & (t >= emit) else place(0)]
                    head[m] = value if real & (t >= emit) else zero
                # r W^T of the step after, if it is of this pass
                if u32(t + one) != end:
                    cuda.syncthreads()
                    multiply(sums, deltas, now, w, pool)
                    add(totals, sums)
                    now = u32(one - now)
                # delta of this step: the sums of the step after it, the head's part, the cell; to shared and to memory
                for m in range(mine):
                    r = u32(u32(m * turns) + turn)
                    carry[m] = of_cell(acts, u32(m * G), own[m], beside[m], totals[m] + head[m], carry[m], d)
                    if writes & (r < u32(rows)):
                        for g in range(G):
                            deltas[now, r, u64(j) + u64(g * width)] = d[of_gate(u32(g))]
                    if writes & is_real(r, first, b, j, H):
                        here = u64(place(at_delta + u32(m * turns) * u32(u32(D) * H)))
                        if t < seen:
                            for g in range(D):
                                d[g] += flat[here + u64(u32(g) * H)]
                        for g in range(D):
                            flat[here + u64(u32(g) * H)] = d[g]
            seen = end

    return kernel
