"""Whole passes: they owe nothing to the one before, are compiled once, and have NaN where the oracle has it."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numba
import numpy as np
import pytest
from numba.core.event import install_recorder

from rnnbench.backends.numba import NumbaBackend, NumbaSession
from rnnbench.cells import CELLS
from rnnbench.data import Data
from rnnbench.kernels.cpu import passes, shares
from rnnbench.model import DType, Head, Loss, Optimizer, Train, Truncation
from tests.helpers import assert_agrees, assert_same_bits, oracle, random_data, random_params, small_problem, threads

BIG = small_problem(B=30, T=30, E=20, H=48, O=3, V=60, head=Head.EVERY, dtype=DType.FLOAT32)


def outputs(problem, name: str, flush: bool = True):
    session = NumbaSession(problem, random_params(problem), random_data(problem), flush)
    getattr(session, name)()
    return session.fetch()


@pytest.mark.parametrize("cell", CELLS)
def test_a_second_pass_owes_nothing_to_the_first(cell):
    problem = replace(BIG, model=replace(BIG.model, cell=cell))
    session = NumbaBackend().prepare(problem, random_params(problem), random_data(problem))
    session.gradient()
    first = session.fetch()
    session.select(1)
    session.gradient()
    session.forward()
    session.select(0)
    session.gradient()
    assert_same_bits(first, session.fetch())


def test_threads_change_answers_by_rounding_only():
    done = []
    for count in (1, 2):
        with threads(count):
            done.append(outputs(BIG, "gradient"))
    assert_agrees(*done, DType.FLOAT32)


def test_big_problem_is_worth_two_workers_and_a_small_one_is_not():
    assert shares.workers_for(1_000_000, 400_000, 30, 2) == 2
    assert shares.workers_for(1_000_000, 400_000, 1, 2) == 1
    assert shares.workers_for(1000, 400_000, 32, 64) == 1


@pytest.mark.parametrize(("n", "workers"), [(1, 1), (1, 4), (5, 2), (32, 3), (33, 2), (100, 7)])
def test_shares_cover_every_row_once(n, workers):
    ranges = [shares.share_range(n, w, workers) for w in range(workers)]
    assert [row for lo, hi in ranges for row in range(lo, hi)] == list(range(n))
    sizes = [hi - lo for lo, hi in ranges]
    assert max(sizes) - min(sizes) <= 1


def test_subnormals_can_be_kept():
    assert_agrees(outputs(BIG, "gradient"), outputs(BIG, "gradient", flush=False), DType.FLOAT32)


def test_no_compilation_for_another_size():
    """Nor for another cell, loss, head, optimizer, truncation or number of threads: a type is compiled once."""
    for dtype in DType:
        outputs(replace(BIG, dtype=dtype), "train_step")
    with install_recorder("numba:run_pass") as passes_of_compiler:
        for cell, dtype, loss, head, V in product(CELLS, DType, Loss, Head, (7, None)):
            problem = small_problem(cell=cell, B=7, T=3, E=2, H=19, O=4, V=V, loss=loss, head=head, dtype=dtype)
            outputs(problem, "train_step")
            sgd = Train(Optimizer.SGD, clip_value=0.1)
            outputs(replace(problem, B=1, T=20, train=sgd, truncation=Truncation(3, 2)), "train_step")
        for count in (1, 3):
            with threads(count):
                outputs(replace(BIG, T=50), "train_step")
                session = NumbaBackend().prepare(BIG, random_params(BIG), random_data(BIG))
                session.train_epoch(np.arange(50))
                session.predict(random_data(BIG).inputs)
    assert not passes_of_compiler.buffer
    assert len(passes.enter.signatures) == 1


def test_a_compilation_is_seen():
    """What the test above counts is there when something is compiled."""
    with install_recorder("numba:run_pass") as passes_of_compiler:
        numba.njit(lambda x: x + 1)(1)
    assert passes_of_compiler.buffer


@pytest.mark.parametrize("dtype", list(DType))
def test_gradients_agree(dtype):
    """Also run under other processors' features by `test_products`."""
    for cell in CELLS:
        for V, cut in ((11, None), (None, None), (None, Truncation(3, 2))):
            sizes = {"B": 9, "T": 8, "E": 5, "H": 21, "O": 3, "V": V}
            problem = small_problem(cell=cell, **sizes, head=Head.EVERY, dtype=dtype, truncation=cut)
            params, data = random_params(problem), random_data(problem)
            ref, got = oracle(problem, params, data), NumbaBackend().prepare(problem, params, data)
            for session in (ref, got):
                session.gradient()
            assert_agrees(ref.fetch(), got.fetch(), dtype)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["input", "W_xh", "W_hh", "b_h", "embedding", "W_hy"])
@pytest.mark.parametrize("place", [3, 7, 12, 17])
@pytest.mark.parametrize("cell", CELLS)
def test_nan_and_infinity_stand_where_the_oracle_has_them(where, value, place, cell):
    """In each gate of a cell, by turns."""
    problem = small_problem(cell=cell, V=None if where == "input" else 11, head=Head.EVERY, dtype=DType.FLOAT32)
    params, data = random_params(problem), random_data(problem)
    if where == "input":
        inputs = data.inputs.copy()
        inputs[1, 2, 0] = value
        data = Data(inputs, data.targets)
    else:
        flat = params[where].reshape(-1)
        flat[place % flat.size] = value
    ref, got = oracle(problem, params, data), NumbaBackend().prepare(problem, params, data)
    for session in (ref, got):
        with np.errstate(invalid="ignore"):
            session.forward()
    assert_agrees(ref.fetch(), got.fetch(), DType.FLOAT32)


def test_predict_takes_any_number_of_rows_and_blocks():
    assert passes.PREDICT_ROWS == 24
    for cell, V in product(CELLS, (11, None)):
        problem = small_problem(cell=cell, V=V, head=Head.EVERY)
        params, data = random_params(problem), random_data(problem)
        session = NumbaBackend().prepare(problem, params, data)
        session.gradient()
        before = session.fetch()
        for n in (1, 24, 25, 100):
            inputs = random_data(problem, rows=n, seed=n).inputs
            np.testing.assert_allclose(
                session.predict(inputs), oracle(problem, params, data).predict(inputs), rtol=1e-12, atol=1e-13
            )
        assert_same_bits(before, session.fetch())
