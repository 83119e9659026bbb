"""What a GPU's own clock and driver say beside the wall clock: device time, memory there, clocks, power."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rnnbench.analysis.stats import Interval, Summary, device_turn_seconds, interval_of, turns_of
from rnnbench.contract import CPU
from rnnbench.records.record import CheckRecord, DeviceState, Record, TurnKey, TurnRecord, turns_in


@dataclass(frozen=True)
class OnDevice:
    """One timed answer of a GPU backend. `time` is seconds a call by the device's clock, None where it has none."""

    summary: Summary
    time: Interval | None
    turns: Mapping[TurnKey, float]
    peak_bytes: int | None
    states: tuple[DeviceState, ...]

    @property
    def share(self) -> float | None:
        """The part of the wall time that the device's clock has seen."""
        wall = self.summary.time
        return self.time.value / wall.value if self.time and wall else None


def on_gpu(records: Iterable[Record]) -> bool:
    """Whether records of one backend were made on a GPU: by a contract, or by what a turn alone knows of the device."""
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
    """The least and the most of what was told, None where nothing was."""

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
