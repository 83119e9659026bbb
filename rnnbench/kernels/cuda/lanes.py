"""The recurrences where a block holds all of W_hh: in registers, and what they do not hold in dynamic shared memory.

    forward    h_t = tanh(h_{t-1} W_hh + (x_t W_xh + b_h))
    backward   delta_t = (dh_t + delta_{t+1} W_hh^T) (1 - h_t^2)        dh_t = dz_t W_hy^T, where step t emits

Rows of a batch never meet in them, so a block owns a few through all steps, and no block waits for another. In: h
((T + 1) b, H), where the state after step t will stand, holds x_t W_xh + b_h. Out: h, all states, which is all that
backward needs. `layout` says which row is which. Backward is (truncated) BPTT: passes of `blocks` run in order of time,
each restarted from the stored states, and the deltas of all that reach a step are added; `delta` is set by the first
pass that reaches a step, and steps before the first pass are not written.

A group of `lanes` threads of a warp shares `per` columns of W_hh (rows of it backward). Each thread has its lane of k,
four numbers at a time, of all of them: a state that is read from shared memory serves `per` multiply-adds. The sums of
the lanes meet by shuffles; then each thread is the cell of one column. Thread x is of column x where there are as many
lanes as columns; where there are twice as many, two threads take the rows of a column in turn, and where a block has
one row both are its cell, and one of them writes what may be written once. One lane and column is a thread a column.
States go round in two buffers, so that one barrier a step is enough.

Indices are unsigned: of a signed one the compiler keeps 64 bits and asks at each access whether it counts from the end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba import cuda

from rnnbench.kernels.cuda.activations import tanh_of
from rnnbench.kernels.cuda.launch import bounded
from rnnbench.kernels.cuda.layout import state_row, step_row
from rnnbench.kernels.cuda.plan import QUAD, Lanes, compiled_once

u32, u64 = numba.uint32, numba.uint64
UNROLLED = 64  # multiply-adds of a loop that every toolkit unrolls


def in_parts(part: Callable[[int, int, Any], Any], last: Any, count: int, each: int) -> Any:
    """A device function for n in [0, count), `each` multiply-adds for an n: part(begin, end, rest) makes one for a part
    that goes on with `rest`, the last part with `last`.

    CUDA 13.0 unrolls no longer loop for sm_120, and the weights that a loop goes through would lie in memory.
    """
    most = max(QUAD, UNROLLED // (QUAD * each) * QUAD)
    for begin in reversed(range(0, count, most)):
        last = part(begin, min(begin + most, count), last)
    return last


@compiled_once
def weights_reader(dtype: str, shape: Lanes, transposed: bool) -> Any:
    """w (kept,) and pool of this thread from W (H, G H): the columns of its units' gates, or the rows of its units.

    Unit n of a thread that is the cell of unit j is j ^ n: its own comes first, and what is exchanged with another
    thread stands in the same half of both. Where H is padded, zeros.
    """
    zero, four = np.dtype(dtype).type(0), u32(QUAD)
    lanes, turns, columns, threads = shape.lanes, u32(shape.turns), u32(shape.columns), shape.threads
    depth, kept = u32(shape.depth), u32(shape.kept // shape.columns)
    width, gates, row_gates = u32(shape.width), u32(shape.gates), u32(shape.gates * shape.along)

    @cuda.jit(device=True)
    def weight(W, k, c, j, H):
        # Of k, as of columns, each gate has its H numbers in W, and `width` of them here
        unit, gate, of = u32(j ^ u32(c // gates)), u32(k // width), u32(k % width)
        value = zero
        if (of < H) & (unit < H):
            row, column = (unit, u32(gate * H + of)) if transposed else (of, u32(c % gates * H + unit))
            value = W.flat[u32(row * u32(row_gates * H) + column)]
        return value

    def part(begin, end, rest):
        begin, end = u32(begin), u32(end)

        @cuda.jit(device=True)
        def read_kept(w, W, H):
            x = u32(cuda.threadIdx.x)
            near, j = u32(x % u32(lanes) * four), u32(x // turns)
            n = begin
            while n != end:  # not a range: that of an unsigned number counts in 64 bits
                for s in range(four):
                    k = u32(near + n * u32(lanes) + s)
                    for c in range(columns):
                        w[u32((n + s) * columns + c)] = weight(W, k, c, j, H)
                n = u32(n + four)
            rest(w, W, H)

        return read_kept

    @cuda.jit(device=True)
    def nothing(w, W, H):
        pass

    read_kept = in_parts(part, nothing, int(kept), int(columns))

    @cuda.jit(device=True)
    def read(w, pool, W, H):
        x = u32(cuda.threadIdx.x)
        near, j = u32(x % u32(lanes) * four), u32(x // turns)
        read_kept(w, W, H)
        # Four of a thread lie together, so that they are one load
        for n in range(kept, depth):
            k = u32(near + n // four * four * u32(lanes) + n % four)
            for c in range(columns):
                m = (n - kept) * columns + c
                pool[m // four * u32(threads * QUAD) + x * four + m % four] = weight(W, k, c, j, H)

    return read


@compiled_once
def lane_multiplier(dtype: str, shape: Lanes) -> Any:
    """sums (rows columns apart,) = states (2, rows, .)[now] times this thread's weights, over its lane of k.

    There are `apart` sums of each row and column, so that none waits for itself at every k.
    """
    zero, four = np.dtype(dtype).type(0), u32(QUAD)
    lanes, columns, depth, kept, threads = (
        shape.lanes,
        shape.columns,
        u32(shape.depth),
        u32(shape.kept // shape.columns),
        shape.threads,
    )
    rows, apart = shape.rows, shape.apart
    held = rows * columns * apart

    def part(begin, end, rest):
        begin, end = u32(begin), u32(end)

        @cuda.jit(device=True)
        def multiply_kept(sums, states, now, w):
            near = u32(cuda.threadIdx.x) % u32(lanes) * four
            n = begin
            while n != end:  # not a range, as above
                for r in range(u32(rows)):
                    for s in range(four):
                        value = states[now, r, near + n * u32(lanes) + s]
                        for c in range(u32(columns)):
                            q = (r * u32(columns) + c) * u32(apart) + s % u32(apart)
                            sums[q] += value * w[u32((n + s) * u32(columns) + c)]
                n = u32(n + four)
            rest(sums, states, now, w)

        return multiply_kept

    @cuda.jit(device=True)
    def nothing(sums, states, now, w):
        pass

    multiply_kept = in_parts(part, nothing, int(kept), columns * rows)

    @cuda.jit(device=True)
    def multiply(sums, states, now, w, pool):
        x = u32(cuda.threadIdx.x)
        near = x % u32(lanes) * four
        for q in range(held):
            sums[q] = zero
        # The weights in shared memory first: the assembler asks for many of them at once, before there are more numbers
        # in registers. Of each state, those of all columns
        n = u32(0)
        while n != u32(depth - kept):
            for r in range(u32(rows)):
                for s in range(four):
                    value = states[now, r, near + (kept + n) * u32(lanes) + s]
                    for c in range(u32(columns)):
                        q = (r * u32(columns) + c) * u32(apart) + s % u32(apart)
                        m = (n + s) * u32(columns) + c
                        sums[q] += value * pool[m // four * u32(threads * QUAD) + x * four + m % four]
            n = u32(n + four)
        multiply_kept(sums, states, now, w)

    return multiply


@compiled_once
def lane_adder(dtype: str, shape: Lanes) -> Any:
    """totals (mine gates,): of the rows that this thread is the cell of, the sums of all lanes for its unit's gates.

    Two threads whose lanes differ in one bit exchange what they have: each keeps the units, or the rows, of its own
    half and gives the others away, so that there is half as much to exchange for the next bit. The units that a thread
    keeps stand first in it, so none has to be picked.
    """
    per, rows, apart, mine, turns, gates = shape.per, shape.rows, shape.apart, shape.mine, shape.turns, shape.gates
    columns, everyone = shape.columns, u32(0xFFFFFFFF)

    @cuda.jit(device=True)
    def exchanged(low, high, turn, bit):
        second = (turn & bit) != u32(0)
        kept, given = (high, low) if second else (low, high)
        return kept + cuda.shfl_xor_sync(everyone, given, bit)

    @cuda.jit(device=True)
    def add(totals, sums):
        turn = u32(cuda.threadIdx.x) % u32(turns)
        for q in range(rows * columns):
            for s in range(1, apart):
                sums[q * apart] += sums[q * apart + s]
        half = per // 2
        while half > 0:
            for r in range(rows):
                for q in range(half * gates):
                    low, high = (r * columns + q) * apart, (r * columns + half * gates + q) * apart
                    sums[low] += cuda.shfl_xor_sync(everyone, sums[high], u32(half * turns))
            half //= 2
        half = turns // 2
        while half > 0:
            for m in range(mine):
                for r in range(m * turns, min(m * turns + half, rows)):
                    for g in range(gates):
                        # Where there is no row of the other half both keep this one
                        other = r + half if r + half < rows else r
                        low, high = (r * columns + g) * apart, (other * columns + g) * apart
                        sums[low] = exchanged(sums[low], sums[high], turn, u32(half))
            half //= 2
        for m in range(mine):
            for g in range(gates):
                totals[m * gates + g] = sums[(m * turns * columns + g) * apart]

    return add


@compiled_once
def real_cells(shape: Lanes) -> Any:
    """of(r, first, b, j, H): whether row r of a block and unit j are of the problem, and no padding."""
    rows, alone, full = u32(shape.rows), shape.rows == 1, shape.full

    @cuda.jit(device=True)
    def of(r, first, b, j, H):
        return (alone | ((r < rows) & (u32(first + r) < b))) & (full | (j < H))

    return of


@compiled_once
def steps_of_block(rows: int, ends: bool) -> Any:
    """of(order, offset, lengths, first, b, T): how many steps the rows [first, first + rows) of a block have.

    order (.,), lengths (N,).
    """

    @cuda.jit(device=True)
    def of(order, offset, lengths, first, b, T):
        steps = u32(0) if ends else u32(T)
        for r in range(u32(rows if ends else 0)):
            i = u32(first + r)
            if i < b:
                steps = max(steps, u32(lengths[u32(order[offset + i])]))
        return steps

    return of


@compiled_once
def forward_in_lanes(dtype: str, shape: Lanes, ends: bool, far: bool = False) -> Any:
    """h, with h_0 = initial, for H <= width. A block of `threads` for `rows` rows. h, W (H, H), initial (b, H).

    `far`: places in arrays take more than 32 bits.

    `ends`: rows have lengths (N,), and a block stops where the last of its rows does.
    """
    kind, zero, place = getattr(numba, dtype), np.dtype(dtype).type(0), u64 if far else u32
    rows, mine, turns = shape.rows, shape.mine, shape.turns
    buffers, held, kept = shape.buffers, rows * shape.columns * shape.apart, shape.kept
    read, multiply, add = weights_reader(dtype, shape, False), lane_multiplier(dtype, shape), lane_adder(dtype, shape)
    steps_of, is_real, tanh = steps_of_block(rows, ends), real_cells(shape), tanh_of(dtype)
    alone, full, width, one = rows == 1, shape.full, shape.width, u32(1)

    @bounded(shape.threads)
    def kernel(h, W, initial, order, offset, lengths, b, T, H):
        pool = cuda.shared.array(0, kind)
        states = cuda.shared.array(buffers, kind)
        w = cuda.local.array(kept, kind)
        sums = cuda.local.array(held, kind)
        totals = cuda.local.array(mine, kind)
        ahead = cuda.local.array(mine, kind)
        x, first = u32(cuda.threadIdx.x), u32(u32(cuda.blockIdx.x) * u32(rows))
        b, H = u32(b), (u32(width) if full else u32(H))
        # The column j of this thread as a cell, and the first of its rows
        j, turn = u32(x // u32(turns)), u32(x % u32(turns))
        writes, turn = (not alone) | (turn == u32(0)), (u32(0) if alone else turn)
        read(w, pool, W, H)
        # The states before step 0, to shared memory and to h
        left, now = steps_of(order, offset, lengths, first, b, T), u32(0)
        for m in range(mine):
            r = u32(u32(m * turns) + turn)
            i = u32(first + r)
            real = is_real(r, first, b, j, H)
            value = initial[i, j] if real else zero
            if writes & (r < u32(rows)):
                states[u32(0), r, j] = value
            if real:
                h[i, j] = value
        cuda.syncthreads()
        # Where the state after the step stands in memory, of the first of this thread's rows
        flat, step = h.flat, place(place(b) * H)
        at = place(place(state_row(one, b, u32(first + turn))) * H + j)
        while left != u32(0):
            # What the inputs give is asked for before the sums, and added last
            for m in range(mine):
                r = u32(u32(m * turns) + turn)
                real = is_real(r, first, b, j, H)
                ahead[m] = flat[place(at + u32(m * turns) * H)] if real else zero
            multiply(sums, states, now, w, pool)
            add(totals, sums)
            now, left = u32(one - now), u32(left - one)
            # Through the cell, to the other buffer and to memory
            for m in range(mine):
                r = u32(u32(m * turns) + turn)
                real = is_real(r, first, b, j, H)
                value = tanh(totals[m] + ahead[m])
                if writes & (r < u32(rows)):
                    states[now, r, j] = value
                if real:
                    flat[place(at + u32(m * turns) * H)] = value
            at = place(at + step)
            cuda.syncthreads()

    return kernel


@compiled_once
def backward_in_lanes(dtype: str, shape: Lanes, ends: bool, far: bool = False) -> Any:
    """delta (T b, H) for H <= width; spare is not used. Blocks and threads as `forward`, rows of W_hh for columns.

    What a row has past its end is not written.

    h ((T + 1) b, H), dh (S b, H) of the last S steps, W (H, H), blocks (., 3) of start, emit, end.
    """
    kind, place = getattr(numba, dtype), u64 if far else u32
    zero, one, one_step = np.dtype(dtype).type(0), np.dtype(dtype).type(1), u32(1)
    rows, mine, turns = shape.rows, shape.mine, shape.turns
    buffers, held, kept = shape.buffers, rows * shape.columns * shape.apart, shape.kept
    read, multiply, add = weights_reader(dtype, shape, True), lane_multiplier(dtype, shape), lane_adder(dtype, shape)
    steps_of, is_real = steps_of_block(rows, ends), real_cells(shape)
    alone, full, width = rows == 1, shape.full, shape.width

    @bounded(shape.threads)
    def kernel(delta, spare, h, dh, W, order, offset, lengths, blocks, b, T, S, H):
        pool = cuda.shared.array(0, kind)
        deltas = cuda.shared.array(buffers, kind)
        w = cuda.local.array(kept, kind)
        sums = cuda.local.array(held, kind)
        totals = cuda.local.array(mine, kind)
        state = cuda.local.array(mine, kind)
        head = cuda.local.array(mine, kind)
        x, first = u32(cuda.threadIdx.x), u32(u32(cuda.blockIdx.x) * u32(rows))
        silent, b, H = u32(T - S), u32(b), (u32(width) if full else u32(H))
        # The column j of this thread as a cell, and the first of its rows
        j, turn = u32(x // u32(turns)), u32(x % u32(turns))
        writes, turn = (not alone) | (turn == u32(0)), (u32(0) if alone else turn)
        read(w, pool, W, H)
        cuda.syncthreads()
        # A step is so many numbers of h, whose state after it is one further; dh begins `gap` later. Steps before
        # `seen` have a delta of an earlier pass; `now`: which of the two buffers is written
        states, heads, flat = h.flat, dh.flat, delta.flat
        step = place(place(b) * H)
        gap = place(silent * step)
        seen, now, steps = u32(0), u32(0), steps_of(order, offset, lengths, first, b, T)
        for n in range(u32(blocks.shape[0])):
            start, emit, t = u32(blocks[n, 0]), max(u32(blocks[n, 1]), silent), u32(blocks[n, 2])
            if ends:
                t = max(start, min(t, steps))
            # The step after the one at hand, and its place
            end, at = t, place(place(step_row(t, b, u32(first + turn))) * H + j)
            for m in range(mine):
                totals[m] = zero
            while t != start:
                t, at = u32(t - one_step), place(at - step)
                # The state and the head's part are asked for before the sums, and needed after them
                for m in range(mine):
                    r = u32(u32(m * turns) + turn)
                    real = is_real(r, first, b, j, H)
                    here = place(at + u32(m * turns) * H)
                    state[m] = states[place(here + step)] if real else zero
                    # A select and not a branch, which the compiler would double all of these loads for
                    value = heads[place(here - gap) if real & (t >= emit) else place(0)]
                    head[m] = value if real & (t >= emit) else zero
                # delta W^T of the step after, if it is of this pass
                if u32(t + one_step) != end:
                    cuda.syncthreads()
                    multiply(sums, deltas, now, w, pool)
                    add(totals, sums)
                    now = u32(one_step - now)
                # delta of this step: the sums of the step after it, the head's part, the cell; to memory and to shared
                for m in range(mine):
                    r = u32(u32(m * turns) + turn)
                    d = (totals[m] + head[m]) * (one - state[m] * state[m])
                    if writes & (r < u32(rows)):
                        deltas[now, r, j] = d
                    if writes & is_real(r, first, b, j, H):
                        here = place(at + u32(m * turns) * H)
                        flat[here] = flat[here] + d if t < seen else d
            seen = end

    return kernel
