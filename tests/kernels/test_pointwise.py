"""tanh and sigmoid keep their stated bounds over the whole range of both types, and keep NaN and infinity."""

from __future__ import annotations

import numpy as np
import pytest

from rnnbench.kernels.cpu import simd
from rnnbench.kernels.cpu.pointwise import SIGMOID_ULP, TANH_ULP, add_rows, set_row, sigmoid_rows, tanh_rows

BOUNDS = {tanh_rows: TANH_ULP, sigmoid_rows: SIGMOID_ULP}


def of(function, x: np.ndarray) -> np.ndarray:
    h = np.zeros((1, simd.padded(x.size, x.dtype)), x.dtype)
    h[0, : x.size] = x
    function(h, 0, 1, 0, h.shape[1])
    return h[0, : x.size]


def exact(function, x: np.ndarray, dtype) -> np.ndarray:
    with np.errstate(over="ignore"):
        return np.tanh(x.astype(dtype)) if function is tanh_rows else 1 / (1 + np.exp(-x.astype(dtype)))


def worst_ulp(got: np.ndarray, ref: np.ndarray) -> float:
    """Largest error in units in the last place of the exact value, rounded to the type of `got`."""
    normal = np.abs(ref) >= np.finfo(got.dtype).tiny
    unit = np.spacing(np.abs(ref[normal]).astype(got.dtype)).astype(ref.dtype)
    assert (np.abs(got[~normal]) <= np.finfo(got.dtype).tiny).all()
    return float((np.abs(got[normal].astype(ref.dtype) - ref[normal]) / unit).max())


def test_float32_over_its_whole_range():
    bits = np.arange(0, 2**32, 509, dtype=np.uint64).astype(np.uint32)  # a prime: every exponent, all mantissa bits
    x = bits.view(np.float32)
    x = np.concatenate([x[np.isfinite(x)], np.linspace(-90, 90, 1_000_001, dtype=np.float32)])
    for function, bound in BOUNDS.items():  # float64 is 2^29 times as fine, and long double takes ten times as long
        assert worst_ulp(of(function, x), exact(function, x, np.float64)) <= bound


def test_float64_over_its_whole_range():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(-25, 25, 300_000), rng.standard_normal(300_000), rng.uniform(-711, 711, 300_000)])
    x = np.concatenate([x, rng.choice([-1, 1], 300_000) * 10 ** rng.uniform(-308, 308, 300_000)])
    for function, bound in BOUNDS.items():  # where long double is no wider, its own rounding is half a unit
        assert worst_ulp(of(function, x), exact(function, x, np.longdouble)) <= bound


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_special_values(dtype):
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e30, -1e30], dtype)
    tanh = of(tanh_rows, x)
    np.testing.assert_array_equal(tanh, [np.nan, 1, -1, 0, 0, 1, -1])
    assert np.signbit(tanh[4])
    np.testing.assert_array_equal(of(sigmoid_rows, x), [np.nan, 1, 0, 0.5, 0.5, 1, 0])


def test_every_length_of_a_row_and_no_number_more():
    lane = simd.lanes(np.float32)
    for vectors in range(1, 12):
        h = np.full((3, vectors * lane), 0.5, np.float32)
        tanh_rows(h, 1, 1, 0, vectors * lane)
        np.testing.assert_array_equal(h[[0, 2]], 0.5)
        np.testing.assert_allclose(h[1], np.tanh(0.5), rtol=1e-6)


@pytest.mark.parametrize("function", [tanh_rows, sigmoid_rows])
def test_columns_of_rows_and_no_other(function):
    lane = simd.lanes(np.float32)
    h, whole = np.full((4, 5 * lane), 0.5, np.float32), np.full((4, 5 * lane), 0.5, np.float32)
    function(whole, 0, 4, 0, 5 * lane)
    function(h, 1, 2, lane, 3 * lane)
    changed = np.zeros(h.shape, bool)
    changed[1:3, lane : 4 * lane] = True
    np.testing.assert_array_equal(h, np.where(changed, whole, np.float32(0.5)))


def test_rows_are_added_and_set():
    lane = simd.lanes(np.float64)
    x = np.arange(12.0 * lane).reshape(4, 3 * lane)
    for width in (3, 4):  # of rows as wide, which are one run, and of wider ones; some columns, and all
        for j, n in ((0, 2 * lane), (lane, 2 * lane), (0, 3 * lane)):
            out = np.ones((4, width * lane))
            add_rows(out, 1, x, 2, 2, j, n)
            expected = np.ones((4, width * lane))
            expected[1:3, j : j + n] += x[2:, j : j + n]
            np.testing.assert_array_equal(out, expected)
            set_row(out, 0, x, 3, n)
            np.testing.assert_array_equal(out[0, :n], x[3, :n])
            np.testing.assert_array_equal(out[0, n:], 1)
