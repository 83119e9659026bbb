"""Where the time goes: import, preparation, first call and one steady step, side by side on a log axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rnnbench.analysis.costs import Spent, main_cases, spent
from rnnbench.analysis.stats import Summary
from rnnbench.model import Case
from rnnbench.records.record import Status
from rnnbench.report.data import ReportData
from rnnbench.report.plots.layout import (
    Mark,
    Page,
    backend_rows,
    handle,
    headline,
    in_lanes,
    legend_below,
    log_axis,
    marks,
    paged,
    placed_rows,
    points_of,
    say_nothing_drawn,
    span,
    titled,
    write_in_row,
)  # fmt: skip
from rnnbench.report.style import FAINT, INK, WRONG, look
from rnnbench.report.text import status_text
from rnnbench.units import duration

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = 4  # a page
SIZE = 5.5  # points, of a mark


@dataclass(frozen=True)
class CostKind:
    """One kind of cost: what it is called, its marker, and whether the marker is filled."""

    label: str
    marker: str
    filled: bool


KINDS: dict[str, CostKind] = {
    "imported": CostKind("import", "s", False),
    "prepared": CostKind("prepare data", "|", True),
    "first_cold": CostKind("first call, compiling", "^", True),
    "first_warm": CostKind("first call, compiled code on disk", "^", False),
    "steady": CostKind("one steady step", "o", True),
}


def panel(ax: Axes, title: str, group: Sequence[Summary], limits: tuple[float, float] | None) -> None:
    """One problem: a row for each backend, a marker for each kind of cost, on the axis of all."""
    backend_rows(ax, [s.backend for s in group])
    known = [spent(s) for s in group]
    for y, (s, c) in enumerate(zip(group, known, strict=True)):
        found = _found(c)
        if found:
            ax.plot(
                [min(found.values()), max(found.values())],
                [y, y],
                color=look(c.backend).colour,
                linewidth=0.8,
                alpha=0.5,
            )
        else:
            write_in_row(ax, y, status_text(str(s.status), s.reason), WRONG if s.status is Status.WRONG else FAINT)
    titled(ax, title)
    if limits is None:
        say_nothing_drawn(ax)
        return
    row = points_of(ax)[1] / len(known)
    shown: dict[str, list[Mark]] = {kind: [] for kind in KINDS}
    for y, c in enumerate(known):
        offsets = in_lanes(ax, list(_found(c).values()), limits, SIZE)
        for (kind, v), offset in zip(_found(c).items(), offsets, strict=True):
            shown[kind].append(Mark(v, y + offset / row, look(c.backend).colour, KINDS[kind].filled))
    for kind, style in KINDS.items():
        marks(ax, style.marker, shown[kind], SIZE, linewidths=1.2)
    log_axis("x", ax, *limits, form=lambda v: duration(v, 1))


def _found(c: Spent) -> dict[str, float]:
    """The costs that are known and above nothing."""
    return {kind: v for kind in KINDS if (v := getattr(c, kind)) is not None and v > 0}


def pages(data: ReportData) -> list[Page]:
    """Four problems a page."""
    groups = {case: data.in_order(group) for case, group in main_cases(data.summaries).items()}
    limits = span(v for group in groups.values() for s in group for v in _found(spent(s)).values())
    shown = {case: group for case, group in groups.items() if any(spent(s).start for s in group)}

    def draw(part: Sequence[Case]) -> tuple[Figure, str]:
        most = max(len(shown[case]) for case in part)
        figure, axes = placed_rows(len(part), 1, data.backends, most, 3 + data.quick, 1, row=0.23)
        note = (
            "Medians over launches. The first call is that of all passes up to the train step; numba compiles while "
            "it prepares. What was compiled for an earlier panel is not compiled again. Log scale."
        )
        headline(figure, "Where the time goes: once per process, and in each step after", [note], data.quick)
        for ax, case in zip(axes, part, strict=True):
            panel(ax, data.labels.of(case), shown[case], limits)
        handles = [
            handle(k.label, linestyle="", marker=k.marker, color=INK, markerfacecolor=INK if k.filled else "white")
            for k in KINDS.values()
        ]
        legend_below(figure, handles, len(KINDS))
        labels = ", ".join(data.labels.of(case) for case in part)
        return figure, f"Import, preparation, first call and steady step of each backend, log scale: {labels}"

    return paged("costs", list(shown), PANELS, draw)
