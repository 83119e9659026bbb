"""Element by element: tanh with a stated bound, its derivative, and moving rows about.

tanh(x) = e / (e + 2) with e = exp(2x) - 1, which keeps its digits near zero. With 2x = n ln 2 + r, |r| <= ln(2) / 2:
e = 2^n (exp(r) - 1) + (2^n - 1), and exp(r) - 1 by its Taylor series. No branch, so LLVM can vectorise it.
NaN stays NaN, infinity gives 1. At most `TANH_ULP` units in the last place from the exact value.
"""

from __future__ import annotations

import math

import numpy as np
from numba import types
from numba.extending import overload

from rnnbench.kernels.cpu.compiling import EXACT, kernel
from rnnbench.kernels.cpu.simd import power_of_two

TANH_ULP = 3.0


def _split_ln2(bits: int) -> tuple[float, float]:
    """ln 2 as high + low; the high part has so few bits that n times it is exact."""
    high = round(math.log(2.0) * 2**bits) / 2**bits
    return high, math.log(2.0) - high


# Beyond these, tanh rounds to 1: 2 exp(-LIMIT) is below half a unit in the last place.
_LIMIT_32, _LIMIT_64 = np.float32(20.0), 40.0
# Adding 1.5 * 2^(mantissa bits) rounds to an integer and leaves that integer in the low bits.
_ROUND_32, _ROUND_64 = np.float32(1.5 * 2**23), 1.5 * 2.0**52
_LOG2E_32, _LOG2E_64 = np.float32(1 / math.log(2.0)), 1 / math.log(2.0)
_HIGH_32, _LOW_32 = (np.float32(part) for part in _split_ln2(15))
_HIGH_64, _LOW_64 = _split_ln2(40)
# 1/2!, 1/3!, ..., highest first. The first term left out is below 2^-26 and 2^-55 of the sum.
_SERIES_32 = tuple(np.float32(1 / math.factorial(n)) for n in range(8, 1, -1))
_SERIES_64 = tuple(1 / math.factorial(n) for n in range(14, 1, -1))


@kernel(flags=EXACT)
def _tanh_32(x):
    y = x + x
    y = _LIMIT_32 if y > _LIMIT_32 else y
    y = -_LIMIT_32 if y < -_LIMIT_32 else y
    shifted = y * _LOG2E_32 + _ROUND_32
    n = shifted - _ROUND_32
    r = (y - n * _HIGH_32) - n * _LOW_32
    c8, c7, c6, c5, c4, c3, c2 = _SERIES_32
    tail = c2 + r * (c3 + r * (c4 + r * (c5 + r * (c6 + r * (c7 + r * c8)))))
    power = power_of_two(shifted)
    e = power * (r + r * r * tail) + (power - np.float32(1))
    return e / (e + np.float32(2))


@kernel(flags=EXACT)
def _tanh_64(x):
    y = x + x
    y = _LIMIT_64 if y > _LIMIT_64 else y
    y = -_LIMIT_64 if y < -_LIMIT_64 else y
    shifted = y * _LOG2E_64 + _ROUND_64
    n = shifted - _ROUND_64
    r = (y - n * _HIGH_64) - n * _LOW_64
    c14, c13, c12, c11, c10, c9, c8, c7, c6, c5, c4, c3, c2 = _SERIES_64
    tail = c8 + r * (c9 + r * (c10 + r * (c11 + r * (c12 + r * (c13 + r * c14)))))
    tail = c2 + r * (c3 + r * (c4 + r * (c5 + r * (c6 + r * (c7 + r * tail)))))
    power = power_of_two(shifted)
    e = power * (r + r * r * tail) + (power - 1.0)
    return e / (e + 2.0)


def tanh(x):
    """tanh of one number of either type; in kernels only."""
    raise TypeError(f"tanh({x}) called from Python; it works inside kernels only: use np.tanh")


@overload(tanh)
def _tanh(x):
    if x == types.float32:
        return lambda x: _tanh_32(x)
    return lambda x: _tanh_64(x)


@kernel()
def flat_rows(x, start, rows):
    """x[start : start + rows] as one run of numbers, a view; x (., N) C-contiguous.

    A loop from 0 over its size is one that LLVM vectorises: an index that could be negative is not.
    """
    return x.reshape(x.size)[start * x.shape[1] : (start + rows) * x.shape[1]]


@kernel()
def tanh_rows(h, start, rows):
    """h[start : start + rows] = tanh of itself; h (>= start + rows, N)."""
    part = flat_rows(h, start, rows)
    for i in range(part.size):
        part[i] = tanh(part[i])


@kernel()
def through_tanh(delta, delta_row, dh, dh_row, h, h_row, rows):
    """delta = dh * (1 - h^2) over `rows` rows of each, from the given row on; all (., N). h is already a tanh."""
    out, grad, state = flat_rows(delta, delta_row, rows), flat_rows(dh, dh_row, rows), flat_rows(h, h_row, rows)
    one = h.dtype.type(1)
    for i in range(out.size):
        out[i] = grad[i] * (one - state[i] * state[i])


@kernel()
def add_rows(out, out_row, x, x_row, rows):
    """out += x over `rows` rows, from the given row of each on; both (., N)."""
    to, of = flat_rows(out, out_row, rows), flat_rows(x, x_row, rows)
    for i in range(to.size):
        to[i] += of[i]


@kernel()
def fill_rows(out, start, rows, value):
    """Each of out[start : start + rows] = value; out (., N), value (N,)."""
    for i in range(start, start + rows):
        row = out[i]
        for j in range(row.size):
            row[j] = value[j]


@kernel()
def zero_rows(out, start, rows):
    """out[start : start + rows] = 0; out (., N)."""
    part = flat_rows(out, start, rows)
    for i in range(part.size):
        part[i] = 0


@kernel()
def sum_rows(out, x, start, rows):
    """out += the sum of x[start : start + rows]; out (N,), x (., N)."""
    for i in range(start, start + rows):
        row = x[i]
        for j in range(out.size):
            out[j] += row[j]


@kernel()
def pad(out, x):
    """out[:, :n] = x, zeros after; out (m, N), x (m, n)."""
    n = x.shape[1]
    for i in range(x.shape[0]):
        for j in range(n):
            out[i, j] = x[i, j]
        for j in range(n, out.shape[1]):
            out[i, j] = 0


@kernel()
def pad_transposed(out, x):
    """out[:, :m] = x^T, zeros after; out (n, M), x (m, n)."""
    m, n = x.shape
    for j in range(n):
        for i in range(m):
            out[j, i] = x[i, j]
        for i in range(m, out.shape[1]):
            out[j, i] = 0
