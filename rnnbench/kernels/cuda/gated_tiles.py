"""One step of a cell with gates as a product on tiles, a launch each, as `tiles` has those of the tanh cell: any H.

    forward    gates, tape and h of step t, from gates, which hold x_t W_xh + b_h, and A W, A the state before
    backward   delta of step t, from dh_t + A W^T, A the derivatives by h W_hh of the step after

Forward, a block has the tiles of all gates of its units, so that a thread ends with all gates of each of its own.
Arrays as in `gated_lanes`.
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
from rnnbench.kernels.cuda.products import PAD, multiplier, place, tile_sizes
from rnnbench.kernels.cuda.tiles import transposed_adder

u32 = numba.uint32


@compiled_once
def forward_gated_tile_step(dtype: str, cell: str, side: int, micro: int, depth: int) -> Any:
    """Step t. With t = 0 from initial (b, H), which h[:b] then becomes, and for lstm first_c, as tape[:b]."""
    kind, zero = getattr(numba, dtype), np.dtype(dtype).type(0)
    G, has_bias, has_c = len(cell_of(cell).gates), inner_gates(cell) > 0, tape_is_state(cell)
    edge, count, loads, tile = tile_sizes(side, micro, depth)
    held, slice_, wide, across = G * micro * micro, u32(depth), u32(edge), u32(G * edge)
    gates_tile, of_cell = (depth, G * edge + PAD), unit_forward(dtype, cell)
    multiply, of = multiplier(side, micro, depth, G), place(side, micro)

    @cuda.jit
    def kernel(h, gates, tape, W, bias, initial, first_c, b, t, H):
        left = cuda.shared.array(tile, kind)
        right = cuda.shared.array(gates_tile, kind)
        sums = cuda.local.array(held, kind)
        z = cuda.local.array(G, kind)
        given = cuda.local.array(G, kind)
        tx, ty = u32(cuda.threadIdx.x), u32(cuda.threadIdx.y)
        x, row, column = u32(ty * u32(side) + tx), u32(u32(cuda.blockIdx.x) * wide), u32(u32(cuda.blockIdx.y) * wide)
        b, t, H = u32(b), u32(t), u32(H)
        for q in range(held):
            sums[q] = zero
        # `depth` of k at a time: that much of the states and of W, of all gates, to shared memory, then its products
        for k0 in range(0, H, depth):
            for n in range(u32(loads)):
                q = u32(n * u32(count) + x)
                if q < u32(depth * edge):
                    k, m = u32(u32(k0) + q % slice_), u32(q // slice_)
                    i, value = u32(row + m), zero
                    if (k < H) & (i < b):
                        value = initial[i, k] if t == 0 else h[state_row(t, b, i), k]
                    left[q % slice_, m] = value
            for n in range(u32(G * loads)):
                q = u32(n * u32(count) + x)
                if q < u32(depth * edge * G):
                    k, m = u32(u32(k0) + q // across), u32(q % across)
                    j = u32(column + m % wide)
                    right[q // across, m] = W[k, u32(m // wide * H + j)] if (k < H) & (j < H) else zero
            cuda.syncthreads()
            multiply(sums, left, right, tx, ty)
            cuda.syncthreads()
        # What the inputs give is in gates already: added, through the cell, and back
        for u in range(u32(micro)):
            for v in range(u32(micro)):
                i, j = u32(row + of(ty, u)), u32(column + of(tx, v))
                if (i < b) & (j < H):
                    p, before, after = step_row(t, b, i), state_row(t, b, i), state_row(u32(t + u32(1)), b, i)
                    for g in range(u32(G)):
                        z[g] = sums[(g * u32(micro) + u) * u32(micro) + v]
                        given[g] = gates[p, u32(g * H + j)]
                    if t == 0:
                        h[i, j] = initial[i, j]
                        if has_c:
                            tape[i, j] = first_c[i, j]
                    own = tape[before, j] if has_c else h[before, j]
                    value, beside = of_cell(z, given, u32(0), own, bias[j] if has_bias else zero)
                    h[after, j] = value
                    tape[after, j] = beside
                    for g in range(u32(G)):
                        gates[p, u32(g * H + j)] = given[g]

    return kernel


@compiled_once
def backward_gated_tile_step(dtype: str, cell: str, side: int, micro: int, depth: int) -> Any:
    """delta of step t; the derivatives by h W_hh to one half of spare (2 b, G H), from the other half; carried (b, H).

    more, emits, again: 0 or 1.
    """
    kind, zero = getattr(numba, dtype), np.dtype(dtype).type(0)
    G, has_c = len(cell_of(cell).gates), tape_is_state(cell)
    edge, _, _, tile = tile_sizes(side, micro, depth)
    held, wide = micro * micro, u32(edge)
    add, of = transposed_adder(dtype, side, micro, depth), place(side, micro)
    of_cell, of_gate, D = unit_backward(dtype, cell), recurrent(cell), G + inner_gates(cell)

    @cuda.jit
    def kernel(delta, spare, carried, h, gates, tape, dh, W, b, t, T, S, H, more, emits, again):
        left = cuda.shared.array(tile, kind)
        right = cuda.shared.array(tile, kind)
        sums = cuda.local.array(held, kind)
        acts = cuda.local.array(G, kind)
        d = cuda.local.array(D, kind)
        tx, ty = u32(cuda.threadIdx.x), u32(cuda.threadIdx.y)
        row, column = u32(u32(cuda.blockIdx.x) * wide), u32(u32(cuda.blockIdx.y) * wide)
        b, t, H = u32(b), u32(t), u32(H)
        K = u32(u32(G) * H)
        after, here = u32(spare_row(u32(t + u32(1)), b, u32(0))), u32(spare_row(t, b, u32(0)))
        for q in range(held):
            sums[q] = zero
        # What the step after has times W^T, along all gates
        if more != 0:
            add(sums, left, right, tx, ty, spare, after, W, row, column, b, H, K)
        # The head's part and the cell; `spare` has what this pass alone gives, delta the sum over passes
        for u in range(u32(micro)):
            for v in range(u32(micro)):
                i, j = u32(row + of(ty, u)), u32(column + of(tx, v))
                if (i < b) & (j < H):
                    p, before = step_row(t, b, i), state_row(t, b, i)
                    for g in range(u32(G)):
                        acts[g] = gates[p, u32(g * H + j)]
                    own, beside = tape[before, j] if has_c else h[before, j], tape[state_row(u32(t + u32(1)), b, i), j]
                    to_h = sums[u * u32(micro) + v]
                    if emits != 0:
                        to_h += dh[emitted_row(t, T, S, b, i), j]
                    carry = carried[i, j] if more != 0 else zero
                    carried[i, j] = of_cell(acts, u32(0), own, beside, to_h, carry, d)
                    for g in range(u32(G)):
                        spare[u32(here + i), u32(g * H + j)] = d[of_gate(g)]
                    for g in range(u32(D)):
                        q = u32(g * H + j)
                        delta[p, q] = delta[p, q] + d[g] if again != 0 else d[g]

    return kernel
