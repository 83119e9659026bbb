"""The protocol between the harness and whoever computes: `Backend` prepares, `Session` does the measured work."""

from __future__ import annotations

import abc
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rnnbench.model import Case, DType, Head, Loss, Problem
from rnnbench.params import Array, Params, check_shapes

Inputs = NDArray[Any]

CPU, CUDA = "cpu", "cuda"  # where the passes of a backend run


@dataclass(frozen=True)
class Data:
    """Training rows, staged by `prepare`. Batch i is rows [i B, (i + 1) B).

    `inputs`: tokens (N, T) int32 for an embedding, else (N, T, E) float.
    `targets`: class numbers int32, or floats; (N,) or (N, O) with `Head.LAST`, (N, T) or (N, T, O) with `Head.EVERY`.
    """

    inputs: Inputs
    targets: Inputs


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
    check_rows(problem, inputs)
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


def check_rows(problem: Problem, inputs: Inputs) -> None:
    """Raise ValueError for inputs, of any number of rows, that are not as `Data` has them or are outside V."""
    model = problem.model
    expected = (problem.T,) if model.V is not None else (problem.T, model.E)
    if inputs.ndim == 0 or inputs.shape[1:] != expected:
        raise ValueError(f"inputs have shape {inputs.shape}; rows of shape {expected} are needed")
    if model.V is not None:
        _check_whole("token", inputs, model.V, "the vocabulary", "tokens")
    else:
        _check_real("inputs", inputs)


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


def checked_state(problem: Problem, state: Array) -> Array:
    """A copy of an initial state (B, H) in the problem's type. Raises ValueError for another shape or kind."""
    given, expected = np.asarray(state), (problem.B, problem.model.H)
    if given.shape != expected:
        raise ValueError(f"the state has shape {given.shape}; this problem needs {expected}")
    _check_real("states", given)
    return np.array(given, str(problem.dtype), order="C")


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
    """Row numbers (n,) as compiled code reads them. Raises ValueError for none, or one that is not staged."""
    rows = np.asarray(order)
    if rows.size == 0:
        raise ValueError("the order is empty; an epoch needs at least 1 row")
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        raise ValueError(f"the order is {rows.dtype} of shape {rows.shape}; one axis of integers is needed")
    for row in (rows.min(), rows.max()):
        if not 0 <= row < staged:
            raise ValueError(f"row {row} is not among the {staged} rows that are staged")
    return np.ascontiguousarray(rows, np.int64)


@dataclass(frozen=True)
class Outputs:
    """What the last pass computed, as NumPy. None or empty where that pass does not compute it.

    `loss` scalar; `logits` (B, O) or (B, T, O); `state` (B, H), the last; `grads` after `gradient`; `params` after
    `train_step` and `train_epoch`; `accuracy` in [0, 1] after `train_epoch`, where the loss has classes.
    """

    loss: float | None = None
    logits: Array | None = None
    state: Array | None = None
    grads: dict[str, Array] = field(default_factory=dict)
    params: dict[str, Array] = field(default_factory=dict)
    accuracy: float | None = None


@dataclass(frozen=True)
class Contract:
    """What stands behind a number: shown with it, stored with it."""

    threads: int
    subnormals: str  # "kept", "flushed", or who decides
    tf32: bool
    timed: dict[str, str]  # pass -> the library calls inside the clock
    notes: str = ""
    device: str = CPU
    staged: str = ""  # outside the clock, by `prepare`, `select` and `reset`
    waits: str = ""  # what tells the clock that the work is done


class DeviceClock(abc.ABC):
    """The device's own clock around one call: two marks in its queue of work.

    `start` and `stop` only put a mark there; `nanoseconds` is read once the device is idle. What lies between the marks
    includes the gaps in which the device waits for its next launch.
    """

    @abc.abstractmethod
    def start(self) -> None:
        """Mark the queue before the call."""

    @abc.abstractmethod
    def stop(self) -> None:
        """Mark it after the last launch of the call."""

    @abc.abstractmethod
    def nanoseconds(self) -> int:
        """From the one mark to the other."""


class Events(DeviceClock):
    """Two events of numba.cuda or PyTorch, on the stream that is the current one; steps of half a microsecond."""

    def __init__(self, begin: Any, end: Any) -> None:
        self.begin, self.end = begin, end

    def start(self) -> None:
        self.begin.record()

    def stop(self) -> None:
        self.end.record()

    def nanoseconds(self) -> int:
        return round(1e6 * self.begin.elapsed_time(self.end))


class Session(abc.ABC):
    """One problem, staged on one backend. The pass methods do the measured work and nothing else.

    The harness calls `select`, `reset` and `epoch_of` outside the clock, then a pass and `synchronize` inside it.
    What comes from outside is checked here, for all backends alike: compiled code would read whatever lies at the
    place of a row or word that is not there. Methods with an underscore are what a backend does after these checks.
    """

    def __init__(self, problem: Problem, data: Data) -> None:
        self.problem, self.staged = problem, len(data.inputs)

    def select(self, batch: int) -> None:
        """Make rows [batch B, (batch + 1) B) the current batch. ValueError for one that is not staged."""
        self._select(checked_batch(batch, self.staged, self.problem.B))

    @abc.abstractmethod
    def _select(self, batch: int) -> None:
        """`select` after its check."""

    def start_from(self, state: Array | None) -> None:
        """Let the next passes, epochs apart, start from a copy of this state (B, H); None is zeros.

        ValueError for another shape.
        """
        self._start_from(None if state is None else checked_state(self.problem, state))

    @abc.abstractmethod
    def _start_from(self, state: Array | None) -> None:
        """`start_from` after its check: a contiguous state of the problem's type, which is the session's to keep."""

    @abc.abstractmethod
    def reset(self) -> None:
        """Put back the initial parameters and an optimizer that has not stepped."""

    @abc.abstractmethod
    def forward(self) -> None:
        """Logits, last state and loss of the current batch."""

    @abc.abstractmethod
    def gradient(self) -> None:
        """Forward and (truncated) BPTT; parameters untouched, gradients not clipped."""

    @abc.abstractmethod
    def train_step(self) -> None:
        """Gradient, clipping and one optimizer step on the current batch."""

    def train_epoch(self, order: NDArray[np.int64]) -> None:
        """One optimizer step per B rows of `order` (row numbers), the last batch as short as what is left.

        `fetch` then gives the parameters, and loss and accuracy as means over the rows seen, each row as it was
        computed in its own step. ValueError for no row, or one that is not staged.
        """
        self.epoch_of(order)()

    def epoch_of(self, order: NDArray[np.int64]) -> Callable[[], None]:
        """`train_epoch` as a call to be timed: the order is checked now, and not inside the clock."""
        rows = checked_order(order, self.staged)
        return lambda: self._train_epoch(rows)

    @abc.abstractmethod
    def _train_epoch(self, order: NDArray[np.int64]) -> None:
        """`train_epoch` after its check: a contiguous order of at least one row."""

    def predict(self, inputs: Inputs) -> Array:
        """Logits for any number of rows, (n, O) or (n, T, O), from a zero state.

        ValueError for rows of another length, width or type, and for tokens outside the vocabulary.
        """
        problem, model, rows = self.problem, self.problem.model, np.asarray(inputs)
        check_rows(problem, rows)
        kind = str(problem.dtype)
        if len(rows) == 0:
            return np.empty((0, *((problem.T,) if model.head is Head.EVERY else ()), model.O), kind)
        return self._predict(np.ascontiguousarray(rows, kind if model.V is None else np.int32))

    @abc.abstractmethod
    def _predict(self, inputs: Inputs) -> Array:
        """`predict` after its checks: at least one row, contiguous, int32 or the problem's type."""

    @abc.abstractmethod
    def fetch(self) -> Outputs:
        """What the last pass computed."""

    def poison(self) -> None:
        """Make NaN, or drop, what the next pass must write, as far as it can be reached: for audits, never timed."""
        return

    def synchronize(self) -> None:
        """Wait until the device is idle. Nothing to do where calls return when their work is done."""
        return

    def device_clock(self) -> DeviceClock | None:
        """The clock of the device, or None where it has none that can be read."""
        return None

    def peak_device_bytes(self) -> int | None:
        """The most memory on the device since this session was prepared, as the library counts it; of the process where
        it cannot count anew (the contract says so). None where there is none or no count.
        """
        return None

    def close(self) -> None:
        """Free what `prepare` took."""
        return


class Backend(abc.ABC):
    """One implementation under one name. Made once in its worker process; importing its module imports the library."""

    name: ClassVar[str]

    def unavailable(self) -> str | None:
        """Why nothing can be computed on this machine (no device, say) and the way out, or None."""
        return None

    @abc.abstractmethod
    def unsupported(self, case: Case) -> str | None:
        """Why this case cannot be computed here, or None. Never a silent substitute."""

    @abc.abstractmethod
    def contract(self, problem: Problem) -> Contract:
        """What a number of this backend stands for."""

    @abc.abstractmethod
    def libraries(self) -> dict[str, str]:
        """Name -> version of what computes."""

    def built_for(self) -> dict[str, str]:
        """What its compiler takes this machine for and how its threads are run, where it tells. Name -> value."""
        return {}

    def warm(self, dtype: DType) -> Iterator[tuple[int, int, str]]:
        """Compile ahead, for later processes, what does not depend on the problem: done, of how many, what is next."""
        yield from ()

    def prepare(self, problem: Problem, params: Params, data: Data) -> Session:
        """Check, move, pack, allocate. `params` in any float type. ValueError where they do not fit the problem, and
        RuntimeError where nothing can be computed on this machine.
        """
        if reason := self.unavailable():
            raise RuntimeError(reason)
        check_shapes(params, problem.model)
        check_data(problem, data)
        return self._prepare(problem, params, data)

    @abc.abstractmethod
    def _prepare(self, problem: Problem, params: Params, data: Data) -> Session:
        """`prepare` after its checks."""


def batches_of(order: NDArray[np.int64], B: int) -> list[NDArray[np.int64]]:
    """`order` cut into runs of B rows, the last one as short as what is left."""
    return [order[i : i + B] for i in range(0, len(order), B)]
