"""Calm training is judged by the table, chaotic training by its own sensitivity, for as long as that allows."""

from __future__ import annotations

import numpy as np
import pytest

from rnnbench.backends.base import Outputs
from rnnbench.backends.numpy import NumpySession
from rnnbench.correctness.oracle import LOSS_STEPS, Oracle
from rnnbench.correctness.tolerances import (
    ACCURACY_LIMITS,
    EPOCH_LIMITS,
    LIMITS,
    LOSS_LIMITS,
    MAX_LIMIT,
    MAX_LOSS_LIMIT,
)
from rnnbench.data import Data
from rnnbench.model import DType, Optimizer, Pass, Train
from rnnbench.params import Init, cast, init_params
from rnnbench.records.record import ErrorOf
from tests.faulty import DropsShortBatch, SameBatch, ScaledGradient, SwappedWeights
from tests.helpers import random_data, random_params, small_problem


def oracle_of(dtype: DType, scale: float, learning_rate: float, order: list[int] | None = None) -> Oracle:
    train = Train(Optimizer.SGD, learning_rate=learning_rate)
    problem = small_problem(B=8, T=40, H=24, V=None, dtype=dtype, train=train)
    return Oracle(problem, random_params(problem, scale=scale), random_data(problem, rows=8 * LOSS_STEPS), order)


def losses_of(oracle: Oracle, kind: type[NumpySession] = NumpySession) -> list[float]:
    """Of a session in the problem's own type, from the oracle's parameters."""
    session, losses = kind(oracle.problem, oracle.params, oracle.data), []
    for step in range(LOSS_STEPS):
        session.select(step % oracle.batches)
        session.train_step()
        losses.append(session.fetch().loss)
    return losses


@pytest.mark.parametrize("dtype", list(DType))
def test_calm_training_is_judged_over_all_steps_by_the_table(dtype):
    oracle = oracle_of(dtype, 1.0, 0.01)
    ((name, error),) = oracle.loss_errors(losses_of(oracle)).items()
    assert (name, error.limit) == (f"losses of {LOSS_STEPS} steps", LOSS_LIMITS[dtype])
    assert error.ok


def test_chaotic_training_is_judged_until_rounding_takes_over():
    oracle = oracle_of(DType.FLOAT32, 2.0, 0.5)
    got = losses_of(oracle)
    assert max(abs(x / ref - 1) for x, ref in zip(got, oracle.losses(), strict=True)) > 0.1
    ((name, error),) = oracle.loss_errors(got).items()
    assert error.ok
    steps = int(name.removeprefix("losses of ").removesuffix(f" of {LOSS_STEPS} steps"))
    assert 1 <= steps < LOSS_STEPS
    assert LOSS_LIMITS[DType.FLOAT32] <= error.limit <= MAX_LOSS_LIMIT


@pytest.mark.parametrize("kind", [SwappedWeights, SameBatch])
def test_chaotic_training_hides_no_fault(kind):
    oracle = oracle_of(DType.FLOAT32, 2.0, 0.5)
    (error,) = oracle.loss_errors(losses_of(oracle, kind)).values()
    assert not error.ok


def test_a_small_fault_still_shows():
    oracle = oracle_of(DType.FLOAT32, 1.0, 0.01)
    wrong = [loss * (1 + 1e-3) for loss in oracle.losses()]
    (error,) = oracle.loss_errors(wrong).values()
    assert not error.ok
    assert error.limit == LOSS_LIMITS[DType.FLOAT32]
    (nan,) = oracle.loss_errors([*oracle.losses()[:-1], np.nan]).values()
    assert not nan.ok


def epoch_of(oracle: Oracle, kind: type[NumpySession] = NumpySession) -> dict[str, ErrorOf]:
    session = kind(oracle.problem, oracle.params, oracle.data)
    session.train_epoch(np.array(oracle.epoch().rows))
    return oracle.errors(Pass.EPOCH, session.fetch())


def test_a_chaotic_epoch_is_judged_as_far_as_it_can_be_and_ends_with_a_short_batch():
    order = np.random.default_rng(2).permutation(8 * LOSS_STEPS)[: 8 * LOSS_STEPS - 3].tolist()
    oracle = oracle_of(DType.FLOAT32, 2.0, 0.5, order)
    answer = oracle.epoch()
    assert 1 <= answer.steps < LOSS_STEPS
    assert answer.rows == order[: 8 * answer.steps - 3]
    errors = epoch_of(oracle)
    assert all(e.ok for e in errors.values())
    assert all(name.endswith(f" after {answer.steps} of {LOSS_STEPS} steps") for name in errors)
    assert {name.split(" after ")[0] for name in errors} >= {"loss", "accuracy", "param W_hh", "param b_y"}
    for kind in (SwappedWeights, DropsShortBatch):
        assert not all(e.ok for e in epoch_of(oracle, kind).values())


def test_a_calm_epoch_is_judged_whole():
    order = list(range(8 * LOSS_STEPS))
    oracle = oracle_of(DType.FLOAT32, 1.0, 0.01, order)
    assert oracle.epoch().rows == order
    assert {e.limit for e in epoch_of(oracle).values()} == {EPOCH_LIMITS[DType.FLOAT32], ACCURACY_LIMITS[DType.FLOAT32]}


def test_one_pass_whose_rows_cancel_is_judged_by_what_rounding_leaves_of_it():
    """Two rows of both classes and small logits: the gradient of b_h is the difference of two numbers near a half."""
    problem = small_problem(B=2, T=20, E=16, H=256, V=50, dtype=DType.FLOAT32)
    params = cast(init_params(problem.model, Init.KERAS, 0), DType.FLOAT32)
    data = Data(random_data(problem, rows=2, seed=0).inputs, np.float32([0, 1]))
    oracle = Oracle(problem, params, data, None)

    def errors(kind):
        session = kind(problem, params, data)
        session.gradient()
        return oracle.errors(Pass.GRADIENT, session.fetch())

    right = errors(NumpySession)
    assert {name for name, e in right.items() if e.error > LIMITS[DType.FLOAT32]} == {"grad b_h"}
    assert {name for name, e in right.items() if e.limit > LIMITS[DType.FLOAT32]} == {"grad b_h"}
    assert all(e.ok for e in right.values())
    wrong = {name for name, e in errors(ScaledGradient).items() if not e.ok}
    assert wrong >= {"grad embedding", "grad W_xh", "grad W_hh", "grad W_hy"}


def test_no_limit_is_infinite():
    """Where rounding grows beyond any number, and where it turns a number into none."""
    oracle = oracle_of(DType.FLOAT32, 6.0, 1e300)
    ((name, error),) = oracle.loss_errors([0.5] * LOSS_STEPS).items()
    assert name.startswith("losses of ")
    assert 0 < error.limit <= MAX_LIMIT
    for e in oracle.errors(Pass.TRAIN_STEP, Outputs(loss=0.5)).values():
        assert 0 < e.limit <= MAX_LIMIT
        assert not e.ok
