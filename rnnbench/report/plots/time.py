"""Time per step: one panel for each workload and pass, all in one order of backends and on one axis."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rnnbench.analysis.stats import Basis, Summary
from rnnbench.model import Case, Pass
from rnnbench.report.data import ReportData
from rnnbench.report.plots.layout import Page, Row, headline, paged, placed_rows, point_rows, row_axis, titled
from rnnbench.report.text import status_text, value_text
from rnnbench.units import duration, unit_for

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS = 12  # a page
NOTES = (
    "Median over launches of the median round, with its 95 % interval (dotted: of one launch "
    "only, too narrow; an arrow: it goes on). Log scale.",
)
Panel = tuple[str, Case, Mapping[str, Summary]]


def _row(s: Summary) -> Row:
    """One backend's answer, in seconds a step."""
    wrong = not s.ranked and str(s.status) == "wrong"
    if s.time is None:
        return Row(s.backend, label=status_text(str(s.status), s.reason), wrong=wrong)
    unit = unit_for([s.time.value / s.case.steps])
    value, low, high = (v / s.case.steps for v in (s.time.value, s.time.low, s.time.high))
    label = f"{value_text(s.time, s.case.steps * unit.seconds)} {unit.name}" + (" wrong" if wrong else "")
    return Row(s.backend, value, low, high, label, wrong, weak=s.time.basis is not Basis.LAUNCHES)


def panel_rows(group: Mapping[str, Summary], order: Sequence[str]) -> list[Row]:
    """The rows of one workload and pass, in the order of the report."""
    return [_row(group[name]) for name in order if name in group]


def pages(data: ReportData) -> list[Page]:
    """Twelve panels a page, passes of a workload beside and under each other, all on one axis."""
    panels: list[Panel] = [
        (problem.label, problem.cases[pass_], group)
        for problem in data.problems
        for pass_, group in problem.summaries.items()
    ]
    rows = {case.key: panel_rows(group, data.backends) for _, case, group in panels}
    axis = row_axis((row for of in rows.values() for row in of), form=lambda v: duration(v, 1))

    def draw(part: Sequence[Panel]) -> tuple[Figure, str]:
        figure, axes = placed_rows(len(part), 2, data.backends, max(len(g) for _, _, g in part), 3 + data.quick)
        headline(figure, "Time per step: smaller is better", NOTES, data.quick)
        said = []
        for ax, (label, case, group) in zip(axes, part, strict=True):
            point_rows(ax, rows[case.key], axis)
            titled(ax, f"{label}: {case.pass_}{', a step of it' if case.pass_ is Pass.EPOCH else ''}")
            ranked = [s for s in group.values() if s.ranked and s.time]
            best = min(ranked, key=lambda s: s.time.value if s.time else math.inf, default=None)
            said.append(f"{label} {case.pass_}, {f'fastest {best.backend}' if best else 'none measured'}")
        return figure, f"Time per step by backend, log scale: {'; '.join(said)}"

    return paged("time", panels, PANELS, draw)
