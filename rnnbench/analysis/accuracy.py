"""Time to accuracy, from trainings: the median over seeds, where those that did not get there count as the slowest."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median, median_low
from typing import TYPE_CHECKING

from rnnbench.analysis.stats import NS, case_fields
from rnnbench.model import Case
from rnnbench.records.record import COLD, Status, TrainingRecord

if TYPE_CHECKING:
    import pandas as pd

PARTS = ("start", "import", "read", "prepare", "first_call", "train")  # of the time to accuracy, in their order
UNTRAINED = (Status.UNAVAILABLE, Status.UNSUPPORTED, Status.WRONG)
FAILED = (Status.CRASHED, Status.OUT_OF_MEMORY, Status.TIMEOUT, *UNTRAINED)


@dataclass(frozen=True)
class ToReach:
    """How long one backend takes to an accuracy, over all seeds; seconds from the start of the process, tests left out.

    `seconds` is infinite where no more than half of the trainings got there; `at_least` then says more than how long:
    the median of what each took or had taken when it ended. `low` and `high` are the fastest and the slowest training,
    the latter infinite where one did not get there. `parts` are the means of PARTS over the trainings that got there,
    `tests` that of their tests. `colder` is what an epoch takes longer where no compiled code is on disk.
    """

    case: Case
    backend: str
    until: float
    trainings: tuple[TrainingRecord, ...]
    seconds: float
    low: float
    high: float
    at_least: float
    parts: dict[str, float]
    tests: float
    colder: float | None
    status: Status
    reason: str | None

    @property
    def reached(self) -> list[TrainingRecord]:
        """The trainings that got there."""
        return [r for r in self.trainings if r.reached_ns is not None]

    @property
    def ready(self) -> float:
        """When the first epoch begins: seconds, the median of all trainings that came so far; infinite of none."""
        begun = [(r.start_ns + r.import_ns + r.read_ns + r.prepare_ns) * NS for r in self.trainings if r.epochs]
        return median(begun) if begun else math.inf

    @property
    def epochs(self) -> float | None:
        """The median number of epochs until then."""
        return median(len(r.epochs) for r in self.reached) if self.reached else None

    @property
    def accuracy(self) -> float | None:
        """The median accuracy at the end of all that had an epoch."""
        ends = [r.epochs[-1].accuracy for r in self.trainings if r.epochs]
        return median(ends) if ends else None


def to_reach(records: Iterable[TrainingRecord]) -> list[ToReach]:
    """One for each problem and backend, the fastest first, those that did not get there last."""
    groups: dict[tuple[Case, float, str], list[TrainingRecord]] = {}
    for r in records:
        groups.setdefault((r.case, r.until, r.backend), []).append(r)
    order = {key: place for place, key in enumerate(dict.fromkeys(group[:2] for group in groups))}
    found = [_of(*key, group) for key, group in groups.items()]
    return sorted(
        found, key=lambda t: (order[t.case, t.until], t.seconds, not t.trainings, -len(t.reached), t.at_least)
    )


def _of(case: Case, until: float, backend: str, records: Sequence[TrainingRecord]) -> ToReach:
    warm = tuple(r for r in records if r.cache != COLD and r.status not in UNTRAINED)
    times = sorted(math.inf if r.reached_ns is None else r.reached_ns * NS for r in warm)
    known = sorted((r.ended_ns if r.reached_ns is None else r.reached_ns) * NS for r in warm)
    failed = next((r for r in records if r.status in FAILED), None)
    failed = failed or next((r for r in records if r.status is not Status.OK), None)
    parts, tests = _parts([r for r in warm if r.reached_ns is not None], warm)
    return ToReach(
        case,
        backend,
        until,
        warm,
        _median(times),
        times[0] if times else math.inf,
        times[-1] if times else math.inf,
        _median(known),
        parts,
        tests,
        _colder([r for r in records if r.cache == COLD], warm),
        failed.status if failed else Status.OK,
        failed.reason if failed else None,
    )


def _median(ordered: Sequence[float]) -> float:
    """The middle one, of an even number the mean of the middle two; infinite of none."""
    return median(ordered) if ordered else math.inf


def _parts(reached: Sequence[TrainingRecord], every: Sequence[TrainingRecord]) -> tuple[dict[str, float], float]:
    """Means of the parts and of the tests.

    What the first epoch takes longer than the later ones, of all trainings, is its first call: compiling, as a rule.
    Where no training has a second epoch, that is not known and counts as training.
    """
    if not reached:
        return {}, math.nan
    later = [e.train_ns * NS for r in every for e in r.epochs[1:]]
    usual = median(later) if later else math.inf
    sums = dict.fromkeys(PARTS, 0.0)
    for r in reached:
        first = max(0.0, r.epochs[0].train_ns * NS - usual)
        trained = sum(e.train_ns for e in r.epochs) * NS
        taken = (r.start_ns * NS, r.import_ns * NS, r.read_ns * NS, r.prepare_ns * NS, first, trained - first)
        for name, seconds in zip(PARTS, taken, strict=True):
            sums[name] += seconds / len(reached)
    return sums, sum(e.test_ns * NS for r in reached for e in r.epochs) / len(reached)


def _colder(cold: Sequence[TrainingRecord], warm: Sequence[TrainingRecord]) -> float | None:
    """How much later the first epoch ends where nothing is compiled yet; None where that is not known."""
    firsts = [[r.epochs[0].at_ns * NS for r in of if r.epochs] for of in (cold, warm)]
    return median(firsts[0]) - median(firsts[1]) if all(firsts) else None


def best_so_far(trainings: Sequence[TrainingRecord]) -> list[tuple[float, float, float, float]]:
    """Seconds, and from then on the median, lowest and highest over trainings of the best accuracy so far, from 0.

    The median crosses an accuracy when more than half of the trainings have reached it.
    """
    moments = sorted({e.at_ns for r in trainings for e in r.epochs})
    found = []
    for moment in moments:
        best = [max((e.accuracy for e in r.epochs if e.at_ns <= moment), default=0.0) for r in trainings]
        found.append((moment * NS, median_low(best), min(best), max(best)))
    return found


def to_accuracy_frame(found: Iterable[ToReach]) -> pd.DataFrame:
    """One row for each problem and backend; seconds are empty where the accuracy was not reached."""
    import pandas as pd

    def known(value: float) -> float | None:
        return value if math.isfinite(value) else None

    rows = [
        {
            **case_fields(t.case),
            "backend": t.backend,
            "status": str(t.status),
            "reason": t.reason or "",
            "until": t.until,
            "trainings": len(t.trainings),
            "reached": len(t.reached),
            "seconds": known(t.seconds),
            "low": known(t.low),
            "high": known(t.high),
            "at_least": known(t.at_least),
            "epochs": t.epochs,
            "accuracy": t.accuracy,
            **{f"{name}_seconds": t.parts.get(name) for name in PARTS},
            "tests_seconds": known(t.tests),
            "colder_seconds": t.colder,
        }
        for t in found
    ]
    return pd.DataFrame(rows)
