"""The gradient of the embedding by itself: tokens that stand in most places, long lists, several chunks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numba import cuda

from rnnbench.correctness.tolerances import relative_error
from rnnbench.kernels.cuda.embedding import AHEAD, PLACES, sum_by_token
from rnnbench.kernels.cuda.launch import Launcher, LaunchSize
from rnnbench.kernels.cuda.plan import LaunchPlan

PLAN = LaunchPlan(threads=8, token_columns=4, tokens=2)


def summed(dtype, dx, tokens, order, offset, b, first, V) -> np.ndarray:
    """What the kernel writes over NaN."""
    E, T = dx.shape[1], tokens.shape[1]
    out = cuda.to_device(np.full((V, E), np.nan, dtype))
    kernel = sum_by_token(dtype, PLAN.threads, PLAN.token_columns, PLAN.tokens_owned(dtype))
    size = LaunchSize((PLAN.token_blocks(V, dtype), math.ceil(E / PLAN.token_columns)), PLAN.threads)
    arrays = [cuda.to_device(array) for array in (dx.astype(dtype), tokens, order)]
    Launcher()(kernel, size, out, *arrays, offset, b, first * b, T * b, V, E)
    return out.copy_to_host()


@pytest.mark.numbers
@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("b", "T", "first", "V", "E"), [(5, 19, 2, 7, 5), (1, 1, 0, 1, 1), (3, 2 * PLACES, 0, 3, 4), (2, 9, 8, 5, 3)]
)
def test_every_row_of_it(dtype, b, T, first, V, E):
    rng = np.random.default_rng(7)
    tokens = rng.integers(0, V, (b + 2, T)).astype(np.int32)
    tokens[rng.random(tokens.shape) < 0.7] = 0  # padding
    order = rng.permutation(b + 2)
    dx = rng.standard_normal((T * b, E))
    places = tokens[order[1 : 1 + b]].T[first:].ravel()  # time first
    wanted = np.zeros((V, E))
    np.add.at(wanted, places, dx[first * b :])
    if T > PLACES and first == 0:
        assert (places == 0).sum() > 2 * AHEAD  # a group takes several turns
    got = summed(dtype, dx, tokens, order, 1, b, first, V)
    assert relative_error(wanted, got) < (1e-6 if dtype == "float32" else 1e-14)
    assert np.array_equal(got, summed(dtype, dx, tokens, order, 1, b, first, V))


@pytest.mark.parametrize(("V", "blocks"), [(1, 1), (2, 1), (3, 2), (8, 4), (9, 8), (10000, 8192)])
def test_blocks_are_a_power_of_two_that_owns_all_tokens(V, blocks):
    assert PLAN.token_blocks(V, "float32") == blocks
    assert PLAN.token_blocks(V, "float64") >= blocks
