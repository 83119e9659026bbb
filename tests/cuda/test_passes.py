"""Every kernel against the float64 oracle, within the one table's limits, at sizes that cross the edges of blocks."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from rnnbench.backends.base import Outputs, Session
from rnnbench.backends.cuda import CudaBackend
from rnnbench.correctness.tolerances import relative_error
from rnnbench.kernels.cuda.plan import LaunchPlan, RegimeKind
from rnnbench.model import USUAL_PASSES, DType, Head, Loss, Problem, StepSum, Train, Truncation
from tests.helpers import (
    TRAINS,
    assert_agrees,
    assert_near,
    assert_same_bits,
    assert_what_is_not_there_is_refused,
    oracle,
    random_data,
    random_params,
    small_problem,
)

DTYPES = list(DType)


def problem_of(**sizes) -> Problem:
    """Five rows: three blocks of the recurrence, the last half empty."""
    return small_problem(**{"B": 5, "T": 7, "E": 3, "H": 6, "O": 2, **sizes})


def sessions(backend: CudaBackend, problem: Problem, rows: int | None = None) -> tuple[Session, Session]:
    params, data = random_params(problem), random_data(problem, rows)
    return oracle(problem, params, data), backend.prepare(problem, params, data)


def run(session: Session, name: str, *args) -> Outputs:
    getattr(session, name)(*args)
    session.synchronize()
    return session.fetch()


def check(
    backend: CudaBackend, problem: Problem, name: str = "gradient", states: dict[str, np.ndarray] | None = None
) -> Outputs:
    """Run a pass here and in the oracle; both answers must agree."""
    ref, got = sessions(backend, problem)
    for session in (ref, got):
        session.start_from(states)
    answer = run(got, name)
    assert_agrees(run(ref, name), answer, problem.dtype)
    return answer


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("head", "V"), list(product(Head, [11, None])), ids=str)
def test_gradient(cuda_backend, dtype, head, V):
    answer = check(cuda_backend, problem_of(head=head, V=V, dtype=dtype))
    assert len(answer.grads) == (5 if V is None else 6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("loss", "O"), list(product(Loss, [1, 5])), ids=str)
def test_losses(one_backend, dtype, loss, O):
    for head in Head:
        check(one_backend, problem_of(T=3, H=3, V=None, loss=loss, O=O, head=head, dtype=dtype))


@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (1, 3, 2, 17), (9, 1, 8, 4), (2, 3, 7, 5), (5, 2, 6, 40)], ids=str)
def test_edge_sizes(cuda_backend, sizes):
    B, T, E, H = sizes
    for V in (7, None):
        check(cuda_backend, problem_of(B=B, T=T, E=E, H=H, V=V, dtype=DType.FLOAT32, head=Head.EVERY))


@pytest.mark.parametrize("head", list(Head))
@pytest.mark.parametrize("cut", [(1, 1), (4, 1), (4, 3), (4, 4), (6, 5), (6, 6), (7, 3), (7, 7), (12, 9)], ids=str)
def test_truncation(cuda_backend, head, cut):
    check(cuda_backend, problem_of(B=3, H=5, head=head, truncation=Truncation(*cut)))


@pytest.mark.parametrize("truncation", [None, Truncation(4, 3)], ids=str)
@pytest.mark.parametrize("step_sum", list(StepSum))
def test_initial_state(cuda_backend, truncation, step_sum):
    state = np.random.default_rng(3).uniform(-0.9, 0.9, (5, 6)).astype(np.float32)
    problem = problem_of(head=Head.EVERY, dtype=DType.FLOAT32, truncation=truncation, step_sum=step_sum)
    check(cuda_backend, problem, states={"h": state})


@pytest.mark.numbers
def test_a_state_is_left_again(one_backend):
    problem = problem_of(T=2, dtype=DType.FLOAT32)
    _, got = sessions(one_backend, problem)
    first = run(got, "forward")
    got.start_from({"h": np.random.default_rng(3).uniform(-0.9, 0.9, (5, 6))})
    assert relative_error(first.states["h"], run(got, "forward").states["h"]) > 1e-3
    got.start_from(None)
    assert_same_bits(first, run(got, "forward"))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("train", TRAINS.values(), ids=TRAINS.keys())
def test_train_steps_epoch_predict_and_reset(one_backend, dtype, train):
    problem = problem_of(T=3, H=3, dtype=dtype, train=train, truncation=Truncation(2, 1), head=Head.EVERY)
    ref, got = sessions(one_backend, problem)
    for step in range(3):
        for session in (ref, got):
            session.select(step)
        assert_agrees(run(ref, "train_step"), run(got, "train_step"), dtype)
    for session in (ref, got):
        session.reset()
    order = np.random.default_rng(0).permutation(12)  # two batches of 5 and one of 2
    a, b = run(ref, "train_epoch", order), run(got, "train_epoch", order)
    assert a.accuracy is not None
    assert_agrees(a, b, dtype)
    inputs = random_data(problem, rows=4, seed=2).inputs
    assert_near(ref.predict(inputs), got.predict(inputs), 1e-5 if dtype is DType.FLOAT32 else 1e-12)
    for session in (ref, got):
        session.reset()
        session.select(0)
    assert_agrees(run(ref, "train_step"), run(got, "train_step"), dtype)


def test_predict_in_several_blocks_of_rows(one_backend, monkeypatch):
    monkeypatch.setattr("rnnbench.backends.cuda.PREDICT_ROWS", 4)
    for V, head in product((11, None), Head):
        problem = problem_of(T=2, H=3, V=V, head=head)
        ref, got = sessions(one_backend, problem)
        inputs = random_data(problem, rows=6, seed=2).inputs
        assert_near(ref.predict(inputs), got.predict(inputs), 1e-12)


@pytest.mark.parametrize("name", ["gradient", "train_step"])
def test_the_same_numbers_give_the_same_bits(cuda_backend, name):
    problem = problem_of(dtype=DType.FLOAT32, head=Head.EVERY, train=Train(clip_norm=0.05))
    _, got = sessions(cuda_backend, problem)
    first = run(got, name)
    got.reset()
    assert_same_bits(first, run(got, name))
    _, fresh = sessions(cuda_backend, problem)
    assert_same_bits(first, run(fresh, name))


@pytest.mark.usefixtures("gpu")
def test_launch_sizes_change_no_more_than_rounding():
    problem = problem_of(head=Head.EVERY)
    sizes = LaunchPlan(side=2, micros=(1,), depth=3, rows=1, spread=9, pad=4, threads=8, outputs=2, blocks=40)
    sizes = replace(sizes, tokens=22, token_columns=4)
    for plan in (
        sizes,
        replace(
            sizes,
            kinds=(RegimeKind.TILES,),
            step_micro=3,
            rows=4,
            spread=1,
            threads=2,
            micros=(2,),
            token_columns=2,
            tokens=1,
            blocks=1,
        ),
    ):
        check(CudaBackend(plan), problem)


def test_a_gradient_leaves_parameters_as_they_are(one_backend):
    problem = problem_of(T=3, H=3)
    ref, got = sessions(one_backend, problem)
    run(got, "gradient")
    assert_agrees(run(ref, "gradient"), run(got, "gradient"), problem.dtype)
    for session in (ref, got):
        session.select(1)
    assert_agrees(run(ref, "gradient"), run(got, "gradient"), problem.dtype)


@pytest.mark.numbers
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_nan_and_infinity_are_not_hidden(cuda_backend, poison):
    problem = problem_of(dtype=DType.FLOAT32, T=2)
    params, data = random_params(problem), random_data(problem)
    params["W_hy"][2, :] = poison
    session = cuda_backend.prepare(problem, params, data)
    assert not np.isfinite(run(session, "forward").logits).any()
    params = random_params(problem)
    params["W_hh"][0, 1] = np.nan
    session = cuda_backend.prepare(problem, params, data)
    answer = run(session, "gradient")
    assert np.isnan(answer.grads["W_hh"]).any()


@pytest.mark.parametrize("V", [7, None])
def test_what_is_not_there_is_refused(one_backend, V):
    problem = problem_of(T=2, H=3, V=V, E=2)
    session = one_backend.prepare(problem, random_params(problem), random_data(problem, rows=11))
    assert_what_is_not_there_is_refused(session)


def test_contract_names_what_is_timed_in_every_pass(cuda_backend):
    contract = cuda_backend.contract(problem_of())
    assert set(contract.timed) == set(USUAL_PASSES)
    assert all(contract.timed.values())
    assert cuda_backend.libraries()
