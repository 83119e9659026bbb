"""What every test shares: small problems, random rows, and the one `assert_agrees`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from unittest import mock

import numba
import numpy as np
import pytest

from rnnbench.backends.base import Data, Outputs, Session
from rnnbench.backends.numpy import NumpyBackend
from rnnbench.measure.verify import arrays_of, errors_of, relative_error
from rnnbench.model import DType, Head, Loss, ModelSpec, Optimizer, Problem, TrainSpec, Truncation
from rnnbench.params import Init, Params, init_params


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
    train: TrainSpec | None = None,
    truncation: Truncation | None = None,
    **model: object,
) -> Problem:
    """A problem small enough for any test, every part of it a keyword."""
    spec = ModelSpec(E=E, H=H, O=O, V=V, head=head, loss=loss, **model)  # type: ignore[arg-type]
    return Problem("test", dtype, spec, train or TrainSpec(), B, T, truncation)


def random_data(problem: Problem, rows: int | None = None, seed: int = 1) -> Data:
    """Random rows that fit the problem; three batches and a short one by default."""
    model = problem.model
    n = 3 * problem.B + max(1, problem.B // 2) if rows is None else rows
    rng = np.random.default_rng(seed)
    if model.V is not None:
        inputs = rng.integers(0, model.V, (n, problem.T), dtype=np.int32)
    else:
        inputs = rng.standard_normal((n, problem.T, model.E)).astype(str(problem.dtype))
    emitted = (n, problem.T) if model.head is Head.EVERY else (n,)
    if model.loss is Loss.CATEGORICAL_CROSS_ENTROPY:
        return Data(inputs, rng.integers(0, model.O, emitted, dtype=np.int32))
    if model.loss is Loss.BINARY_CROSS_ENTROPY:
        return Data(inputs, rng.integers(0, 2, (*emitted, model.O)).astype(str(problem.dtype)))
    return Data(inputs, rng.standard_normal((*emitted, model.O)).astype(str(problem.dtype)))


def random_params(problem: Problem, seed: int = 0, scale: float = 1.0) -> dict[str, np.ndarray]:
    """PyTorch's initialisation (no parameter is zero), rounded to the problem's type so that everyone starts equal."""
    params = init_params(problem.model, Init.TORCH, seed)
    return {name: (scale * value).astype(str(problem.dtype)) for name, value in params.items()}


def oracle(problem: Problem, params: Params, data: Data) -> Session:
    """The float64 NumPy session on the same numbers."""
    exact = Data(data.inputs if problem.model.V is not None else data.inputs.astype(np.float64), data.targets)
    return NumpyBackend().prepare(replace(problem, dtype=DType.FLOAT64), params, exact)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Sessions prepared here have a team of so many: more than the machine has cores, if asked."""
    with mock.patch.object(numba, "get_num_threads", return_value=count):
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


TRAINS = {
    "sgd": TrainSpec(Optimizer.SGD, learning_rate=0.1),
    "adam": TrainSpec(epsilon=1e-5),
    "adam, clipped by value": TrainSpec(epsilon=1e-5, clip_value=0.01),
    "sgd, clipped by norm": TrainSpec(Optimizer.SGD, learning_rate=0.1, clip_norm=0.05),
    "adam, norm under its limit": TrainSpec(epsilon=1e-5, clip_norm=1e6),
}


def assert_absent_rows_are_refused(session: Session, rows: int, batches: int) -> None:
    """With the number and the limit, by `select` and `train_epoch` of a session of so many rows and batches."""
    for bad in (-1, rows):
        with pytest.raises(ValueError, match=f"row {bad} is not among the {rows} rows"):
            session.train_epoch(np.array([0, bad, 3]))
    with pytest.raises(ValueError, match="the order is empty"):
        session.train_epoch(np.array([], np.int64))
    for bad in (-1, batches):
        with pytest.raises(ValueError, match=f"there is no batch {bad}.*batches 0 to {batches - 1}"):
            session.select(bad)


__all__ = [
    "TRAINS",
    "arrays_of",
    "assert_absent_rows_are_refused",
    "assert_agrees",
    "assert_same_bits",
    "oracle",
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
