"""Test accuracy against seconds since the process was started: one line a backend, and a band over its seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rnnbench.analysis.accuracy import ToReach, best_so_far
from rnnbench.report.data import ReportData
from rnnbench.report.plots.layout import (
    Frame,
    Page,
    headline,
    legend_below,
    line_handles,
    log_axis,
    paged,
    placed,
    span,
    titled,
)
from rnnbench.report.style import FAINT, GRID, look
from rnnbench.report.to_accuracy import by_goal, goal_label
from rnnbench.units import duration, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = 4  # a page
COLUMNS = 5  # of the legend
ROOM = 0.03  # of accuracy, below the lowest and above the highest


def _limits(drawn: Sequence[ToReach]) -> tuple[float, float]:
    """Of the axis of accuracies."""
    every = [e.accuracy for t in drawn for r in t.trainings for e in r.epochs] + [drawn[0].until]
    return max(0.0, min(every) - ROOM), min(1.0, max(every) + ROOM)


def panel(ax: Axes, drawn: Sequence[ToReach]) -> None:
    """The best accuracy so far: each line begins where training does, at the foot, and steps up after each epoch."""
    from matplotlib.ticker import FuncFormatter

    low, high = _limits(drawn)
    ends = [s for t in drawn for s in (t.ready, *(line[0] for line in best_so_far(t.trainings)))]
    limits = span(ends)
    assert limits is not None
    for t in drawn:
        style, steps = look(t.backend), best_so_far(t.trainings)
        x = [t.ready, *(seconds for seconds, *_ in steps)]
        middle, bottom, top = ([low, *(max(low, step[k]) for step in steps)] for k in (1, 2, 3))
        ax.fill_between(x, bottom, top, step="post", color=style.colour, alpha=0.15, linewidth=0)
        ax.step(x, middle, where="post", color=style.colour, linestyle=style.line, linewidth=1.4)
        ax.plot(x[:1], [low], marker="|", color=style.colour, markersize=5, clip_on=False)
        if math.isfinite(t.seconds):
            ax.plot([t.seconds], [t.until], marker=style.marker, color=style.colour, markersize=6, zorder=4)
    ax.axhline(drawn[0].until, color=FAINT, linewidth=0.8, linestyle=(0, (4, 3)))
    log_axis("x", ax, *limits, form=lambda v: duration(v, 1))
    ax.set_ylim(low, high)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: percent(v, 0)))
    ax.grid(True, axis="y", color=GRID, linewidth=0.6)
    ax.set_xlabel("since the start of the process, tests left out")
    ax.set_ylabel("test accuracy, best so far")


def pages(data: ReportData) -> list[Page]:
    """Four problems a page; of each the backends that came to the end of an epoch."""
    groups = [drawn for group in by_goal(data) if (drawn := [t for t in group if math.isfinite(t.ready)])]

    def draw(part: Sequence[list[ToReach]]) -> tuple[Figure, str]:
        names = [name for name in data.backends if any(t.backend == name for group in part for t in group)]
        lines = math.ceil(len(names) / COLUMNS)
        columns = min(2, len(part))
        frame = Frame(left=0.7, right=0.2, title_lines=3 + data.quick, legend_lines=lines)
        figure, axes = placed(len(part), columns, 2.1, frame)
        note = (
            "Median and band over seeds; a mark where half of the trainings have reached the accuracy. A line begins "
            "at the foot, where the first epoch does: the library is imported and the rows are staged by then."
        )
        headline(figure, "Time to accuracy: from the start of the process", [note], data.quick)
        for ax, group in zip(axes, part, strict=True):
            panel(ax, group)
            titled(ax, goal_label(data, group[0]))
        legend_below(figure, line_handles({name: look(name) for name in names}), COLUMNS)
        labels = ", ".join(goal_label(data, group[0]) for group in part)
        return figure, f"Test accuracy against seconds since the start of the process, one line a backend: {labels}"

    return paged("to-accuracy", groups, PANELS, draw)
