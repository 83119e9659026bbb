"""What is asked of a run: its cases, how long it looks at each, and how long it will still take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Annotated, Any

import numpy as np
from msgspec import Meta

from rnnbench.data import Data
from rnnbench.harness.clock import Turn
from rnnbench.model import Case, DType, Pass, Truncation
from rnnbench.records.record import Count, Mode, Positive, Share
from rnnbench.records.stops import StopRule
from rnnbench.sizes import Sweep
from rnnbench.workloads.base import Spec
from rnnbench.workloads.resolve import NOTHING, Asked


@dataclass(frozen=True)
class Effort:
    """How long a run looks: process launches, rounds in each, and the length of a turn.

    Backends start, compile and are checked side by side, as many at once as there are cores; `alone`, those that may
    be the first to compile do so one by one. Without `costs` what that took is not kept. `trial` is the length of a
    turn that finds the number of threads; None: all of them are taken. `extra` is the share of a run's time that it may
    take besides, to measure disturbed turns again; 0: no turn is judged.
    """

    launches: int
    rounds: int
    turn: Turn
    costs: bool = True
    alone: bool = True
    trial: Turn | None = None
    extra: float = 0.0

    def turn_of(self, pass_: Pass) -> Turn:
        """A turn that counts."""
        return _shorter(self.turn, pass_)

    def trial_of(self, pass_: Pass) -> Turn:
        """A turn that finds the number of threads."""
        assert self.trial is not None
        return _shorter(self.trial, pass_)


def _shorter(turn: Turn, pass_: Pass) -> Turn:
    """An epoch is long and steady: one call is a turn. Of single time steps it takes as many as there is time for."""
    if pass_ is Pass.STEP:
        return replace(turn, max_calls=MOST_STEPS)
    return turn if pass_ is not Pass.EPOCH else replace(turn, min_calls=1)


MOST_STEPS = 1 << 18  # of the step pass in a turn
LEAST = 0.01  # seconds of a turn that counts
TRIAL = Turn(seconds=0.03, min_calls=2, max_calls=10, least=LEAST)
EXTRA = 0.25

EFFORTS: dict[Mode, Effort] = {
    Mode.QUICK: Effort(launches=1, rounds=2, turn=Turn(seconds=0.05, min_calls=2, max_calls=10), costs=False),
    Mode.DEFAULT: Effort(
        launches=5,
        rounds=3,
        turn=Turn(seconds=0.1, min_calls=2, max_calls=50, least=LEAST),
        alone=False,
        trial=TRIAL,
        extra=EXTRA,
    ),
    Mode.RIGOROUS: Effort(
        launches=10, rounds=6, turn=Turn(seconds=0.5, min_calls=3, max_calls=100, least=LEAST), trial=TRIAL, extra=EXTRA
    ),
}


# A sweep has many cases, and asks how they differ: one process each, every answer by turns in a few rounds.
SWEEP_EFFORTS: dict[Mode, Effort] = {
    Mode.QUICK: Effort(launches=1, rounds=1, turn=Turn(seconds=0.02, min_calls=1, max_calls=10), costs=False),
    Mode.DEFAULT: Effort(
        launches=1,
        rounds=3,
        turn=Turn(seconds=0.08, min_calls=1, max_calls=30, least=LEAST),
        costs=False,
        trial=TRIAL,
        extra=EXTRA,
    ),
}


Size = Annotated[int, Meta(ge=1)]


@dataclass(frozen=True)
class Plan:
    """All that was asked of a run; `run.json` holds it, and a resumed run reads it back.

    `workloads` are whole, so that the run needs neither a registry nor a user's file to go on; `names` and `sizes` are
    what they were asked by. `epoch_batches` is the length of the `epoch` pass: None for each workload's short one, 0
    for the whole data set. `sweep` says which sizes the workloads of a sweep go through.
    """

    workloads: tuple[Spec, ...]
    backends: tuple[str, ...]
    passes: tuple[Pass, ...]
    dtypes: tuple[DType, ...]
    mode: Mode
    threads: Size
    seed: Count
    timeout: Positive
    reference: str | None = None
    truncation: Truncation | None = None
    names: tuple[str, ...] = ()
    sizes: Asked = NOTHING
    epoch_batches: Count | None = None
    filter: str = ""
    data_dir: str | None = None
    training: tuple[str, ...] = ()
    sweep: Sweep | None = None
    own_backends: tuple[str, ...] = ()  # FILE.py:CLASS of the user's own
    rule: StopRule | None = None  # launches until the times are precise, in place of the mode's number
    budget: Positive | None = None  # seconds of the whole run; once spent, no round begins
    case_budget: Positive | None = None  # seconds of each backend in each case: its checks, compiling and turns
    trial: bool = False  # each answer with 1 thread or with `threads`, whichever a trial shows to be faster
    memory: bool = False  # also the peak memory of each pass, in processes of their own
    until_accuracy: Share | None = None  # on the test rows: each backend is trained until it is reached
    seeds: Size = 1  # so often, from `seed` on
    env: dict[str, str] = field(default_factory=dict)  # variables of workers, besides those that pass through to all

    @property
    def effort(self) -> Effort:
        """How long to look."""
        return EFFORTS[self.mode] if self.sweep is None else SWEEP_EFFORTS[self.mode]

    @property
    def counts(self) -> tuple[int, ...]:
        """The numbers of threads of which each answer gets one, the fewest first."""
        tried = self.trial and self.threads > 1 and self.effort.trial is not None
        return (1, self.threads) if tried else (self.threads,)

    @property
    def launches(self) -> tuple[int, int]:
        """The fewest and the most."""
        return (self.effort.launches,) * 2 if self.rule is None else (self.rule.min_launches, self.rule.max_launches)

    @property
    def budgeted(self) -> bool:
        """Whether cases may be left out for want of time."""
        return self.budget is not None or self.case_budget is not None


def epoch_steps(spec: Spec, rows: int, asked: int | None) -> int:
    """Batches in the `epoch` pass: as asked (0: all), never more than the data set has."""
    whole = -(-rows // spec.B)
    return min(whole, spec.short_epoch if asked is None else asked or whole)


def cases_of(plan: Plan, spec: Spec, train: Data | None = None) -> list[Case]:
    """All cases that a plan asks of a workload, before the filter. `train`: its rows, once they are there."""
    cases, n = [], spec.rows[0] if train is None else len(train.inputs)
    for dtype in plan.dtypes:
        for pass_ in plan.passes:
            steps = epoch_steps(spec, n, plan.epoch_batches) if pass_ is Pass.EPOCH else 1
            cases.append(Case(**vars(spec.problem(dtype, plan.truncation, train)), pass_=pass_, steps=steps))
    return cases


def matches(words: str, line: str) -> bool:
    """Whether every word of a filter stands in the line, and no word after an exclamation mark does."""
    return all((word[1:] not in line) if word.startswith("!") else (word in line) for word in words.split())


def wanted(plan: Plan, case: Case, backend: str) -> bool:
    """Whether the plan's filter lets this backend answer this case."""
    return matches(plan.filter, f"{case.key} {backend}")


def shuffled(items: Iterable[str], *seed: int) -> list[str]:
    """The items in an order fixed by the seed."""
    names: Sequence[str] = list(items)
    return [names[i] for i in np.random.default_rng(seed).permutation(len(names))]


def order_of(rows: int, steps: int, B: int, *seed: int) -> list[int]:
    """Row numbers for `steps` batches of the `epoch` pass: equal for all backends that are told the same seed."""
    return [int(row) for row in np.random.default_rng(seed).permutation(rows)[: steps * B]]


GUESSES = {"start": 4.0, "check": 3.0, "turn": 0.3, "oracle": 3.0, "train": 3.0, "trial": 0.3}  # seconds of one


@dataclass
class Estimate:
    """How far a run is, from what its parts took so far. A part is a tuple that begins with its kind."""

    left: Counter[tuple[Any, ...]] = field(default_factory=Counter)
    seen: dict[tuple[Any, ...], float] = field(default_factory=dict)
    spent: float = 0.0
    changing: Lock = field(default_factory=Lock)  # parts may end side by side

    def add(self, part: tuple[Any, ...], count: int = 1) -> None:
        """This part is still to come, `count` times."""
        self.left[part] += count

    def done(self, part: tuple[Any, ...], seconds: float) -> None:
        """This part came once and took so long."""
        with self.changing:
            self.left[part] -= 1
            self.seen[part] = seconds
            self.spent += seconds

    def drop(self, part: tuple[Any, ...]) -> None:
        """This part will not come any more."""
        with self.changing:
            self.left.pop(part, None)

    @property
    def remaining(self) -> float:
        """Seconds still needed."""
        with self.changing:
            means = self._means()
            return sum(n * self.seen.get(part, means[part[0]]) for part, n in self.left.items() if n > 0)

    @property
    def fraction(self) -> float:
        """The part that is done, from 0 to 1."""
        return self.spent / total if (total := self.spent + self.remaining) else 1.0

    def of(self, part: tuple[Any, ...]) -> float:
        """Seconds that this part takes: as when it was seen, else like its kind."""
        return self.seen[part] if part in self.seen else self._means()[part[0]]

    def _means(self) -> dict[str, float]:
        """Seconds of a part of each kind."""
        alike: dict[str, list[float]] = {}
        for part, seconds in self.seen.items():
            alike.setdefault(part[0], []).append(seconds)
        return GUESSES | {kind: sum(each) / len(each) for kind, each in alike.items()}
