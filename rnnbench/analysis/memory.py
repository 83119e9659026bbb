"""The peak memory of a pass, by the processes that did nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rnnbench.analysis.stats import Summary
from rnnbench.records.record import MemoryRecord, Status

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Memory:
    """Bytes. `before`: what the process had when the pass began; `device`: the peak on the device. None: not told."""

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


def memories(found: Iterable[Summary]) -> pd.DataFrame:
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
