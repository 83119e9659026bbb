"""From the turns of two sides to a verdict on a case: the median ratio over rounds, its interval, and a margin.

Both sides of a ratio were measured one right after the other, so what the machine did to both falls out of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
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


def rounds_for(cases: int) -> int:
    """The fewest rounds whose least and greatest ratio enclose the median with that confidence: 1 - 2^(1 - n)."""
    return 1 + math.ceil(-math.log2(1 - confidence_for(cases)))


def turn_value(samples: Sequence[int]) -> float:
    """A turn as one number, nanoseconds: its best call, which the rest of the machine disturbed least."""
    return max(float(min(samples)), 1.0)


def ratios_of(turns: Turns) -> list[list[float]]:
    """new / base of each round, by launch."""
    return [[turn_value(new) / turn_value(base) for base, new in rounds] for rounds in turns]


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


def judge(
    ratios: Sequence[Sequence[float]], margin: float, confidence: float
) -> tuple[Verdict, tuple[float, float, float]]:
    """The verdict on ratios by launch, and the median ratio with its interval.

    A process may be slow or quick all its life, by where its memory lies: a verdict that one launch makes alone is
    inconclusive.
    """
    interval = interval_of([ratio for launch in ratios for ratio in launch], confidence)
    _, low, high = interval
    medians = [float(np.median(launch)) for launch in ratios if launch]
    over, under = 1 + margin, 1 / (1 + margin)
    if low > over and min(medians) > over:
        return Verdict.SLOWER, interval
    if high < under and max(medians) < under:
        return Verdict.FASTER, interval
    if low >= under and high <= over:
        return Verdict.SAME, interval
    return Verdict.INCONCLUSIVE, interval


def findings(names: Sequence[str], measured: Measured, margin: float) -> list[Finding]:
    """A finding for each case, in the order given."""
    confidence = confidence_for(len(measured.turns))
    found = []
    for name in names:
        if name in measured.missing:
            found.append(Finding(name, Verdict.MISSING, reason=measured.missing[name]))
        elif name in measured.turns:
            turns = measured.turns[name]
            verdict, (ratio, low, high) = judge(ratios_of(turns), margin, confidence)
            base, new = (
                float(np.median([turn_value(r[side]) for rounds in turns for r in rounds])) * 1e-9 for side in (0, 1)
            )
            found.append(Finding(name, verdict, base, new, ratio, low, high))
        else:
            found.append(Finding(name, Verdict.BROKEN, reason=measured.broken.get(name, "no round was completed")))
    return found
