"""Every stride of the windows 1, 7, T - 1 and T, plainly computed and by our kernels; and long rows."""

from __future__ import annotations

from unittest import mock

import pytest

from rnnbench import backends
from rnnbench.backends import numba as numba_backend
from rnnbench.model import DType, Head, Problem, Truncation
from tests.helpers import assert_agrees, oracle, random_data, random_params, small_problem

OURS = pytest.mark.parametrize("name", ["numpy", "numba"])
TYPES = pytest.mark.parametrize("dtype", list(DType))


def assert_gradients_agree(name: str, problem: Problem) -> None:
    params, data = random_params(problem), random_data(problem)
    ref, got = oracle(problem, params, data), backends.load(name).prepare(problem, params, data)
    for session in (ref, got):
        session.gradient()
    assert_agrees(ref.fetch(), got.fetch(), problem.dtype)


@OURS
@TYPES
@pytest.mark.parametrize("head", list(Head))
@pytest.mark.parametrize("V", [11, None])
def test_every_stride(name, dtype, head, V):
    """Also in the smallest segments that a stride allows."""
    T = 12
    for window in (1, 7, T - 1, T):
        for stride in range(1, window + 1):
            problem = small_problem(T=T, V=V, head=head, dtype=dtype, truncation=Truncation(window, stride))
            with mock.patch.object(numba_backend, "SEGMENT_STEPS", 1):
                assert_gradients_agree(name, problem)


@OURS
@TYPES
@pytest.mark.parametrize("truncation", [(1, 1), (7, 2), (7, 7), (199, 150), (199, 199), (200, 45), (200, 200)], ids=str)
def test_long_rows(name, dtype, truncation):
    for V in (11, None):
        problem = small_problem(
            B=3, T=200, E=16, H=24, V=V, head=Head.EVERY, dtype=dtype, truncation=Truncation(*truncation)
        )
        assert_gradients_agree(name, problem)
