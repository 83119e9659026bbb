"""Joules a call, from the energy of turns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from rnnbench.analysis.stats import Interval, Summary, interval_of
from rnnbench.records.record import Record, turns_in


def joules_of(summary: Summary) -> Interval | None:
    """Joules a call: the energy of a turn's window over all its calls, then as a time. None where no turn tells."""
    return interval_of(
        {
            r.key: r.energy.joules / len(r.samples_ns)
            for r in summary.timed_turns
            if r.energy is not None and r.energy.joules
        }
    )


def sources_of(records: Iterable[Record]) -> list[str]:
    """The counters that told something."""
    return sorted({r.energy.source for r in turns_in(records) if r.energy is not None and r.energy.joules})


def reasons_of(records: Iterable[Record]) -> list[tuple[str, int]]:
    """Why the energy of turns is not known, and of how many, the most frequent first."""
    return Counter(r.energy.reason for r in turns_in(records) if r.energy is not None and r.energy.reason).most_common()
