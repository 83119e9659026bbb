"""tanh keeps its stated bound over the whole range of both types, and keeps NaN and infinity."""

from __future__ import annotations

import numpy as np
import pytest

from rnnbench.kernels.cpu.pointwise import TANH_ULP, tanh, tanh_rows


def ours(x: np.ndarray) -> np.ndarray:
    h = x.copy().reshape(1, -1)
    tanh_rows(h, 0, 1)
    return h[0]


def worst_ulp(got: np.ndarray, exact: np.ndarray) -> float:
    """Largest error in units in the last place of the exact value, rounded to the type of `got`."""
    unit = np.spacing(np.abs(exact).astype(got.dtype)).astype(exact.dtype)
    return float((np.abs(got.astype(exact.dtype) - exact) / unit).max())


def test_float32_over_its_whole_range():
    bits = np.arange(0, 2**32, 509, dtype=np.uint64).astype(np.uint32)  # a prime: every exponent, all mantissa bits
    x = bits.view(np.float32)
    x = x[np.isfinite(x)]
    assert worst_ulp(ours(x), np.tanh(x.astype(np.float64))) <= TANH_ULP


def test_float64_over_its_whole_range():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(-25, 25, 300_000), rng.standard_normal(300_000)])
    x = np.concatenate([x, rng.choice([-1, 1], 300_000) * 10 ** rng.uniform(-308, 308, 300_000)])
    exact = np.tanh(x.astype(np.longdouble))  # where long double is no wider, its own rounding is half a unit
    assert worst_ulp(ours(x), exact) <= TANH_ULP


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_special_values(dtype):
    x = np.array([np.nan, np.inf, -np.inf, 0.0, 1e30, -1e30], dtype)
    np.testing.assert_array_equal(ours(x), [np.nan, 1, -1, 0, 1, -1])


def test_every_length_of_a_row():
    for n in range(1, 70):
        x = np.linspace(-3, 3, n, dtype=np.float32)
        np.testing.assert_allclose(ours(x), np.tanh(x), rtol=1e-6)


def test_python_is_told_to_use_numpy():
    with pytest.raises(TypeError, match=r"use np\.tanh"):
        tanh(1.0)
