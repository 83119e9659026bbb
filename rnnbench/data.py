"""Rows to compute on: their layout, and the checks that every backend relies on."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnnbench.model import DType, Head, Loss, Model, Problem
from rnnbench.params import Array

Inputs = NDArray[Any]
ROWS = "rows"  # the folder, in that of a run, of the rows of a user's own workloads


@dataclass(frozen=True)
class Data:
    """Training rows, staged by `prepare`. Batch i is rows [i B, (i + 1) B).

    `inputs`: tokens (N, T) int32 for an embedding, else (N, T, E) float.
    `targets`: class numbers int32, or floats; (N,) or (N, O) with `Head.LAST`, (N, T) or (N, T, O) with `Head.EVERY`.
    `lengths`: (N,) whole numbers in [0, T], or None where each row has all T steps. A step at or past a row's length
    leaves the row's states as they are and emits nothing; what inputs and targets hold there is without effect.
    """

    inputs: Inputs
    targets: Inputs
    lengths: Inputs | None = None

    def part(self, start: int, stop: int) -> Data:
        """Rows [start, stop): views, no copy."""
        lengths = None if self.lengths is None else self.lengths[start:stop]
        return Data(self.inputs[start:stop], self.targets[start:stop], lengths)

    @property
    def mean_length(self) -> float | None:
        """Of the rows, in steps; None where they have no lengths."""
        return None if self.lengths is None else float(np.mean(self.lengths)) if len(self.lengths) else 0.0


def shaped_targets(problem: Problem, targets: Inputs) -> Inputs:
    """Targets in the one layout that backends compute with, contiguous.

    Classes: int32 (N,) or (N, T). All else: floats of the problem's type with the outputs last, (N, O) or (N, T, O).
    """
    if problem.model.loss is Loss.CATEGORICAL_CROSS_ENTROPY:
        return np.ascontiguousarray(targets, dtype=np.int32)
    steps = (problem.T,) if problem.model.head is Head.EVERY else ()
    return np.ascontiguousarray(targets, dtype=str(problem.dtype)).reshape(len(targets), *steps, problem.model.O)


def check_data(problem: Problem, data: Data) -> None:
    """Raise ValueError for data that does not fit the problem: empty, of another length or width, outside V or O."""
    model, inputs, targets = problem.model, data.inputs, data.targets
    if len(inputs) == 0:
        raise ValueError("the batch is empty: 0 rows; at least 1 is needed")
    if len(inputs) < problem.B:
        raise ValueError(f"there are {len(inputs)} rows; a batch needs B = {problem.B}")
    if len(inputs) != len(targets):
        raise ValueError(f"{len(inputs)} inputs but {len(targets)} targets; each row needs one")
    check_rows(problem, inputs, data.lengths)
    has_classes = model.loss is Loss.CATEGORICAL_CROSS_ENTROPY
    steps = (problem.T,) if model.head is Head.EVERY else ()
    allowed = [steps] if has_classes else [(*steps, model.O)] + [steps] * (model.O == 1)
    if targets.shape[1:] not in allowed:
        raise ValueError(f"targets have shape {targets.shape}; rows of shape {allowed[0]} are needed")
    if has_classes:
        _check_whole("class", targets, model.O, "the outputs", "classes")
    else:
        _check_real("targets", targets)
        if not np.isfinite(targets).all():
            raise ValueError("a target is NaN or infinite; targets must be finite numbers")


def shaped_lengths(problem: Problem, lengths: Inputs | None) -> NDArray[np.int32] | None:
    """Lengths in the one layout that backends compute with, contiguous (n,) int32; None where rows have none."""
    return None if lengths is None or not problem.lengths else np.ascontiguousarray(lengths, np.int32)


def real_steps(lengths: Inputs, T: int) -> NDArray[np.bool_]:
    """Which steps lie within the rows of these lengths, (n, T)."""
    return np.arange(T) < np.asarray(lengths)[:, None]


def blank_logits(problem: Problem, logits: Array, lengths: Inputs | None) -> Array:
    """Logits with 0 where nothing is emitted: with `Head.EVERY` at and past the lengths; else as they are."""
    if lengths is None or problem.model.head is Head.LAST:
        return logits
    return np.where(real_steps(lengths, problem.T)[..., None], logits, logits.dtype.type(0))


def check_rows(problem: Problem, inputs: Inputs, lengths: Inputs | None = None) -> None:
    """Raise ValueError for inputs, of any number of rows, that are not as `Data` has them or are outside V, and for
    lengths that do not fit them or that the problem does not have.
    """
    model = problem.model
    expected = (problem.T,) if model.V is not None else (problem.T, model.E)
    if inputs.ndim == 0 or inputs.shape[1:] != expected:
        raise ValueError(f"inputs have shape {inputs.shape}; rows of shape {expected} are needed")
    if model.V is not None:
        _check_whole("token", inputs, model.V, "the vocabulary", "tokens")
    else:
        _check_real("inputs", inputs)
    if problem.lengths != (lengths is not None):
        raise ValueError(
            "this problem has rows with lengths, and none are given; give one for each row, T for a whole one"
            if problem.lengths
            else "lengths are given, but rows of this problem have all T steps; give its `mean_length` to the problem"
        )
    if lengths is not None:
        if np.shape(lengths) != inputs.shape[:1]:
            raise ValueError(f"lengths have shape {np.shape(lengths)}; one for each of {len(inputs)} rows is needed")
        _check_whole("length", np.asarray(lengths), problem.T + 1, f"a row of T = {problem.T} steps", "lengths")


def _check_whole(kind: str, values: Inputs, limit: int, where: str, kinds: str) -> None:
    if values.dtype.kind not in "iu":
        raise ValueError(f"{kinds} are {values.dtype}; they must be integers")
    if values.size:
        low, high = int(values.min()), int(values.max())
        if low < 0 or high >= limit:
            bad = low if low < 0 else high
            raise ValueError(f"{kind} {bad} is outside {where}: {kinds} must lie in [0, {limit})")


def _check_real(kinds: str, values: Inputs) -> None:
    if values.dtype.kind not in "fiu":
        raise ValueError(f"{kinds} are {values.dtype}; they must be real numbers")


def checked_states(problem: Problem, states: Mapping[str, Array]) -> dict[str, Array]:
    """`states_of_rows` for a whole batch of the problem."""
    return states_of_rows(problem.model, problem.B, problem.dtype, states)


def states_of_rows(model: Model, n: int, dtype: DType, states: Mapping[str, Array]) -> dict[str, Array]:
    """Copies of states by name, each (n, H), in the given type.

    Raises ValueError for states that are not those of the model, and for another shape or kind.
    """
    shape, names = (n, model.H), model.states
    if not isinstance(states, Mapping) or set(states) != set(names):
        given = sorted(states) if isinstance(states, Mapping) else type(states).__name__
        raise ValueError(f"the states are {given}; {model.cell} needs a dict of arrays named {sorted(names)}")
    for name, value in states.items():
        if np.shape(value) != shape:
            raise ValueError(f"state {name} has shape {np.shape(value)}; this problem needs {shape}")
        _check_real("states", np.asarray(value))
    return {name: np.array(states[name], str(dtype), order="C") for name in names}


def check_step(model: Model, inputs: Inputs, B: int) -> None:
    """Raise ValueError for inputs of one step, (B,) tokens or (B, E), of another shape or kind, or outside V."""
    expected = (B,) if model.V is not None else (B, model.E)
    if inputs.shape != expected:
        kind = "tokens" if model.V is not None else "inputs"
        raise ValueError(f"{kind} have shape {inputs.shape}; a step of this stream needs {expected}")
    if model.V is not None:
        _check_whole("token", inputs, model.V, "the vocabulary", "tokens")
    else:
        _check_real("inputs", inputs)


def checked_batch(batch: int, staged: int, B: int) -> int:
    """The number of a batch. Raises ValueError for one that is not there."""
    last = staged // B - 1
    try:
        number = operator.index(batch)
    except TypeError:
        number = -1
    if not 0 <= number <= last:
        raise ValueError(f"there is no batch {batch}: {staged} rows are staged, batches 0 to {last}")
    return number


def checked_order(order: NDArray[np.int64], staged: int) -> NDArray[np.int64]:
    """Row numbers (n,) in a copy for compiled code. Raises ValueError for none, or one that is not staged."""
    rows = np.array(order)
    if rows.size == 0:
        raise ValueError("the order is empty; an epoch needs at least 1 row")
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        raise ValueError(f"the order is {rows.dtype} of shape {rows.shape}; one axis of integers is needed")
    for row in (rows.min(), rows.max()):
        if not 0 <= row < staged:
            raise ValueError(f"row {row} is not among the {staged} rows that are staged")
    return np.ascontiguousarray(rows, np.int64)


def batches_of(order: NDArray[np.int64], B: int) -> list[NDArray[np.int64]]:
    """`order` cut into runs of B rows, the last one as short as what is left."""
    return [order[i : i + B] for i in range(0, len(order), B)]
