"""The products at every edge, in both types, with vectors of other widths than this machine's, and in plain loops."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import product

import numpy as np
import pytest
from numba import njit

from rnnbench.kernels.cpu import calls, products, simd
from rnnbench.kernels.cpu.pass_record import aligned
from rnnbench.kernels.cpu.products import K_BLOCK

LIMITS = {"float32": 1e-6, "float64": 1e-15}


@pytest.fixture(scope="module", autouse=True)
def _ready():
    make_ready()


def make_ready() -> None:
    for dtype in LIMITS:
        list(calls.make_ready(dtype))


@njit
def affine(out, o, bias, A, a, W, m, j, n, k):
    products.affine(out, o, bias, A, a, W, m, j, n, k)


@njit
def add_product(out, o, A, a, W, m, j, n, k):
    products.add_product(out, o, A, a, W, m, j, n, k)


@njit
def gathered_product(out, o, table, index, first, A, a, W, m, j, n, k):
    products.gathered_product(out, o, table, index, first, A, a, W, m, j, n, k)


@njit
def through_tanh(out, o, bias, A, a, W, m, j, n, k, h, g):
    products.through_tanh(out, o, bias, A, a, W, m, j, n, k, h, g)


@njit
def add_through_tanh(out, o, A, a, W, m, j, n, k, h, g):
    products.add_through_tanh(out, o, A, a, W, m, j, n, k, h, g)


@njit
def outer_products(out, o, fresh, zeros, A, a, B, b, m, j, n, k):
    products.outer_products(out, o, fresh, zeros, A, a, B, b, m, j, n, k)


@njit
def sum_rows(out, o, fresh, zeros, one, B, b, j, n, k):
    products.sum_rows(out, o, fresh, zeros, one, B, b, j, n, k)


def edges(dtype: str) -> list[int]:
    lane = simd.lanes(dtype)
    return sorted({1, lane - 1, lane, lane + 1, 3 * lane + 2} - {0})


def rows_of(rng, shape: tuple[int, int], width: int, dtype: str) -> np.ndarray:
    """Random numbers in the first columns, NaN in the padding: whatever reads it, shows."""
    x = aligned((shape[0], width), dtype)
    x[:] = np.nan
    x[:, : shape[1]] = rng.standard_normal(shape)
    return x


def panels(W: np.ndarray) -> np.ndarray:
    """W packed; what is after the last column is 0."""
    out = aligned((simd.panels(W.shape[1], W.dtype) * W.shape[0], simd.panel_width(W.dtype)), W.dtype)
    products.pack(out, W, 0, 1)
    return out


def assert_close(got: np.ndarray, ref: np.ndarray, scale: np.ndarray, dtype: str) -> None:
    assert np.isfinite(got).all()
    assert (np.abs(got - ref) <= LIMITS[dtype] * (1 + scale)).all()


@pytest.mark.parametrize("dtype", LIMITS)
def test_product_at_every_edge(dtype):
    rng = np.random.default_rng(0)
    for m, n, k in product(edges(dtype), edges(dtype), [*edges(dtype), K_BLOCK - 1, K_BLOCK + 1]):
        N = simd.padded(n, dtype)
        out, A = rows_of(rng, (m + 5, n), N, dtype), rows_of(rng, (m + 3, k), k + 2, dtype)
        W, before = rng.standard_normal((k, n)).astype(dtype), out.copy()
        add_product(out, 2, A, 1, panels(W), m, 0, N, k)
        a, w, c = (x.astype(np.float64) for x in (A[1 : 1 + m, :k], W, before[2 : 2 + m, :n]))
        assert_close(out[2 : 2 + m, :n], c + a @ w, np.abs(a) @ np.abs(w), dtype)
        outside = np.r_[0:2, 2 + m : m + 5]
        np.testing.assert_array_equal(out[outside], before[outside])


@pytest.mark.parametrize("dtype", LIMITS)
def test_every_way_to_start_and_to_end(dtype):
    rng = np.random.default_rng(0)
    for m, n, k in product((1, 5, 7, 19), edges(dtype), (1, 7, K_BLOCK + 3)):
        N = simd.padded(n, dtype)
        A, W = rows_of(rng, (m + 2, k), k, dtype), rng.standard_normal((k, n)).astype(dtype)
        h, table = rows_of(rng, (m + 3, n), N, dtype), rows_of(rng, (9, n), N, dtype)
        bias, index = rows_of(rng, (1, n), N, dtype)[0], rng.integers(0, 9, m + 4, dtype=np.int32)
        own, packed = rows_of(rng, (m + 1, n), N, dtype), panels(W)
        a, w = A[2:].astype(np.float64), W.astype(np.float64)
        scale, slope = np.abs(a) @ np.abs(w), 1 - h[3:, :n].astype(np.float64) ** 2
        starts = {"bias": bias[:n], "rows of a table": table[index[4:], :n], "own": own[1:, :n]}
        for name, call, arguments, end in (
            ("bias", affine, (bias, A, 2, packed, m, 0, N, k), 1),
            ("rows of a table", gathered_product, (table, index, 4, A, 2, packed, m, 0, N, k), 1),
            ("bias", through_tanh, (bias, A, 2, packed, m, 0, N, k, h, 3), slope),
            ("own", add_through_tanh, (A, 2, packed, m, 0, N, k, h, 3), slope),
        ):
            out = own.copy()
            call(out, 1, *arguments)
            assert_close(out[1:, :n], (starts[name] + a @ w) * end, scale * (1 + np.abs(end)), dtype)


@pytest.mark.parametrize("dtype", LIMITS)
def test_sums_of_outer_products_and_of_rows_at_every_edge(dtype):
    rng = np.random.default_rng(0)
    for m, n, k in product([*edges(dtype), 70], edges(dtype), [*edges(dtype), 2 * K_BLOCK + 1]):
        N = simd.padded(n, dtype)
        out, A = rows_of(rng, (m + 2, n), N, dtype), rows_of(rng, (k + 3, m), m + 1, dtype)
        B, zeros, before = rows_of(rng, (k + 4, n), N, dtype), np.zeros(N, dtype), out.copy()
        a, b, c = (x.astype(np.float64) for x in (A[1 : 1 + k, :m], B[2 : 2 + k, :n], before[1 : 1 + m, :n]))
        outer_products(out, 1, False, zeros, A, 1, B, 2, m, 0, N, k)
        assert_close(out[1 : 1 + m, :n], c + a.T @ b, np.abs(a).T @ np.abs(b), dtype)
        np.testing.assert_array_equal(out[[0, m + 1]], before[[0, m + 1]])
        outer_products(out, 1, True, zeros, A, 1, B, 2, m, 0, N, k)
        assert_close(out[1 : 1 + m, :n], a.T @ b, np.abs(a).T @ np.abs(b), dtype)
        sums = before.copy()
        sum_rows(sums, 1, False, zeros, np.ones(1, dtype), B, 2, 0, N, k)
        assert_close(sums[1, :n], c[0] + b.sum(axis=0), np.abs(b).sum(axis=0), dtype)


def test_sums_of_outer_products_that_come_from_afar():
    """Longer than `FAR`, so that the next blocks are fetched: the same sums, at every edge of what is fetched."""
    rng, dtype = np.random.default_rng(0), "float32"
    for m, n in product((1, 6, 70, 300), (1, 65, 300)):
        N = simd.padded(n, dtype)
        k = products.FAR // (N + m + 1) + K_BLOCK // 2
        A, B, out = rows_of(rng, (k, m), m + 1, dtype), rows_of(rng, (k, n), N, dtype), aligned((m, N), np.float32)
        outer_products(out, 0, True, np.zeros(N, dtype), A, 0, B, 0, m, 0, N, k)
        a, b = A[:, :m].astype(np.float64), B[:, :n].astype(np.float64)
        assert_close(out[:, :n], a.T @ b, np.abs(a).T @ np.abs(b), dtype)


def test_wide_product_takes_every_tile():
    rng = np.random.default_rng(0)
    lane = simd.lanes(np.float32)
    for vectors, m in product(range(1, 12), range(1, 26)):
        out, A = aligned((m, vectors * lane), np.float32), rows_of(rng, (m, 3), 3, "float32")
        W = rng.standard_normal((3, vectors * lane)).astype(np.float32)
        add_product(out, 0, A, 0, panels(W), m, 0, vectors * lane, 3)
        assert_close(out, A.astype(np.float64) @ W, np.abs(A) @ np.abs(W), "float32")


@pytest.mark.parametrize("dtype", LIMITS)
def test_columns_apart_are_the_whole(dtype):
    """In rows that are wider than what is worked out, from any panel on, nothing else is touched."""
    rng = np.random.default_rng(0)
    panel, lane, m, k = simd.panel_width(dtype), simd.lanes(dtype), 7, 9
    n = 3 * panel - lane
    A, W, table = (rows_of(rng, shape, shape[1], dtype) for shape in ((m, k), (k, n), (4, n)))
    h, index, zeros = rows_of(rng, (m, n), n + lane, dtype), np.arange(m, dtype=np.int32) % 4, np.zeros(n, dtype)
    for call, arguments, after in (
        (affine, (table[0], A, 0, panels(W), m), (k,)),
        (add_product, (A, 0, panels(W), m), (k,)),
        (gathered_product, (table, index, 0, A, 0, panels(W), m), (k,)),
        (through_tanh, (table[0], A, 0, panels(W), m), (k, h, 0)),
        (add_through_tanh, (A, 0, panels(W), m), (k, h, 0)),
        (outer_products, (False, zeros, A.T.copy(), 0, rows_of(rng, (k, n), n, dtype), 0, m), (k,)),
    ):
        before = rows_of(rng, (m, n), n + lane, dtype)
        whole, parts = before.copy(), before.copy()
        call(whole, 0, *arguments, 0, n, *after)
        for j, columns in ((2 * panel, n - 2 * panel), (0, panel), (panel, panel)):
            call(parts, 0, *arguments, j, columns, *after)
        np.testing.assert_array_equal(parts, whole)
        assert np.isfinite(whole[:, :n]).all()
        assert np.isnan(whole[:, n:]).all()


def test_rows_do_not_meet_in_a_cache():
    for dtype, n in product(LIMITS, (1, 16, 64, 127, 128, 129, 256, 1024)):
        step = simd.row_step(n, dtype)
        assert n <= simd.padded(n, dtype) <= step <= n + 2 * simd.CACHE_LINE
        assert step % simd.lanes(dtype) == 0
        assert step * np.dtype(dtype).itemsize % simd.ROWS_MEET


def test_nothing_to_add_changes_nothing():
    out, A, W = (aligned((4, 32), np.float32) for _ in range(3))
    out[:] = 1
    add_product(out, 0, A, 0, W, 4, 0, 32, 0)
    add_product(out, 0, A, 0, W, 0, 0, 32, 4)
    np.testing.assert_array_equal(out, 1)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (17, 16), (16, 33), (40, 40)])
def test_packing_a_transposed_matrix_is_packing_its_transpose(shape):
    """One gate, with no rows after its own; `test_gated` packs several."""
    W = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    transposed = np.zeros_like(panels(np.ascontiguousarray(W.T)))
    products.pack_gates_transposed(transposed, W, 1, 0, shape[1], 0, 1)
    np.testing.assert_array_equal(transposed, panels(np.ascontiguousarray(W.T)))


SCRIPT = """
from tests.kernels import test_gated, test_passes, test_pointwise, test_products as t
assert t.simd.register_bytes() == {width}, t.simd.register_bytes()
t.make_ready()
dtypes = [test_gated.DType(name) for name in {dtypes}]
for dtype in dtypes:
    t.test_product_at_every_edge(dtype)
    t.test_every_way_to_start_and_to_end(dtype)
    t.test_sums_of_outer_products_and_of_rows_at_every_edge(dtype)
test_pointwise.test_float32_over_its_whole_range()
if "float64" in dtypes:
    test_pointwise.test_float64_over_its_whole_range()
for dtype in dtypes:
    test_passes.test_gradients_agree(dtype)
for cell in test_gated.GATED:
    for dtype in dtypes:
        test_gated.test_gates_keep_their_bound_over_the_whole_range(cell, dtype)
"""


@pytest.mark.slow
@pytest.mark.skipif(not simd.X86 or simd.register_bytes() < 32, reason="these are x86 features, AVX2 among them")
@pytest.mark.parametrize(
    ("env", "width"),
    [
        ({"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "+avx2,+avx,+fma"}, 32),
        ({"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "+sse2"}, 16),
        ({"RNNBENCH_REGISTER_BYTES": "64"}, 64),
        ({"RNNBENCH_PLAIN_KERNELS": "1"}, simd.register_bytes()),
    ],
    ids=["AVX2", "SSE", "AVX-512 by parts", "plain"],
)
def test_other_machines(env, width, tmp_path, request):
    usual = "+sse2" in str(env) or ("+avx2" in str(env) and simd.register_bytes() == 32)
    if usual and not request.config.getoption("--every-case"):
        pytest.skip("the way of this machine, with its own registers or half of them; --every-case compiles it too")
    env = os.environ | env | {"NUMBA_CACHE_DIR": str(tmp_path)}
    dtypes = ["float32", "float64"] if request.config.getoption("--every-case") else ["float32"]
    script = SCRIPT.format(width=width, dtypes=dtypes)
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
