"""The part of the page on the machine's ceilings: what they are, and what share of the peak each backend reached."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rnnbench.analysis.roofline import Peak, Rates, reached
from rnnbench.analysis.stats import Summary
from rnnbench.model import Pass
from rnnbench.records.record import Status
from rnnbench.report.context import Context, Problem
from rnnbench.report.markdown import escape, table
from rnnbench.report.text import number, threads, told
from rnnbench.work import work_of

READING = """\
Operations are those of the matrix products that the equations need, two in each multiply-add; tanh, losses and the
optimizer are not counted. Equal tokens have equal products: a backend that computes them once is credited with all.
Traffic is the least that must pass to and from memory, each array once and the states twice; small networks stay in
cache, and may lie above the roof that memory sets. The formulas stand in `rnnbench/work.py`."""


def percent(share: float) -> str:
    """A share of the peak: `41 %`, `3.2 %`."""
    return f"{number(100 * share, decimals=0 if share >= 0.0995 else 1)} %"


def rate(flops_per_second: float) -> str:
    """`12.3 GFLOP/s`."""
    return f"{number(flops_per_second / 1e9)} GFLOP/s"


def said(rates: Rates) -> str:
    """The ceilings of so many threads in one line."""
    read, mixed = (number(value / 1e9) for value in (rates.read, rates.mixed))
    return f"{rate(rates.flops)}; {read} GB/s read, {mixed} GB/s read and written"


def lines(peak: Peak) -> Iterator[tuple[str, str]]:
    """Name and figures of each ceiling."""
    for dtype, every in peak.rates.items():
        for rates in every:
            yield f"{dtype}, {threads(rates.threads)}", said(rates)


def _cell(s: Summary | None, peak: Peak) -> str:
    if s is None:
        return "not asked"
    found = reached(s, peak)
    if found is None:
        return escape(told(str(s.status), s.reason, 40))
    share = "" if found.share is None else f"{percent(found.share)}, "
    return f"{'wrong: ' if s.status is Status.WRONG else ''}{share}{rate(found.flops_per_second)}"


def _heading(problem: Problem, pass_: Pass) -> str:
    work = work_of(problem.cases[pass_])
    return f"{escape(str(pass_))}: {number(work.flops / 1e6)} MFLOP, {number(work.intensity)} FLOP a byte"


def shares_table(problem: Problem, peak: Peak) -> str:
    """A row for each backend, a column for each pass: share of peak and rate."""
    rows = [[escape(name), *(_cell(problem.get(p, name), peak) for p in problem.cases)] for name in problem.ordered]
    return table(["backend", *(_heading(problem, p) for p in problem.cases)], rows)


def ceilings(peak: Peak) -> list[str]:
    """What was measured, and how."""
    rows = [[escape(name), text] for name, text in lines(peak)]
    return [table(["ceiling", "measured"], rows), f"Best of many short trials: {escape(peak.method)}."]


def section(context: Context, figures: Mapping[str, Sequence[str]]) -> list[str]:
    """Nothing where the ceilings are not known."""
    if context.peak is None or not any(s.time for s in context.summaries):
        return []
    parts = ["## Share of the machine's peak", *figures.get("roofline", ()), *ceilings(context.peak), READING]
    for problem in context.problems:
        parts += [f"### {escape(problem.label)}", shares_table(problem, context.peak)]
    return parts
