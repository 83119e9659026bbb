"""Speed against operations a byte, under this machine's ceilings: one panel a pass and type, one colour a backend."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rnnbench.analysis.devices import on_gpu
from rnnbench.analysis.roofline import Peak, Rates, reached
from rnnbench.analysis.stats import Summary
from rnnbench.model import DType, Pass
from rnnbench.report.data import ReportData
from rnnbench.report.plots.layout import (
    Frame,
    Mark,
    Page,
    handle,
    headline,
    in_lanes,
    legend_below,
    line_handles,
    log_axis,
    marks,
    paged,
    placed,
    points_of,
    span,
    spread,
    titled,
)  # fmt: skip
from rnnbench.report.style import FAINT, INK, look
from rnnbench.report.text import plain
from rnnbench.units import number, threads
from rnnbench.work import work_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = 4  # a page
SIZE = 4.5  # points, of a mark
COLUMNS = 3  # of the legend
MAX_NAMES = 5  # cases in a panel that are named
ROOM_FOR_NAMES = 8.0  # below the lowest point, as a factor
GIGA = 1e9
LINES: tuple[Any, ...] = ("-", "--", ":")  # of the roof of most threads, and of fewer


@dataclass(frozen=True)
class RooflinePoint:
    """One backend on one case: operations a byte, and operations a second in billions."""

    backend: str
    case: str
    intensity: float
    speed: float


def _points(summaries: Sequence[Summary], labels: dict[str, str]) -> list[RooflinePoint]:
    """The right answers that were timed on the processor, whose roof it is; `labels` names their cases."""
    return [
        RooflinePoint(s.backend, labels[s.case.key], work_of(s.case).intensity, found.flops_per_second / GIGA)
        for s in summaries
        if s.ranked and not on_gpu(s.records) and (found := reached(s, None))
    ]


def panel(ax: Axes, title: str, points: Sequence[RooflinePoint], roofs: Sequence[Rates]) -> None:
    """One pass in one type, under the roof of each number of threads, the most last."""
    top = roofs[-1]
    ridge = top.flops / top.bytes
    cases = {p.case: p.intensity for p in points}
    named = len(cases) <= MAX_NAMES
    across = span([*cases.values(), ridge / 3, 2 * ridge])
    upward = span([*(p.speed for p in points), top.flops / GIGA], least=10.0)
    assert across is not None
    assert upward is not None
    log_axis("x", ax, *across)
    heights = (upward[0] / (ROOM_FOR_NAMES if named else 1.0), 1.6 * upward[1])
    log_axis("y", ax, *heights)
    for roof, line in zip(reversed(roofs), LINES, strict=False):
        _draw_roof(ax, roof, across, line)
    decades = math.log10(across[1] / across[0]) / points_of(ax)[0]  # a point
    shown: dict[str, list[Mark]] = {}
    columns: list[list[RooflinePoint]] = []
    for p in sorted(points, key=lambda p: p.intensity):
        near = columns and math.log10(p.intensity / columns[-1][-1].intensity) < 3 * SIZE * decades
        columns[len(columns) - bool(near) :] = [[*(columns[-1] if near else []), p]]
    for column in columns:
        for p, offset in zip(column, in_lanes(ax, [p.speed for p in column], heights, SIZE, upright=True), strict=True):
            beside = p.intensity * 10 ** (offset * decades)
            shown.setdefault(p.backend, []).append(Mark(beside, p.speed, look(p.backend).colour))
    for name, found in shown.items():
        marks(ax, look(name).marker, found, SIZE, clip_on=False)
    if named:
        _name(ax, cases, across)
    titled(ax, title)
    ax.set_xlabel("FLOP a byte of least traffic")
    ax.set_ylabel("GFLOP/s")


def _draw_roof(ax: Axes, roof: Rates, across: tuple[float, float], line: Any) -> None:
    corner = min(max(roof.flops / roof.bytes, across[0]), across[1])
    xs = [across[0], corner, across[1]]
    ax.plot(xs, [roof.at(x) / GIGA for x in xs], color=INK, linewidth=1.0, linestyle=line, zorder=0)


def _name(ax: Axes, cases: dict[str, float], across: tuple[float, float]) -> None:
    """The names of the cases under their columns of points, moved apart where columns are close."""
    own = [math.log(x / across[0]) / math.log(across[1] / across[0]) for x in cases.values()]
    for name, x, place, moved in zip(cases, cases.values(), own, spread(own, 0.055, 0.0, 0.97), strict=True):
        ax.axvline(x, ymin=0.03, color=FAINT, linewidth=0.5, linestyle=":", zorder=0)
        ax.plot([place, moved], [0.03, 0.0], transform=ax.transAxes, color=FAINT, linewidth=0.5, linestyle=":")
        ax.text(
            moved + 0.008, 0.02, plain(name), transform=ax.transAxes,
            rotation=90, va="bottom", ha="left", fontsize=6.5, color=FAINT,
        )  # fmt: skip


def _groups(data: ReportData, peak: Peak) -> dict[tuple[DType, Pass], list[RooflinePoint]]:
    """(type, pass) -> its points, where a roof of that type is known."""
    labels = {s.case.key: p.label for p in data.problems for group in p.summaries.values() for s in group.values()}
    groups: dict[tuple[DType, Pass], list[Summary]] = {}
    for s in data.summaries:
        if peak.roof(s.case.dtype):
            groups.setdefault((s.case.dtype, s.case.pass_), []).append(s)
    found = {key: _points(group, labels) for key, group in groups.items()}
    return {key: points for key, points in found.items() if points}


def pages(data: ReportData) -> list[Page]:
    """Four passes a page, each type on pages of its own; none where no ceiling is known."""
    peak = data.peak
    if peak is None:
        return []
    groups = _groups(data, peak)
    dtypes = dict.fromkeys(dtype for dtype, _ in groups)
    parts = [(d, passes[i : i + PANELS]) for d in dtypes for passes in [[p for e, p in groups if e is d]]
             for i in range(0, len(passes), PANELS)]  # fmt: skip

    def draw(one: Sequence[tuple[DType, list[Pass]]]) -> tuple[Figure, str]:
        ((dtype, part),) = one
        roofs = peak.rates[dtype]
        names = {p.backend for pass_ in part for p in groups[dtype, pass_]}
        lines = math.ceil((len(names) + len(LINES)) / COLUMNS)
        frame = Frame(title_lines=3 + data.quick, legend_lines=lines)
        figure, axes = placed(len(part), 2, 1.4, frame)
        note = (
            "Lines are what this machine was measured to do at most: memory sets the slope, multiply-adds the top. "
            "What stays in cache may lie above the slope. Both scales log. Points that would hide each "
            "other stand beside their place."
        )
        headline(figure, f"Roofline, {dtype}: how near each backend comes to the machine's limit", [note], data.quick)
        for ax, pass_ in zip(axes, part, strict=True):
            panel(ax, str(pass_), groups[dtype, pass_], roofs)
        looks = {name: look(name) for name in data.backends if name in names}
        handles = line_handles(looks, linestyle="", markersize=5)
        for roof, line in zip(reversed(roofs), LINES, strict=False):
            speeds = f"{number(roof.flops / GIGA)} GFLOP/s, {number(roof.bytes / GIGA)} GB/s"
            handles.append(
                handle(f"roof of {threads(roof.threads)}: {speeds}", color=INK, linewidth=1.0, linestyle=line)
            )
        legend_below(figure, handles, COLUMNS)
        alt = f"GFLOP/s against FLOP a byte by backend, log-log, under the machine's ceilings in {dtype}"
        return figure, f"{alt}: {', '.join(map(str, part))}"

    return paged("roofline", parts, 1, draw)
