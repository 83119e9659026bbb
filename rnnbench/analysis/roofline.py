"""A machine's measured ceilings, as `machine.json` holds them, and the share of them that a record reaches."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import msgspec

from rnnbench.analysis.devices import on_gpu
from rnnbench.analysis.stats import Summary, case_fields, turn_seconds
from rnnbench.model import DType
from rnnbench.records.record import Positive, Record, TurnRecord
from rnnbench.work import work_of

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Rates:
    """What so many threads reach together: operations a second, two in each multiply-add, and bytes a second.

    `read`: one pass over an array that no cache holds. `mixed`: reading and writing, counted without what the cache
    fetches before it writes.
    """

    threads: int
    flops: Positive
    read: Positive
    mixed: Positive

    @property
    def bytes(self) -> float:
        """The better of the two bandwidths."""
        return max(self.read, self.mixed)

    def at(self, intensity: float) -> float:
        """The roof over a work of so many operations a byte: Williams, Waterman and Patterson, "Roofline", 2009."""
        return min(self.flops, intensity * self.bytes)


@dataclass(frozen=True)
class Peak:
    """Type -> rates by one thread and by all, fewest threads first. `method` says in words how it was measured."""

    method: str
    rates: dict[DType, tuple[Rates, ...]]

    def roof(self, dtype: DType) -> Rates | None:
        """What all threads reach in this type, or None where that was not measured."""
        return max(self.rates.get(dtype, ()), key=lambda r: r.threads, default=None)

    def best_of(self, other: Peak) -> Peak:
        """The higher of both in each figure, of two measurements that asked for the same types and threads."""
        rates = {
            dtype: tuple(
                Rates(a.threads, max(a.flops, b.flops), max(a.read, b.read), max(a.mixed, b.mixed))
                for a, b in zip(mine, other.rates[dtype], strict=True)
            )
            for dtype, mine in self.rates.items()
        }
        return Peak(self.method, rates)


def peak_of(machine: Mapping[str, Any]) -> Peak | None:
    """The peak in a `machine.json`, or None where it was not measured, or not in this form."""
    try:
        return msgspec.convert(machine.get("peak"), Peak)
    except msgspec.ValidationError:
        return None


def with_work(record: Record, peak: Peak | None) -> Record:
    """The record with what its case needs, and the share of the multiply-add peak that its turn reached."""
    work = work_of(record.case)
    record = replace(record, flops=work.flops, least_bytes=work.bytes)
    if not isinstance(record, TurnRecord):
        return record
    seconds = turn_seconds(record)
    roof = peak.roof(record.case.dtype) if peak and not on_gpu([record]) else None
    share = work.flops / seconds / roof.flops if seconds and roof else None
    return replace(record, share_of_peak=share)


@dataclass(frozen=True)
class Reached:
    """What one backend made of one case. `share` is of the multiply-add peak in its type, None where that is unknown.

    A share above 1 is possible where a backend is credited with work that it spares itself; see `work`.
    """

    flops_per_second: float
    share: float | None


def reached(summary: Summary, peak: Peak | None) -> Reached | None:
    """Rate and share of peak; None where nothing was timed. Of a GPU no share is known: the peak is the processor's."""
    if summary.time is None:
        return None
    rate = work_of(summary.case).flops / summary.time.value
    roof = peak.roof(summary.case.dtype) if peak and not on_gpu(summary.records) else None
    return Reached(rate, rate / roof.flops if roof else None)


def shares_frame(found: Iterable[Summary], peak: Peak | None) -> pd.DataFrame:
    """One row for each case and backend: sizes, work, rate and share of peak; NaN where not timed or not known."""
    import pandas as pd

    rows = []
    for s in found:
        case, work, rate = s.case, work_of(s.case), reached(s, peak)
        rows.append(
            {
                **case_fields(case),
                "B": case.B,
                "T": case.T,
                "E": case.model.E,
                "H": case.model.H,
                "backend": s.backend,
                "status": str(s.status),
                "flops": work.flops,
                "least_bytes": work.bytes,
                "flops_per_byte": work.intensity,
                "flops_per_second": rate.flops_per_second if rate else math.nan,
                "share_of_peak": math.nan if rate is None or rate.share is None else rate.share,
            }
        )
    return pd.DataFrame(rows)
