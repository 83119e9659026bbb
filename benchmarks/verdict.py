"""From the turns of two sides to a verdict on a case: the median ratio over rounds, its interval, and a margin.

Both sides of a ratio were measured one right after the other, so what the machine did to both falls out of it. By
launch instead of by round, a ratio is that of the best calls of a whole launch, and the interval is of the sign test.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from duel import Measured, Turns

CONFIDENCE = 0.95  # of all intervals of a comparison together (Bonferroni)
RESAMPLES = 4_999


class Verdict(StrEnum):
    """What is said of a case."""

    SLOWER = "slower"  # the whole interval is above 1 + margin, and every launch alone says so
    FASTER = "faster"  # the same in the other direction
    SAME = "same"  # the whole interval is within the margin
    INCONCLUSIVE = "inconclusive"
    MISSING = "missing"  # base has no such case
    BROKEN = "not comparable"  # one side failed, or they did not do the same work


class Unit(StrEnum):
    """What gives one ratio."""

    ROUND = "round"  # few launches of one's own time: every launch must agree
    LAUNCH = "launch"  # many launches: an odd one is outvoted


@dataclass(frozen=True)
class Finding:
    """A case's verdict. Seconds a call at base and at new, new / base, its interval; None where nothing was timed."""

    case: str
    verdict: Verdict
    base: float | None = None
    new: float | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    reason: str | None = None


def confidence_for(cases: int) -> float:
    """Of the interval of each of so many cases."""
    return 1 - (1 - CONFIDENCE) / max(1, cases)


def ratios_for(cases: int) -> int:
    """The fewest ratios whose least and greatest enclose the median with that confidence: 1 - 2^(1 - n)."""
    return 1 + math.ceil(-math.log2(1 - confidence_for(cases)))


def turn_value(samples: Sequence[int]) -> float:
    """A turn as one number, nanoseconds: its best call, which the rest of the machine disturbed least."""
    return max(float(min(samples)), 1.0)


def ratios_of(turns: Turns) -> list[list[float]]:
    """new / base of each round, by launch."""
    return [[turn_value(new) / turn_value(base) for base, new in rounds] for rounds in turns]


def launch_ratios(turns: Turns) -> list[float]:
    """new / base of each launch, each side by its best call: in some round of many the machine lets it run."""
    return [min(turn_value(new) for _, new in rounds) / min(turn_value(base) for base, _ in rounds) for rounds in turns]


def interval_of(ratios: Sequence[float], confidence: float) -> tuple[float, float, float]:
    """The median and its interval: percentiles of the medians of resampled rounds (Efron, 1979)."""
    from scipy.stats import bootstrap

    values = np.asarray(ratios)
    centre = float(np.median(values))
    if np.ptp(values) == 0:
        return centre, centre, centre
    found = bootstrap(
        (values,), np.median, confidence_level=confidence, n_resamples=RESAMPLES, method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    return centre, float(found.low), float(found.high)


def sign_interval(ratios: Sequence[float], confidence: float) -> tuple[float, float, float]:
    """The median and its interval between two of the ratios, whatever their distribution (Thompson, 1936).

    Without bounds where the ratios are too few for that confidence.
    """
    from scipy.stats import binom

    values, n = sorted(ratios), len(ratios)
    left_out = [k for k in range(n // 2 + 1) if 2 * binom.cdf(k, n, 0.5) <= 1 - confidence]
    low, high = (values[left_out[-1]], values[-1 - left_out[-1]]) if left_out else (0.0, math.inf)
    return float(np.median(values)), low, high


def judge(
    ratios: Sequence[Sequence[float]], margin: float, confidence: float
) -> tuple[Verdict, tuple[float, float, float]]:
    """The verdict on ratios by launch, and the median ratio with its interval.

    A process may be slow or quick all its life, by where its memory lies: a verdict that one launch makes alone is
    inconclusive.
    """
    interval = interval_of([ratio for launch in ratios for ratio in launch], confidence)
    medians = [float(np.median(launch)) for launch in ratios if launch]
    verdict = placed(interval, margin)
    alone = (verdict is Verdict.SLOWER and min(medians) <= 1 + margin) or (
        verdict is Verdict.FASTER and max(medians) >= 1 / (1 + margin)
    )
    return (Verdict.INCONCLUSIVE if alone else verdict), interval


def judge_launches(
    ratios: Sequence[float], margin: float, confidence: float
) -> tuple[Verdict, tuple[float, float, float]]:
    """The same by launch, one ratio each."""
    interval = sign_interval(ratios, confidence)
    return placed(interval, margin), interval


def placed(interval: tuple[float, float, float], margin: float) -> Verdict:
    """Where the whole interval lies."""
    _, low, high = interval
    over, under = 1 + margin, 1 / (1 + margin)
    if low > over:
        return Verdict.SLOWER
    if high < under:
        return Verdict.FASTER
    return Verdict.SAME if low >= under and high <= over else Verdict.INCONCLUSIVE


def too_few(turns: Turns, unit: Unit, cases: int) -> bool:
    """Whether there are fewer ratios than an interval of so many cases needs."""
    return (len(turns) if unit is Unit.LAUNCH else sum(map(len, turns))) < ratios_for(cases)


def confirmed(found: Sequence[Finding], again: Sequence[Finding]) -> list[Finding]:
    """What was called slower and was not when it was measured again is inconclusive."""
    repeated = {f.case: f for f in again}

    def settled(f: Finding) -> Finding:
        second = repeated.get(f.case)
        if f.verdict is not Verdict.SLOWER or second is None or second.verdict is Verdict.SLOWER:
            return f
        what = f"{second.ratio:.3f}, {second.verdict}" if second.ratio is not None else str(second.reason)
        return replace(f, verdict=Verdict.INCONCLUSIVE, reason=f"slower by {f.ratio:.3f}; measured again: {what}")

    return [settled(f) for f in found]


def findings(names: Sequence[str], measured: Measured, margin: float, unit: Unit = Unit.ROUND) -> list[Finding]:
    """A finding for each case, in the order given."""
    confidence = confidence_for(len(measured.turns))
    found = []
    for name in names:
        if name in measured.missing:
            found.append(Finding(name, Verdict.MISSING, reason=measured.missing[name]))
        elif name in measured.turns:
            turns = measured.turns[name]
            if too_few(turns, unit, len(measured.turns)):
                found.append(Finding(name, Verdict.INCONCLUSIVE, reason="the time was over before enough was measured"))
                continue
            verdict, (ratio, low, high) = (
                judge(ratios_of(turns), margin, confidence)
                if unit is Unit.ROUND
                else judge_launches(launch_ratios(turns), margin, confidence)
            )
            base, new = (
                float(np.median([turn_value(r[side]) for rounds in turns for r in rounds])) * 1e-9 for side in (0, 1)
            )
            found.append(Finding(name, verdict, base, new, ratio, low, high))
        else:
            found.append(Finding(name, Verdict.BROKEN, reason=measured.broken.get(name, "no round was completed")))
    return found
