"""The register tiles at every edge, in both types, and with narrower vectors than this machine has."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import product

import numpy as np
import pytest

from rnnbench.kernels.cpu import simd
from rnnbench.kernels.cpu.buffers import aligned
from rnnbench.kernels.cpu.products import K_BLOCK, add_product, add_transposed_product

LIMITS = {"float32": 1e-6, "float64": 1e-15}


def edges(dtype: str) -> list[int]:
    lane = simd.lanes(dtype)
    return sorted({1, lane - 1, lane, lane + 1, 3 * lane + 2} - {0})


def random(rng, shape: tuple[int, int], width: int, dtype: str) -> np.ndarray:
    """Random numbers in the first columns, NaN in the padding: whatever reads it, shows."""
    x = aligned((shape[0], width), dtype)
    x[:] = np.nan
    x[:, : shape[1]] = rng.standard_normal(shape)
    return x


def assert_close(got: np.ndarray, ref: np.ndarray, scale: np.ndarray, dtype: str) -> None:
    assert np.isfinite(got).all()
    assert (np.abs(got - ref) <= LIMITS[dtype] * (1 + scale)).all()


@pytest.mark.parametrize("dtype", LIMITS)
def test_product_at_every_edge(dtype):
    rng = np.random.default_rng(0)
    for m, n, k in product(edges(dtype), edges(dtype), [*edges(dtype), K_BLOCK - 1, K_BLOCK + 1]):
        width = simd.padded(n, dtype)
        C, A = random(rng, (m + 5, n), width, dtype), random(rng, (m + 3, k), k + 2, dtype)
        B, before = random(rng, (k, n), width, dtype), C.copy()
        add_product(C, 2, A, 1, B, m, k)
        a, b, c = (x.astype(np.float64) for x in (A[1 : 1 + m, :k], B[:k, :n], before[2 : 2 + m, :n]))
        assert_close(C[2 : 2 + m, :n], c + a @ b, np.abs(a) @ np.abs(b), dtype)
        outside = np.r_[0:2, 2 + m : m + 5]
        np.testing.assert_array_equal(C[outside], before[outside])


@pytest.mark.parametrize("dtype", LIMITS)
def test_transposed_product_at_every_edge(dtype):
    rng = np.random.default_rng(0)
    for m, n, k in product(edges(dtype), edges(dtype), [*edges(dtype), K_BLOCK - 1, 2 * K_BLOCK + 1]):
        width = simd.padded(n, dtype)
        C, A = random(rng, (m + 2, n), width, dtype), random(rng, (k + 3, m), m + 1, dtype)
        B, before = random(rng, (k + 4, n), width, dtype), C.copy()
        add_transposed_product(C, A, 1, B, 2, m, k)
        a, b, c = (x.astype(np.float64) for x in (A[1 : 1 + k, :m], B[2 : 2 + k, :n], before[:m, :n]))
        assert_close(C[:m, :n], c + a.T @ b, np.abs(a).T @ np.abs(b), dtype)
        np.testing.assert_array_equal(C[m:], before[m:])


def test_wide_product_takes_every_tile_width():
    rng = np.random.default_rng(0)
    lane = simd.lanes(np.float32)
    for vectors, m in product(range(1, 12), range(1, 18)):
        C, A = aligned((m, vectors * lane), np.float32), random(rng, (m, 3), 3, "float32")
        B = random(rng, (3, vectors * lane), vectors * lane, "float32")
        add_product(C, 0, A, 0, B, m, 3)
        assert_close(C, A.astype(np.float64) @ B, np.abs(A) @ np.abs(B), "float32")


def test_nothing_to_add_changes_nothing():
    C, A, B = (aligned((4, 32), np.float32) for _ in range(3))
    C[:] = 1
    add_product(C, 0, A, 0, B, 4, 0)
    add_product(C, 0, A, 0, B, 0, 4)
    np.testing.assert_array_equal(C, 1)


@pytest.mark.slow
@pytest.mark.skipif(simd.register_bytes() < 32, reason="no wider vectors here to be narrowed")
@pytest.mark.parametrize(("features", "width"), [("+avx2,+avx,+fma", 32), ("+sse2", 16)])
def test_narrower_vectors(features, width, tmp_path):
    script = (
        "from tests.kernels import test_products as t\n"
        f"assert t.simd.register_bytes() == {width}\n"
        "for dtype in t.LIMITS:\n"
        "    t.test_product_at_every_edge(dtype)\n"
        "    t.test_transposed_product_at_every_edge(dtype)\n"
    )
    env = os.environ | {"NUMBA_CPU_FEATURES": features, "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
