"""Layers, directions and rows that end against the float64 oracle: what one reads of another, in its order of steps.

The recurrences are those of one layer, which the other files test in each regime.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rnnbench.backends.cuda import CudaBackend
from rnnbench.backends.cuda_graph import CudaGraphBackend
from rnnbench.data import real_steps
from rnnbench.kernels.cuda.plan import LaunchPlan, RegimeKind
from rnnbench.model import DType, Head, Loss, StepSum, Train, Truncation
from tests.cuda.conftest import TINY, WIDE
from tests.cuda.test_passes import check, problem_of, run, sessions
from tests.helpers import assert_agrees, assert_near, assert_same_bits, random_data, random_params

pytestmark = pytest.mark.usefixtures("gpu")
SMALL = {"B": 3, "T": 3, "E": 2, "H": 3, "O": 1, "V": None}
STACKS = {
    "layers": {"layers": 2, "V": 5},
    "bidirectional": {"bidirectional": True, "V": 5},
    "bidirectional, every step": {"bidirectional": True, "head": Head.EVERY},
    "both": {"layers": 2, "bidirectional": True, "head": Head.EVERY, "cell": "lstm", "V": 5},
    "both, the last step": {"layers": 2, "bidirectional": True, "cell": "gru"},
    "cut": {"layers": 3, "T": 4, "truncation": Truncation(2, 2), "head": Head.EVERY, "cell": "gru", "V": 5},
    "cut before the last step": {"layers": 2, "truncation": Truncation(2, 1), "cell": "lstm", "V": 5},
    "cut, windows overlap": {"layers": 2, "T": 4, "truncation": Truncation(3, 1), "head": Head.EVERY, "V": 5},
    "lengths, layers, cut": {
        "mean_length": 1.5,
        "layers": 2,
        "truncation": Truncation(2, 1),
        "cell": "lstm",
        "V": 5,
    },
    "lengths": {"mean_length": 1.5, "V": 5},
    "lengths, every step": {"mean_length": 1.5, "head": Head.EVERY},
    "lengths, a sum": {"mean_length": 1.5, "head": Head.EVERY, "step_sum": StepSum.SUM, "loss": Loss.SQUARED_ERROR},
    "lengths, cut": {"mean_length": 1.5, "truncation": Truncation(2, 1), "cell": "lstm", "V": 5},
    "lengths, cut, every step": {"mean_length": 1.5, "truncation": Truncation(2, 1), "head": Head.EVERY},
    "one step or none": {"T": 1, "mean_length": 0.5, "bidirectional": True},
    "all": {"layers": 2, "bidirectional": True, "mean_length": 1.5, "head": Head.EVERY, "cell": "gru"},
    "all, the last step": {"layers": 2, "bidirectional": True, "mean_length": 1.5, "cell": "lstm", "V": 5},
}


@pytest.mark.numbers
@pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS)
def test_gradient_from_states(one_backend, stack):
    problem = problem_of(**SMALL | stack)
    rng = np.random.default_rng(3)
    states = {name: rng.uniform(-0.9, 0.9, (3, 3)) for name in problem.model.states}
    answer = check(one_backend, problem, states=states)
    assert set(answer.states) == set(problem.model.states)


@pytest.mark.numbers
@pytest.mark.parametrize("more", [STACKS["both"], STACKS["lengths, every step"]], ids=["both", "lengths"])
def test_train_steps_an_epoch_and_a_prediction(one_backend, more):
    problem = problem_of(**SMALL | more | {"B": 2, "T": 2, "train": Train(clip_norm=0.05, epsilon=1e-5)})
    ref, got = sessions(one_backend, problem)
    for batch in (1, 0):
        for session in (ref, got):
            session.select(batch)
        assert_agrees(run(ref, "train_step"), run(got, "train_step"), problem.dtype)
    order = np.random.default_rng(0).permutation(3)  # a batch of 2 and one of 1
    a, b = run(ref, "train_epoch", order), run(got, "train_epoch", order)
    assert_agrees(a, b, problem.dtype)
    assert b.accuracy == pytest.approx(a.accuracy)
    rows = random_data(problem, rows=3, seed=2)
    assert_near(ref.predict(rows.inputs, rows.lengths), got.predict(rows.inputs, rows.lengths), 1e-12)


@pytest.mark.numbers
@pytest.mark.parametrize("kind", [RegimeKind.SPREAD, RegimeKind.TILES])
def test_padding_that_is_computed(kind):
    backend, problem = CudaBackend(WIDE[kind]), problem_of(**SMALL | STACKS["all, the last step"])
    check(backend, problem)
    assert "padding is computed" in backend.contract(problem).notes


@pytest.mark.numbers
def test_a_block_stops_where_the_last_of_its_rows_ends(one_backend):
    """Rows of 1, 0 and 3 steps, two a block: nothing is written past the second step of the first block."""
    problem = problem_of(**SMALL | {"mean_length": 1.5, "cell": "gru"})
    session = one_backend.prepare(problem, random_params(problem), random_data(problem))
    assert list(session.lengths[:3]) == [1, 0, 3]
    session.gradient()
    session.poison()
    session.gradient()
    h = session.arrays["h"].copy_to_host().reshape(4, 3, 3)
    assert list(np.isnan(h).any(axis=2).sum(axis=0)) == [2, 2, 0]
    assert "a block stops where the last of its rows ends" in one_backend.contract(problem).notes


@pytest.mark.numbers
def test_what_stands_past_an_end_changes_nothing(one_backend):
    """Not even NaN, in a state or in any gradient."""
    problem = problem_of(**SMALL | {"mean_length": 1.5, "dtype": DType.FLOAT32, "bidirectional": True})
    params, data = random_params(problem), random_data(problem)
    first = run(one_backend.prepare(problem, params, data), "gradient")
    inputs = data.inputs.copy()
    inputs[~real_steps(data.lengths, problem.T)] = np.nan
    assert np.isnan(inputs[:3]).any()
    assert_same_bits(first, run(one_backend.prepare(problem, params, replace(data, inputs=inputs)), "gradient"))


@pytest.mark.numbers
def test_a_graph_and_again_to_the_same_bits(one_backend):
    problem = problem_of(**SMALL | STACKS["all"] | {"B": 2, "T": 2, "dtype": DType.FLOAT32})
    first = run(sessions(one_backend, problem)[1], "gradient")
    graph = sessions(CudaGraphBackend(LaunchPlan(**TINY)), problem)[1]
    for _ in range(2):
        assert_same_bits(first, run(graph, "gradient"))
