"""The part of the page on energy: joules a call where a counter could be read, and one line where not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rnnbench.analysis.devices import energy_reasons, energy_sources, joules_of
from rnnbench.analysis.stats import Summary
from rnnbench.records.record import Status
from rnnbench.report.context import Context, Problem
from rnnbench.report.markdown import escape, marked, table
from rnnbench.report.text import with_interval

READING = """\
Joules of one call: what the counters gained over a turn, over its calls, warm-ups too. The counters are of the whole
processor or, of a backend on a GPU, of that GPU alone: the two are not to be compared. What other programs and idle
cores take is in them, so a fast answer is also charged for less of that."""


def _cell(s: Summary | None) -> str:
    if s is None:
        return "not asked"
    joules = joules_of(s)
    if joules is None:
        return "unknown"
    return f"{'wrong: ' if s.status is Status.WRONG else ''}{with_interval(joules, 1e-3)}"


def _table(problem: Problem) -> str:
    rows = [[escape(name), *(_cell(problem.get(p, name)) for p in problem.cases)] for name in problem.ordered]
    return marked(table(["backend", *(f"{escape(str(p))}, mJ a call" for p in problem.cases)], rows))


def section(context: Context, figures: Mapping[str, Sequence[str]]) -> list[str]:
    """Nothing where nobody looked, as in records of older versions."""
    sources, reasons = energy_sources(context.records), energy_reasons(context.records)
    said = []
    if reasons:
        (reason, most), total = reasons[0], sum(count for _, count in reasons)
        part = "" if most == total else f", for {most:,} of them"
        said = [f"Not known for {total:,} turns{part}: {escape(reason)}."]
    if not sources:
        return ["## Energy", *said] if said else []
    parts = ["## Energy", f"Counted by {escape(', '.join(sources))}."]
    for problem in context.problems:
        if any(joules_of(s) for group in problem.summaries.values() for s in group.values()):
            parts += [f"### {escape(problem.label)}", _table(problem)]
    return [*parts, READING, *said]
