"""What the samples show beside a time: drift, two modes, outliers, a warm-up that was not over when counting began."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median

import numpy as np
from numpy.typing import NDArray

from rnnbench.analysis.stats import Interval, Summary, interval_of, launch_medians, outliers_of
from rnnbench.records.record import TurnKey, TurnRecord

FALSE_DISCOVERIES = 0.05  # of the drifts that are reported, by Benjamini and Hochberg
MIN_TURNS = 10  # within launches, to see a trend over rounds
MIN_LAUNCHES = 5  # to see one over launches: of fewer, perfect order is no proof
BIMODAL = 6.0  # Ashman's D; single modes of 20 calls stay below in 99 of 100 turns
MIN_CALLS_FOR_MODES = 20  # of a turn, to look for modes
MIN_SHARE = 0.2  # of the calls in the smaller mode; fewer are outliers
MIN_APART = 1.05


@dataclass(frozen=True)
class Modes:
    """In how many turns of those with enough calls; the median separation and ratio of the modes in them."""

    turns: int
    of: int
    separation: float
    apart: float


def drifts(found: Sequence[Summary]) -> list[tuple[Summary, float]]:
    """The answers whose times surely have a trend, with the change from the first to the last as a part of 1.

    Of turns over the rounds within launches, and of launches over their number, both by Kendall's test; corrected for
    how many answers were looked at.
    """
    trends = [(s, *trend) for s in found if (trend := _trend(s)) is not None]
    if not trends:
        return []
    from scipy.stats import false_discovery_control  # half a second, which most runs need not spend

    corrected = false_discovery_control([p for _, p, _ in trends])
    return [(s, change) for (s, _, change), p in zip(trends, corrected, strict=True) if p < FALSE_DISCOVERIES]


def _trend(s: Summary) -> tuple[float, float] | None:
    """p and the change of the surer of both trends; None where there are too few turns."""
    turns = dict(sorted(s.turns.items()))
    launches: dict[tuple[int, int], dict[int, float]] = {}
    for (part, launch, round_), seconds in turns.items():
        launches.setdefault((part, launch), {})[round_] = float(np.log(seconds))
    trends = []
    if len(s.turns) >= MIN_TURNS and max(map(len, launches.values())) > 2:
        trends.append(_within(launches.values()))
    if len(launches) >= MIN_LAUNCHES:
        trends.append(_kendall(range(len(launches)), launch_medians(turns)))
    if not trends:
        return None
    p, change = min(trends)
    return min(1.0, p * len(trends)), change


def _within(launches: Iterable[Mapping[int, float]]) -> tuple[float, float]:
    """p of no trend over rounds, and the change from the first to the last.

    The seasonal Kendall test (Hirsch, Slack and Smith, 1982) with a launch in place of a season: only turns of one
    launch are compared, so that launches may differ.
    """
    from scipy.special import ndtr

    pairs, variance, last = [], 0.0, 0
    for turns in launches:
        n = len(turns)
        pairs += [(turns[b] - turns[a], b - a) for a, b in combinations(sorted(turns), 2)]
        variance += n * (n - 1) * (2 * n + 5) / 18
        last = max(last, max(turns) - min(turns))
    rises, distances = np.array(pairs).T
    score = abs(float(np.sign(rises).sum()))
    p = 2 * float(ndtr(-max(0.0, score - 1) / np.sqrt(variance)))
    return min(1.0, p), float(np.expm1(np.median(rises / distances) * last))


def _kendall(when: Sequence[int], logs: Sequence[float]) -> tuple[float, float]:
    """p of no trend, exact, and the change from first to last by the Theil-Sen slope (Sen, 1968)."""
    from scipy.stats import kendalltau, theilslopes

    p = float(kendalltau(when, logs).pvalue)
    slope = float(theilslopes(logs, when).slope)
    return (1.0 if np.isnan(p) else p), float(np.expm1(slope * (max(when) - min(when))))


def bimodal(s: Summary) -> Modes | None:
    """The modes of an answer, where at least half of its turns with enough calls, and at least two, show them."""
    kept = [_kept(r) for r in s.timed_turns]
    looked = [separation(logs) for logs in kept if len(logs) >= MIN_CALLS_FOR_MODES]
    shown = [(d, apart) for d, apart, _ in looked if d > BIMODAL and apart > MIN_APART]
    if len(shown) < 2 or 2 * len(shown) < len(looked):
        return None
    d, apart = np.median(np.array(shown), axis=0)
    return Modes(len(shown), len(looked), float(d), float(apart))


def _kept(record: TurnRecord) -> NDArray[np.float64]:
    return np.log(np.maximum(record.samples_ns[record.warmup :], 1).astype(np.float64))


def separation(logs: NDArray[np.float64], share: float = MIN_SHARE) -> tuple[float, float, float]:
    """Ashman's D = sqrt(2) |m1 - m2| / sqrt(s1^2 + s2^2) of two groups, the ratio of their centres, where they part.

    Ashman, Bird and Zepf, 1994. The groups are those with the least spread within (Fisher, 1958), neither smaller than
    `share`. A cut makes a D near 3 of any single mode, so their limit of 2, for fitted mixtures, is too low.
    """
    x = np.sort(logs)
    n, least = len(x), max(2, int(np.ceil(share * len(x))))
    middle = x[n // 2]
    x -= middle  # small numbers: their squares keep their digits
    k = np.arange(least, n - least + 1)
    sums, squares = (np.concatenate([[0.0], np.cumsum(v)]) for v in (x, x * x))
    low, high = sums[k] / k, (sums[n] - sums[k]) / (n - k)
    below = np.maximum(squares[k] - k * low**2, 0.0)
    above = np.maximum(squares[n] - squares[k] - (n - k) * high**2, 0.0)
    best = int(np.argmin(below + above))
    spread = np.sqrt(below[best] / (k[best] - 1) + above[best] / (n - k[best] - 1))
    apart = high[best] - low[best]
    cut = middle + (x[k[best] - 1] + x[k[best]]) / 2
    return float(np.sqrt(2) * apart / max(spread, 1e-9)), float(np.exp(apart)), float(cut)


UNSETTLED = 1.1  # first counted call over the later ones: from here on it is reported
MIN_CALLS = 4  # of a turn, to say anything of one of them


@dataclass(frozen=True)
class Calls:
    """Counts over all turns of one answer. `first`: the first call after the warm-ups over the median of the later."""

    warmups: int
    kept: int
    outliers: int
    first: Interval | None

    @property
    def unsettled(self) -> bool:
        """Whether the first counted call was still slow: surely, and by enough to matter."""
        return self.first is not None and self.first.above_one and self.first.value > UNSETTLED


def calls_of(summary: Summary) -> Calls:
    """The calls of the rounds that have a time."""
    timed = summary.timed_turns
    return Calls(
        warmups=sum(r.warmup for r in timed),
        kept=sum(len(r.samples_ns) - r.warmup for r in timed),
        outliers=sum(outliers_of(r) for r in timed),
        first=interval_of(_first_over_later(timed)),
    )


def _first_over_later(timed: Iterable[TurnRecord]) -> dict[TurnKey, float]:
    ratios: dict[TurnKey, float] = {}
    for r in timed:
        first, *later = r.samples_ns[r.warmup :]
        if len(later) + 1 >= MIN_CALLS:
            ratios[r.key] = max(first, 1) / max(float(median(later)), 1.0)
    return ratios
