"""One step of a recurrence as a product on tiles, a launch each: any H, and batches large enough to fill a device.

    advance   h_{t+1} = tanh(h_{t+1} + A W), A the state before
    retreat   delta_t = (dh_t + A W^T)(1 - h_{t+1}^2), A the delta after; the first of a pass has none

Grid: (rows, columns) of a step in tiles, as in `products`. What was there in h is x_t W_xh + b_h.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import cuda

from rnnbench.kernels.cuda.activations import tanh_of
from rnnbench.kernels.cuda.layout import emitted_row, spare_row, state_row, step_row
from rnnbench.kernels.cuda.plan import compiled_once
from rnnbench.kernels.cuda.products import multiplier, place, tile_sizes

u32 = numba.uint32


@compiled_once
def forward_tile_step(dtype: str, side: int, micro: int, depth: int) -> Any:
    """States after step t from those before, or from initial (b, H), which h[:b] then becomes. h (., H), W (H, H)."""
    kind, zero = getattr(numba, dtype), np.dtype(dtype).type(0)
    edge, count, loads, tile = tile_sizes(side, micro, depth)
    held, slice_, wide = micro * micro, u32(depth), u32(edge)
    multiply, of, tanh = multiplier(side, micro, depth), place(side, micro), tanh_of(dtype)

    @cuda.jit
    def kernel(h, W, initial, b, t, H):
        left = cuda.shared.array(tile, kind)
        right = cuda.shared.array(tile, kind)
        sums = cuda.local.array(held, kind)
        tx, ty = u32(cuda.threadIdx.x), u32(cuda.threadIdx.y)
        x, row, column = u32(ty * u32(side) + tx), u32(u32(cuda.blockIdx.x) * wide), u32(u32(cuda.blockIdx.y) * wide)
        b, t, H = u32(b), u32(t), u32(H)
        for q in range(held):
            sums[q] = zero
        # `depth` of k at a time: that much of the states and of W to shared memory, then its products to the sums
        for k0 in range(0, H, depth):
            for n in range(u32(loads)):
                q = u32(n * u32(count) + x)
                if q < u32(depth * edge):
                    k, m = u32(u32(k0) + q % slice_), u32(q // slice_)
                    i, value = u32(row + m), zero
                    if (k < H) & (i < b):
                        value = initial[i, k] if t == 0 else h[state_row(t, b, i), k]
                    left[q % slice_, m] = value
                    k, j = u32(u32(k0) + q // wide), u32(column + q % wide)
                    right[q // wide, q % wide] = W[k, j] if (k < H) & (j < H) else zero
            cuda.syncthreads()
            multiply(sums, left, right, tx, ty)
            cuda.syncthreads()
        # What the inputs give is in h already: added, through the cell, and back
        for u in range(u32(micro)):
            for v in range(u32(micro)):
                i, j = u32(row + of(ty, u)), u32(column + of(tx, v))
                if (i < b) & (j < H):
                    p = state_row(u32(t + u32(1)), b, i)
                    h[p, j] = tanh(h[p, j] + sums[u * u32(micro) + v])
                    if t == 0:
                        h[i, j] = initial[i, j]

    return kernel


@compiled_once
def transposed_adder(dtype: str, side: int, micro: int, depth: int) -> Any:
    """add(...): sums (micro micro,) += A W^T of the tile at (row, column).

    A is the b rows of spare (., K) from `after` on, W (H, K); left, right (depth, edge + PAD) are shared memory, which
    is free again when it returns.
    """
    zero = np.dtype(dtype).type(0)
    edge, count, loads, _ = tile_sizes(side, micro, depth)
    slice_, multiply = u32(depth), multiplier(side, micro, depth)

    @cuda.jit(device=True)
    def add(sums, left, right, tx, ty, spare, after, W, row, column, b, H, K):
        x = u32(ty * u32(side) + tx)
        # Rows of W are read where a product reads columns
        for k0 in range(0, K, depth):
            for n in range(u32(loads)):
                q = u32(n * u32(count) + x)
                if q < u32(depth * edge):
                    k, m = u32(u32(k0) + q % slice_), u32(q // slice_)
                    left[q % slice_, m] = spare[u32(after + row + m), k] if (k < K) & (row + m < b) else zero
                    right[q % slice_, m] = W[u32(column + m), k] if (k < K) & (column + m < H) else zero
            cuda.syncthreads()
            multiply(sums, left, right, tx, ty)
            cuda.syncthreads()

    return add


@compiled_once
def backward_tile_step(dtype: str, side: int, micro: int, depth: int) -> Any:
    """delta of step t, to delta and to one half of spare (2 b, H), from the other half. more, emits, again: 0 or 1.

    delta (T b, H), h ((T + 1) b, H), dh (S b, H) of the last S steps, W (H, H).
    """
    kind = getattr(numba, dtype)
    zero, one = np.dtype(dtype).type(0), np.dtype(dtype).type(1)
    edge, _, _, tile = tile_sizes(side, micro, depth)
    held, wide = micro * micro, u32(edge)
    add, of = transposed_adder(dtype, side, micro, depth), place(side, micro)

    @cuda.jit
    def kernel(delta, spare, h, dh, W, b, t, T, S, H, more, emits, again):
        left = cuda.shared.array(tile, kind)
        right = cuda.shared.array(tile, kind)
        sums = cuda.local.array(held, kind)
        tx, ty = u32(cuda.threadIdx.x), u32(cuda.threadIdx.y)
        row, column = u32(u32(cuda.blockIdx.x) * wide), u32(u32(cuda.blockIdx.y) * wide)
        b, t, H = u32(b), u32(t), u32(H)
        after, here = u32(spare_row(u32(t + u32(1)), b, u32(0))), u32(spare_row(t, b, u32(0)))
        for q in range(held):
            sums[q] = zero
        # The deltas of the step after times W^T
        if more != 0:
            add(sums, left, right, tx, ty, spare, after, W, row, column, b, H, H)
        # The head's part and the cell; `spare` has what this pass alone gives, delta the sum over passes
        for u in range(u32(micro)):
            for v in range(u32(micro)):
                i, j = u32(row + of(ty, u)), u32(column + of(tx, v))
                if (i < b) & (j < H):
                    p = step_row(t, b, i)
                    d, state = sums[u * u32(micro) + v], h[state_row(u32(t + u32(1)), b, i), j]
                    if emits != 0:
                        d += dh[emitted_row(t, T, S, b, i), j]
                    d *= one - state * state
                    spare[u32(here + i), j] = d
                    delta[p, j] = delta[p, j] + d if again != 0 else d

    return kernel
