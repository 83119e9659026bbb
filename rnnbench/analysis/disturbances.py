"""What befell the machine while a record was made, and what becomes of the numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from rnnbench.records.record import Record, turns_in

# How a disturbance begins, as the harness writes it into `disturbances` of a record.
SUSPENDED = "suspended"
CLOCK_SET = "clock set"
BESIDE = "beside another run"

_TOLD = {
    SUSPENDED: "the machine was suspended meanwhile; they are kept in the records and left out of every number",
    CLOCK_SET: "the system's clock was set meanwhile; no duration is read from it, only when a turn began",
    BESIDE: "another run measured on this machine meanwhile; they count, and are slower than on a quiet machine",
}


def harmless(disturbance: str) -> bool:
    """Whether it touches no number."""
    return disturbance.startswith(CLOCK_SET)


def left_out(record: Record) -> bool:
    """Whether its samples say nothing of the backend: caches, clocks and the network had been to sleep."""
    return any(text.startswith(SUSPENDED) for text in record.disturbances)


def notes(records: Iterable[Record]) -> list[str]:
    """A sentence for each kind of disturbance: in how many turns, whose, and what it means."""
    turns = [r for r in turns_in(records) if r.samples_ns]
    said = []
    for kind, meaning in _TOLD.items():
        whose = Counter(r.backend for r in turns if any(text.startswith(kind) for text in r.disturbances))
        if whose:
            by_backend = ", ".join(f"{name} {count}" for name, count in whose.most_common())
            said.append(f"{sum(whose.values())} of {len(turns)} turns ({by_backend}): {meaning}")
    return said
