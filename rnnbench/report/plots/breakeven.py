"""Time spent in all against steps done, from the start of the process: where the lines cross, a compiler has paid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING

from rnnbench.analysis.costs import Spent, break_even, main_cases, spent
from rnnbench.model import Case
from rnnbench.report.data import ReportData
from rnnbench.report.plots.layout import Frame, Page, headline, log_axis, paged, placed, span, spread, titled
from rnnbench.report.style import INK, look
from rnnbench.report.text import plain
from rnnbench.units import duration

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = 4  # a page
MIN_STEPS, MAX_STEPS = 1e3, 1e7  # steps at the right edge


def last_step(known: Sequence[Spent]) -> float:
    """A power of ten that has every crossing to its left, between 1e3 and 1e7."""
    crossings = []
    for a, b in combinations(known, 2):
        for found in (break_even(a, b), break_even(b, a)):
            crossings += [n for n in (found.since, found.until) if n is not None] if found else []
    power = math.ceil(math.log10(2 * max([MIN_STEPS / 2, *crossings])))
    return min(10.0**power, MAX_STEPS)


def thousands(steps: float) -> str:
    """1, 10, 100, 1k, ...: what fits under an axis that reaches far."""
    from matplotlib.ticker import EngFormatter

    return EngFormatter(sep="").format_eng(steps)


def panel(ax: Axes, title: str, known: Sequence[Spent]) -> None:
    """One problem: a line for each backend, named at its right end."""
    end = last_step(known)
    steps = [10 ** (k / 20) for k in range(round(20 * math.log10(end)) + 1)]
    totals = [[c.total(n) for n in steps] for c in known]
    limits = span(v for line in totals for v in line)
    assert limits is not None
    for c, line in zip(known, totals, strict=True):
        style = look(c.backend)
        ax.plot(steps, line, color=style.colour, linestyle=style.line, linewidth=1.4)
    log_axis("x", ax, 1, end, form=thousands)
    log_axis("y", ax, *limits, form=lambda v: duration(v, 1))
    _name_lines(ax, known, [line[-1] for line in totals], limits)
    titled(ax, title)
    ax.set_xlabel("steps done")
    ax.set_ylabel("time since the start")


def _name_lines(ax: Axes, known: Sequence[Spent], ends: Sequence[float], limits: tuple[float, float]) -> None:
    """Names at the right, moved apart where lines end close together."""
    inch = 1 / (ax.get_position().width * ax.figure.get_figwidth())  # type: ignore[union-attr]
    bend, mark, name = (1 + inches * inch for inches in (0.054, 0.09, 0.135))
    low, high = (math.log10(v) for v in limits)
    places = [(math.log10(v) - low) / (high - low) for v in ends]
    for c, own, place in zip(known, places, spread(places, 0.085, 0.02, 0.98), strict=True):
        style = look(c.backend)
        ax.plot([1.0, bend], [own, place], transform=ax.transAxes, color=style.colour, linewidth=0.7, clip_on=False)
        ax.plot(
            mark,
            place,
            linestyle="",
            marker=style.marker,
            transform=ax.transAxes,
            color=style.colour,
            markersize=4,
            clip_on=False,
        )
        ax.text(name, place, plain(c.backend), transform=ax.transAxes, va="center", fontsize=7, color=INK)


def pages(data: ReportData) -> list[Page]:
    """Four problems a page; those without a timed first call are left out."""
    groups = {
        case: [c for s in group if s.ranked and (c := spent(s)).start is not None]
        for case, group in main_cases(data.summaries).items()
    }
    shown = {case: known for case, known in groups.items() if known}

    def draw(part: Sequence[Case]) -> tuple[Figure, str]:
        figure, axes = placed(len(part), 2, 1.85, Frame(left=0.84, right=0.96, title_lines=2 + data.quick))
        note = (
            "Import, preparation and first call (compiling, where that was seen), then steady steps. Both scales log."
        )
        headline(figure, "Time spent in all: where lines cross, a slow start has paid", [note], data.quick)
        for ax, case in zip(axes, part, strict=True):
            panel(ax, data.labels.of(case), shown[case])
        labels = ", ".join(data.labels.of(case) for case in part)
        return figure, f"Time since the start of the process against steps done, one line a backend, log-log: {labels}"

    return paged("break-even", list(shown), PANELS, draw)
