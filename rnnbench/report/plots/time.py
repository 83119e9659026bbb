"""Time per step: one panel for each workload and pass, backends from fastest to slowest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rnnbench.analysis.stats import Basis, Summary
from rnnbench.model import Case, Pass
from rnnbench.report.data import ReportData
from rnnbench.report.plots.layout import Page, Row, headline, paged, placed_rows, point_rows, titled
from rnnbench.report.text import status_text, value_text
from rnnbench.units import Unit, unit_for

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = 12  # a page
NOTES = (
    "Median over launches of the median round, with its 95 % interval (dotted: of one launch "
    "only, too narrow; an arrow: it goes on). Log scale.",
)
Panel = tuple[str, Case, Sequence[Summary]]


def _rows(summaries: Sequence[Summary], unit: Unit) -> list[Row]:
    """Right answers from fastest to slowest, then wrong ones, then those that were not timed. Per step."""

    def order(s: Summary) -> tuple[bool, bool, float]:
        return s.time is None, not s.ranked, s.time.value if s.time else 0.0

    return [_row(s, unit) for s in sorted(summaries, key=order)]


def _row(s: Summary, unit: Unit) -> Row:
    wrong = not s.ranked and str(s.status) == "wrong"
    if s.time is None:
        return Row(s.backend, label=status_text(str(s.status), s.reason), wrong=wrong)
    scale = s.case.steps * unit.seconds
    value, low, high = (v / scale for v in (s.time.value, s.time.low, s.time.high))
    label = f"{value_text(s.time, scale)} {unit.name}" + (" wrong" if wrong else "")
    return Row(s.backend, value, low, high, label, wrong, weak=s.time.basis is not Basis.LAUNCHES)


def panel(ax: Axes, label: str, case: Case, summaries: Sequence[Summary]) -> None:
    """One workload and pass."""
    unit = unit_for(s.time.value / case.steps for s in summaries if s.time)
    drawn = point_rows(ax, _rows(summaries, unit))
    of = " of it" if case.pass_ is Pass.EPOCH else ""
    titled(ax, f"{label}: {case.pass_}" + (f", {unit.name} a step{of}" if drawn else ""))


def pages(data: ReportData) -> list[Page]:
    """Twelve panels a page, passes of a workload beside and under each other."""
    panels: list[Panel] = [
        (problem.label, problem.cases[pass_], list(group.values()))
        for problem in data.problems
        for pass_, group in problem.summaries.items()
    ]

    def draw(part: Sequence[Panel]) -> tuple[Figure, str]:
        figure, axes = placed_rows(len(part), 2, data.backends, max(len(g) for _, _, g in part), 3 + data.quick)
        headline(figure, "Time per step: smaller is better", NOTES, data.quick)
        said = []
        for ax, (label, case, group) in zip(axes, part, strict=True):
            panel(ax, label, case, group)
            ranked = [s for s in group if s.ranked and s.time]
            best = min(ranked, key=lambda s: s.time.value if s.time else math.inf, default=None)
            said.append(f"{label} {case.pass_}, {f'fastest {best.backend}' if best else 'none measured'}")
        return figure, f"Time per step by backend, log scale: {'; '.join(said)}"

    return paged("time", panels, PANELS, draw)
