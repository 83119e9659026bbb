"""How many train steps can be compared: all where training is calm, few where it is chaotic."""

from __future__ import annotations

import numpy as np
import pytest

from rnnbench.measure.oracle import LOSS_STEPS, Oracle
from rnnbench.measure.verify import LOSS_LIMITS
from rnnbench.model import DType, Optimizer, TrainSpec
from tests.helpers import random_data, random_params, small_problem


def oracle_of(dtype: DType, scale: float, learning_rate: float) -> Oracle:
    train = TrainSpec(Optimizer.SGD, learning_rate=learning_rate)
    problem = small_problem(B=8, T=40, H=24, V=None, dtype=dtype, train=train)
    return Oracle(problem, random_params(problem, scale=scale), random_data(problem, rows=8 * LOSS_STEPS), None)


@pytest.mark.parametrize("dtype", list(DType))
def test_calm_training_is_compared_over_all_steps(dtype):
    assert len(oracle_of(dtype, 1.0, 0.01).losses()) == LOSS_STEPS


@pytest.mark.parametrize("dtype", list(DType))
def test_chaotic_training_is_compared_until_rounding_takes_over(dtype):
    oracle = oracle_of(dtype, 6.0, 0.05)
    assert 1 <= len(oracle.losses()) < LOSS_STEPS


def test_a_small_fault_still_shows():
    oracle = oracle_of(DType.FLOAT32, 1.0, 0.01)
    wrong = [loss * (1 + 1e-3) for loss in oracle.losses()]
    (error,) = oracle.loss_errors(wrong).values()
    assert not error.ok
    assert error.limit == LOSS_LIMITS[DType.FLOAT32]
    (nan,) = oracle.loss_errors([*oracle.losses()[:-1], np.nan]).values()
    assert not nan.ok
