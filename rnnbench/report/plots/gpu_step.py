"""Microseconds for each time step, our kernels beside cuDNN: bars by workload, or lines along the axes of a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rnnbench.analysis.devices import OnDevice
from rnnbench.model import DType, Pass
from rnnbench.report.context import Context
from rnnbench.report.plots.gpu import Pair, draw_pairs, legend, pair_of
from rnnbench.report.plots.layout import Page, cut, grid, headline, log_axis, page_name, span
from rnnbench.report.plots.sweep import NAMES, kinds_of, sizes_of
from rnnbench.report.style import INK, look
from rnnbench.report.text import UNITS, number, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OURS, CUDNN = "cuda", ("torch-cuda", "torch-cuda+tf32")
PASSES = (Pass.FORWARD, Pass.GRADIENT)
PANELS = 12  # a page
MICRO = UNITS[0]
TITLE = "Microseconds for each of the T time steps, our kernels beside cuDNN: smaller is better"
NOTE = "The time of a whole call over T: embedding, head, loss and sums over steps have their part in it."
Line = list[tuple[int, float]]


def rivals(context: Context) -> dict[str, list[OnDevice]]:
    """Case -> right answers of ours and of cuDNN's, forward and gradient, where both are there."""
    groups: dict[str, list[OnDevice]] = {}
    for name in (OURS, *CUDNN):
        for d in context.on_device:
            s = d.summary
            if s.backend == name and s.case.pass_ in PASSES and s.ranked:
                groups.setdefault(s.case.key, []).append(d)

    def complete(group: Sequence[OnDevice]) -> bool:
        names = {d.summary.backend for d in group}
        return OURS in names and bool(names & {*CUDNN})

    return {key: group for key, group in groups.items() if complete(group)}


def pages(context: Context) -> list[Page]:
    """None where not both were measured."""
    groups = rivals(context)
    if not groups:
        return []
    return _lines(context, groups) if context.sweep else _bars(context, groups)


def _bars(context: Context, groups: dict[str, list[OnDevice]]) -> list[Page]:
    made = []
    for index, part in enumerate(cut(list(groups), PANELS)):
        figure, axes = grid(len(part), 2, 0.6 + 0.3 * max(len(groups[key]) for key in part), 4 + context.quick)
        headline(figure, TITLE, [f"{NOTE} Pale: wall time. Solid: device time."], context.quick)
        for ax, key in zip(axes, part, strict=True):
            case = groups[key][0].summary.case
            pairs: list[Pair] = [pair_of(d) for d in groups[key]]
            draw_pairs(ax, pairs, case.T, MICRO)
            ax.set_title(plain(f"{context.labels.of(case)}: T {case.T}, H {case.model.H}, B {case.B}"), fontsize=7.5)
            ax.set_xlabel("µs a time step")
        legend(figure)
        labels = ", ".join(context.labels.of(groups[key][0].summary.case) for key in part)
        made.append(Page(page_name("gpu-step", index), figure, f"Microseconds a time step, ours and cuDNN's: {labels}"))
    return made


def lines_of(
    context: Context, groups: dict[str, list[OnDevice]], axis: str, pass_: Pass, dtype: DType
) -> dict[tuple[str, str], Line]:
    """(backend, "wall" or "device") -> (size, microseconds a time step) along one axis of the sweep."""
    sweep = context.sweep
    assert sweep is not None
    wanted = {*sweep.axes[axis], sweep.centre}
    found: dict[tuple[str, str], Line] = {}
    for d in (d for group in groups.values() for d in group):
        case = d.summary.case
        if case.pass_ is not pass_ or case.dtype is not dtype or sizes_of(case) not in wanted:
            continue
        for kind, time in (("wall", d.summary.time), ("device", d.time)):
            if time is not None:
                point = (getattr(sizes_of(case), axis), time.value / case.T / MICRO.seconds)
                found.setdefault((d.summary.backend, kind), []).append(point)
    return {key: sorted(line) for key, line in found.items()}


def _panel(ax: Axes, lines: dict[tuple[str, str], Line], axis: str, title: str) -> None:
    for (name, kind), line in lines.items():
        style = look(name)
        ax.plot(
            *zip(*line, strict=True), color=style.colour, marker=style.marker, markersize=4, linewidth=1.2,
            linestyle="-" if kind == "device" else ":", markerfacecolor=style.colour if kind == "device" else "white",
        )  # fmt: skip
    sizes = sorted({size for line in lines.values() for size, _ in line})
    across, upward = span(sizes), span((v for line in lines.values() for _, v in line), least=8.0)
    if across is not None and upward is not None:
        log_axis("x", ax, *across)
        log_axis("y", ax, *upward, form=lambda v: number(v, 1))
        ax.set_xticks(sizes, [str(size) for size in sizes], fontsize=7.5 if len(sizes) < 8 else 6)
    ax.set_title(plain(title), fontsize=7.5)
    ax.set_xlabel(NAMES[axis])
    ax.set_ylabel("µs a time step")


def _line_legend(figure: Figure, names: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=look(n).colour, marker=look(n).marker, markersize=4, label=plain(n)) for n in names]
    handles += [
        Line2D([], [], color=INK, linestyle=":", marker="o", markerfacecolor="white", markersize=4, label="wall time"),
        Line2D([], [], color=INK, linestyle="-", marker="o", markersize=4, label="device time"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))


def _lines(context: Context, groups: dict[str, list[OnDevice]]) -> list[Page]:
    sweep = context.sweep
    assert sweep is not None
    kinds = [kind for kind in kinds_of(context) if kind[0] in PASSES]
    several = len({dtype for _, dtype in kinds}) > 1
    panels = []
    for pass_, dtype in kinds:
        for axis in sweep.axes:
            lines = lines_of(context, groups, axis, pass_, dtype)
            still = ", ".join(f"{n} {getattr(sweep.centre, n)}" for n in NAMES if n != axis)
            panels.append((lines, axis, f"{pass_}{f' {dtype}' if several else ''}: {still}"))
    panels = [panel for panel in panels if panel[0]]
    if not panels:
        return []
    figure, axes = grid(len(panels), len(sweep.axes), 2.2, 3 + context.quick)
    headline(figure, TITLE, [f"{NOTE} Both scales log."], context.quick)
    for ax, panel in zip(axes, panels, strict=True):
        _panel(ax, *panel)
    _line_legend(figure, list(dict.fromkeys(name for lines, *_ in panels for name, _ in lines)))
    alt = f"Microseconds a time step against size, ours and cuDNN's: {'; '.join(title for *_, title in panels)}"
    return [Page("gpu-step", figure, alt)]
