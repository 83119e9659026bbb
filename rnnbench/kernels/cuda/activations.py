"""Sigmoid and tanh of all kernels, as device functions of one number.

In float32 both are made of the GPU's own instructions for 2 ** x and 1 / x, with an error of a few units in the last
place. What `tanh.approx.f32` is off by, 2 ** -11, no contract allows.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import cuda

from rnnbench.kernels.cuda import ptx
from rnnbench.kernels.cuda.plan import compiled_once

# tanh(x) = x + x^3 P(x^2) for |x| < NEAR: minimax, with a relative error of 1.1e-7
NEAR = 0.4
P = -0.33331902, 0.13278022, -0.04781184


@compiled_once
def sigmoid_of(dtype: str) -> Any:
    """1 / (1 + exp(-z)) without overflow: in float32 the error is some |z| units where z is far below 0."""
    one = np.dtype(dtype).type(1)
    power, inverse, scale = ptx.power(), ptx.inverse(), np.float32(-1 / math.log(2))

    # An exponential that is infinite gives 0, as it should
    def by_instructions(z):
        return inverse(one + power(z * scale))

    def by_library(z):
        e = math.exp(-abs(z))
        return (one if z >= 0 else e) / (one + e)

    return cuda.jit(device=True)(by_instructions if dtype == "float32" else by_library)


@compiled_once
def tanh_of(dtype: str) -> Any:
    """tanh(z), to its relative error near 0 too."""
    one, two, near = (np.float32(x) for x in (1, 2, NEAR))
    power, inverse, scale = ptx.power(), ptx.inverse(), np.float32(2 / math.log(2))
    p0, p1, p2 = (np.float32(p) for p in P)

    # Both are computed, as threads of a warp differ. An exponential that is infinite gives 1, and NaN is not near
    def by_instructions(z):
        square = z * z
        close = z + z * (square * (p0 + square * (p1 + square * p2)))
        return close if abs(z) < near else cuda.fma(-two, inverse(one + power(z * scale)), one)

    def by_library(z):
        return math.tanh(z)

    return cuda.jit(device=True)(by_instructions if dtype == "float32" else by_library)
