"""Time, and share of peak, against size: a row of panels a pass and type, a column an axis, a line a backend."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rnnbench.analysis.roofline import reached
from rnnbench.analysis.stats import Summary
from rnnbench.model import Case, DType, Pass
from rnnbench.report.data import ReportData
from rnnbench.report.plots.layout import Page, grid, headline, legend_outside, line_handles, log_axis, size_axis, span
from rnnbench.report.style import FAINT, GRID, look
from rnnbench.sizes import AXES, Sizes
from rnnbench.units import duration, number, threads

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMES = {"H": "hidden units H", "B": "batch rows B", "T": "steps T"}
Value = Callable[[Summary], float | None]


def sweep_sizes(case: Case) -> Sizes:
    """H, B and T of a case."""
    return Sizes(case.model.H, case.B, case.T)


@dataclass(frozen=True)
class Panel:
    """One pass and type along one axis. `lines`: backend -> (size, value) from small to large."""

    axis: str
    title: str
    lines: dict[str, list[tuple[int, float]]]


def panel_of(data: ReportData, axis: str, pass_: Pass, dtype: DType, value: Value) -> Panel:
    """The right answers on the axis, the centre among them if it was measured."""
    sweep = data.sweep
    assert sweep is not None
    wanted = {*sweep.axes[axis], sweep.centre}
    lines: dict[str, list[tuple[int, float]]] = {}
    for s in data.summaries:
        on_axis = s.case.pass_ is pass_ and s.case.dtype is dtype and sweep_sizes(s.case) in wanted
        if on_axis and s.ranked and (v := value(s)) is not None:
            lines.setdefault(s.backend, []).append((getattr(sweep_sizes(s.case), axis), v))
    still = ", ".join(f"{name} {getattr(sweep.centre, name)}" for name in AXES if name != axis)
    wide = "E = H" if sweep.E is None else f"E {sweep.E}"
    several = f" {dtype}" if len({s.case.dtype for s in data.summaries}) > 1 else ""
    return Panel(axis, f"{pass_}{several}: {still}, {wide}", {name: sorted(line) for name, line in lines.items()})


def draw_lines(ax: Axes, panel: Panel) -> None:
    """The lines, on a log axis of sizes; the axis of values is the caller's."""
    for name, line in panel.lines.items():
        style = look(name)
        ax.plot(
            *zip(*line, strict=True), color=style.colour, marker=style.marker, linestyle=style.line,
            linewidth=1.6 if name == "numba" else 1.0, markersize=4,
        )  # fmt: skip
    draw_sizes(ax, panel)


def draw_sizes(ax: Axes, panel: Panel) -> None:
    """The log axis of sizes, and the title."""
    sizes = sorted({size for line in panel.lines.values() for size, _ in line})
    if not size_axis(ax, sizes):
        ax.text(0.5, 0.5, "no backend was measured", transform=ax.transAxes, ha="center", color=FAINT, fontsize=7)
    ax.set_title(panel.title, fontsize=7.5)
    ax.set_xlabel(NAMES[panel.axis])


def time_panel(ax: Axes, panel: Panel) -> None:
    """Seconds of a call."""
    draw_lines(ax, panel)
    limits = span([v for line in panel.lines.values() for _, v in line])
    if limits is not None:
        log_axis("y", ax, *limits, form=lambda v: duration(v, 1))


def share_panel(ax: Axes, panel: Panel) -> None:
    """Share of the multiply-add peak in percent."""
    draw_lines(ax, panel)
    top = max((v for line in panel.lines.values() for _, v in line), default=1.0)
    ax.set_ylim(0, 1.05 * max(100.0, top))
    ax.axhline(100.0, color=FAINT, linewidth=0.8, linestyle="--")
    ax.grid(True, axis="y", color=GRID, linewidth=0.6)
    ax.set_ylabel("% of peak")


def call_seconds(s: Summary) -> float | None:
    """Seconds of a call, where there are any."""
    return s.time.value if s.time else None


def kinds_of(data: ReportData) -> list[tuple[Pass, DType]]:
    """Each pass and type of the run, passes in their own order."""
    found = dict.fromkeys((s.case.pass_, s.case.dtype) for s in data.summaries)
    return sorted(found, key=lambda kind: (kind[1], list(Pass).index(kind[0])))


def _page(
    data: ReportData, name: str, title: str, note: str, value: Value, show: Callable[[Axes, Panel], None]
) -> list[Page]:
    sweep = data.sweep
    if sweep is None or not any(s.time for s in data.summaries):
        return []
    axes_swept = list(sweep.axes)
    panels = [panel_of(data, axis, *kind, value) for kind in kinds_of(data) for axis in axes_swept]
    figure, places = grid(len(panels), len(axes_swept), 2.2, 2 + data.quick)
    headline(figure, title, [note], data.quick)
    for ax, panel in zip(places, panels, strict=True):
        show(ax, panel)
    names = {backend for panel in panels for backend in panel.lines}
    legend_outside(figure, line_handles({b: look(b) for b in data.backends if b in names}), 4)
    return [Page(name, figure, f"{title}: {'; '.join(f'{p.axis}, {p.title}' for p in panels)}")]


def time_pages(data: ReportData) -> list[Page]:
    """Time of a call against size; none where nothing was swept."""
    note = "Median round of one process each. Both scales log."
    return _page(data, "sweep-time", "Time of a call against size: lower is better", note, call_seconds, time_panel)


def share_pages(data: ReportData) -> list[Page]:
    """Share of peak against size; none where the peak is not known."""
    if data.peak is None:
        return []

    def value(s: Summary) -> float | None:
        found = reached(s, data.peak)
        return None if found is None or found.share is None else 100 * found.share

    roofs = {dtype: data.peak.roof(dtype) for _, dtype in kinds_of(data)}
    measured = "; ".join(f"{d}: {number(r.flops / 1e9)} GFLOP/s by {threads(r.threads)}" for d, r in roofs.items() if r)
    note = f"Operations of the matrix products over the measured multiply-add peak ({measured})."
    return _page(data, "sweep-share", "Share of peak against size: higher is better", note, value, share_panel)
