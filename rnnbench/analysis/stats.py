"""Statistics from records: one value for each turn, launch and case, with its interval; ratios within rounds.

A turn's value is the median of its samples after the warm-ups. A launch's value is the median of its turns; a
case's value is the median of its launches, with a 95 % interval by their ranks. One launch alone shows the spread
between its rounds and nothing of the spread between processes: its interval says so.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any

import numpy as np

from rnnbench.analysis.intervals import CONFIDENCE, LOOKED, median_interval
from rnnbench.model import Case, Pass
from rnnbench.records.record import (
    MemoryRecord,
    Record,
    Status,
    TrialRecord,
    TurnKey,
    TurnRecord,
    checks_in,
    trials_in,
    turns_in,
)
from rnnbench.records.stops import DEFAULT_MIN_LAUNCHES, MIN_LAUNCHES
from rnnbench.units import threads

if TYPE_CHECKING:
    import pandas as pd

WIDEST = 3.0  # what is given in digits: the upper end of an interval over its lower one
NS = 1e-9

# Where no round could be measured, the first of these that occurred is reported.
_SEVERITY = (
    Status.CRASHED, Status.OUT_OF_MEMORY, Status.TIMEOUT, Status.UNAVAILABLE, Status.UNSUPPORTED, Status.SKIPPED,
)  # fmt: skip


class Basis(StrEnum):
    """What an interval was taken over."""

    LAUNCHES = "launches"
    ROUNDS = "rounds"  # of one launch: far too narrow, within-process spread only
    NONE = "none"  # one value: no interval


@dataclass(frozen=True)
class Interval:
    """A value and its 95 % interval; `low` and `high` are NaN where the basis is `NONE`.

    Taken over `count` launches or rounds, of which the largest value is `apart` times the smallest.
    """

    value: float
    low: float
    high: float
    basis: Basis
    count: int = 0
    apart: float = 1.0

    @property
    def lowest(self) -> float:
        """The lower end; the value where there is no interval."""
        return self.value if self.basis is Basis.NONE else self.low

    @property
    def above_one(self) -> bool:
        """Whether a ratio is above 1 for sure: the whole interval, taken over launches."""
        return self.basis is Basis.LAUNCHES and self.low > 1

    @property
    def noisy(self) -> bool:
        """Whether the interval, or what lies between two values that have none, is too wide to be given in digits."""
        return self.apart > WIDEST if self.basis is Basis.NONE else not self.high <= WIDEST * self.low


@dataclass(frozen=True)
class Summary:
    """One backend's answer to one case, over all rounds. `time` is seconds a call; None where nothing was timed.

    `reason` says why there is no time, or, where there is one, what failed beside it.
    """

    case: Case
    backend: str
    status: Status
    reason: str | None
    time: Interval | None
    turns: Mapping[TurnKey, float]
    records: tuple[Record, ...]
    mixed: bool = False  # runs of unlike machines were merged: no time can stand for all

    @property
    def ranked(self) -> bool:
        """Whether it is in rankings and ratios: right, and timed."""
        return self.status is Status.OK and self.time is not None

    @property
    def threads(self) -> tuple[int, ...]:
        """Its threads by its contract; several where runs that chose differently are shown as one."""
        last = {r.run_id: r.contract.threads for r in checks_in(self.records) if r.contract}
        return tuple(sorted(set(last.values())))

    @property
    def tried(self) -> tuple[int, ...]:
        """The numbers of threads of which the better is ranked; empty where there was nothing to choose."""
        return next((r.tried for r in self.records if r.tried), ())

    @property
    def timed_turns(self) -> list[TurnRecord]:
        """The turns that the time is made of."""
        return [r for r in counted(self.records) if r.key in self.turns]

    @property
    def disturbed(self) -> list[TurnRecord]:
        """Those of them that other programs disturbed: there are too few others."""
        return [r for r in self.timed_turns if r.disturbed]


class Metric(StrEnum):
    """What stands for the calls of a turn."""

    MEDIAN = "median"
    MIN = "min"
    MEAN = "mean"


_CENTRES: dict[Metric, Callable[[Sequence[int]], float]] = {
    Metric.MEDIAN: lambda ns: float(median(ns)),
    Metric.MIN: lambda ns: float(min(ns)),
    Metric.MEAN: lambda ns: float(np.mean(ns)),
}


def turn_seconds(record: TurnRecord | TrialRecord, metric: Metric = Metric.MEDIAN) -> float | None:
    """Seconds a call: the metric of the samples after the warm-ups, at least 1 ns.

    None where there are none, or the machine was suspended in between.
    """
    kept = () if left_out(record) else record.samples_ns[record.warmup :]
    return max(_CENTRES[metric](kept), 1.0) * NS if kept else None


def device_turn_seconds(record: TurnRecord) -> float | None:
    """Seconds a call by the device's own clock, the median after the warm-ups; None where it has none."""
    kept = () if left_out(record) else record.device_ns[record.warmup :]
    return max(float(median(kept)), 1.0) * NS if kept else None


def turns_of(
    records: Iterable[Record], seconds: Callable[[TurnRecord], float | None] = turn_seconds
) -> dict[TurnKey, float]:
    """Turn -> seconds a call, of rounds that ended `ok` or `wrong`; disturbed turns as `counted` has it."""
    values = {r.key: seconds(r) for r in counted(records)}
    return {key: value for key, value in values.items() if value is not None}


def counted(records: Iterable[Record]) -> list[TurnRecord]:
    """The timed turns of one answer that its numbers are made of, one for each round of each launch.

    Of a run whose trial was decided anew the turns by the threads that it ended with. Of a turn that was measured again
    the attempt that others took least from. Where `MIN_LAUNCHES` launches are
    calm, more than half of their turns undisturbed, it is these turns; otherwise all, as there would be no interval.
    """
    best: dict[TurnKey, TurnRecord] = {}
    turns = turns_in(records)
    ended = {r.run_id: r.threads for r in sorted(turns, key=lambda r: (r.part, r.launch))}
    for r in turns:
        if r.threads == ended[r.run_id] and r.status in (Status.OK, Status.WRONG) and r.samples_ns and not left_out(r):
            known = best.get(r.key)
            if known is None or r.disturbed <= known.disturbed:
                best[r.key] = r
    made = Counter(key[:2] for key in best)
    undisturbed = [r for r in best.values() if not r.disturbed]
    calm = {launch for launch, count in Counter(r.key[:2] for r in undisturbed).items() if 2 * count > made[launch]}
    return [r for r in undisturbed if r.key[:2] in calm] if len(calm) >= MIN_LAUNCHES else list(best.values())


def interval_of(values: Mapping[TurnKey, float]) -> Interval | None:
    """The median over launches of the median over rounds, with its interval. None of nothing.

    Values must be above 0. A launch that was resumed (another part) is another process.
    """
    medians = launch_medians(values)
    if not medians:
        return None
    if len(medians) > 1:
        return _interval(medians, Basis.LAUNCHES)
    return _interval([math.log(value) for value in values.values()], Basis.ROUNDS)


def launch_medians(values: Mapping[Any, float]) -> list[float]:
    """log of each launch's value, the median of its rounds; launches in the order in which they first occur.

    Keys are tuples that end with the round; what stands before it tells launches apart.
    """
    launches: dict[tuple[Any, ...], list[float]] = {}
    for (*launch, _), value in values.items():
        launches.setdefault(tuple(launch), []).append(math.log(value))
    return [median(logs) for logs in launches.values()]


def _interval(logs: Sequence[float], basis: Basis) -> Interval:
    """exp of the median and of its interval; of fewer than three values the interval would say nothing.

    With more launches than a stop rule's fewest, the rule looked after each one and might have stopped: then `LOOKED`.
    """
    n, apart = len(logs), _exp(max(logs) - min(logs))
    if n < MIN_LAUNCHES:
        return Interval(math.exp(median(logs)), math.nan, math.nan, Basis.NONE, n, apart)
    looked = basis is Basis.LAUNCHES and n > DEFAULT_MIN_LAUNCHES
    centre, low, high = median_interval(logs, LOOKED if looked else CONFIDENCE)
    return Interval(math.exp(centre), _exp(low), _exp(high), basis, n, apart)


def _exp(x: float) -> float:
    """exp(x), infinite where it would overflow (two launches far apart)."""
    return math.exp(x) if x < 700 else math.inf


def ratio_of(numerator: Mapping[TurnKey, float], denominator: Mapping[TurnKey, float]) -> Interval | None:
    """numerator / denominator over the rounds that both have, one ratio a round. None where they share none."""
    shared = numerator.keys() & denominator.keys()
    return interval_of({key: numerator[key] / denominator[key] for key in sorted(shared)})


def outliers_of(record: TurnRecord) -> int:
    """How many samples lie more than 3 interquartile ranges above the upper quartile (Tukey, 1977) of their turn."""
    kept = record.samples_ns[record.warmup :]
    if len(kept) < 4:
        return 0
    q1, _, q3 = quantiles(kept, n=4, method="inclusive")
    return sum(ns > q3 + 3 * (q3 - q1) for ns in kept)


def failed_trial(records: Iterable[Record]) -> str | None:
    """What failed with a number of threads that is not ranked, and with how many."""
    failed = [r for r in trials_in(records) if r.status not in (Status.OK, Status.SKIPPED)]
    return f"{failed[0].status} with {threads(failed[0].threads or 0)}: {failed[0].reason}" if failed else None


def _verdict(records: Sequence[Record], timed: bool) -> tuple[Status, str | None]:
    """The status of all rounds together: one wrong round makes it wrong; else what was measured stays.

    What failed in a trial has no part in it, and is told where there is nothing else to tell.
    """
    status, reason = _verdict_without_trials([r for r in records if not isinstance(r, TrialRecord)], timed)
    return status, reason or failed_trial(records)


def _verdict_without_trials(records: Sequence[Record], timed: bool) -> tuple[Status, str | None]:
    for record in records:
        if record.status is Status.WRONG:
            return Status.WRONG, record.reason
    lost = [r for r in records if r.status is not Status.OK and not (timed and r.status is Status.SKIPPED)]
    failed = sorted(lost, key=lambda r: _SEVERITY.index(r.status))
    if not failed:
        return Status.OK, _suspended(records) or (None if timed else "checked; the run ended before it was timed")
    worst = failed[-1] if failed[0].status is Status.SKIPPED else failed[0]  # by the budget that it was given last
    if not timed:
        return worst.status, worst.reason
    if isinstance(worst, MemoryRecord):
        return Status.OK, f"{worst.status}, {worst.reason}"
    launches = {(r.part, r.launch) for r in records if not isinstance(r, MemoryRecord)}
    broken = {(r.part, r.launch) for r in failed if not isinstance(r, MemoryRecord) and r.status is worst.status}
    return Status.OK, f"{worst.status} in {len(broken)} of {len(launches)} launches: {worst.reason or 'no reason kept'}"


def _suspended(records: Sequence[Record]) -> str | None:
    """How many turns are left out because the machine was suspended in them, or None of none."""
    turns = [left_out(r) for r in turns_in(records) if r.samples_ns]
    return f"{sum(turns)} of {len(turns)} turns left out: the machine was suspended meanwhile" if any(turns) else None


def _unlike_machines(records: Sequence[Record]) -> str | None:
    """Why runs that were merged share no number, or None where they may."""
    timed = [r for r in turns_in(records) if r.samples_ns]
    machines = list(dict.fromkeys(r.machine_id for r in timed))
    if len(machines) < 2 or len({r.run_id for r in timed}) < 2:
        return None
    return f"not comparable: measured on unlike machines, {' and '.join(machines)}"


def summarise(records: Sequence[Record]) -> Summary:
    """All records of one backend and one case as one answer."""
    turns = turns_of(records)
    status, reason = _verdict(records, bool(turns))
    if status is Status.OK and (why := _unlike_machines(records)):
        return Summary(records[0].case, records[0].backend, status, why, None, {}, tuple(records), mixed=True)
    return Summary(records[0].case, records[0].backend, status, reason, interval_of(turns), turns, tuple(records))


def summaries(records: Iterable[Record]) -> list[Summary]:
    """A summary of each case and backend: problems and backends in the order they came in, passes in their own."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        groups.setdefault((record.case.key, record.backend), []).append(record)
    found = [summarise(group) for group in groups.values()]
    problems = list(dict.fromkeys(problem_key(s.case) for s in found))
    backends = list(dict.fromkeys(s.backend for s in found))
    passes = list(Pass)
    return sorted(
        found,
        key=lambda s: (problems.index(problem_key(s.case)), passes.index(s.case.pass_), backends.index(s.backend)),
    )


def problem_key(case: Case) -> tuple[str, str, str]:
    """What the passes of one problem share, to group by: its name, dtype, truncation ("" where full)."""
    return case.name, str(case.dtype), str(case.truncation or "")


def case_fields(case: Case) -> dict[str, object]:
    """The columns that name a case, in every table."""
    return {
        "case": case.key, "workload": case.workload, "pass": str(case.pass_), "dtype": str(case.dtype),
        "truncation": str(case.truncation or ""),
    }  # fmt: skip


def by_case(found: Iterable[Summary]) -> dict[str, list[Summary]]:
    """Case key -> its summaries, in order."""
    groups: dict[str, list[Summary]] = {}
    for summary in found:
        groups.setdefault(summary.case.key, []).append(summary)
    return groups


def _row(s: Summary) -> dict[str, object]:
    case, nan = s.case, Interval(math.nan, math.nan, math.nan, Basis.NONE)
    device_turns = {} if s.mixed else turns_of(s.records, device_turn_seconds)
    time, device_time = s.time or nan, interval_of(device_turns) or nan
    timed = s.timed_turns
    contract = next((r.contract for r in checks_in(s.records) if r.contract is not None), None)
    peaks = [r.peak_memory_bytes for r in s.records if r.peak_memory_bytes is not None]
    return {
        **case_fields(case), "cell": case.model.cell, "steps": case.steps, "backend": s.backend,
        "status": str(s.status), "reason": s.reason or "", "ranked": s.ranked, "seconds": time.value, "low": time.low,
        "high": time.high, "basis": str(time.basis), "seconds_per_step": time.value / case.steps,
        "low_per_step": time.low / case.steps, "high_per_step": time.high / case.steps,
        "device": "" if contract is None else contract.device, "device_seconds": device_time.value,
        "device_low": device_time.low, "device_high": device_time.high, "launches": len({key[:2] for key in s.turns}),
        "rounds": len(s.turns), "samples": sum(len(r.samples_ns) - r.warmup for r in timed),
        "warmups": sum(r.warmup for r in timed), "outliers": sum(outliers_of(r) for r in timed),
        "peak_memory_bytes": max(peaks, default=None),
        "peak_device_bytes": max((r.peak_device_bytes for r in s.records if r.peak_device_bytes), default=None),
        "threads": s.threads[0] if len(s.threads) == 1 else None,
        "subnormals": "" if contract is None else contract.subnormals, "data_source": s.records[0].data_source,
    }  # fmt: skip


def times_frame(found: Iterable[Summary]) -> pd.DataFrame:
    """One row for each case and backend: status, reason, seconds a call and a step with intervals, counts, contract."""
    import pandas as pd

    rows = [_row(s) for s in found]
    columns = list(rows[0]) if rows else ["case", "backend", "status"]
    return pd.DataFrame(rows, columns=columns).astype(
        dict.fromkeys(("peak_memory_bytes", "peak_device_bytes", "threads"), "Int64") if rows else {}
    )


# How a disturbance begins, as the harness writes it into `disturbances` of a record.
SUSPENDED = "suspended"
CLOCK_SET = "clock set"
BESIDE = "beside another run"

_MEANING = {
    SUSPENDED: "the machine was suspended meanwhile; they are kept in the records and left out of every number",
    CLOCK_SET: "the system's clock was set meanwhile; no duration is read from it, only when a turn began",
    BESIDE: "another run measured on this machine meanwhile; they count, and are slower than on a quiet machine",
}


def is_harmless(disturbance: str) -> bool:
    """Whether a disturbance touches no number."""
    return disturbance.startswith(CLOCK_SET)


def left_out(record: Record) -> bool:
    """Whether samples are left out: after a suspension caches and clocks are not what they were."""
    return any(text.startswith(SUSPENDED) for text in record.disturbances)


def disturbance_notes(records: Iterable[Record]) -> list[str]:
    """A sentence for each kind of disturbance: in how many turns, whose, and what it means."""
    turns = [r for r in turns_in(records) if r.samples_ns]
    said = []
    for kind, meaning in _MEANING.items():
        found = [r for r in turns if any(text.startswith(kind) for text in r.disturbances)]
        said += _said_of(found, turns, meaning)
    return said + _said_of([r for r in turns if r.disturbed], turns, _taken_from(turns))


def _said_of(found: Sequence[TurnRecord], turns: Sequence[TurnRecord], meaning: str) -> list[str]:
    whose = Counter(r.backend for r in found)
    by_backend = ", ".join(f"{name} {count}" for name, count in whose.most_common())
    return [f"{len(found)} of {len(turns)} turns ({by_backend}): {meaning}"] if found else []


def _taken_from(turns: Sequence[TurnRecord]) -> str:
    """What became of turns that other programs disturbed."""
    answers: dict[tuple[str, str], list[TurnRecord]] = {}
    for r in turns:
        answers.setdefault((r.case.key, r.backend), []).append(r)
    left = sum(r.disturbed > 0 for found in answers.values() for r in counted(found))
    verb = "counts" if left == 1 else "count"
    counting = f"{left} of these {verb}, as too few are undisturbed" if left else "none of these counts"
    again = sum(r.attempt > 0 for r in turns)
    return f"other programs took part of their time; {counting}; measured again: {again}"
