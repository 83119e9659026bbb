"""What every test shares: small problems, random rows, and the one `assert_agrees`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import pytest

from rnnbench.api.sweep import swept_workloads
from rnnbench.backends.base import Backend, Outputs, Session
from rnnbench.backends.numpy import NumpyBackend
from rnnbench.correctness.tolerances import arrays_of, errors_of, relative_error
from rnnbench.data import Data
from rnnbench.model import DType, Head, Loss, Model, Optimizer, Problem, Train, Truncation
from rnnbench.params import Init, Params, init_params
from rnnbench.sizes import Sizes, Sweep
from rnnbench.workloads.made_up import made_up
from rnnbench.workloads.resolve import Asked, resolve


def small_problem(
    *,
    B: int = 4,
    T: int = 7,
    E: int = 3,
    H: int = 5,
    O: int = 1,
    V: int | None = 11,
    head: Head = Head.LAST,
    loss: Loss = Loss.BINARY_CROSS_ENTROPY,
    dtype: DType = DType.FLOAT64,
    train: Train | None = None,
    truncation: Truncation | None = None,
    mean_length: float | None = None,
    **model: object,
) -> Problem:
    """A problem small enough for any test, every part of it a keyword."""
    spec = Model(E=E, H=H, O=O, V=V, head=head, loss=loss, **model)  # type: ignore[arg-type]
    return Problem("test", dtype, spec, train or Train(), B, T, truncation, mean_length)


def random_data(problem: Problem, rows: int | None = None, seed: int = 1) -> Data:
    """Random rows that fit the problem, with lengths from 0 to T where it has such; three batches and a short one by
    default.
    """
    model = problem.model
    n = 3 * problem.B + max(1, problem.B // 2) if rows is None else rows
    rng = np.random.default_rng(seed)
    if model.V is not None:
        inputs = rng.integers(0, model.V, (n, problem.T), dtype=np.int32)
    else:
        inputs = rng.standard_normal((n, problem.T, model.E)).astype(str(problem.dtype))
    emitted = (n, problem.T) if model.head is Head.EVERY else (n,)
    if model.loss is Loss.CATEGORICAL_CROSS_ENTROPY:
        targets = rng.integers(0, model.O, emitted, dtype=np.int32)
    elif model.loss is Loss.BINARY_CROSS_ENTROPY:
        targets = rng.integers(0, 2, (*emitted, model.O)).astype(str(problem.dtype))
    else:
        targets = rng.standard_normal((*emitted, model.O)).astype(str(problem.dtype))
    lengths = None
    if problem.lengths:
        lengths = rng.integers(0, problem.T + 1, n)
        lengths[: min(n, 3)] = [problem.T // 2, 0, problem.T][:n]  # an empty row and a whole one in the first batch
    return Data(inputs, targets, lengths)


def random_params(problem: Problem, seed: int = 0, scale: float = 1.0) -> dict[str, np.ndarray]:
    """PyTorch's initialisation (no parameter is zero), rounded to the problem's type so that everyone starts equal."""
    params = init_params(problem.model, Init.TORCH, seed)
    return {name: (scale * value).astype(str(problem.dtype)) for name, value in params.items()}


# What a model and its rows may have besides one layer forward in time: keywords of `small_problem`.
STRUCTURES: dict[str, dict[str, object]] = {
    "layers": {"layers": 3},
    "bidirectional": {"bidirectional": True},
    "lengths": {"mean_length": 3.5},
    "all": {"layers": 2, "bidirectional": True, "mean_length": 3.5},
}


def oracle(problem: Problem, params: Params, data: Data) -> Session:
    """The float64 NumPy session on the same numbers."""
    exact = replace(data, inputs=data.inputs if problem.model.V is not None else data.inputs.astype(np.float64))
    return NumpyBackend().prepare(replace(problem, dtype=DType.FLOAT64), params, exact)


def pair(backend: Backend, problem: Problem, data: Data | None = None) -> tuple[Session, Session]:
    """The oracle and the backend on the same numbers."""
    params, data = random_params(problem), random_data(problem) if data is None else data
    return oracle(problem, params, data), backend.prepare(problem, params, data)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Sessions prepared here have a team of so many: more than the machine has cores, if asked."""
    with mock.patch("rnnbench.backends.numba.numba_threads", return_value=count):
        yield


def assert_same_bits(a: Outputs, b: Outputs) -> None:
    """Both hold the same arrays, number for number."""
    ours, theirs = dict(arrays_of(a)), dict(arrays_of(b))
    assert ours, "nothing was compared"
    assert ours.keys() == theirs.keys()
    for name, x in ours.items():
        np.testing.assert_array_equal(x, theirs[name], err_msg=name)


def assert_agrees(ref: Outputs, got: Outputs, dtype: DType) -> None:
    """Every array of `ref` is in `got` with an error within the one table's limit."""
    errors = errors_of(ref, got, dtype)
    assert errors, "nothing was compared"
    over = {name: e for name, e in errors.items() if not e.ok}
    assert not over, over


def assert_near(ref: Any, got: Any, limit: float) -> None:
    """One array, by norm."""
    error = relative_error(ref, got)
    assert error < limit, error


TRAINS = {
    "sgd": Train(Optimizer.SGD, learning_rate=0.1),
    "adam": Train(epsilon=1e-5),
    "adam, clipped by value": Train(epsilon=1e-5, clip_value=0.01),
    "sgd, clipped by norm": Train(Optimizer.SGD, learning_rate=0.1, clip_norm=0.05),
    "adam, norm under its limit": Train(epsilon=1e-5, clip_norm=1e6),
}


def assert_what_is_not_there_is_refused(session: Session) -> None:
    """With the value and the limit: rows, batches, states and inputs that do not fit the session's problem.

    It computes after that as before: nothing that was refused left a trace.
    """
    problem, model, rows = session.problem, session.problem.model, session.staged
    last = rows // problem.B - 1
    good = random_data(problem, rows=3, seed=5).inputs
    session.reset()
    before = session.predict(good)
    session.select(0)
    for bad in (-1, last + 1, 0.5, 10**30):
        with pytest.raises(ValueError, match=f"there is no batch {bad}: {rows} rows are staged, batches 0 to {last}"):
            session.select(bad)  # type: ignore[arg-type]
    for bad in (-1, rows, 2**40):
        with pytest.raises(ValueError, match=f"row {bad} is not among the {rows} rows"):
            session.train_epoch(np.array([0, bad, 1]))
        with pytest.raises(ValueError, match=f"row {bad} is not among the {rows} rows"):
            session.epoch_of(np.array([0, bad, 1]))
    with pytest.raises(ValueError, match="the order is empty"):
        session.train_epoch(np.array([], np.int64))
    for order in (np.array([0.0, 1.5]), np.zeros((2, 1), np.int64)):
        with pytest.raises(ValueError, match=r"the order is .*; one axis of integers is needed"):
            session.train_epoch(order)
    B, H = problem.B, model.H
    for shape in ((B, H + 1), (B + 1, H), (B,), (H,), (1, 1), (), (1, B, H), (H * B,)):
        with pytest.raises(ValueError, match=re.escape(f"state h has shape {shape}; this problem needs {(B, H)}")):
            session.start_from({"h": np.zeros(shape, str(problem.dtype))})
    with pytest.raises(ValueError, match="states are complex128; they must be real numbers"):
        session.start_from({"h": np.zeros((B, H), complex)})
    good_state = np.zeros((B, H), str(problem.dtype))
    for given, words in (({}, r"\[\]"), ({"h": good_state, "c": good_state}, r"\['c', 'h'\]"), (good_state, "ndarray")):
        with pytest.raises(ValueError, match=rf"the states are {words}; {model.cell} needs a dict of arrays"):
            session.start_from(given)  # type: ignore[arg-type]
    needed = good.shape[1:]
    longer, shorter = np.concatenate([good, good], axis=1), good[:, : problem.T - 1]
    wrong = [good[0], good[..., None], longer, shorter, longer[:0], np.zeros(0, good.dtype), good.ravel()[0]]
    for inputs in wrong if model.V is not None else [*wrong, longer.swapaxes(1, 2), good[..., :-1]]:
        words = f"inputs have shape {inputs.shape}; rows of shape {needed} are needed"
        with pytest.raises(ValueError, match=re.escape(words)):
            session.predict(inputs)
    if model.V is None:
        with pytest.raises(ValueError, match="inputs are complex64; they must be real numbers"):
            session.predict(good.astype(np.complex64))
    else:
        for kind in (np.float64, np.bool_):
            with pytest.raises(ValueError, match=f"tokens are {np.dtype(kind)}; they must be integers"):
                session.predict(good.astype(kind))
        for bad in (-1, model.V, 2**32 + 1, -(2**31)):
            inputs = good.astype(np.int64)
            inputs[1, 0] = bad
            words = f"token {bad} is outside the vocabulary: tokens must lie in [0, {model.V})"
            with pytest.raises(ValueError, match=re.escape(words)):
                session.predict(inputs)
    none = session.predict(good[:0])
    assert (none.shape, none.dtype) == ((0, *before.shape[1:]), before.dtype)
    np.testing.assert_array_equal(session.predict(good), before)


__all__ = [
    "TRAINS",
    "arrays_of",
    "assert_agrees",
    "assert_same_bits",
    "assert_what_is_not_there_is_refused",
    "oracle",
    "pair",
    "random_data",
    "random_params",
    "relative_error",
    "small_problem",
    "threads",
]


def failed(findings):
    """Those of an audit that are not ok; that there are some at all is asserted."""
    found = list(findings)
    assert found, "nothing was checked"
    return [finding for finding in found if not finding.ok]


def specs(*names: str, **sizes: int):
    """What a plan holds of built-in workloads, at other sizes where they are given."""
    return tuple(workload.spec for workload in resolve(names, Asked(**sizes)))


def made_up_problem(sizes: Sizes, E: int | None, dtype: DType) -> Problem:
    """A problem of a sweep over dense made-up inputs, as wide as the state where no E is given."""
    return made_up(Model(E=sizes.H if E is None else E, H=sizes.H, O=1), sizes.B, sizes.T).spec.problem(dtype)


def swept(sweep: Sweep):
    """What a plan of a sweep over dense made-up inputs holds."""
    return tuple(workload.spec for workload in swept_workloads(sweep, made_up(Model(E=1, H=1, O=1))))
