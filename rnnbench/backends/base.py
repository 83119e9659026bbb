"""The protocol between the harness and what computes: `Backend` prepares, `Session` does the measured work."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rnnbench import backends
from rnnbench.cells import Cell
from rnnbench.contract import Contract
from rnnbench.data import (
    Data,
    Inputs,
    check_data,
    check_rows,
    checked_batch,
    checked_order,
    checked_states,
    shaped_lengths,
)
from rnnbench.model import Case, DType, Feature, Head, Pass, Problem, features_of
from rnnbench.params import Array, Params, check_shapes

NO_STEPS = "no single time steps here; take numba, numpy, torch, jax, onnxruntime or openvino"


@dataclass(frozen=True)
class Outputs:
    """What the last pass computed, as NumPy. None or empty where that pass does not compute it.

    `loss` scalar, NaN where it is no finite number: of an infinite logit libraries make NaN or infinity; `logits`
    (B, O) or (B, T, O), 0 at and past a row's length; `states` after the last step of each direction, by name, each
    (B, H); `grads` after `gradient`; `params` after `train_step` and `train_epoch`; `accuracy` of what is emitted, in
    [0, 1], after `train_epoch`, where the loss has classes.
    """

    loss: float | None = None
    logits: Array | None = None
    states: dict[str, Array] = field(default_factory=dict)
    grads: dict[str, Array] = field(default_factory=dict)
    params: dict[str, Array] = field(default_factory=dict)
    accuracy: float | None = None

    def __post_init__(self) -> None:
        if self.loss is not None and not math.isfinite(self.loss):
            object.__setattr__(self, "loss", math.nan)


class Steps(NamedTuple):
    """Single time steps of inference. `take` computes one, from an item of `inputs`, which has all T in order, and from
    the states that the one before left. What it returns is without meaning.
    """

    inputs: list[Any]
    take: Callable[[Any], object]


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

    def start_from(self, states: Mapping[str, Array] | None) -> None:
        """Let the next passes, epochs apart, start from copies of these states, by name, each (B, H); None is zeros.

        A backward direction starts from its state at the end of each row. ValueError for other names or shapes.
        """
        self._start_from(None if states is None else checked_states(self.problem, states))

    @abc.abstractmethod
    def _start_from(self, states: dict[str, Array] | None) -> None:
        """`start_from` after its check: contiguous states of the problem's type, which are the session's to keep."""

    @abc.abstractmethod
    def reset(self) -> None:
        """Put back the initial parameters and an optimizer that has not stepped."""

    @abc.abstractmethod
    def forward(self) -> None:
        """Logits, last states and loss of the current batch."""

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

    def begin_steps(self) -> Steps:
        """Stage single time steps of the current batch, with the parameters as they are, from the states of
        `start_from`. `fetch` gives logits (B, O) and states after the last one that was taken.
        """
        raise NotImplementedError(NO_STEPS)

    def all_steps(self) -> Outputs:
        """The T steps of the current batch one after the other: the logits of each, (B, T, O), and the last states."""
        logits, states = [], dict[str, Array]()
        steps = self.begin_steps()
        for x in steps.inputs:
            steps.take(x)
            self.synchronize()
            done = self.fetch()
            assert done.logits is not None
            logits.append(done.logits.copy())
            states = done.states
        return Outputs(logits=np.stack(logits, axis=1), states=states)

    def predict(self, inputs: Inputs, lengths: Inputs | None = None) -> Array:
        """Logits for any number of rows, (n, O) or (n, T, O), from a zero state; with their lengths (n,) where the
        problem has such.

        ValueError for rows of another length, width or type, and for tokens outside the vocabulary.
        """
        problem, model, rows = self.problem, self.problem.model, np.asarray(inputs)
        check_rows(problem, rows, lengths)
        kind = str(problem.dtype)
        if len(rows) == 0:
            return np.empty((0, *((problem.T,) if model.head is Head.EVERY else ()), model.O), kind)
        rows = np.ascontiguousarray(rows, kind if model.V is None else np.int32)
        return self._predict(rows, shaped_lengths(problem, lengths))

    @abc.abstractmethod
    def _predict(self, inputs: Inputs, lengths: Inputs | None) -> Array:
        """`predict` after its checks: at least one row, contiguous, int32 or the problem's type; lengths int32."""

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
    streams: ClassVar[bool] = False  # whether its sessions have `begin_steps`

    def unavailable(self) -> str | None:
        """Why nothing can be computed on this machine (no device, say) and the way out, or None."""
        return None

    def unsupported(self, case: Case) -> str | None:
        """Why this case cannot be computed here, or None. Never a silent substitute."""
        return self._not_implemented(case) or self._no_steps(case) or self._unsupported(case)

    def _no_steps(self, case: Case) -> str | None:
        if case.pass_ is not Pass.STEP:
            return None
        if case.model.bidirectional:
            return "a bidirectional model reads rows from their end too: there is no step before that"
        if case.lengths:
            return "single steps are of rows that go on; leave the lengths out"
        return None if self.streams else NO_STEPS

    def _not_implemented(self, problem: Problem) -> str | None:
        cell = problem.model.recurrence
        if not self.computes(cell):
            return f"{cell.name} is not implemented here yet; {', '.join(cell.computed_by or ())} compute it"
        for feature in features_of(problem):
            if not self.has(feature):
                names = [name for name, entry in backends.REGISTRY.items() if feature in entry.features]
                return f"{feature}: not implemented here yet; {', '.join(names)} compute it"
        return None

    def computes(self, cell: Cell) -> bool:
        """Whether the cell is implemented here. A backend from outside the package says so itself."""
        return cell.computed_by is None or self.name in cell.computed_by

    def has(self, feature: Feature) -> bool:
        """Whether the feature is implemented here, as the registry says. A backend from outside says so itself."""
        return self.name in backends.REGISTRY and feature in backends.REGISTRY[self.name].features

    def _unsupported(self, case: Case) -> str | None:
        """`unsupported` after the check of cell and features."""
        return None

    @abc.abstractmethod
    def contract(self, problem: Problem) -> Contract:
        """What a number of this backend stands for."""

    @abc.abstractmethod
    def libraries(self) -> dict[str, str]:
        """Name -> version of what computes."""

    def built_for(self) -> dict[str, str]:
        """What its compiler takes this machine for and how its threads are run, where it says so. Name -> value."""
        return {}

    def warm(self, dtype: DType) -> Iterator[tuple[int, int, str]]:
        """Compile ahead, for later processes, what does not depend on the problem: done, of how many, what is next."""
        yield from ()

    def prepare(self, problem: Problem, params: Params, data: Data) -> Session:
        """Check, move, pack, allocate. `params` in any float type. ValueError where they do not fit the problem, and
        RuntimeError where nothing can be computed on this machine or the cell or a feature is not implemented.
        """
        if reason := self.unavailable() or self._not_implemented(problem):
            raise RuntimeError(reason)
        check_shapes(params, problem.model)
        check_data(problem, data)
        return self._prepare(problem, params, data)

    @abc.abstractmethod
    def _prepare(self, problem: Problem, params: Params, data: Data) -> Session:
        """`prepare` after its checks."""
