"""Rows with lengths: any of them at any size, shared out evenly, and no step that computes a row that has ended."""

from __future__ import annotations

from dataclasses import replace
from unittest import mock

import numpy as np
import pytest

from rnnbench.backends import numba as numba_backend
from rnnbench.backends.base import Outputs
from rnnbench.backends.numba import NumbaBackend, NumbaSession
from rnnbench.cells import CELLS
from rnnbench.data import Data
from rnnbench.kernels.cpu.shares import share_range
from rnnbench.model import DType, Head, Problem, StepSum, Truncation
from tests.helpers import assert_agrees, assert_same_bits, oracle, random_data, random_params, small_problem, threads

CUTS = [None, Truncation(7, 7), Truncation(9, 4)]


def of_all_lengths(problem: Problem) -> Data:
    """Rows of all lengths from 0 to T, again and again, in no order."""
    data = random_data(problem)
    rows = np.random.default_rng(0).permutation(len(data.inputs))
    return replace(data, lengths=rows % (problem.T + 1))


def session_of(problem: Problem, count: int, data: Data | None = None) -> NumbaSession:
    with threads(count):
        session = NumbaBackend().prepare(problem, random_params(problem), data or of_all_lengths(problem))
    assert isinstance(session, NumbaSession)
    return session


def gradient_of(session: NumbaSession) -> Outputs:
    session.gradient()
    return session.fetch()


def assert_right(problem: Problem, count: int) -> None:
    ref, got = oracle(problem, random_params(problem), of_all_lengths(problem)), session_of(problem, count)
    for name in ("forward", "gradient"):
        for session in (ref, got):
            getattr(session, name)()
        assert_agrees(ref.fetch(), got.fetch(), problem.dtype)


@pytest.mark.parametrize("dtype", list(DType))
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("V", [40, None])
@pytest.mark.parametrize("cut", CUTS, ids=str)
@pytest.mark.parametrize("head", list(Head))
@pytest.mark.parametrize("segment", [1, 128])
def test_all_lengths(dtype, cell, V, cut, head, segment):
    for step_sum in StepSum if head is Head.EVERY else [StepSum.MEAN]:
        problem = small_problem(
            B=25, T=23, E=5, H=9, O=2, V=V, cell=cell, dtype=dtype, head=head, truncation=cut, step_sum=step_sum,
            mean_length=11.5,
        )  # fmt: skip
        for count in (1, 3):
            with mock.patch.object(numba_backend, "SEGMENT_STEPS", segment):
                assert_right(problem, count)


@pytest.mark.parametrize("dtype", list(DType))
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("H", [1, 7, 8, 17, 64, 255, 256, 257])
def test_widths_and_columns_that_are_shared(dtype, cell, H):
    for B, V in ((2, None), (2, 11), (19, 11)):
        problem = small_problem(
            B=B, T=9, E=3, H=H, O=2, V=V, cell=cell, dtype=dtype, head=Head.EVERY, mean_length=4.5,
            truncation=None if V else Truncation(5, 3),
        )  # fmt: skip
        assert_right(problem, 2)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("head", list(Head))
def test_work_is_shared_evenly_and_no_padding_is_in_it(count, head):
    problem = small_problem(B=37, T=30, E=21, H=65, V=60, head=head, mean_length=15.0)
    data = of_all_lengths(problem)
    session = session_of(problem, count, data)
    session.gradient()
    arrays, fields = session.record.arrays, session.record.fields
    assert fields["row_shares"][0] == count
    assert fields["steps"][0] == data.lengths[:37].sum()
    np.testing.assert_array_equal(np.sort(arrays["seats"]), np.arange(37))
    rows_before = arrays["rows_of_steps"].reshape(37, problem.T + 2)
    sums = []
    for worker in range(count):
        lo, hi = share_range.py_func(37, worker, count)
        lengths = data.lengths[arrays["seats"][lo:hi]]
        assert (np.diff(lengths) <= 0).all()
        np.testing.assert_array_equal(
            np.diff(rows_before[lo]), [hi - lo, *((lengths > t).sum() for t in range(problem.T))]
        )
        sums.append(lengths.sum())
    assert max(sums) - min(sums) <= problem.T


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_same_bits_every_time(cell, count):
    problem = small_problem(B=26, T=40, E=20, H=57, O=3, V=90, cell=cell, head=Head.EVERY, mean_length=20.0)
    session = session_of(problem, count)
    first = gradient_of(session)
    for _ in range(20):
        assert_same_bits(first, gradient_of(session))
    assert_same_bits(first, gradient_of(session_of(problem, count)))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("V", [11, None])
def test_whole_rows_are_the_same_bits_as_rows_without_lengths(cell, V):
    problem = small_problem(B=13, T=9, E=5, H=33, V=V, cell=cell, dtype=DType.FLOAT32)
    data = random_data(problem)
    plain = gradient_of(session_of(problem, 1, data))
    whole = replace(data, lengths=np.full(len(data.inputs), problem.T))
    assert_same_bits(plain, gradient_of(session_of(replace(problem, mean_length=9.0), 1, whole)))


@pytest.mark.parametrize("V", [11, None])
def test_predictions_are_the_same_bits_for_any_number_of_threads(V):
    problem = small_problem(B=5, T=19, E=5, H=33, V=V, head=Head.EVERY, mean_length=9.5)
    rows = random_data(problem, rows=101)
    found = []
    for count in (1, 2, 3):
        with threads(count):
            found.append(session_of(problem, count).predict(rows.inputs, rows.lengths))
    for logits in found[1:]:
        np.testing.assert_array_equal(found[0], logits)
    for i in (0, 1, 57, 100):  # each row in its own place
        alone = session_of(problem, 1).predict(rows.inputs[i : i + 1], rows.lengths[i : i + 1])
        np.testing.assert_allclose(found[0][i], alone[0], rtol=1e-10, atol=1e-12)


def test_more_rows_than_a_stage_has_shares_for_are_all_predicted():
    problem = small_problem(B=2, T=2, E=1, H=1, V=5, head=Head.LAST, dtype=DType.FLOAT32, mean_length=1.5)
    number = 24 * 65_535 + 30
    rows = random_data(problem, rows=50)
    inputs, lengths = np.resize(rows.inputs, (number, problem.T)), np.resize(rows.lengths, number)
    with threads(2):
        session = session_of(problem, 2)
        found, few = session.predict(inputs, lengths), session.predict(rows.inputs, rows.lengths)
    np.testing.assert_array_equal(found, np.resize(few, (number, *few.shape[1:])))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_past_a_length_reaches_nothing(value):
    problem = small_problem(B=6, T=9, V=None, head=Head.EVERY, mean_length=4.5)
    data = of_all_lengths(problem)
    inputs = data.inputs.copy()
    inputs[np.arange(9) >= data.lengths[:, None]] = value
    assert_same_bits(
        gradient_of(session_of(problem, 2, data)), gradient_of(session_of(problem, 2, replace(data, inputs=inputs)))
    )
