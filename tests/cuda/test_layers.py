"""Layers and directions against the float64 oracle: what one reads of another, each in its own order of steps.

The recurrences are those of one layer, which the other files test in each regime.
"""

from __future__ import annotations

import numpy as np
import pytest

from rnnbench.backends.cuda_graph import CudaGraphBackend
from rnnbench.kernels.cuda.plan import LaunchPlan
from rnnbench.model import Case, DType, Head, Pass, Train, Truncation
from tests.cuda.conftest import TINY
from tests.cuda.test_passes import check, problem_of, run, sessions
from tests.helpers import assert_agrees, assert_near, assert_same_bits, random_data

pytestmark = pytest.mark.usefixtures("gpu")
SMALL = {"B": 2, "T": 3, "E": 2, "H": 3, "O": 1, "V": None}
STACKS = {
    "layers": {"layers": 2, "V": 5},
    "bidirectional": {"bidirectional": True, "V": 5},
    "bidirectional, every step": {"bidirectional": True, "head": Head.EVERY},
    "both": {"layers": 2, "bidirectional": True, "head": Head.EVERY, "cell": "lstm", "V": 5},
    "both, the last step": {"layers": 2, "bidirectional": True, "cell": "gru"},
    "cut": {"layers": 3, "T": 4, "truncation": Truncation(2, 2), "head": Head.EVERY, "cell": "gru", "V": 5},
    "cut before the last step": {"layers": 2, "truncation": Truncation(2, 1), "cell": "lstm", "V": 5},
}


@pytest.mark.numbers
@pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS)
def test_gradient_from_states(one_backend, stack):
    problem = problem_of(**SMALL | stack)
    rng = np.random.default_rng(3)
    states = {name: rng.uniform(-0.9, 0.9, (2, 3)) for name in problem.model.states}
    answer = check(one_backend, problem, states=states)
    assert set(answer.states) == set(problem.model.states)


@pytest.mark.numbers
def test_train_steps_an_epoch_and_a_prediction(one_backend):
    problem = problem_of(**SMALL | STACKS["both"] | {"T": 2, "train": Train(clip_norm=0.05, epsilon=1e-5)})
    ref, got = sessions(one_backend, problem)
    assert_agrees(run(ref, "train_step"), run(got, "train_step"), problem.dtype)
    order = np.random.default_rng(0).permutation(3)  # a batch of 2 and one of 1
    assert_agrees(run(ref, "train_epoch", order), run(got, "train_epoch", order), problem.dtype)
    inputs = random_data(problem, rows=3, seed=2).inputs
    assert_near(ref.predict(inputs), got.predict(inputs), 1e-12)


@pytest.mark.numbers
def test_a_graph_and_again_to_the_same_bits(one_backend):
    problem = problem_of(**SMALL | STACKS["both"] | {"T": 2, "dtype": DType.FLOAT32})
    first = run(sessions(one_backend, problem)[1], "gradient")
    graph = sessions(CudaGraphBackend(LaunchPlan(**TINY)), problem)[1]
    for _ in range(2):
        assert_same_bits(first, run(graph, "gradient"))


@pytest.mark.parametrize(
    ("cut", "refused"), [(Truncation(2, 1), True), (Truncation(2, 2), True), (Truncation(3, 3), False)], ids=str
)
def test_windows_of_layers_that_overlap_are_refused(one_backend, cut, refused):
    """The last of 3 steps in windows of 2 is a window that begins a step early."""
    problem = problem_of(**SMALL | {"layers": 2, "head": Head.EVERY, "truncation": cut})
    reason = one_backend.unsupported(Case(**vars(problem), pass_=Pass.GRADIENT))
    assert ("take a window equal to a stride that divides the steps" in (reason or "")) is refused
    single = problem_of(**SMALL | {"head": Head.EVERY, "truncation": cut})
    assert one_backend.unsupported(Case(**vars(single), pass_=Pass.GRADIENT)) is None
