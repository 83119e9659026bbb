"""Matrix products on padded rows: C += A B and C += A^T B, cut into register tiles.

Rows of C and B are padded to whole vectors (`simd.padded`), so no tile ever meets an edge of a row. What stands in the
padding of C afterwards is not defined and never read: k runs over real rows and columns only.
"""

from __future__ import annotations

from numba import types

from rnnbench.kernels.cpu.calls import symbol_call
from rnnbench.kernels.cpu.compiling import kernel
from rnnbench.kernels.cpu.simd import lanes_of, pointer, shifted, tile

# Steps of k for each visit of a tile: 64 rows of four AVX-512 vectors are 16 KiB of B, half of a first-level cache.
K_BLOCK = 64


@kernel()
def _columns_of_four(c, ldc, a, a_row, a_step, b, ldb, m, k):
    """Four vectors wide: 4 rows fill 16 of 32 registers."""
    i = 0
    while i + 4 <= m:
        tile(4, 4, shifted(c, i * ldc), ldc, shifted(a, i * a_row), a_row, a_step, b, ldb, k)
        i += 4
    if i + 2 <= m:
        tile(2, 4, shifted(c, i * ldc), ldc, shifted(a, i * a_row), a_row, a_step, b, ldb, k)
        i += 2
    if i < m:
        tile(1, 4, shifted(c, i * ldc), ldc, shifted(a, i * a_row), a_row, a_step, b, ldb, k)


@kernel()
def _columns_of_two(c, ldc, a, a_row, a_step, b, ldb, m, k):
    """Two vectors wide: 8 rows are needed to keep both multiply-add units busy."""
    i = 0
    while i + 8 <= m:
        tile(8, 2, shifted(c, i * ldc), ldc, shifted(a, i * a_row), a_row, a_step, b, ldb, k)
        i += 8
    if i + 4 <= m:
        tile(4, 2, shifted(c, i * ldc), ldc, shifted(a, i * a_row), a_row, a_step, b, ldb, k)
        i += 4
    while i < m:
        tile(1, 2, shifted(c, i * ldc), ldc, shifted(a, i * a_row), a_row, a_step, b, ldb, k)
        i += 1


@kernel()
def _columns_of_one(c, ldc, a, a_row, a_step, b, ldb, m, k):
    """One vector wide: narrow networks, and the last vector of a row."""
    i = 0
    while i + 8 <= m:
        tile(8, 1, shifted(c, i * ldc), ldc, shifted(a, i * a_row), a_row, a_step, b, ldb, k)
        i += 8
    if i + 4 <= m:
        tile(4, 1, shifted(c, i * ldc), ldc, shifted(a, i * a_row), a_row, a_step, b, ldb, k)
        i += 4
    while i < m:
        tile(1, 1, shifted(c, i * ldc), ldc, shifted(a, i * a_row), a_row, a_step, b, ldb, k)
        i += 1


def _accumulate(c, ldc, a, a_row, a_step, b, ldb, m, n, k, width):
    """C (m, n) += A (m, k) B (k, n), from pointers and steps in elements; n is a multiple of `width`, the lanes."""
    for k0 in range(0, k, K_BLOCK):
        steps = min(K_BLOCK, k - k0)
        a_k, b_k = shifted(a, k0 * a_step), shifted(b, k0 * ldb)
        j = 0
        while j + 4 * width <= n:
            _columns_of_four(shifted(c, j), ldc, a_k, a_row, a_step, shifted(b_k, j), ldb, m, steps)
            j += 4 * width
        if j + 2 * width <= n:
            _columns_of_two(shifted(c, j), ldc, a_k, a_row, a_step, shifted(b_k, j), ldb, m, steps)
            j += 2 * width
        if j < n:
            _columns_of_one(shifted(c, j), ldc, a_k, a_row, a_step, shifted(b_k, j), ldb, m, steps)


def _signature(number):
    address, step = types.CPointer(number), types.intp
    return types.void(address, step, address, step, step, address, *[step] * 5)


_accumulate_apart = symbol_call(
    "accumulate", _accumulate, {types.CPointer(number): _signature(number) for number in (types.float32, types.float64)}
)


@kernel()
def add_product(C, c_row, A, a_row, B, m, k):
    """C[c_row : c_row + m] += A[a_row : a_row + m, :k] B[:k].

    C (>= c_row + m, N), A (>= a_row + m, >= k), B (>= k, N); N a multiple of the lanes. All C-contiguous.
    """
    N, A_width = C.shape[1], A.shape[1]
    c, a, b = pointer(C, c_row * N), pointer(A, a_row * A_width), pointer(B, 0)
    _accumulate_apart(c, N, a, A_width, 1, b, N, m, N, k, lanes_of(C))


@kernel()
def add_transposed_product(C, A, a_row, B, b_row, m, k):
    """C[:m] += A[a_row : a_row + k, :m]^T B[b_row : b_row + k]: a sum of k outer products.

    C (>= m, N), A (>= a_row + k, >= m), B (>= b_row + k, N); N a multiple of the lanes. All C-contiguous.
    """
    N, A_width = C.shape[1], A.shape[1]
    c, a, b = pointer(C, 0), pointer(A, a_row * A_width), pointer(B, b_row * N)
    _accumulate_apart(c, N, a, 1, A_width, b, N, m, N, k, lanes_of(C))
