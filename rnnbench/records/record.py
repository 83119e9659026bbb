"""Records: what one backend answered to one case in a check, a trial, a turn or a process for memory; a line each.

History of `schema`:
1  the first release; what development wrote under 2 and 3 is read by the commit that wrote it
"""

from __future__ import annotations

import abc
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, NamedTuple, TypeAlias

from msgspec import Meta

from rnnbench.contract import Contract
from rnnbench.model import Case

SCHEMA = 1

COLD, WARM = "cold", "warm"  # whether compiled code was on disk when a process began

# What a line is held to when it is read; a number outside is damage.
Nanoseconds = Annotated[int, Meta(gt=0)]  # of a call: the clock of a turn gives at least 1
Count = Annotated[int, Meta(ge=0)]
Amount = Annotated[float, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
Positive = Annotated[float, Meta(gt=0)]


class Status(StrEnum):
    """How it ended."""

    OK = "ok"
    UNSUPPORTED = "unsupported"  # the backend cannot do this case
    UNAVAILABLE = "unavailable"  # not installed, no device, no data
    WRONG = "wrong"  # the answer is not the oracle's: never ranked
    TIMEOUT = "timeout"
    CRASHED = "crashed"
    OUT_OF_MEMORY = "out_of_memory"
    SKIPPED = "skipped"  # a budget was spent before it could be timed


class Mode(StrEnum):
    """How long a run looks. `quick` is a smoke test: its numbers are not for quoting."""

    QUICK = "quick"
    DEFAULT = "default"
    RIGOROUS = "rigorous"


@dataclass(frozen=True)
class ErrorOf:
    """norm(x - ref) / norm(ref) of one named array against the oracle, and the most it may be.

    `error` is None where it is not a number: the array, but not the oracle's, holds NaN or infinity.
    """

    error: Amount | None
    limit: Positive

    @property
    def ok(self) -> bool:
        """Whether the error is a number within the limit."""
        return self.error is not None and self.error <= self.limit


@dataclass(frozen=True)
class Costs:
    """What is paid once per process, in nanoseconds; None where it does not apply.

    `import_ns`: importing the library. `prepare_ns`: staging data and parameters, and compiling
    where a backend does that before its first call. `first_call_ns`: the first call of
    the pass, compiling included. `cache`: COLD where no compiled code was on disk, else WARM: later starts of a
    run. As many processes are made ready at a time as there are cores; cold ones of a rigorous run one by one.
    """

    import_ns: Count | None = None
    prepare_ns: Count | None = None
    first_call_ns: Count | None = None
    cache: str = COLD


@dataclass(frozen=True)
class Seeds:
    """Where randomness came from: parameters, data, and the order of the rounds."""

    params: int
    data: int
    schedule: int


@dataclass(frozen=True)
class DeviceState:
    """A GPU at one moment; None for what its driver does not tell. Clocks in MHz, temperature in degrees Celsius."""

    name: str
    driver: str | None = None
    sm_mhz: int | None = None
    memory_mhz: int | None = None
    celsius: int | None = None
    watts: float | None = None
    throttled: str | None = None  # why its clock is held back


@dataclass(frozen=True)
class Energy:
    """Joules over all calls of a turn, or the reason why they are not known; never 0 for unknown."""

    joules: Amount | None = None
    seconds: Amount | None = None  # the window that they were counted over
    source: str = ""  # "rapl package-0", "nvml"
    reason: str | None = None


@dataclass(frozen=True)
class Contention:
    """What other programs took from a turn, counted around its calls; None for what the system does not tell.

    Shares are of the time of the cores that the process may use. The system counts it in ticks, of 10 ms as a rule: of
    a turn of fewer than five there are none.
    """

    seconds: Amount  # that the counters are over
    run_delay_ns: Count | None = None  # of all threads together: ready to run, and without a core
    involuntary_switches: Count | None = None  # how often a core was taken from one of its threads
    others_share: Share | None = None  # that other processes used
    stolen_share: Share | None = None  # that the hypervisor gave to other guests
    probe_ns: tuple[Nanoseconds, ...] = ()  # the same fixed work before the calls and after them
    around_seconds: Amount | None = None  # that the next is over: they end with the turn, and may begin before it
    around_share: Share | None = None  # of all cores of the run: what other programs than the run used
    starts: Count | None = None  # how often any of its threads got a core
    throttled_periods: Count | None = None  # in which a control group had used up its quota and was held back
    throttled_ns: Count | None = None  # for how long, of all cores together


class TurnKey(NamedTuple):
    """Which turn of a backend in a case: of which session of the run, process and round, each from 0."""

    part: int
    launch: int
    round: int


@dataclass(frozen=True, kw_only=True)
class RecordBase(abc.ABC):
    """What every record holds. On disk `round` tells the kinds apart: -1 a check, -2 memory, -3 a turn of a trial."""

    run_id: str
    case: Case
    backend: str
    status: Status
    mode: Mode
    part: Count = 0  # 0, and 1 more for each resumption of the run
    reason: str | None = None
    threads: Count | None = None  # that the process was told it may use; None in records of older versions
    tried: tuple[Count, ...] = ()  # the numbers of threads of which the better is ranked; empty where one was fixed
    disturbances: tuple[str, ...] = ()  # of the machine meanwhile: suspended, its clock set, another run
    peak_memory_bytes: Count | None = None  # resident, of the process so far
    peak_device_bytes: Count | None = None  # on the device, of the session so far
    flops: Count | None = None  # of one call, by `work`
    least_bytes: Count | None = None  # the traffic of one call, by `work`
    seeds: Seeds = Seeds(0, 0, 0)
    machine_id: str = ""
    data_source: str = ""
    started: str = ""  # ISO 8601, UTC
    schema: int = SCHEMA

    @property
    @abc.abstractmethod
    def moment(self) -> str:
        """When in the run it was made, in words."""


@dataclass(frozen=True, kw_only=True)
class CheckRecord(RecordBase):
    """The check at the start of a launch. A case that was not measured at all has its status and reason here."""

    launch: Count  # which process of this backend, from 0
    errors: dict[str, ErrorOf] = field(default_factory=dict)
    costs: Costs = Costs()
    contract: Contract | None = None

    @property
    def moment(self) -> str:
        return f"launch {self.launch + 1}, its check"


@dataclass(frozen=True, kw_only=True)
class TrialRecord(RecordBase):
    """A turn that chooses the number of threads, before those that count. One that failed has no samples.

    Those of one `pair` of a launch follow one another, one for each number of threads.
    """

    launch: Count
    pair: Count  # from 0
    samples_ns: tuple[Nanoseconds, ...] = ()
    warmup: Count = 0
    contention: Contention | None = None
    disturbed: Amount = 0.0  # as of a turn that counts

    @property
    def moment(self) -> str:
        return f"launch {self.launch + 1}, its trial"


@dataclass(frozen=True, kw_only=True)
class TurnRecord(RecordBase):
    """A turn: the calls of one round. One that failed has no samples, and its status and reason here."""

    launch: Count  # which process of this backend, from 0
    round: Count  # which turn within the launch, from 0
    samples_ns: tuple[Nanoseconds, ...] = ()  # one call each, in order, warm-ups first
    warmup: Count = 0  # how many of samples_ns are warm-ups
    # Of the step pass samples_ns are medians of successive steps, and these are the single steps but for the warm-ups:
    # (nanoseconds to 8 binary digits, how many)
    step_counts: tuple[tuple[Nanoseconds, Nanoseconds], ...] = ()
    device_ns: tuple[Nanoseconds, ...] = ()  # the same calls by the device's own clock; empty where it has none
    device_states: tuple[DeviceState, ...] = ()  # before the turn and after it
    energy: Energy | None = None
    contention: Contention | None = None  # None in records of older versions
    attempt: Count = 0  # 0, and 1 more each time that this turn of the round was measured again
    disturbed: Amount = 0.0  # the share of its time that others took, by `contention`, where that is much; else 0
    share_of_peak: Amount | None = None  # of this machine's multiply-add peak, by the time of this turn

    @property
    def key(self) -> TurnKey:
        """What tells it from the other turns of its backend and case."""
        return TurnKey(self.part, self.launch, self.round)

    @property
    def moment(self) -> str:
        return f"launch {self.launch + 1}, round {self.round + 1}"


@dataclass(frozen=True, kw_only=True)
class MemoryRecord(RecordBase):
    """The peak memory of one pass, in a process that did nothing else."""

    memory_before_bytes: Count | None = None  # resident, of the process before the pass

    @property
    def moment(self) -> str:
        return "launch 1, its memory"


@dataclass(frozen=True)
class TrainedEpoch:
    """One epoch of a training to an accuracy, and the test after it. `at_ns`: its end, by the clock of the training."""

    at_ns: Count
    train_ns: Count
    test_ns: Count
    loss: float | None  # of training, a mean over rows; None where it is no number
    accuracy: Share  # on the test rows


@dataclass(frozen=True, kw_only=True)
class TrainingRecord(RecordBase):
    """A training in a process of its own until the test rows are answered with an accuracy, or the epochs are over.

    A line of `trainings.jsonl`. Its parts follow one another: the process starts, imports its library, reads the rows
    and stages them, then trains epochs. The clock is the parent's, from just before the process was started, and
    stands still in the test after each epoch. What was ended has its status and reason; by `ended_ns` it had not
    reached the accuracy.
    """

    until: Share  # the accuracy
    max_epochs: Count
    cache: str = WARM  # COLD: no compiled code was on disk, and it is of one epoch
    start_ns: Count = 0
    import_ns: Count = 0
    read_ns: Count = 0
    prepare_ns: Count = 0
    epochs: tuple[TrainedEpoch, ...] = ()
    ended_ns: Count = 0
    others_share: Share | None = None  # of the time of all cores: what other programs used meanwhile

    @property
    def reached_ns(self) -> int | None:
        """When the first epoch with the accuracy was tested; None where there is none."""
        return next((e.at_ns for e in self.epochs if e.accuracy >= self.until), None)

    @property
    def moment(self) -> str:
        return f"seed {self.seeds.params}"


Record: TypeAlias = CheckRecord | TrialRecord | TurnRecord | MemoryRecord


def checks_in(records: Iterable[Record]) -> list[CheckRecord]:
    """The checks among records, in order."""
    return [r for r in records if isinstance(r, CheckRecord)]


def trials_in(records: Iterable[Record]) -> list[TrialRecord]:
    """The turns of trials among records, in order."""
    return [r for r in records if isinstance(r, TrialRecord)]


def turns_in(records: Iterable[Record]) -> list[TurnRecord]:
    """The turns among records, in order."""
    return [r for r in records if isinstance(r, TurnRecord)]


@dataclass(frozen=True)
class Epoch:
    """One epoch of a training. One line of JSON in `curves.jsonl`.

    Losses are means over rows; accuracies in [0, 1], None where the loss has no classes. `seconds` is the training
    alone. Epoch 0 is the untrained network, with no training loss. `expect`: what accuracy to expect of the workload,
    where that would surprise.
    """

    run_id: str
    workload: str
    backend: str
    dtype: str
    seed: int
    epoch: Count
    epochs: Count
    loss: float | None
    accuracy: Amount | None
    validation_loss: float | None
    validation_accuracy: Amount | None
    seconds: Amount
    data_source: str = ""
    expect: str = ""
    schema: int = SCHEMA
