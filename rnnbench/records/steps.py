"""How long single time steps took, as a record keeps them: a count for each duration, rounded to 8 binary digits.

A turn has tens of thousands of steps, whose durations would make a record of some 100 KB. Rounded they are a few
hundred different ones, none off by more than 1 part in 256.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

Counts = list[tuple[int, int]]  # (nanoseconds, how many steps), shortest first

DIGITS = 8  # binary
BEYOND = 10  # steps that a percentile needs on its far side: of fewer, each moves it


def rounded(ns: int) -> int:
    """To 8 binary digits, the nearest; at least 1."""
    shift = max(0, ns.bit_length() - DIGITS)
    return max(1, (ns + ((1 << shift) >> 1)) >> shift << shift)


def counted_steps(ns: Iterable[int]) -> Counts:
    """Durations as counts."""
    return sorted(Counter(map(rounded, ns)).items())


def pooled(every: Iterable[Sequence[tuple[int, int]]]) -> Counts:
    """The counts of several turns as one."""
    total: Counter[int] = Counter()
    for counts in every:
        for ns, count in counts:
            total[ns] += count
    return sorted(total.items())


def percentile(counts: Sequence[tuple[int, int]], percent: float) -> int | None:
    """Nanoseconds within which so many percent of the steps end; None of too few: p99.9 needs 10,000."""
    n = sum(count for _, count in counts)
    if n * min(percent, 100 - percent) < BEYOND * 100 * (1 - 1e-9):
        return None
    seen = 0
    for ns, count in counts:
        seen += count
        if seen * 100 >= percent * n * (1 - 1e-12):
            return ns
    return None
