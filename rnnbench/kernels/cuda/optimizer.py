"""Clipping, SGD and Adam over all parameters at once, a thread a number.

Adam (Kingma and Ba, 2015, Algorithm 1), epsilon outside the corrected root. What depends on the step alone is worked
out by the host in float64, where 1 - b2 keeps its digits, and comes as a number of the kernel's type.

The norm is sqrt(q) top, top the largest |g| and q the sum of (g / top)^2: squares of a float32 would end at 1e19, and
float64 has no place in a float32 kernel (Blue, "A Portable Fortran Program to Find the
Euclidean Norm of a Vector", 1978).
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from numba import cuda

from rnnbench.kernels.cuda.cursor import STEP
from rnnbench.kernels.cuda.plan import compiled_once


@compiled_once
def _joined(dtype: str) -> Any:
    """(top, q) of two parts together. NaN in either stays in q."""
    number = np.dtype(dtype).type
    zero = number(0)

    @cuda.jit(device=True)
    def joined(top, q, other, other_q):
        if other == zero:
            return top, q
        if top == other:
            return top, q + other_q
        if other < top:
            ratio = other / top
            return top, q + other_q * ratio * ratio
        ratio = top / other
        return other, other_q + q * ratio * ratio

    return joined


@compiled_once
def _joined_by_block(dtype: str, threads: int) -> Any:
    """(top, q) of all threads of a block, `threads` of them, a power of two; tops and sums (threads,) are shared."""
    joined = _joined(dtype)

    @cuda.jit(device=True)
    def of_block(top, q, tops, sums):
        tx = cuda.threadIdx.x
        tops[tx] = top
        sums[tx] = q
        cuda.syncthreads()
        # In halves: always the same pairs, so the same bits
        half = threads // 2
        while half > 0:
            if tx < half:
                top, q = joined(tops[tx], sums[tx], tops[tx + half], sums[tx + half])
                tops[tx] = top
                sums[tx] = q
            cuda.syncthreads()
            half //= 2
        return tops[0], sums[0]

    return of_block


@compiled_once
def norm_parts(dtype: str, threads: int) -> Any:
    """parts[block] = (top, q) of its share of g (n,); parts (grid, 2). `threads` is a power of two."""
    kind, number = getattr(numba, dtype), np.dtype(dtype).type
    zero, one = number(0), number(1)
    joined, of_block = _joined(dtype), _joined_by_block(dtype, threads)

    @cuda.jit
    def kernel(parts, g):
        tops = cuda.shared.array(threads, kind)
        sums = cuda.shared.array(threads, kind)
        tx = cuda.threadIdx.x
        top, q = zero, zero
        # Each thread its numbers, a whole grid apart, so that neighbours read neighbours
        for i in range(cuda.blockIdx.x * threads + tx, g.shape[0], cuda.gridDim.x * threads):
            top, q = joined(top, q, abs(g[i]), one)
        top, q = of_block(top, q, tops, sums)
        if tx == 0:
            parts[cuda.blockIdx.x, 0] = top
            parts[cuda.blockIdx.x, 1] = q

    return kernel


@compiled_once
def clip_scale(dtype: str, threads: int) -> Any:
    """scale[0], which brings the norm of all gradients within `limit`; NaN where the norm is NaN. One block.

    Pascanu et al., 2013, Algorithm 1. parts (., 2), as `norm_parts` writes them.
    """
    kind, number = getattr(numba, dtype), np.dtype(dtype).type
    zero, one = number(0), number(1)
    joined, of_block = _joined(dtype), _joined_by_block(dtype, threads)

    @cuda.jit
    def kernel(scale, parts, limit):
        tops = cuda.shared.array(threads, kind)
        sums = cuda.shared.array(threads, kind)
        tx = cuda.threadIdx.x
        # The blocks' parts, a block apart
        top, q = zero, zero
        for i in range(tx, parts.shape[0], threads):
            top, q = joined(top, q, parts[i, 0], parts[i, 1])
        top, q = of_block(top, q, tops, sums)
        if tx == 0:
            root = math.sqrt(q)
            # top may be so large that top * root is infinite: divide by one after the other
            scale[0] = one if root * top <= limit else limit / top / root

    return kernel


# The updates: p, and m and v for Adam, are read and written once, a thread a number.


@compiled_once
def _clipped(dtype: str) -> Any:
    """g times scale, within [-limit, limit]; NaN stays NaN."""

    @cuda.jit(device=True)
    def clipped(g, scale, limit):
        g = g * scale
        g = limit if g > limit else g
        return -limit if g < -limit else g

    return clipped


@compiled_once
def sgd(dtype: str) -> Any:
    """p -= rate * clipped g; p and g (n,), scale (1,)."""
    clipped = _clipped(dtype)

    @cuda.jit
    def kernel(p, g, scale, limit, rate):
        i = cuda.grid(1)
        if i < p.shape[0]:
            p[i] -= rate * clipped(g[i], scale[0], limit)

    return kernel


@compiled_once
def _moved(dtype: str) -> Any:
    """Adam for one number: m and v updated, and what its parameter moves by."""

    @cuda.jit(device=True)
    def moved(d, m, v, i, rate, root, keep_m, take_m, keep_v, take_v, epsilon):
        m_i = keep_m * m[i] + take_m * d
        v_i = keep_v * v[i] + take_v * d * d
        m[i] = m_i
        v[i] = v_i
        return rate * m_i / (math.sqrt(v_i) * root + epsilon)

    return moved


@compiled_once
def adam(dtype: str) -> Any:
    """m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2; p -= rate m / (sqrt(v) root + epsilon).

    p, g, m, v (n,), scale (1,). rate is the learning rate / (1 - b1^step), root 1 / sqrt(1 - b2^step).
    """
    clipped, moved = _clipped(dtype), _moved(dtype)

    @cuda.jit
    def kernel(p, g, m, v, scale, limit, rate, root, keep_m, take_m, keep_v, take_v, epsilon):
        i = cuda.grid(1)
        if i < p.shape[0]:
            d = clipped(g[i], scale[0], limit)
            p[i] -= moved(d, m, v, i, rate, root, keep_m, take_m, keep_v, take_v, epsilon)

    return kernel


@compiled_once
def adam_counted(dtype: str) -> Any:
    """`adam` for the step that the cursor names: table (n, 2) has rate and root of steps 1 to n and of all later."""
    clipped, moved = _clipped(dtype), _moved(dtype)

    @cuda.jit
    def kernel(p, g, m, v, scale, limit, table, cursor, keep_m, take_m, keep_v, take_v, epsilon):
        i = cuda.grid(1)
        if i < p.shape[0]:
            # Steps beyond the table differ from its last row by less than rounding
            d, at = clipped(g[i], scale[0], limit), min(cursor[STEP], table.shape[0]) - 1
            p[i] -= moved(d, m, v, i, table[at, 0], table[at, 1], keep_m, take_m, keep_v, take_v, epsilon)

    return kernel
