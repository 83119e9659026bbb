"""Any shape, loss, optimizer and truncation against the float64 oracle, and the edges by name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from unittest import mock

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rnnbench.backends import numba as numba_backend
from rnnbench.backends.base import Outputs, Session
from rnnbench.backends.numba import NumbaBackend
from rnnbench.backends.numpy import backward_pass, dlosses, forward_pass, loss_scale
from rnnbench.cells import CELLS
from rnnbench.correctness.tolerances import LIMITS, errors_of, relative_error
from rnnbench.data import Data, shaped_targets
from rnnbench.model import DType, Head, Loss, Optimizer, Pass, Problem, StepSum, Train, Truncation
from rnnbench.params import Params, cast
from tests.helpers import assert_agrees, oracle, random_data, random_params, small_problem, threads

ROWS = ("random", "one word", "padding")
LANES = (1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33)  # around the lanes of every vector, in both types

SMALL = {"B": st.sampled_from((1, 2, 3, 7, 17)), "T": st.integers(1, 24)}
SMALL |= dict.fromkeys(("E", "H"), st.sampled_from(LANES))
# Work enough for three workers.
LARGE = {"B": st.integers(9, 33), "T": st.integers(24, 40), "E": st.sampled_from(LANES), "H": st.integers(47, 66)}


@dataclass(frozen=True)
class Question:
    """A problem and how it is asked."""

    problem: Problem
    rows: str = "random"
    state: bool = False
    workers: int = 1
    segment: int = 128  # see `SEGMENT_STEPS`
    seed: int = 0


@st.composite
def trains(draw) -> Train:
    """Epsilon as large as in other tests: with less of it, Adam's first step asks for the sign of a rounding error."""
    optimizer = draw(st.sampled_from(Optimizer))
    clip = draw(st.sampled_from(({}, {"clip_value": 0.01}, {"clip_norm": 0.05}, {"clip_norm": 1e6})))
    return Train(optimizer, learning_rate=0.1 if optimizer is Optimizer.SGD else 1e-3, epsilon=1e-5, **clip)


@st.composite
def questions(draw) -> Question:
    sizes = {letter: draw(size) for letter, size in draw(st.sampled_from((SMALL, SMALL, LARGE))).items()}
    window = draw(st.integers(1, sizes["T"] + 2))
    truncation = draw(st.none() | st.integers(1, window).map(lambda stride: Truncation(window, stride)))
    problem = small_problem(
        **sizes,
        cell=draw(st.sampled_from(tuple(CELLS))),
        O=draw(st.sampled_from((1, 2, 5, 17))),
        V=draw(st.sampled_from((None, None, 1, 2, 11, 400))),
        head=draw(st.sampled_from(Head)),
        loss=draw(st.sampled_from(Loss)),
        dtype=draw(st.sampled_from(DType)),
        train=draw(trains()),
        truncation=truncation,
        step_sum=draw(st.sampled_from(StepSum)),
        mean_length=draw(st.sampled_from((None, sizes["T"] / 2))),
    )
    return Question(
        problem,
        rows=draw(st.sampled_from(ROWS)),
        state=draw(st.booleans()),
        workers=draw(st.integers(1, 3)),
        segment=draw(st.sampled_from((1, 9, 128))),
        seed=draw(st.integers(0, 9)),
    )


def numbers_of(asked: Question) -> tuple[Params, Data, dict[str, np.ndarray] | None]:
    """Parameters, three batches and a short one, the initial states."""
    problem, model = asked.problem, asked.problem.model
    params, data = random_params(problem, asked.seed), random_data(problem, seed=asked.seed)
    if asked.rows != "random":
        word = 0 if asked.rows == "padding" else (model.V or 2) - 1
        data = replace(data, inputs=np.full_like(data.inputs, word))
    if asked.rows == "padding" and model.V is not None:
        params["embedding"][0] = 0
    rng = np.random.default_rng(asked.seed)
    shape, dtype = (problem.B, model.H), str(problem.dtype)
    states = {name: rng.uniform(-0.9, 0.9, shape).astype(dtype) for name in model.recurrence.states}
    return params, data, states if asked.state else None


def shaken(problem: Problem, params: Params, data: Data, states: dict[str, np.ndarray] | None) -> dict[str, np.ndarray]:
    """The oracle's gradients where each parameter and all that is stored is off by a rounding error of the type."""
    model, rng = problem.model, np.random.default_rng(0)

    def off(x: np.ndarray) -> np.ndarray:
        return x * (1 + np.finfo(str(problem.dtype)).eps * rng.standard_normal(x.shape))

    moved = {name: off(value) for name, value in cast(params, DType.FLOAT64).items()}
    batch = data.part(0, problem.B)
    inputs = batch.inputs
    trace = forward_pass(model, moved, inputs, states, batch.lengths)
    (part,) = trace.parts
    kept = {name: off(value) for name, value in part.states.items()}
    tape = [{name: off(value) for name, value in step.items()} for step in part.tape]
    read = kept["h"][-1] if model.head is Head.LAST else kept["h"][1:].swapaxes(0, 1)
    logits = read @ moved["W_hy"] + moved["b_y"]
    targets = shaped_targets(replace(problem, dtype=DType.FLOAT64), data.targets)[: problem.B]
    dz = dlosses(model, logits, targets) * loss_scale(model, batch.lengths, problem.B, problem.T)
    off_trace = replace(trace, parts=[replace(part, states=kept, tape=tape)], read=read, logits=logits)
    return backward_pass(model, moved, inputs, off_trace, dz, problem.truncation)


def is_calm(asked: Question) -> bool:
    """Whether roundings move no gradient by a tenth of its limit. Where they do, the type cannot hold the answer."""
    problem, (params, data, states) = asked.problem, numbers_of(asked)
    session = oracle(problem, params, data)
    session.start_from(states)
    ref, moved = run(session, "gradient").grads, shaken(problem, params, data, states)
    errors = [relative_error(ref[name], moved[name]) for name in ref]
    return all(error is not None and error <= 0.1 * LIMITS[problem.dtype] for error in errors)


def run(session: Session, name: str, *args) -> Outputs:
    getattr(session, name)(*args)
    return session.fetch()


def assert_right(asked: Question) -> None:
    """Every pass agrees with the oracle, from the same parameters."""
    problem, dtype = asked.problem, asked.problem.dtype
    params, data, states = numbers_of(asked)
    ref = oracle(problem, params, data)
    with threads(asked.workers), mock.patch.object(numba_backend, "SEGMENT_STEPS", asked.segment):
        got = NumbaBackend().prepare(problem, params, data)
    for session in (ref, got):
        session.start_from(states)
    for name in ("forward", "gradient", "train_step"):
        assert_agrees(run(ref, name), run(got, name), dtype)
    order = np.random.default_rng(0).permutation(len(data.inputs))
    for session in (ref, got):
        session.reset()
    errors = errors_of(run(ref, "train_epoch", order), run(got, "train_epoch", order), dtype, Pass.EPOCH)
    over = {name: e for name, e in errors.items() if not e.ok}
    assert not over, over


@settings(max_examples=250, derandomize=True, database=None, deadline=None)
@given(questions())
def test_any_shape(asked):
    assume(is_calm(asked))
    assert_right(asked)


@pytest.mark.parametrize("dtype", list(DType))
@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("V", [60, None])
@pytest.mark.parametrize("cell", CELLS)
def test_as_many_workers_as_are_asked(dtype, workers, V, cell):
    problem = small_problem(cell=cell, B=11, T=30, E=21, H=65, V=V, O=3, head=Head.EVERY, dtype=dtype)
    assert_right(Question(problem, workers=workers))
    with threads(workers):
        session = NumbaBackend().prepare(problem, random_params(problem), random_data(problem))
        session.gradient()
    assert session.record.fields["row_shares"][0] == workers


@pytest.mark.parametrize("dtype", list(DType))
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize(
    "sizes",
    [{"T": 1}, {"B": 1}, {"H": 1}, {"E": 1}, {"V": 1}, {"B": 1, "T": 1}, {"B": 3, "T": 5, "E": 7, "H": 9, "O": 11}],
    ids=str,
)
@pytest.mark.parametrize("cell", CELLS)
def test_edges(dtype, rows, sizes, cell):
    for head in Head:
        assert_right(Question(small_problem(cell=cell, head=head, dtype=dtype, **sizes), rows=rows, seed=1))


@pytest.mark.parametrize("dtype", list(DType))
@pytest.mark.parametrize("cell", CELLS)
def test_every_width(dtype, cell):
    """But for widths of 1 and the like, where a gradient of a few numbers may cancel to less than the type holds."""
    sizes = [{"B": 1 + H % 13, "T": 1 + H % 5, "E": 71 - H, "H": H, "O": 1 + H % 19} for H in range(1, 71)]
    asked = [Question(small_problem(cell=cell, **size, dtype=dtype, head=Head.EVERY)) for size in sizes]
    calm = [question for question in asked if is_calm(question)]
    assert len(calm) >= len(asked) - 2
    for question in calm:
        assert_right(question)
