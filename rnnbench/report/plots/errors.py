"""How far each backend is from the oracle, as a part of what is allowed: right of the line is wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rnnbench.records.record import Status
from rnnbench.report.data import ProblemCases, ReportData
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
    titled,
    write_in_row,
)  # fmt: skip
from rnnbench.report.style import INK, WRONG, look
from rnnbench.report.tables import error_share, group_of, worst_errors
from rnnbench.report.text import status_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = 8  # a page
SIZE = 4.5  # points, of a mark
LOWEST = 1e-6  # of the limit: what is nearer, exact included, stands at the left edge
MARKERS = ("o", "s", "^", "D", "v", "X", "P", "*")


def error_shares(problem: ProblemCases, backend: str) -> dict[str, float]:
    """Array group -> the largest error over its limit in any pass and round; infinite where it is not a number."""
    worst: dict[str, float] = {}
    for group in problem.summaries.values():
        if backend in group:
            for array, e in worst_errors(group[backend]).items():
                worst[group_of(array)] = max(worst.get(group_of(array), 0.0), error_share(e))
    return worst


def panel(ax: Axes, problem: ProblemCases, markers: dict[str, str]) -> None:
    """One problem: a row for each backend, a marker for each group of arrays."""
    names = problem.backends
    backend_rows(ax, names)
    shares = {name: error_shares(problem, name) for name in names}
    titled(ax, problem.label)
    finite = [v for row in shares.values() for v in row.values() if math.isfinite(v)]
    for y, name in enumerate(names):
        if not shares[name]:
            answers = [s for p in problem.summaries if (s := problem.get(p, name))]
            failed = next((s for s in answers if s.status is not Status.OK), None)
            write_in_row(ax, y, status_text(str(failed.status), failed.reason) if failed else "no error was recorded")
    if not any(shares.values()):
        say_nothing_drawn(ax)
        return
    high = 10 ** math.ceil(math.log10(max([10.0, *finite])) + 0.5)
    log_axis("x", ax, LOWEST / 2, high, form=_tick)
    ax.axvline(1.0, color=WRONG, linewidth=1.2)
    row = points_of(ax)[1] / len(names)
    found: dict[str, list[Mark]] = {group: [] for group in markers}
    for y, name in enumerate(names):
        places = [min(max(v, LOWEST), high) for v in shares[name].values()]
        offsets = in_lanes(ax, places, (LOWEST / 2, high), SIZE)
        for (group, v), x, offset in zip(shares[name].items(), places, offsets, strict=True):
            found[group].append(Mark(x, y + offset / row, look(name).colour, v <= 1))
    for group, marker in markers.items():
        marks(ax, marker, found[group], SIZE, clip_on=False)
    for y, name in enumerate(names):
        _say_wrong(ax, y, shares[name])


def _say_wrong(ax: Axes, y: int, row: dict[str, float]) -> None:
    if any(v > 1 for v in row.values()):
        nan = any(math.isinf(v) for v in row.values())
        words = "wrong, not a number" if nan else "wrong"
        ax.annotate(words, (1.0, y), xytext=(3, 5), textcoords="offset points", fontsize=6.5, color=WRONG, va="center")


def _tick(value: float) -> str:
    return "limit" if value == 1 else f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e+")


def pages(data: ReportData) -> list[Page]:
    """Eight problems a page; none where no error was recorded at all."""
    arrays = [group_of(array) for s in data.summaries for array in worst_errors(s)]
    markers = {group: MARKERS[i % len(MARKERS)] for i, group in enumerate(dict.fromkeys(arrays))}
    if not markers:
        return []

    def draw(part: Sequence[ProblemCases]) -> tuple[Figure, str]:
        most = max(len(problem.backends) for problem in part)
        figure, axes = placed_rows(len(part), 2, data.backends, most, 3 + data.quick, 1, row=0.27)
        notes = ["norm(x - ref) / norm(ref) over its limit, largest of all passes and rounds; hollow: over the limit.",
                 "Exact answers stand at the left edge."]  # fmt: skip
        headline(figure, "Error against the float64 oracle: left of the line is right", notes, data.quick)
        for ax, problem in zip(axes, part, strict=True):
            panel(ax, problem, markers)
        handles = [handle(g, linestyle="", marker=m, color=INK, markersize=5) for g, m in markers.items()]
        legend_below(figure, handles, min(len(handles), 8))
        wrong = sorted({s.backend for s in data.summaries if s.status is Status.WRONG})
        verdict = f"over the limit: {', '.join(wrong)}" if wrong else "all within the limit"
        return figure, f"Error over limit by backend and array group, log scale: {verdict}"

    return paged("errors", data.problems, PANELS, draw)
