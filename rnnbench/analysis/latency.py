"""How long single time steps take, and how rarely longer: percentiles over all steps of the turns that count."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rnnbench.analysis.stats import NS, Summary, case_fields
from rnnbench.records.steps import percentile, pooled

if TYPE_CHECKING:
    import pandas as pd

PERCENTS = (50.0, 99.0, 99.9)


@dataclass(frozen=True)
class Latency:
    """Seconds within which so many percent of `steps` end, by percent; None of too few steps."""

    steps: int
    within: dict[float, float | None]


def latency_of(summary: Summary) -> Latency | None:
    """Of a backend's single steps in a case; None where there were none.

    The steps of all turns of all launches are one set: a percentile of it says what a user of any of them meets.
    """
    counts = pooled(r.step_counts for r in summary.timed_turns)
    if not counts:
        return None
    found = {percent: percentile(counts, percent) for percent in PERCENTS}
    steps = sum(count for _, count in counts)
    return Latency(steps, {percent: None if ns is None else ns * NS for percent, ns in found.items()})


def column(percent: float) -> str:
    """`p99.9`."""
    return f"p{percent:g}"


def latencies_frame(found: Iterable[Summary]) -> pd.DataFrame:
    """One row for each case of the step pass and backend: seconds of the median and rarer steps, their number."""
    import pandas as pd

    rows = []
    for s in found:
        if latency := latency_of(s):
            within = {column(p): math.nan if x is None else x for p, x in latency.within.items()}
            rows.append({**case_fields(s.case), "backend": s.backend, **within, "steps": latency.steps})
    return pd.DataFrame(rows)
