"""Sigmoid and tanh of the kernels, to their relative error in float32, as a kernel of one block computes them."""

from __future__ import annotations

import numpy as np
import pytest
from numba import cuda

from rnnbench.kernels.cuda.activations import NEAR, sigmoid_of, tanh_of

pytestmark = [pytest.mark.usefixtures("gpu"), pytest.mark.numbers]
ULP = 2.0**-23
EDGE = float(np.float32(NEAR))
VALUES = [0.0, 1e-38, -1e-6, 0.1, EDGE, -EDGE, np.nextafter(EDGE, 0), 3.0, -8.9, 9.1, -20.0, 1e4, -1e4]


def of_kernel(factory, x: np.ndarray) -> np.ndarray:
    function = factory("float32")

    @cuda.jit
    def kernel(x, y):
        i = cuda.threadIdx.x
        y[i] = function(x[i])

    y = np.zeros_like(x)
    kernel[1, len(x)](x, y)
    return y


def test_tanh():
    x = np.array([*VALUES, *np.linspace(-1, 1, 201)], np.float32)
    y, exact = of_kernel(tanh_of, x), np.tanh(x.astype(np.float64))
    assert np.array_equal(np.signbit(y), np.signbit(x))
    assert np.all(np.abs(y - exact) <= 6 * ULP * np.abs(exact))
    assert np.isnan(of_kernel(tanh_of, np.array([np.nan], np.float32))).all()


def test_sigmoid():
    x = np.array([*VALUES, *np.linspace(-8, 8, 101)], np.float32)
    y, exact = of_kernel(sigmoid_of, x), np.exp(-np.logaddexp(0.0, -x.astype(np.float64)))
    assert np.all(np.abs(y - exact) <= 4 * ULP * np.maximum(1, np.abs(x)) * exact)
    assert np.isnan(of_kernel(sigmoid_of, np.array([np.nan], np.float32))).all()
