"""Matrix products on tiles in shared memory, `micro` x `micro` sums a thread, and sums over steps that are split.

    project_inputs     h[p] = b_h + x_p W_xh
    times_transposed   out = A B^T
    outer_sums         parts of [x | h | 1]^T d, one a chunk of steps; `add_parts` adds them in their order

All rows are time first: row p = t b + i is step t of the batch's row i. [W_xh; W_hh; biases] of each direction and
[W_hy; b_y] lie one after the other in the flat parameters: all gradients of a direction but that of the embedding are a
sum and an addition, and the last addition has the head's.
No atomics: the same numbers give the same bits. The products take no library, so that all of a pass is float32.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from numba import cuda

from rnnbench.kernels.cuda.layout import step_in_time
from rnnbench.kernels.cuda.plan import QUAD, compiled_once

u32 = numba.uint32
PAD = 4  # numbers between two lines of a tile, so that what is written across them meets few banks twice


@compiled_once
def reader(dtype: str, source: str, back: bool, ends: bool) -> Any:
    """x of row p, column e; of a direction `back` the steps count from the end of the T of them, or where rows have
    lengths (`ends`), of their own; there 0 past the end.

    `source` of "tokens" is (N, T), with `table` (V, E); of "dense" (N, T, E); of "states" (., E), those of the layer
    below, of step 0 from row `first` on. What is not "tokens" reads no table. lengths (N,).
    """
    step_of, zero = step_in_time(back, ends), np.dtype(dtype).type(0)

    # Row p is step t = p // b of the batch's row p - t b, which is row order[offset + that] of the data
    def read_token(source, first, table, order, offset, lengths, b, T, p, e):
        t = u32(p // b)
        row = u32(order[offset + u32(p - t * b)])
        return table[u32(source[row, step_of(lengths, row, T, t)]), e]

    def read_number(source, first, table, order, offset, lengths, b, T, p, e):
        t = u32(p // b)
        row = u32(order[offset + u32(p - t * b)])
        if ends and t >= u32(lengths[row]):
            return zero  # and not what stands there, which may be NaN
        return source[row, step_of(lengths, row, T, t), e]

    def read_state(source, first, table, order, offset, lengths, b, T, p, e):
        t = u32(p // b)
        i = u32(p - t * b)
        row = u32(order[offset + i]) if ends else u32(0)
        if ends and t >= u32(lengths[row]):
            return zero
        return source[u32(first + step_of(lengths, row, T, t) * b + i), e]

    return cuda.jit(device=True)({"tokens": read_token, "dense": read_number, "states": read_state}[source])


@compiled_once
def multiplier(side: int, micro: int, depth: int, gates: int = 1) -> Any:
    """sums (gates micro micro,) += the outer products of what this thread (tx, ty) has of left (depth, edge + PAD) and
    of each of the `gates` tiles beside each other in right (depth, gates edge + PAD).

    A thread has `near` neighbours of each `near * side` rows and columns: they are one load.
    """
    near, width, edge = u32(math.gcd(micro, QUAD)), u32(micro), u32(side * micro)

    @cuda.jit(device=True)
    def multiply(sums, left, right, tx, ty):
        k = u32(0)
        while k != u32(depth):  # not a range: that of an unsigned number counts in 64 bits
            for u in range(width):
                a = left[k, ty * near + u // near * near * u32(side) + u % near]
                for g in range(u32(gates)):
                    for v in range(width):
                        q = (g * width + u) * width + v
                        sums[q] += a * right[k, g * edge + tx * near + v // near * near * u32(side) + v % near]
            k = u32(k + u32(1))

    return multiply


@compiled_once
def place(side: int, micro: int) -> Any:
    """Which row or column of its tile is number u of a thread at t."""
    near = u32(math.gcd(micro, QUAD))

    @cuda.jit(device=True)
    def of(t, u):
        return u32(t * near + u // near * near * u32(side) + u % near)

    return of


def tile_sizes(side: int, micro: int, depth: int) -> tuple[int, int, int, tuple[int, int]]:
    """Edge of a tile, threads of a block, numbers of each matrix that a thread fetches, and shape in shared memory."""
    edge, count = side * micro, side * side
    return edge, count, math.ceil(depth * edge / count), (depth, edge + PAD)


@compiled_once
def project_inputs(dtype: str, source: str, back: bool, ends: bool, side: int, micro: int, depth: int) -> Any:
    """h[first + p] = bias + x_p W for p < rows, of T steps. Grid: (rows, columns) in tiles.

    GH is the gate width: h (., GH), W (E, GH), bias (GH,); source, table, lengths and T as `reader`, whose `first` is
    `below`; order (., ) of row numbers, the batch's from `offset` on.
    """
    kind, zero = getattr(numba, dtype), np.dtype(dtype).type(0)
    edge, count, loads, tile = tile_sizes(side, micro, depth)
    held, slice_, wide = micro * micro, u32(depth), u32(edge)
    read, multiply, of = reader(dtype, source, back, ends), multiplier(side, micro, depth), place(side, micro)

    @cuda.jit
    def kernel(h, first, source, below, table, order, offset, lengths, b, T, W, bias, rows, E, GH):
        left = cuda.shared.array(tile, kind)
        right = cuda.shared.array(tile, kind)
        sums = cuda.local.array(held, kind)
        ahead = cuda.local.array(loads, kind)
        beside = cuda.local.array(loads, kind)
        tx, ty = u32(cuda.threadIdx.x), u32(cuda.threadIdx.y)
        x, row, column = u32(ty * u32(side) + tx), u32(u32(cuda.blockIdx.x) * wide), u32(u32(cuda.blockIdx.y) * wide)
        b, T, rows, E, GH, offset, below = u32(b), u32(T), u32(rows), u32(E), u32(GH), u32(offset), u32(below)
        for q in range(held):
            sums[q] = zero
        # `depth` of E at a time: inputs and weights of the tile to registers, while the products of those before, which
        # are in shared memory, go to the sums; then to shared memory
        for turn in range(0, E + slice_, depth):
            k0 = u32(turn)
            if k0 < E:
                for n in range(u32(loads)):
                    q = u32(n * u32(count) + x)
                    k, m = u32(k0 + q % slice_), u32(row + q // slice_)
                    inside = (k < E) & (m < rows) & (q < u32(depth * edge))
                    ahead[n] = read(source, below, table, order, offset, lengths, b, T, m, k) if inside else zero
                    k, j = u32(k0 + q // wide), u32(column + q % wide)
                    inside = (k < E) & (j < GH) & (q < u32(depth * edge))
                    beside[n] = W[k, j] if inside else zero
            if k0 > 0:
                multiply(sums, left, right, tx, ty)
                cuda.syncthreads()
            if k0 < E:
                for n in range(u32(loads)):
                    q = u32(n * u32(count) + x)
                    if q < u32(depth * edge):
                        left[q % slice_, q // slice_] = ahead[n]
                        right[q // wide, q % wide] = beside[n]
                cuda.syncthreads()
        for u in range(u32(micro)):
            for v in range(u32(micro)):
                p, j = u32(row + of(ty, u)), u32(column + of(tx, v))
                if (p < rows) & (j < GH):
                    h[first + p, j] = sums[u * u32(micro) + v] + bias[j]

    return kernel


@compiled_once
def times_transposed(dtype: str, ends: bool, side: int, micro: int, depth: int) -> Any:
    """out[first + p] = A[first + p] B^T for p < rows. Grid as `project_inputs`. out (., n), A (., K), B (n, K).

    With `turned` steps, of b rows each, out has them from the last to the first, or each row (`ends`) from its own
    last; `add`: not 0 to what is there.
    """
    step_of = step_in_time(True, ends)
    kind, zero = getattr(numba, dtype), np.dtype(dtype).type(0)
    edge, count, loads, tile = tile_sizes(side, micro, depth)
    held, slice_, wide = micro * micro, u32(depth), u32(edge)
    multiply, of = multiplier(side, micro, depth), place(side, micro)

    @cuda.jit
    def kernel(out, first, A, B, rows, n, K, order, offset, lengths, b, turned, add):
        left = cuda.shared.array(tile, kind)
        right = cuda.shared.array(tile, kind)
        sums = cuda.local.array(held, kind)
        ahead = cuda.local.array(loads, kind)
        beside = cuda.local.array(loads, kind)
        tx, ty = u32(cuda.threadIdx.x), u32(cuda.threadIdx.y)
        x, row, column = u32(ty * u32(side) + tx), u32(u32(cuda.blockIdx.x) * wide), u32(u32(cuda.blockIdx.y) * wide)
        first, rows, n, K, b, turned = u32(first), u32(rows), u32(n), u32(K), u32(b), u32(turned)
        for q in range(held):
            sums[q] = zero
        # Rows of both matrices, `depth` of k at a time, one turn ahead as in `project_inputs`: B is read as it lies,
        # and is transposed by how it is used
        for turn in range(0, K + slice_, depth):
            k0 = u32(turn)
            if k0 < K:
                for f in range(u32(loads)):
                    q = u32(f * u32(count) + x)
                    k, m = u32(k0 + q % slice_), u32(q // slice_)
                    inside = (k < K) & (q < u32(depth * edge))
                    ahead[f] = A[u32(first + row + m), k] if inside & (row + m < rows) else zero
                    beside[f] = B[u32(column + m), k] if inside & (column + m < n) else zero
            if k0 > 0:
                multiply(sums, left, right, tx, ty)
                cuda.syncthreads()
            if k0 < K:
                for f in range(u32(loads)):
                    q = u32(f * u32(count) + x)
                    if q < u32(depth * edge):
                        left[q % slice_, q // slice_] = ahead[f]
                        right[q % slice_, q // slice_] = beside[f]
                cuda.syncthreads()
        for u in range(u32(micro)):
            p = u32(row + of(ty, u))
            if p < rows:
                t = u32(p // b)
                i = u32(p - t * b)
                of_row = u32(order[offset + i]) if ends else u32(0)
                q = u32(first + (u32(step_of(lengths, of_row, turned, t) * b + i) if turned > 0 else p))
                # What A has past the end of a row need not have been written
                past = ends and t + first // b >= u32(lengths[of_row])
                for v in range(u32(micro)):
                    j = u32(column + of(tx, v))
                    if j < n:
                        value = zero if past else sums[u * u32(micro) + v]
                        out[q, j] = out[q, j] + value if add != 0 else value

    return kernel


@compiled_once
def outer_sums(dtype: str, source: str, back: bool, ends: bool, side: int, micro: int, depth: int) -> Any:
    """parts[c] = [x | h | 1]^T d over chunk c of rows [first, end), an (E + H + 1, n) matrix row by row.

    d is delta, or dz where E is 0 and there is no x. Row p meets x_p, h[p + ahead], d[p]. Grid: (rows, columns) of the
    matrix in tiles, then chunks of `chunk` rows each. h (., H), d (., n), parts (chunks, .).
    The last `own` columns of d are the derivatives by h W_hh where those by x W_xh, the `own` columns before, are
    others: rows of x skip the first, rows of h the second, and the row of ones has both, b_h and b_hn.
    """
    kind = getattr(numba, dtype)
    zero, one = np.dtype(dtype).type(0), np.dtype(dtype).type(1)
    edge, count, loads, tile = tile_sizes(side, micro, depth)
    held, slice_, wide = micro * micro, u32(depth), u32(edge)
    read, multiply, of = reader(dtype, source, back, ends), multiplier(side, micro, depth), place(side, micro)

    @cuda.jit
    def kernel(parts, source, below, table, order, offset, lengths, b, T, h, ahead, d, first, end, chunk, E, H, n, own):
        left = cuda.shared.array(tile, kind)
        right = cuda.shared.array(tile, kind)
        sums = cuda.local.array(held, kind)
        these = cuda.local.array(loads, kind)
        those = cuda.local.array(loads, kind)
        tx, ty = u32(cuda.threadIdx.x), u32(cuda.threadIdx.y)
        x, row, column = u32(ty * u32(side) + tx), u32(u32(cuda.blockIdx.x) * wide), u32(u32(cuda.blockIdx.y) * wide)
        begin = u32(first + cuda.blockIdx.z * chunk)
        stop = u32(min(end, first + (cuda.blockIdx.z + 1) * chunk))
        b, T, offset, ahead, E, H, n, own = u32(b), u32(T), u32(offset), u32(ahead), u32(E), u32(H), u32(n), u32(own)
        GH, below = u32(n - own), u32(below)
        for q in range(held):
            sums[q] = zero
        # Tiles of which nothing is written
        if own > 0:
            if (row + wide <= E) & (column >= GH):
                return
            if (row >= E) & (row + wide <= E + H) & (column + own >= GH) & (column + wide <= GH):
                return
        # The sum runs over steps and rows: `depth` of them at a time, one turn ahead as in `project_inputs`. A row of
        # the matrix is an input, a state before the step, or a 1, whose product is the gradient of the bias
        for turn in range(begin, stop + slice_, depth):
            k0 = u32(turn)
            if k0 < stop:
                for f in range(u32(loads)):
                    q = u32(f * u32(count) + x)
                    m, p = u32(q % wide), u32(k0 + q // wide)
                    c, j, inside = u32(row + m), u32(column + m), (p < stop) & (q < u32(depth * edge))
                    value = zero
                    if ends and inside:
                        # Past the end of a row there is none to add, and states and derivatives need not be there
                        t = u32(p // b)
                        inside = t < u32(lengths[u32(order[offset + u32(p - t * b)])])
                    if inside:
                        if c < E:
                            value = read(source, below, table, order, offset, lengths, b, T, p, c)
                        elif c < E + H:
                            value = h[u32(p + ahead), u32(c - E)]
                        elif c == E + H:
                            value = one
                    these[f] = value
                    those[f] = d[p, j] if inside & (j < n) else zero
            if k0 > begin:
                multiply(sums, left, right, tx, ty)
                cuda.syncthreads()
            if k0 < stop:
                for f in range(u32(loads)):
                    q = u32(f * u32(count) + x)
                    if q < u32(depth * edge):
                        left[q // wide, q % wide] = these[f]
                        right[q // wide, q % wide] = those[f]
                cuda.syncthreads()
        for u in range(u32(micro)):
            for v in range(u32(micro)):
                c, j = u32(row + of(ty, u)), u32(column + of(tx, v))
                # Where the parameter lies: W_xh, W_hh, the biases
                at, real = u32(c * GH + j), (c <= E + H) & (j < n)
                if c < E:
                    real &= j < GH
                elif c < E + H:
                    real &= (j + own < GH) | (j >= GH)
                    at = u32(at - own) if j >= GH else at
                if real:
                    parts[u32(cuda.blockIdx.z), at] = sums[u * u32(micro) + v]

    return kernel


@compiled_once
def add_parts(dtype: str) -> Any:
    """out = the sums of parts[:chunks] and, behind them, of head_parts[:head_chunks], each in its order.

    parts (., n), head_parts (., m), out (n + m,); `add`: not 0 to what is there. A thread a number.
    """
    zero = np.dtype(dtype).type(0)

    @cuda.jit
    def kernel(out, parts, head_parts, chunks, head_chunks, add):
        q = cuda.grid(1)
        n = parts.shape[1]
        # Chunks in their order, so that a sum is the same bits each time
        if q < out.shape[0]:
            total = zero
            if q < n:
                for c in range(chunks):
                    total += parts[c, q]
            else:
                for c in range(head_chunks):
                    total += head_parts[c, q - n]
            out[q] = out[q] + total if add != 0 else total

    return kernel
