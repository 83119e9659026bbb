"""Time against runs in order of time, a panel a line: points with intervals, levels, steps, commits on the axis."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rnnbench.analysis.changepoints import levels
from rnnbench.analysis.history import Line
from rnnbench.report.plots.layout import Page, grid, headline, interval_bar, paged
from rnnbench.report.style import FAINT, GRID, INK, WRONG, look
from rnnbench.report.text import plain, ratio_text
from rnnbench.units import number, unit_for

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = 10  # a page
MAX_LABELS = 14  # of commits, below one panel
NOTES = (
    "Each run's time with its 95 % interval over launches (bare: too few for one; an arrow: it goes on); the lines "
    "are the levels between steps, the dashed one a step. Runs in order of time, named by commit (+: with changes).",
)


def panel(ax: Axes, line: Line, name: str) -> None:
    """One case of one backend."""
    unit = unit_for(point.time.value for point in line.points)
    values = [point.time.value / unit.seconds for point in line.points]
    style, x = look(line.backend), range(len(values))
    low, high = _limits(line, values, unit.seconds)
    for i, point in enumerate(line.points):
        if math.isfinite(point.time.low):
            bar = (point.time.low / unit.seconds, point.time.high / unit.seconds)
            interval_bar(ax, *bar, i, (low, high), upright=True, color=style.colour, linewidth=1.2)
    ax.plot(x, values, linestyle="", marker=style.marker, color=style.colour, markersize=4)
    for first, end, level in levels(values, line.steps):
        ax.plot([first - 0.4, end - 0.6], [level, level], color=FAINT, linewidth=1.0)
    ax.set_ylim(low, high)
    for step in line.steps:
        colour = WRONG if step.ratio > 1 else INK
        ax.axvline(step.index - 0.5, color=colour, linestyle="--", linewidth=0.9)
        ax.text(step.index - 0.45, high, ratio_text(step.ratio), color=colour, fontsize=7, va="top")
    every = math.ceil(len(values) / MAX_LABELS)
    shown = sorted({*range(0, len(values), every), *(step.index for step in line.steps)})
    ax.set_xticks(shown, [line.points[i].run.version for i in shown], rotation=90, fontsize=6)
    ax.set_xlim(-0.6, len(values) - 0.4)
    ax.yaxis.set_major_formatter(lambda v, _: number(v))
    ax.grid(True, axis="y", color=GRID, linewidth=0.6)
    ax.set_ylabel(unit.name)
    ax.set_title(plain(name), fontsize=7.5)


def _limits(line: Line, values: Sequence[float], unit: float) -> tuple[float, float]:
    """The ends of the axis: all values fit, and intervals as far as they do not hide them."""
    lows = [p.time.low / unit for p in line.points if math.isfinite(p.time.low)]
    highs = [p.time.high / unit for p in line.points if math.isfinite(p.time.high)]
    low, high = min(values), max(values)
    reach = max(high - low, 0.05 * high)
    low, high = max(min([low, *lows]), low - reach), min(max([high, *highs]), high + reach)
    return low - 0.08 * (high - low) - 0.01 * low, high + 0.2 * (high - low) + 0.01 * high


def pages(lines: Sequence[Line], name: Callable[[Line], str]) -> list[Page]:
    """Ten lines a page."""

    def draw(part: Sequence[Line]) -> tuple[Figure, str]:
        figure, axes = grid(len(part), 2, 1.75, 3)
        headline(figure, "Time of a call, run after run: smaller is better", NOTES, False)
        for ax, line in zip(axes, part, strict=True):
            panel(ax, line, name(line))
        said = [f"{name(line)}, {len(line.steps)} {'step' if len(line.steps) == 1 else 'steps'}" for line in part]
        return figure, f"Time of a call against runs: {'; '.join(said)}"

    return paged("history", lines, PANELS, draw)
