"""What our own backend says of itself, and its variant that keeps subnormals."""

from __future__ import annotations

import numpy as np
import pytest

from rnnbench import backends
from rnnbench.kernels.cpu.flush import CAN_FLUSH
from rnnbench.model import DType, Optimizer, Train
from tests.helpers import random_data, random_params, small_problem


def subnormals(values) -> int:
    bits = values.view(np.int32)
    return int(((bits & 0x7FFFFFFF != 0) & (bits & 0x7F800000 == 0)).sum())


@pytest.mark.skipif(not CAN_FLUSH, reason="subnormals cannot be flushed on this processor")
@pytest.mark.parametrize(("name", "kept"), [("numba", False), ("numba+subnormal", True)])
def test_subnormals_are_flushed_or_kept(name, kept):
    backend = backends.load(name)
    problem = small_problem(B=64, T=200, E=64, H=64, V=None, dtype=DType.FLOAT32, train=Train(Optimizer.SGD))
    params = random_params(problem)
    params["W_hh"] *= 0.3  # contracting: gradients vanish
    params["W_hy"] *= np.float32(1e-36)
    session = backend.prepare(problem, params, random_data(problem))
    session.gradient()
    assert (sum(subnormals(g) for g in session.fetch().grads.values()) > 0) is kept
    assert ("kept" in backend.contract(problem).subnormals) is kept


def test_the_variant_is_left_out_unless_it_is_named():
    assert "numba+subnormal" not in backends.usual()
    assert set(backends.usual()) < set(backends.REGISTRY)
