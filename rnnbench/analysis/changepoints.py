"""Steps in a series of runs: where its level changed, by ranks, so that one odd run makes none.

Of all cuts in the intervals of seeded binary segmentation (Kovacs et al., 2023; a time that rose and fell again shows
in the shorter ones) the one that Mann and Whitney's test (1947) finds least likely is kept, if few orders of the runs
have one as unlikely; then both sides are looked at again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.01  # the chance of a cut in runs of no order
MIN_SIDE = 2  # runs on each side of a step: one odd run is none
ORDERS = 9_999  # shuffled ones that a series is held against
MIN_RUNS = 10  # runs: of fewer no order is rare enough
MAX_RUNS = 100  # runs that are looked at, the last ones: counting exactly takes memory as their number cubed


@dataclass(frozen=True)
class Step:
    """The first run after a change of level. `ratio`: the median of the runs after it over that of those before.

    Both as far as the next step. `p`: the chance of such a cut in runs of no order.
    """

    index: int
    ratio: float
    p: float


def _intervals(n: int) -> list[tuple[int, int]]:
    """All runs, and shorter stretches of them, each length 1 / sqrt 2 of the one before and overlapping by half."""
    found, length = [], float(n)
    while length >= MIN_RUNS:
        size, count = math.ceil(length), 2 * math.ceil(n / length) - 1
        starts = np.linspace(0, n - size, count).round().astype(int)
        found += [(start, start + size) for start in dict.fromkeys(starts.tolist())]
        length /= math.sqrt(2)
    return found


@cache
def _surprise(n: int) -> NDArray[np.float64]:
    """-log of the chance of a sum of t ranks of n as far from its mean, [t, sum]: exact, by counting."""
    most = n * (n + 1) // 2
    counts = np.zeros((n + 1, most + 1))
    counts[0, 0] = 1
    for rank in range(1, n + 1):
        for t in range(rank, 0, -1):
            counts[t, rank:] += counts[t - 1, : most + 1 - rank]
    counts /= counts.sum(axis=1, keepdims=True)
    below, above = np.cumsum(counts, axis=1), np.cumsum(counts[:, ::-1], axis=1)[:, ::-1]
    surprise: NDArray[np.float64] = -np.log(np.clip(2 * np.minimum(below, above), 1e-300, 1.0))
    return surprise


def _scores(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The surprise of each cut of each row, MIN_SIDE values from either end and between. Ties count for less."""
    from scipy.stats import rankdata

    n = values.shape[1]
    t = np.arange(MIN_SIDE, n - MIN_SIDE + 1)
    sums = np.cumsum(rankdata(values, axis=1), axis=1)[:, t - 1]
    mean = t * (n + 1) / 2
    towards = np.where(sums < mean, np.ceil(sums), np.floor(sums)).astype(int)
    return _surprise(n)[t, towards]


@cache
def _by_chance(n: int) -> NDArray[np.float64]:
    """The greatest score of each of ORDERS shuffled series of n runs, in order."""
    rng = np.random.default_rng(n)
    orders = rng.permuted(np.tile(np.arange(n, dtype=np.float64), (ORDERS, 1)), axis=1)
    return np.sort(np.max([_scores(orders[:, a:b]).max(axis=1) for a, b in _intervals(n)], axis=0))


def best_cut(values: Sequence[float]) -> tuple[int, float]:
    """The index after the likeliest step, and the chance of one so clear. p is 1 for fewer than MIN_RUNS runs."""
    n = len(values)
    if n < MIN_RUNS:
        return n, 1.0
    row = np.asarray(values)[None]
    cuts = [(_scores(row[:, a:b])[0], a) for a, b in _intervals(n)]
    scores, start = max(cuts, key=lambda cut: cut[0].max())
    chance = _by_chance(n)
    as_great = len(chance) - int(np.searchsorted(chance, scores.max() - 1e-9))
    return start + MIN_SIDE + int(scores.argmax()), (1 + as_great) / (1 + len(chance))


def steps(values: Sequence[float], margin: float) -> tuple[Step, ...]:
    """The steps of positive times in order of runs; a ratio within 1 / (1 + margin) to 1 + margin is none.

    They are looked for among the last MAX_RUNS runs.
    """
    logs = [math.log(v) for v in values]
    first = max(0, len(logs) - MAX_RUNS)
    cuts = dict(sorted(_cuts(logs[first:], first)))
    while cuts:
        found = _measured(logs, cuts)
        least = min(found, key=lambda step: abs(math.log(step.ratio)))
        if abs(math.log(least.ratio)) > math.log1p(margin):
            return tuple(found)
        del cuts[least.index]
    return ()


def _cuts(logs: Sequence[float], start: int) -> list[tuple[int, float]]:
    """Index and p of each cut, the clearest first."""
    at, p = best_cut(logs)
    if p > LEVEL:
        return []
    return [(start + at, p), *_cuts(logs[:at], start), *_cuts(logs[at:], start + at)]


def _measured(logs: Sequence[float], cuts: dict[int, float]) -> list[Step]:
    """Each cut with the ratio of the levels on its two sides."""
    ends = [0, *cuts, len(logs)]
    levels = [float(np.median(logs[a:b])) for a, b in pairwise(ends)]
    return [
        Step(index, math.exp(after - before), p)
        for (index, p), before, after in zip(cuts.items(), levels[:-1], levels[1:], strict=True)
    ]


def levels(values: Sequence[float], found: Sequence[Step]) -> list[tuple[int, int, float]]:
    """The stretches between steps: first run, one past the last, median."""
    ends = [0, *(step.index for step in found), len(values)]
    return [(a, b, float(np.median(values[a:b]))) for a, b in pairwise(ends) if b > a]
