"""What the calls behind a time were: warm-ups, outliers, and whether the warm-up was over when counting began."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from rnnbench.analysis.stats import Interval, Summary, interval_of, outliers_of
from rnnbench.records.record import TurnKey, TurnRecord

UNSETTLED = 1.1  # first counted call over the later ones: from here on it is told
FEWEST_CALLS = 4  # of a turn, to say anything of one of them


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
        if len(later) + 1 >= FEWEST_CALLS:
            ratios[r.key] = max(first, 1) / max(float(median(later)), 1.0)
    return ratios
