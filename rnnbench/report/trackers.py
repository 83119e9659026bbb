"""A run in the forms that trackers of benchmarks and badges read, in JSON: what has a right time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rnnbench.analysis.stats import NS, Summary
from rnnbench.records.record import Record
from rnnbench.report.badge import badge
from rnnbench.report.data import ReportData
from rnnbench.units import number


def github(data: ReportData) -> list[dict[str, Any]]:
    """As github-action-benchmark reads it with `tool: customSmallerIsBetter`; nanoseconds a call."""
    commit = (data.machine.get("git") or {}).get("commit") or "unknown"
    return [
        {
            "name": name_of(s),
            "unit": "ns",
            "value": value,
            **({"range": f"{number(low)} to {number(high)}"} if math.isfinite(low) else {}),
            "extra": f"launches {len({key[:2] for key in s.turns})}, rounds {len(s.turns)}\n"
            f"machine {s.records[0].machine_id}\ncommit {commit}",
        }
        for s, value, low, high in _timed(data.summaries)
    ]


def bencher(data: ReportData) -> dict[str, Any]:
    """Bencher Metric Format, for `bencher run --adapter json`: latency in nanoseconds."""
    return {
        name_of(s): {"latency": {"value": value, **_bounds(low, high)}}
        for s, value, low, high in _timed(data.summaries)
    }


FORMS: dict[str, Callable[[ReportData], Any]] = {"github": github, "bencher": bencher, "badge": badge}


def name_of(s: Summary) -> str:
    """The case and the backend, the same in every run."""
    return f"{s.case.key} {s.backend}"


def _bounds(low: float, high: float) -> dict[str, float]:
    return {"lower_value": low, "upper_value": high} if math.isfinite(low) and math.isfinite(high) else {}


def _timed(found: Iterable[Summary]) -> Iterable[tuple[Summary, float, float, float]]:
    for s in found:
        if s.ranked and s.time is not None:
            yield s, s.time.value / NS, s.time.low / NS, s.time.high / NS


def export(form: str, records: Iterable[Record], machine: Mapping[str, Any]) -> tuple[Any, list[str]]:
    """What to print, and a sentence for each answer that has no place in it. KeyError for an unknown form."""
    data = ReportData(list(records), machine=machine)
    left = [f"{name_of(s)}: {s.status}: {s.reason or 'no reason kept'}" for s in data.summaries if not s.ranked]
    return FORMS[form](data), left
