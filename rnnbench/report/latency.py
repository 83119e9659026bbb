"""The section on single time steps: how long they take, and how long the rare ones."""

from __future__ import annotations

from rnnbench.analysis.latency import PERCENTS, column, latency_of
from rnnbench.model import Pass
from rnnbench.report.data import ReportData
from rnnbench.report.section import Markdown, Section, table
from rnnbench.units import number, unit_for

NOTE = (
    "Each step is timed by itself, one after the other, so with warm caches; what reading the clock and the call of "
    "it add, some 0.1 µs, is in every number. All steps of all turns that count are one set, the rare ones that others "
    "disturbed among them; durations are kept to 8 binary digits. A percentile needs 10 steps beyond it: p99.9 10,000."
)


def latency_section(data: ReportData) -> Section:
    """A table for each problem: p50, p99 and p99.9 of each backend."""
    tables = []
    for problem in data.problems:
        found = {name: latency_of(s) for name, s in problem.summaries.get(Pass.STEP, {}).items()}
        made = {name: latency for name, latency in found.items() if latency}
        if not made:
            continue
        unit = unit_for(x for latency in made.values() for x in latency.within.values() if x)
        rows = []
        for name, latency in sorted(made.items(), key=lambda item: item[1].within[PERCENTS[0]] or 0.0):
            cells = ["too few" if x is None else number(x / unit.seconds) for x in latency.within.values()]
            rows.append([name, *cells, f"{latency.steps:,}"])
        header = ["backend", *(f"{column(p)}, {unit.name}" for p in PERCENTS), "steps"]
        tables.append(Section(problem.label, [table(header, rows)], keys=problem.keys))
    return Section("Latency of a step", [*tables, Markdown(NOTE)] if tables else [])
