"""What was measured beside the time: the clock and state of a GPU, the peak memory of a pass, joules of a call."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rnnbench.analysis.stats import Interval, Summary, device_turn_seconds, interval_of, turns_of
from rnnbench.contract import CPU
from rnnbench.records.record import (
    CheckRecord,
    DeviceState,
    MemoryRecord,
    Record,
    Status,
    TurnKey,
    TurnRecord,
    turns_in,
)

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class OnDevice:
    """One timed answer of a GPU backend. `time` is seconds a call by the device's clock, None where it has none."""

    summary: Summary
    time: Interval | None
    turns: Mapping[TurnKey, float]
    peak_bytes: int | None
    states: tuple[DeviceState, ...]

    @property
    def wall(self) -> Interval:
        """Seconds a call by the wall clock."""
        assert self.summary.time is not None
        return self.summary.time

    @property
    def share(self) -> float | None:
        """The part of the wall time that the device's clock has seen."""
        return self.time.value / self.wall.value if self.time else None


def on_gpu(records: Iterable[Record]) -> bool:
    """Whether records of one backend were made on a GPU: by a contract, else by what its turns know of the device."""
    return any(map(_on_gpu, records))


def _on_gpu(r: Record) -> bool:
    if isinstance(r, CheckRecord) and r.contract:
        return r.contract.device != CPU
    return bool((isinstance(r, TurnRecord) and (r.device_ns or r.device_states)) or r.peak_device_bytes)


def gpu_backends(found: Iterable[Summary]) -> list[str]:
    """Those that were timed on a GPU in at least one case; in order."""
    return list(dict.fromkeys(s.backend for s in found if s.time and on_gpu(s.records)))


def on_device(summary: Summary) -> OnDevice:
    """A summary with what its records know of the device."""
    turns = turns_of(summary.records, device_turn_seconds)
    peaks = [r.peak_device_bytes for r in summary.records if r.peak_device_bytes is not None]
    states = tuple(state for r in turns_in(summary.records) for state in r.device_states)
    return OnDevice(summary, interval_of(turns), turns, max(peaks, default=None), states)


@dataclass(frozen=True)
class Span:
    """The smallest and the largest value that was read, None where none was."""

    low: float | None
    high: float | None


def span_of(states: Sequence[DeviceState], name: str) -> Span:
    """Over all turns, of one number of a `DeviceState`."""
    values = [value for state in states if (value := getattr(state, name)) is not None]
    return Span(min(values, default=None), max(values, default=None))


def held_back(states: Sequence[DeviceState]) -> dict[str, int]:
    """Reason -> in how many states the clock was held back for it."""
    counts: dict[str, int] = {}
    for state in states:
        if state.throttled:
            counts[state.throttled] = counts.get(state.throttled, 0) + 1
    return counts


@dataclass(frozen=True)
class Memory:
    """Bytes. `before`: what the process had when the pass began; `device`: the peak on the device. None: unknown."""

    peak: int
    before: int | None
    device: int | None

    @property
    def own(self) -> int | None:
        """What the pass came to above that."""
        return None if self.before is None else max(0, self.peak - self.before)


def memory_of(summary: Summary) -> Memory | None:
    """The last that was measured; None of nothing, or of unlike machines."""
    for r in () if summary.mixed else reversed(summary.records):
        if isinstance(r, MemoryRecord) and r.status is Status.OK and r.peak_memory_bytes is not None:
            return Memory(r.peak_memory_bytes, r.memory_before_bytes, r.peak_device_bytes)
    return None


def memory_frame(found: Iterable[Summary]) -> pd.DataFrame:
    """One row for each answer whose memory was measured, in bytes."""
    import pandas as pd

    rows = [
        {
            "case": s.case.key,
            "backend": s.backend,
            "peak_bytes": m.peak,
            "before_bytes": m.before,
            "own_bytes": m.own,
            "device_bytes": m.device,
        }
        for s in found
        if (m := memory_of(s)) is not None
    ]
    integers = dict.fromkeys(("before_bytes", "own_bytes", "device_bytes"), "Int64")
    return pd.DataFrame(rows).astype(integers if rows else {})


def joules_of(summary: Summary) -> Interval | None:
    """Joules a call: the energy of a turn's window over all its calls, as a time. None where it was not counted."""
    return interval_of(
        {
            r.key: r.energy.joules / len(r.samples_ns)
            for r in summary.timed_turns
            if r.energy is not None and r.energy.joules
        }
    )


def energy_sources(records: Iterable[Record]) -> list[str]:
    """The counters that were read."""
    return sorted({r.energy.source for r in turns_in(records) if r.energy is not None and r.energy.joules})


def energy_reasons(records: Iterable[Record]) -> list[tuple[str, int]]:
    """Why the energy of turns is not known, and of how many, the most frequent first."""
    return Counter(r.energy.reason for r in turns_in(records) if r.energy is not None and r.energy.reason).most_common()
