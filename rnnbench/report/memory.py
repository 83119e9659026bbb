"""The part of the page on memory: the peak of a pass, and what of it the pass itself came to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rnnbench.analysis.devices import memory_of
from rnnbench.analysis.stats import Summary
from rnnbench.report.context import Context, Problem
from rnnbench.report.markdown import escape, table
from rnnbench.report.text import number

READING = """\
The most resident memory of a process that did nothing but prepare and call the pass twice; in brackets what of it came
after preparing, compiling included, where the system tells. The rest is the interpreter, the library and the data."""


def _megabytes(count: int) -> str:
    return number(count / 1e6)


def _cell(s: Summary | None) -> str:
    if s is None:
        return "not asked"
    found = memory_of(s)
    if found is None:
        return "not measured"
    own = "" if found.own is None else f" ({_megabytes(found.own)})"
    device = "" if found.device is None else f", {_megabytes(found.device)} on the device"
    return f"{_megabytes(found.peak)}{own}{device}"


def memory_table(problem: Problem) -> str:
    """A row for each backend, a column for each pass."""
    rows = [[escape(name), *(_cell(problem.get(p, name)) for p in problem.cases)] for name in problem.ordered]
    return table(["backend", *(f"{escape(str(p))}, MB" for p in problem.cases)], rows)


def section(context: Context, figures: Mapping[str, Sequence[str]]) -> list[str]:
    """Nothing where it was not asked for."""
    if not any(memory_of(s) for s in context.summaries):
        return []
    parts = ["## Peak memory of a pass"]
    for problem in context.problems:
        parts += [f"### {escape(problem.label)}", memory_table(problem)]
    return [*parts, READING]
