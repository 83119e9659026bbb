"""From the records of two versions to a verdict on each case: new / base over launches, with its interval.

A launch's value is the median of its turns. The ratio is the median of all ratios of a launch of new to one of base,
with its 95 % interval by ranks, as the launches of two runs are no pairs. Whether cases differ is decided for all of
them together (Benjamini and Hochberg, 1995).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from statistics import median

import numpy as np

from rnnbench.analysis.comparable import Side, differences
from rnnbench.analysis.intervals import CONFIDENCE, chance, shift_interval
from rnnbench.analysis.stats import Metric, Summary, counted, launch_medians, summaries, turn_seconds
from rnnbench.analysis.trial import trial_beside_others
from rnnbench.model import Case
from rnnbench.records.record import Record, Status, TurnRecord, turns_in
from rnnbench.records.stops import MIN_LAUNCHES

MAX_LAUNCHES = 10_000  # looked for
LEVEL = 1 - CONFIDENCE  # the share of false ones among all that are called slower or faster
ABSENT = (Status.UNAVAILABLE, Status.UNSUPPORTED, Status.SKIPPED)


class Verdict(StrEnum):
    """What is said of a case. In the order in which they are shown."""

    SLOWER = "slower"  # for sure, and by more than the margin as far as the launches show
    NOT_COMPARABLE = "not comparable"  # the sides did not do the same, or one of them failed
    FASTER = "faster"
    INCONCLUSIVE = "inconclusive"
    MISSING = "missing"  # on one side
    SAME = "same"  # the whole interval is within the margin


@dataclass(frozen=True)
class Gate:
    """What counts as a difference: new / base outside 1 / (1 + margin) and 1 + margin, of this metric.

    Raises ValueError for a margin that is not above 0.
    """

    metric: Metric = Metric.MEDIAN
    margin: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.margin < math.inf:
            raise ValueError(f"the margin is {self.margin:.3g}; it must be a number above 0, such as 0.05 for 5 %")

    def __str__(self) -> str:
        return f"{self.metric}:{100 * self.margin:.6g}%"


@dataclass(frozen=True)
class Ratio:
    """new / base with its interval (NaN where a side has too few launches), and the chance of it where none is.

    `p` of this case by itself, `q` after the correction for all cases.
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan
    q: float = math.nan


@dataclass(frozen=True)
class Comparison:
    """One case of one backend. Seconds a call at base and new; None where a side has no right time.

    `needed` launches a side would give an interval of half the margin to each side, with the spread seen here; None
    where the case is decided, has no interval, or would need more than MAX_LAUNCHES.
    `broken`: new gave a wrong answer, crashed, hung or ran out of memory, if only in some launches.
    """

    case: Case
    backend: str
    verdict: Verdict
    reason: str | None = None
    base: float | None = None
    new: float | None = None
    ratio: Ratio | None = None
    launches: tuple[int, int] = (0, 0)
    needed: int | None = None
    broken: bool = False

    @property
    def no_baseline(self) -> bool:
        """Whether new was timed and base has nothing to hold it against."""
        return self.new is not None and self.ratio is None

    @property
    def has_interval(self) -> bool:
        """Whether there is an interval to judge by."""
        return self.ratio is not None and math.isfinite(self.ratio.p)


def launch_logs(records: Iterable[Record], metric: Metric) -> list[float]:
    """log of seconds a call for each process: the median of its turns that ended `ok`."""
    runs: dict[str, list[TurnRecord]] = {}
    for r in turns_in(records):
        if r.status is Status.OK:
            runs.setdefault(r.run_id, []).append(r)
    turns = {(run_id, *r.key): turn_seconds(r, metric) for run_id, turns in runs.items() for r in counted(turns)}
    return launch_medians({key: seconds for key, seconds in turns.items() if seconds is not None})


def ratio_of_runs(base: Sequence[float], new: Sequence[float]) -> Ratio:
    """exp of how much more new is than base, from logs by launch, with its interval and two-sided p."""
    shift, low, high = shift_interval(base, new)
    if min(len(base), len(new)) < MIN_LAUNCHES:
        return Ratio(math.exp(shift))
    with np.errstate(over="ignore"):
        return Ratio(
            math.exp(shift), float(np.exp(low)), float(np.exp(high)), chance(shift, low, high, len(base) + len(new))
        )


def launches_needed(ratio: Ratio, launches: tuple[int, int], margin: float) -> int | None:
    """The fewest launches a side whose interval would reach half the margin to each side; None above MAX_LAUNCHES.

    By the width of this ratio's interval, over so many launches of base and of new, as that of Student's t shrinks.
    """
    from scipy.special import stdtrit

    with np.errstate(divide="ignore"):  # the ends of a ratio may be 0 and infinite
        reach = float(np.log(ratio.high) - np.log(ratio.low)) / 2
    spread = reach / stdtrit(sum(launches) - 2, 0.5 + CONFIDENCE / 2) / math.sqrt(sum(1 / n for n in launches))
    n = np.arange(MIN_LAUNCHES, MAX_LAUNCHES + 1)
    half = stdtrit(2 * (n - 1), 0.5 + CONFIDENCE / 2) * spread * np.sqrt(2 / n)
    enough = np.flatnonzero(half <= math.log1p(margin) / 2)
    return int(n[enough[0]]) if len(enough) else None


def judge(ratio: Ratio, margin: float) -> Verdict:
    """The verdict on a ratio whose q is known."""
    over, under = 1 + margin, 1 / (1 + margin)
    if under <= ratio.low and ratio.high <= over:
        return Verdict.SAME
    if ratio.q <= LEVEL and ratio.value > over:
        return Verdict.SLOWER
    if ratio.q <= LEVEL and ratio.value < under:
        return Verdict.FASTER
    return Verdict.INCONCLUSIVE


def compare_sides(base: Side, new: Side, gate: Gate) -> list[Comparison]:
    """A finding for each case and backend of either side: new's in their order, then those that only base has."""
    pairs = _pairs(base.records, new.records)
    found = [_first_look(a, b, base, new, gate) for a, b in pairs]
    ratios = {i: f.ratio for i, f in enumerate(found) if f.ratio and f.has_interval}
    for i, q in zip(ratios, _corrected([ratio.p for ratio in ratios.values()]), strict=True):
        found[i] = _decided(found[i], replace(ratios[i], q=q), gate.margin, len(ratios))
        if found[i].verdict in (Verdict.SLOWER, Verdict.FASTER) and (whose := _disturbed(*pairs[i])):
            reason = f"other programs disturbed {whose}; measure again when they rest"
            found[i] = replace(found[i], verdict=Verdict.INCONCLUSIVE, reason=_joined(found[i].reason, reason))
    return found


def _corrected(p: Sequence[float]) -> list[float]:
    if not p:
        return []
    from scipy.stats import false_discovery_control

    return [float(q) for q in false_discovery_control(p, method="bh")]


def _pairs(base: Sequence[Record], new: Sequence[Record]) -> list[tuple[Summary | None, Summary | None]]:
    """Equal cases of equal backends; what is left over, by workload and pass, so that its difference can be named."""
    ours, theirs = summaries(new), {(s.case.key, s.backend): s for s in summaries(base)}
    pairs: list[tuple[Summary | None, Summary]] = [(theirs.pop((s.case.key, s.backend), None), s) for s in ours]
    left = {(s.case.name, s.case.pass_, s.backend): key for key, s in theirs.items()}
    made: list[tuple[Summary | None, Summary | None]] = []
    for a, b in pairs:
        key = left.pop((b.case.name, b.case.pass_, b.backend), None) if a is None else None
        made.append((theirs.pop(key) if key else a, b))
    return made + [(s, None) for s in theirs.values()]


def _first_look(a: Summary | None, b: Summary | None, base: Side, new: Side, gate: Gate) -> Comparison:
    """Everything but the decision, which needs all cases."""
    shown = b or a
    assert shown is not None
    ours, theirs = (launch_logs(s.records, gate.metric) if s and s.ranked else [] for s in (b, a))
    times = [math.exp(median(logs)) if logs else None for logs in (theirs, ours)]
    finding = Comparison(
        shown.case, shown.backend, Verdict.INCONCLUSIVE, b.reason if b else None, times[0], times[1],
        launches=(len(theirs), len(ours)),
        broken=b is not None and any(r.status not in (Status.OK, *ABSENT) for r in b.records),
    )  # fmt: skip
    verdict, reason = _obstacle(a, b, base, new)
    if verdict is not None:
        return replace(finding, verdict=verdict, reason=reason)
    finding = replace(finding, reason=_joined(finding.reason, _unlike_threads(a, b)))
    ratio = ratio_of_runs(theirs, ours)
    if math.isnan(ratio.p):
        counts = f"{finding.launches[0]} and {finding.launches[1]} launches"
        reason = f"{counts}; an interval needs {MIN_LAUNCHES} a side at least"
        return replace(finding, ratio=ratio, reason=_joined(finding.reason, reason))
    return replace(finding, ratio=ratio, needed=launches_needed(ratio, finding.launches, gate.margin))


def _decided(f: Comparison, ratio: Ratio, margin: float, cases: int) -> Comparison:
    """The verdict, and of an inconclusive one what it would take."""
    verdict = judge(ratio, margin)
    if verdict is not Verdict.INCONCLUSIVE:
        return replace(f, ratio=ratio, verdict=verdict, needed=None)
    if ratio.p > LEVEL:
        reason = None if f.needed else f"more than {MAX_LAUNCHES:,} launches a side would be needed"
    elif ratio.q > LEVEL:
        reason = (
            f"by itself it would count (p {ratio.p:.3g}); as one of {cases} cases it may be chance (q {ratio.q:.3g})"
        )
    else:
        reason = f"{'slower' if ratio.value > 1 else 'faster'} for sure, but perhaps by less than {100 * margin:.3g} %"
    return replace(f, ratio=ratio, reason=_joined(f.reason, reason))


def _disturbed(a: Summary | None, b: Summary | None) -> str | None:
    """What was disturbed, so that a difference may be the other programs'; None of two undisturbed sides."""
    turns = [name for name, s in (("base", a), ("new", b)) if s and s.disturbed]
    if turns:
        return f"turns of {' and '.join(turns)} that count"
    in_doubt = a and b and a.threads != b.threads and any(trial_beside_others(s.records) for s in (a, b))
    return "the trial of threads, which came out differently" if in_doubt else None


def _joined(*reasons: str | None) -> str | None:
    return "; ".join(reason for reason in reasons if reason) or None


def _unlike_threads(a: Summary | None, b: Summary | None) -> str | None:
    """That each side was faster with another number of threads: no obstacle, and the reader is to know."""
    if a is None or b is None or a.threads == b.threads:
        return None
    base, new = (" and ".join(map(str, s.threads)) or "unknown" for s in (a, b))
    return f"threads {base} / {new}, the better in each run"


def _obstacle(a: Summary | None, b: Summary | None, base: Side, new: Side) -> tuple[Verdict | None, str | None]:
    """Why there is no ratio, or (None, None)."""
    for name, s in (("base", a), ("new", b)):
        if s is None:
            return Verdict.MISSING, f"{name} has no such case"
        if not s.ranked:
            absent = s.status in (*ABSENT, Status.OK) and not s.mixed
            verdict = Verdict.MISSING if absent else Verdict.NOT_COMPARABLE
            return verdict, f"{name}: {s.status}: {s.reason or 'no reason kept'}"
    assert a is not None
    assert b is not None
    unlike = differences(b.backend, Side(a.records, base.machine), Side(b.records, new.machine))
    return (Verdict.NOT_COMPARABLE, f"unlike: {'; '.join(unlike)}") if unlike else (None, None)
