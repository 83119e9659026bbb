"""The recurrences where W_hh fits no block: its columns spread over many, a few for each, the batch read by all.

A block keeps `columns` columns of W_hh (rows of it backward) in registers. `lanes` threads share a column, and each of
them serves `per` columns, with k = lane, lane + lanes, ...: `depth` of them. `rows` rows of the batch are staged in
shared memory at a time. The sums of the lanes meet in shared memory and not by shuffles: with `per` columns a thread
that reads and writes about as much, and the simulator can run it.

    forward_spread, backward_spread             all T steps in one launch; blocks wait for each other at each step
    forward_spread_step, backward_spread_step   one step, a launch each: where blocks cannot be resident together

Both call the same device functions for a step. Arrays and equations as in `forward` and `backward`; states and deltas
that another block wrote in this launch are read past the first cache.

`arrived` (1,) int32 counts the blocks that come to a barrier and is 0 between launches. It only rises within one, so
that no block can take the next barrier for the last; the last block to end puts it back. All must be resident together:
`launch` sees to that. The simulator of the tests runs blocks that wait together; what a memory may reorder beyond that
only a GPU shows.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import cuda

from rnnbench.kernels.cuda import ptx
from rnnbench.kernels.cuda.activations import tanh_of
from rnnbench.kernels.cuda.lanes import in_parts
from rnnbench.kernels.cuda.launch import bounded
from rnnbench.kernels.cuda.layout import emitted_row, spare_row, state_row, step_row
from rnnbench.kernels.cuda.plan import PAIR, Shape, compiled_once

u32 = numba.uint32


@compiled_once
def grid_barrier() -> Any:
    """Wait until `target` blocks have come: those of the grid times the number of this barrier, which counts from 1."""
    acquired, raised = ptx.acquired(), ptx.raised()

    @cuda.jit(device=True)
    def wait(arrived, target):
        # All of the block have written; what they wrote is seen before the count, and read after it
        cuda.syncthreads()
        if cuda.threadIdx.x == 0:
            raised(arrived)
            while acquired(arrived) < target:
                pass
        cuda.syncthreads()

    return wait


@compiled_once
def barrier_reset() -> Any:
    """After so many barriers: the last block puts the counter back, when no block reads it any more."""

    @cuda.jit(device=True)
    def reset(arrived, barriers):
        if cuda.threadIdx.x == 0:
            blocks = cuda.gridDim.x
            if cuda.atomic.add(arrived, 0, 1) == barriers * blocks + blocks - 1:
                arrived[0] = 0

    return reset


@compiled_once
def row_multiplier(dtype: str, shape: Shape) -> Any:
    """Rows [at, at + count) of `source` (., H) times the weights w (depth per,) of the block's threads.

    It leaves the sum for row r and column c of the block in partial[r columns + c, :adders], to be added.
    """
    kind, zero, two = getattr(numba, dtype), np.dtype(dtype).type(0), u32(PAIR)
    lanes, per, depth, rows, columns = shape.lanes, shape.per, shape.depth, shape.rows, shape.columns
    threads, width, adders, turns = shape.threads, shape.width, shape.adders, shape.turns
    load = ptx.coherent(dtype)

    @cuda.jit(device=True)
    def multiply(source, at, count, w, staged, partial, H):
        sums = cuda.local.array(per, kind)
        found = cuda.local.array(turns, kind)
        x = u32(cuda.threadIdx.x)
        # Which k, and the first of the columns that this thread has weights of
        lane, first = u32(x % u32(lanes)), u32(x // u32(lanes) * u32(per))
        # The rows to shared memory, all threads together, past the first cache: all are asked for before the first is
        # needed, the last again where there is none
        for r in range(u32(rows)):
            for n in range(u32(turns)):
                k = u32(n * u32(threads) + x)
                found[n] = load(source, u32(at + min(u32(r), u32(count - u32(1)))), min(k, u32(H - u32(1))))
            for n in range(u32(turns)):
                k = u32(n * u32(threads) + x)
                if k < u32(width):
                    staged[r, k] = found[n] if (r < count) & (k < H) else zero
        cuda.syncthreads()
        # This thread's part of the sums of each row, over its k: a state is read once for `per` columns
        r = u32(0)
        while r != u32(rows):  # not a range: that of an unsigned number counts in 64 bits, and is not unrolled
            for c in range(per):
                sums[c] = zero
            n = u32(0)
            while n != u32(depth):
                for s in range(two):
                    value = staged[r, n * u32(lanes) + lane * two + s]
                    for c in range(u32(per)):
                        sums[c] += value * w[u32((n + s) * u32(per) + c)]
                n = u32(n + two)
            for c in range(u32(per)):
                partial[r * u32(columns) + first + c, lane] = sums[c]
            r = u32(r + u32(1))
        cuda.syncthreads()
        # The parts of a row and column are a line of `partial`: `adders` threads add some of it each, in their order
        line, adder = u32(x // u32(adders)), u32(x % u32(adders))
        total = zero
        for n in range(u32(0), u32(lanes), u32(adders)):
            total += partial[line, n + adder]
        partial[line, adder] = total
        cuda.syncthreads()

    return multiply


@compiled_once
def _forward_body(dtype: str, shape: Shape) -> Any:
    """h[(t + 1) b :] of the block's columns, from `column` on; with step 0 h[:b] = initial too."""
    rows, columns, adders = u32(shape.rows), u32(shape.columns), u32(shape.adders)
    multiply, tanh = row_multiplier(dtype, shape), tanh_of(dtype)
    zero = np.dtype(dtype).type(0)

    @cuda.jit(device=True)
    def step(h, initial, w, staged, partial, column, t, b, H):
        x = u32(cuda.threadIdx.x)
        # Besides its lane of the product, a thread is the cell of row r and column j of the rows at hand
        r, j = u32(x // columns), u32(column + x % columns)
        for low in range(u32(0), b, rows):
            count = u32(min(rows, b - low))
            here = (r < count) & (j < H)
            p = state_row(u32(t + u32(1)), b, low + r)
            given = h[p, j] if here else zero  # asked for before the sums, and added last
            if t == 0:
                multiply(initial, u32(low), count, w, staged, partial, H)
            else:
                multiply(h, u32(state_row(t, b, low)), count, w, staged, partial, H)
            if here:
                total = partial[x, u32(0)]
                for s in range(u32(1), adders):
                    total += partial[x, s]
                h[p, j] = tanh(total + given)
                if t == 0:
                    h[state_row(0, b, low + r), j] = initial[low + r, j]

    return step


@compiled_once
def _backward_body(dtype: str, shape: Shape) -> Any:
    """delta[t b :] and spare of the block's columns. `more`: a later step of this pass is in spare; `again`: add."""
    rows, columns, adders = u32(shape.rows), u32(shape.columns), u32(shape.adders)
    multiply = row_multiplier(dtype, shape)
    zero, one = np.dtype(dtype).type(0), np.dtype(dtype).type(1)

    @cuda.jit(device=True)
    def step(delta, spare, h, dh, w, staged, partial, column, t, more, emits, again, b, T, S, H):
        x = u32(cuda.threadIdx.x)
        # Besides its lane of the product, a thread is the cell of row r and column j of the rows at hand
        r, j = u32(x // columns), u32(column + x % columns)
        for low in range(u32(0), b, rows):
            count = u32(min(rows, b - low))
            here = (r < count) & (j < H)
            i = u32(low + r)
            state = h[state_row(u32(t + u32(1)), b, i), j] if here else zero
            d = dh[emitted_row(t, T, S, b, i), j] if here and emits else zero
            if more:
                multiply(spare, u32(spare_row(u32(t + u32(1)), b, low)), count, w, staged, partial, H)
            if here:
                if more:
                    total = partial[x, u32(0)]
                    for s in range(u32(1), adders):
                        total += partial[x, s]
                    d += total
                d *= one - state * state
                # `spare` has what this pass alone gives, for the step before; delta the sum over passes
                p = step_row(t, b, i)
                spare[u32(spare_row(t, b, i)), j] = d
                delta[p, j] = delta[p, j] + d if again else d

    return step


@compiled_once
def weights_of_block(dtype: str, shape: Shape, transposed: bool, gates: int = 1) -> Any:
    """w (depth per,) of this thread from W (H, .): of units from `unit` on the columns of all gates, those of a unit
    side by side, or the rows, of K numbers.
    """
    zero = np.dtype(dtype).type(0)
    lanes, per, depth, G = shape.lanes, shape.per, shape.depth, u32(gates)

    def part(begin, end, rest):
        @cuda.jit(device=True)
        def read(w, W, unit, K, H):
            x = u32(cuda.threadIdx.x)
            lane, first = u32(x % u32(lanes)), u32(x // u32(lanes) * u32(per))
            # PAIR numbers of k lie together. Where H is padded, in k or in columns, zeros
            for q in range(begin, end):
                k = u32(u32(q // PAIR * PAIR * lanes + q % PAIR) + lane * u32(PAIR))
                for c in range(per):
                    place = u32(first + u32(c))
                    j, value = u32(unit + place // G), zero
                    if (k < K) & (j < H):
                        value = W.flat[u32(j * K + k) if transposed else u32(k * u32(G * H) + place % G * H + j)]
                    w[q * per + c] = value
            rest(w, W, unit, K, H)

        return read

    @cuda.jit(device=True)
    def nothing(w, W, unit, K, H):
        pass

    return in_parts(part, nothing, depth, 2 * per)  # to find a weight takes as much as two multiply-adds


@compiled_once
def forward_spread(dtype: str, shape: Shape) -> Any:
    """h, with h_0 = initial, for H <= width. A block of `threads` for `columns`; all are resident."""
    kind, held, staged_shape, sums_shape = getattr(numba, dtype), shape.depth * shape.per, shape.staged, shape.sums
    columns, threads = shape.columns, shape.threads
    read, step = weights_of_block(dtype, shape, False), _forward_body(dtype, shape)
    wait, reset = grid_barrier(), barrier_reset()

    @bounded(threads)
    def kernel(h, W, initial, b, T, H, arrived):
        staged = cuda.shared.array(staged_shape, kind)
        partial = cuda.shared.array(sums_shape, kind)
        w = cuda.local.array(held, kind)
        column = u32(u32(cuda.blockIdx.x) * u32(columns))
        b, H = u32(b), u32(H)
        read(w, W, column, H, H)
        # A step of this block's columns reads all states of the step before: no block is a step ahead
        for t in range(T):
            step(h, initial, w, staged, partial, column, u32(t), b, H)
            if t + 1 < T:
                wait(arrived, (t + 1) * cuda.gridDim.x)
        reset(arrived, T - 1)

    return kernel


@compiled_once
def forward_spread_step(dtype: str, shape: Shape) -> Any:
    """Step t of `forward`, in any number of blocks."""
    kind, held, staged_shape, sums_shape = getattr(numba, dtype), shape.depth * shape.per, shape.staged, shape.sums
    columns, threads = shape.columns, shape.threads
    read, step = weights_of_block(dtype, shape, False), _forward_body(dtype, shape)

    @bounded(threads)
    def kernel(h, W, initial, b, t, H):
        staged = cuda.shared.array(staged_shape, kind)
        partial = cuda.shared.array(sums_shape, kind)
        w = cuda.local.array(held, kind)
        column = u32(u32(cuda.blockIdx.x) * u32(columns))
        b, H = u32(b), u32(H)
        read(w, W, column, H, H)
        step(h, initial, w, staged, partial, column, u32(t), b, H)

    return kernel


@compiled_once
def backward_spread(dtype: str, shape: Shape) -> Any:
    """delta for H <= width. spare (2 b, H): the deltas of two steps of the pass at hand."""
    kind, held, staged_shape, sums_shape = getattr(numba, dtype), shape.depth * shape.per, shape.staged, shape.sums
    columns, threads = shape.columns, shape.threads
    read, step = weights_of_block(dtype, shape, True), _backward_body(dtype, shape)
    wait, reset = grid_barrier(), barrier_reset()

    @bounded(threads)
    def kernel(delta, spare, h, dh, W, blocks, b, T, S, H, arrived):
        staged = cuda.shared.array(staged_shape, kind)
        partial = cuda.shared.array(sums_shape, kind)
        w = cuda.local.array(held, kind)
        column = u32(u32(cuda.blockIdx.x) * u32(columns))
        b, T, S, H = u32(b), u32(T), u32(S), u32(H)
        read(w, W, column, H, H)
        # Passes in order of time, each from its last step to its first; steps before `seen` have a delta already
        seen, barriers, silent, one = u32(0), u32(0), u32(T - S), u32(1)
        n, passes = u32(0), u32(blocks.shape[0])
        while n != passes:
            start, emit, end = u32(blocks[n, 0]), max(u32(blocks[n, 1]), silent), u32(blocks[n, 2])
            t = end
            while t != start:
                t = u32(t - one)
                more, again = u32(t + one) < end, t < seen
                step(delta, spare, h, dh, w, staged, partial, column, t, more, t >= emit, again, b, T, S, H)
                if (t != start) | (u32(n + one) != passes):  # no block reads what the last step gives
                    barriers = u32(barriers + one)
                    wait(arrived, u32(barriers * u32(cuda.gridDim.x)))
            seen, n = end, u32(n + one)
        reset(arrived, barriers)

    return kernel


@compiled_once
def backward_spread_step(dtype: str, shape: Shape) -> Any:
    """Step t of a pass of `backward`, in any number of blocks; more, emits, again are 0 or 1."""
    kind, held, staged_shape, sums_shape = getattr(numba, dtype), shape.depth * shape.per, shape.staged, shape.sums
    columns, threads = shape.columns, shape.threads
    read, step = weights_of_block(dtype, shape, True), _backward_body(dtype, shape)

    @bounded(threads)
    def kernel(delta, spare, h, dh, W, b, t, T, S, H, more, emits, again):
        staged = cuda.shared.array(staged_shape, kind)
        partial = cuda.shared.array(sums_shape, kind)
        w = cuda.local.array(held, kind)
        column = u32(u32(cuda.blockIdx.x) * u32(columns))
        b, T, S, H = u32(b), u32(T), u32(S), u32(H)
        read(w, W, column, H, H)
        step(
            delta,
            spare,
            h,
            dh,
            w,
            staged,
            partial,
            column,
            u32(t),
            more != 0,
            emits != 0,
            again != 0,
            b,
            u32(T),
            u32(S),
            H,
        )

    return kernel
