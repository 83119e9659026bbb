"""Matrix products on tiles in shared memory, `micro` x `micro` sums a thread, and sums over steps that are split.

    project_inputs     h[p] = b_h + x_p W_xh
    times_transposed   out = A B^T
    outer_sums         parts of [x | h | 1]^T d, one a chunk of steps; `add_parts` adds them in their order

All rows are time first: row p = t b + i is step t of the batch's row i. [W_xh; W_hh; b_h] and [W_hy; b_y] lie one after
the other in the flat parameters, so all gradients but that of the embedding are two sums and one addition.
No atomics: the same numbers give the same bits. The products take no library, so that all of a pass is float32.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import cuda

from rnnbench.kernels.cuda.plan import compiled_once


@compiled_once
def reader(tokens: bool) -> Any:
    """x of row p, column e. `source` (N, T) tokens and `table` (V, E), or `source` (N, T, E) and `table` not read."""

    # Row p is step t = p // b of the batch's row p - t b, which is row order[offset + that] of the data
    def read_token(source, table, order, offset, b, p, e):
        t = p // b
        return table[source[order[offset + p - t * b], t], e]

    def read_number(source, table, order, offset, b, p, e):
        t = p // b
        return source[order[offset + p - t * b], t, e]

    return cuda.jit(device=True)(read_token if tokens else read_number)


@compiled_once
def multiplier(side: int, micro: int, depth: int) -> Any:
    """sums (micro micro,) += the outer products of what this thread (tx, ty) has of left and right (depth, edge)."""

    @cuda.jit(device=True)
    def multiply(sums, left, right, tx, ty):
        for k in range(depth):
            for u in range(micro):
                a = left[k, ty + u * side]
                for v in range(micro):
                    sums[u * micro + v] += a * right[k, tx + v * side]

    return multiply


@compiled_once
def project_inputs(dtype: str, tokens: bool, side: int, micro: int, depth: int) -> Any:
    """h[first + p] = bias + x_p W for p < rows. Grid: (rows, columns) in tiles.

    GH is the gate width: h (., GH), W (E, GH), bias (GH,); source, table as `reader`; order (., ) of row numbers, the
    batch's from `offset` on.
    """
    kind, zero = getattr(numba, dtype), np.dtype(dtype).type(0)
    edge, count, held, tile = side * micro, side * side, micro * micro, (depth, side * micro)
    read, multiply = reader(tokens), multiplier(side, micro, depth)

    @cuda.jit
    def kernel(h, first, source, table, order, offset, b, W, bias, rows, E, GH):
        left = cuda.shared.array(tile, kind)
        right = cuda.shared.array(tile, kind)
        sums = cuda.local.array(held, kind)
        tx, ty = cuda.threadIdx.x, cuda.threadIdx.y
        row, column = cuda.blockIdx.x * edge, cuda.blockIdx.y * edge
        for q in range(held):
            sums[q] = zero
        # `depth` of E at a time: inputs and weights of the tile to shared memory, then their products to the sums
        for k0 in range(0, E, depth):
            for q in range(ty * side + tx, depth * edge, count):
                k, m = q % depth, q // depth
                inside = k0 + k < E and row + m < rows
                left[k, m] = read(source, table, order, offset, b, row + m, k0 + k) if inside else zero
            for q in range(ty * side + tx, depth * edge, count):
                k, n = q // edge, q % edge
                right[k, n] = W[k0 + k, column + n] if k0 + k < E and column + n < GH else zero
            cuda.syncthreads()
            multiply(sums, left, right, tx, ty)
            cuda.syncthreads()
        # A thread's sums lie `side` apart, so that neighbours write neighbours
        for u in range(micro):
            for v in range(micro):
                p, j = row + ty + u * side, column + tx + v * side
                if p < rows and j < GH:
                    h[first + p, j] = sums[u * micro + v] + bias[j]

    return kernel


@compiled_once
def times_transposed(dtype: str, side: int, micro: int, depth: int) -> Any:
    """out[first + p] = A[first + p] B^T for p < rows. Grid as `project_inputs`. out (., n), A (., K), B (n, K)."""
    kind, zero = getattr(numba, dtype), np.dtype(dtype).type(0)
    edge, count, held, tile = side * micro, side * side, micro * micro, (depth, side * micro)
    multiply = multiplier(side, micro, depth)

    @cuda.jit
    def kernel(out, first, A, B, rows, n, K):
        left = cuda.shared.array(tile, kind)
        right = cuda.shared.array(tile, kind)
        sums = cuda.local.array(held, kind)
        tx, ty = cuda.threadIdx.x, cuda.threadIdx.y
        row, column = cuda.blockIdx.x * edge, cuda.blockIdx.y * edge
        for q in range(held):
            sums[q] = zero
        # Rows of both matrices, `depth` of k at a time: B is read as it lies, and is transposed by how it is used
        for k0 in range(0, K, depth):
            for q in range(ty * side + tx, depth * edge, count):
                k, m = q % depth, q // depth
                left[k, m] = A[first + row + m, k0 + k] if k0 + k < K and row + m < rows else zero
                right[k, m] = B[column + m, k0 + k] if k0 + k < K and column + m < n else zero
            cuda.syncthreads()
            multiply(sums, left, right, tx, ty)
            cuda.syncthreads()
        for u in range(micro):
            for v in range(micro):
                p, j = row + ty + u * side, column + tx + v * side
                if p < rows and j < n:
                    out[first + p, j] = sums[u * micro + v]

    return kernel


@compiled_once
def outer_sums(dtype: str, tokens: bool, side: int, micro: int, depth: int) -> Any:
    """parts[c] = [x | h | 1]^T d over chunk c of rows [first, end), an (E + H + 1, n) matrix row by row.

    d is delta, or dz where E is 0 and there is no x. Row p meets x_p, h[p + ahead], d[p]. Grid: (rows, columns) of the
    matrix in tiles, then chunks of `chunk` rows each. h (., H), d (., n), parts (chunks, (E + H + 1) n).
    """
    kind = getattr(numba, dtype)
    zero, one = np.dtype(dtype).type(0), np.dtype(dtype).type(1)
    edge, count, held, tile = side * micro, side * side, micro * micro, (depth, side * micro)
    read, multiply = reader(tokens), multiplier(side, micro, depth)

    @cuda.jit
    def kernel(parts, source, table, order, offset, b, h, ahead, d, first, end, chunk, E, H, n):
        left = cuda.shared.array(tile, kind)
        right = cuda.shared.array(tile, kind)
        sums = cuda.local.array(held, kind)
        tx, ty = cuda.threadIdx.x, cuda.threadIdx.y
        row, column = cuda.blockIdx.x * edge, cuda.blockIdx.y * edge
        begin = first + cuda.blockIdx.z * chunk
        stop = min(end, begin + chunk)
        for q in range(held):
            sums[q] = zero
        # The sum runs over steps and rows: `depth` of them at a time. A row of the matrix is an input, a state before
        # the step, or a 1, whose product is the gradient of the bias
        for k0 in range(begin, stop, depth):
            for q in range(ty * side + tx, depth * edge, count):
                k, m = q // edge, q % edge
                p, c = k0 + k, row + m
                x = zero
                if p < stop:
                    if c < E:
                        x = read(source, table, order, offset, b, p, c)
                    elif c < E + H:
                        x = h[p + ahead, c - E]
                    elif c == E + H:
                        x = one
                left[k, m] = x
                right[k, m] = d[p, column + m] if p < stop and column + m < n else zero
            cuda.syncthreads()
            multiply(sums, left, right, tx, ty)
            cuda.syncthreads()
        for u in range(micro):
            for v in range(micro):
                c, j = row + ty + u * side, column + tx + v * side
                if c <= E + H and j < n:
                    parts[cuda.blockIdx.z, c * n + j] = sums[u * micro + v]

    return kernel


@compiled_once
def add_parts(dtype: str) -> Any:
    """out = the sums of parts[:chunks] and, behind them, of head_parts[:head_chunks], each in its order.

    parts (., n), head_parts (., m), out (n + m,). A thread a number.
    """
    zero = np.dtype(dtype).type(0)

    @cuda.jit
    def kernel(out, parts, head_parts, chunks, head_chunks):
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
            out[q] = total

    return kernel
