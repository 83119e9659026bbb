"""Layers on layers: any width, in segments and windows, in shares of rows and of columns; and the stages of each."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest

from rnnbench.backends import numba as numba_backend
from rnnbench.backends.base import Outputs
from rnnbench.backends.numba import NumbaBackend, NumbaSession
from rnnbench.cells import CELLS
from rnnbench.model import DType, Head, Problem, Truncation
from tests.helpers import assert_agrees, assert_same_bits, oracle, random_data, random_params, small_problem, threads


def session_of(problem: Problem, count: int) -> NumbaSession:
    with threads(count):
        session = NumbaBackend().prepare(problem, random_params(problem), random_data(problem))
    assert isinstance(session, NumbaSession)
    return session


def assert_right(problem: Problem, count: int) -> NumbaSession:
    rng = np.random.default_rng(3)
    shape, dtype = (problem.B, problem.model.H), str(problem.dtype)
    states = {name: rng.uniform(-0.9, 0.9, shape).astype(dtype) for name in problem.model.states}
    ref, got = oracle(problem, random_params(problem), random_data(problem)), session_of(problem, count)
    for session in (ref, got):
        session.start_from(states)
    for name in ("forward", "gradient"):
        for session in (ref, got):
            getattr(session, name)()
        assert_agrees(ref.fetch(), got.fetch(), problem.dtype)
    return got


@pytest.mark.parametrize("dtype", list(DType))
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("V", [40, None])
@pytest.mark.parametrize("cut", [None, Truncation(7, 7), Truncation(9, 4)], ids=str)
@pytest.mark.parametrize("mean_length", [None, 11.5])
def test_three_layers_of_any_problem(dtype, cell, V, cut, mean_length):
    for head, segment in ((Head.LAST, 128), (Head.EVERY, 1), (Head.EVERY, 128)):
        problem = small_problem(
            B=9, T=23, E=5, H=9, O=2, V=V, cell=cell, dtype=dtype, head=head, layers=3, truncation=cut,
            mean_length=mean_length,
        )  # fmt: skip
        with mock.patch.object(numba_backend, "SEGMENT_STEPS", segment):
            assert_right(problem, 3)


@pytest.mark.parametrize("dtype", list(DType))
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("H", [1, 7, 8, 17, 64, 255, 256, 257])
def test_widths_and_columns_that_are_shared(dtype, cell, H):
    for V, cut in ((11, None), (None, Truncation(5, 3))):
        problem = small_problem(
            B=2, T=9, E=3, H=H, O=2, V=V, cell=cell, dtype=dtype, head=Head.EVERY, layers=2, truncation=cut
        )
        got = assert_right(problem, 2)
        assert got.record.fields["column_shares"][0] == (2 if H * H * len(CELLS[cell].gates) >= 1 << 16 else 1)


@pytest.mark.parametrize("dtype", list(DType))
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("V", [40, None])
@pytest.mark.parametrize("mean_length", [None, 11.5])
@pytest.mark.parametrize("layers", [1, 3])
def test_both_directions_of_any_problem(dtype, cell, V, mean_length, layers):
    for head in Head:
        problem = small_problem(
            B=9, T=23, E=5, H=9, O=2, V=V, cell=cell, dtype=dtype, head=head, layers=layers, bidirectional=True,
            mean_length=mean_length,
        )  # fmt: skip
        assert_right(problem, 3)


@pytest.mark.parametrize("dtype", list(DType))
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("H", [1, 8, 17, 256, 257])
def test_widths_of_both_directions(dtype, cell, H):
    for V, mean_length in ((11, 4.5), (None, None)):
        problem = small_problem(
            B=2, T=9, E=3, H=H, O=2, V=V, cell=cell, dtype=dtype, head=Head.EVERY, layers=2, bidirectional=True,
            mean_length=mean_length,
        )  # fmt: skip
        assert_right(problem, 2)


@pytest.mark.parametrize("mean_length", [None, 9.5])
@pytest.mark.parametrize("V", [11, None])
def test_predictions_of_both_directions(V, mean_length):
    problem = small_problem(B=5, T=19, V=V, head=Head.EVERY, layers=2, bidirectional=True, mean_length=mean_length)
    rows, params = random_data(problem, rows=101), random_params(problem)
    ref = oracle(problem, params, random_data(problem))
    found = []
    for count in (1, 2):
        with threads(count):
            found.append(session_of(problem, count).predict(rows.inputs, rows.lengths))
    np.testing.assert_array_equal(*found)
    np.testing.assert_allclose(found[0], ref.predict(rows.inputs, rows.lengths), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("H", [57, 256])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_same_bits_every_time(cell, count, H, bidirectional):
    problem = small_problem(
        B=8, T=20, E=20, H=H, O=3, V=90, cell=cell, head=Head.EVERY, layers=2, bidirectional=bidirectional,
        mean_length=10.0,
    )  # fmt: skip

    def gradient_of(session: NumbaSession) -> Outputs:
        session.gradient()
        return session.fetch()

    session = session_of(problem, count)
    first = gradient_of(session)
    for _ in range(10):
        assert_same_bits(first, gradient_of(session))
    assert_same_bits(first, gradient_of(session_of(problem, count)))


@pytest.mark.parametrize("name", ["W_xh", "W_hh", "b_h"])
def test_swapped_layers_are_found(name):
    problem = small_problem(E=5, H=5, layers=2)
    params = random_params(problem)
    ref = oracle(problem, params, random_data(problem))
    ref.forward()
    swapped = params | {f"l0.{name}": params[f"l1.{name}"], f"l1.{name}": params[f"l0.{name}"]}
    got = NumbaBackend().prepare(problem, swapped, random_data(problem))
    got.forward()
    with pytest.raises(AssertionError):
        assert_agrees(ref.fetch(), got.fetch(), problem.dtype)
