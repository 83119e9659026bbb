"""GPUs: device time beside wall time, a time step beside cuDNN's, and CPU and GPU in one plot of time against size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rnnbench.analysis.devices import OnDevice
from rnnbench.analysis.ranking import Ahead, ahead, fastest_line
from rnnbench.model import DType, Pass
from rnnbench.report.data import ReportData
from rnnbench.report.plots.layout import (
    Page,
    backend_rows,
    grid,
    handle,
    headline,
    interval_bar,
    legend_outside,
    line_handles,
    log_axis,
    paged,
    size_axis,
    span,
)  # fmt: skip
from rnnbench.report.plots.sweep import NAMES, Panel, call_seconds, draw_sizes, kinds_of, panel_of, sweep_sizes
from rnnbench.report.style import GRID, INK, Look, look
from rnnbench.report.text import plain, value_text
from rnnbench.units import UNITS, Unit, duration, number, unit_for

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = 12  # a page
ROOM = 2.2  # of the longest bar, for the words at its right
LONGEST = 1.1  # of the longest bar: where intervals are cut
NOTE = (
    "Pale: wall time, from the call until the device is idle. Solid: the device's own clock, from before the first "
    "launch to after the last, gaps between launches included. Lines: 95 % interval over launches (an arrow: it goes "
    "on)."
)


MICRO = UNITS[0]


def draw_pairs(ax: Axes, pairs: Sequence[OnDevice], scale: float, unit: Unit) -> None:
    """The rows from the top on; values are divided by `scale` and then shown in `unit`."""
    backend_rows(ax, [pair.summary.backend for pair in pairs])
    size = scale * unit.seconds
    longest = max(max(d.wall.value, d.time.value if d.time else 0.0) for d in pairs) / size
    for y, pair in enumerate(pairs):
        _draw_pair(ax, y, pair, size, LONGEST * longest)
    ax.set_xlim(0, ROOM * longest)
    ax.grid(True, axis="x", color=GRID, linewidth=0.6)


def _draw_pair(ax: Axes, y: float, pair: OnDevice, size: float, limit: float) -> None:
    colour = look(pair.summary.backend).colour
    ends = []
    for offset, value, shade in ((-0.19, pair.wall, pale(colour)), (0.19, pair.time, colour)):
        if value is None:
            continue
        ax.barh(y + offset, value.value / size, height=0.36, color=shade, linewidth=0)
        ends.append(value.value / size)
        if math.isfinite(value.low):
            bar = (value.low / size, value.high / size)
            ends.append(interval_bar(ax, *bar, y + offset, (0.0, limit), color=INK, linewidth=0.8))
    wall, device = (value_text(time, size) if time else "no" for time in (pair.wall, pair.time))
    said = f"{wall} wall, {device.removeprefix('about ') if pair.wall.noisy else device} "
    said += "device" if pair.time else "device clock"
    ax.annotate(
        said, (max(ends), y), xytext=(5, 0), textcoords="offset points", va="center", fontsize=7, color=INK,
        bbox={"facecolor": "white", "linewidth": 0, "pad": 0.8},
    )  # fmt: skip


def pale(colour: str) -> tuple[float, float, float]:
    """The colour as it looks thin on white."""
    from matplotlib.colors import to_rgb

    red, green, blue = (1 - 0.35 * (1 - part) for part in to_rgb(colour))
    return red, green, blue


def shown(data: ReportData) -> list[OnDevice]:
    """The answers of GPU backends; of a sweep those at its centre."""
    sweep = data.sweep
    return [d for d in data.on_device if sweep is None or sweep_sizes(d.summary.case) == sweep.centre]


def device_groups(data: ReportData) -> dict[str, list[OnDevice]]:
    """Case -> right answers, fastest first."""
    groups: dict[str, list[OnDevice]] = {}
    for d in shown(data):
        if d.summary.ranked:
            groups.setdefault(d.summary.case.key, []).append(d)
    for group in groups.values():
        group.sort(key=lambda d: d.wall.value)
    return {key: group for key, group in groups.items() if any(d.time for d in group)}


def _bar_pages(
    data: ReportData, name: str, groups: dict[str, list[OnDevice]], title: str, note: str, alt: str, step: bool
) -> list[Page]:
    """Twelve cases a page, a pair of bars each; in units that suit each case, or microseconds for each time step."""
    from matplotlib.patches import Patch

    def draw(part: Sequence[str]) -> tuple[Figure, str]:
        figure, axes = grid(len(part), 2, 0.6 + 0.3 * max(len(groups[key]) for key in part), 4 + data.quick)
        headline(figure, title, [note], data.quick)
        cases = [groups[key][0].summary.case for key in part]
        for ax, key, case in zip(axes, part, cases, strict=True):
            pairs, label = groups[key], data.labels.of(case)
            unit = MICRO if step else unit_for(pair.wall.value / case.steps for pair in pairs)
            draw_pairs(ax, pairs, case.T if step else case.steps, unit)
            label += f": T {case.T}, H {case.model.H}, B {case.B}" if step else ""
            ax.set_title(plain(label), fontsize=7.5 if step or data.sweep else None)
            ax.set_xlabel(f"{unit.name} a {'time ' if step else ''}step")
        legend_outside(
            figure, [Patch(facecolor=pale(INK), label="wall time"), Patch(facecolor=INK, label="device time")], 2
        )
        return figure, f"{alt}: {', '.join(map(data.labels.of, cases))}"

    return paged(name, list(groups), PANELS, draw)


def pages(data: ReportData) -> list[Page]:
    """Device time and wall time of each case; none where no device has a clock."""
    title = "Device time and wall time of a step: smaller is better"
    alt = "Wall time and device time of a step by GPU backend, in pairs of bars"
    return _bar_pages(data, "device-time", device_groups(data), title, NOTE, alt, step=False)


OURS, CUDNN = "cuda", ("torch-cuda", "torch-cuda+tf32")
PASSES = (Pass.FORWARD, Pass.GRADIENT)
STEP_TITLE = "Microseconds for each of the T time steps, our kernels beside cuDNN: smaller is better"
STEP_NOTE = "The time of a whole call over T: embedding, head, loss and sums over steps have their part in it."
Line = list[tuple[int, float]]


def rivals(data: ReportData) -> dict[str, list[OnDevice]]:
    """Case -> right answers of ours and of cuDNN's, forward and gradient, where both are there."""
    groups: dict[str, list[OnDevice]] = {}
    for name in (OURS, *CUDNN):
        for d in data.on_device:
            s = d.summary
            if s.backend == name and s.case.pass_ in PASSES and s.ranked:
                groups.setdefault(s.case.key, []).append(d)

    def complete(group: Sequence[OnDevice]) -> bool:
        names = {d.summary.backend for d in group}
        return OURS in names and bool(names & {*CUDNN})

    return {key: group for key, group in groups.items() if complete(group)}


def step_pages(data: ReportData) -> list[Page]:
    """Our kernels beside cuDNN; none where not both were measured."""
    groups = rivals(data)
    if data.sweep:
        return _step_lines(data, groups) if groups else []
    note = f"{STEP_NOTE} Pale: wall time. Solid: device time."
    return _bar_pages(
        data, "gpu-step", groups, STEP_TITLE, note, "Microseconds a time step, ours and cuDNN's", step=True
    )


def lines_of(
    data: ReportData, groups: dict[str, list[OnDevice]], axis: str, pass_: Pass, dtype: DType
) -> dict[tuple[str, str], Line]:
    """(backend, "wall" or "device") -> (size, microseconds a time step) along one axis of the sweep."""
    sweep = data.sweep
    assert sweep is not None
    wanted = {*sweep.axes[axis], sweep.centre}
    found: dict[tuple[str, str], Line] = {}
    for d in (d for group in groups.values() for d in group):
        case = d.summary.case
        if case.pass_ is not pass_ or case.dtype is not dtype or sweep_sizes(case) not in wanted:
            continue
        for kind, time in (("wall", d.summary.time), ("device", d.time)):
            if time is not None:
                point = (getattr(sweep_sizes(case), axis), time.value / case.T / MICRO.seconds)
                found.setdefault((d.summary.backend, kind), []).append(point)
    return {key: sorted(line) for key, line in found.items()}


def _step_panel(ax: Axes, lines: dict[tuple[str, str], Line], axis: str, title: str) -> None:
    for (name, kind), line in lines.items():
        style = look(name)
        ax.plot(
            *zip(*line, strict=True), color=style.colour, marker=style.marker, markersize=4, linewidth=1.2,
            linestyle="-" if kind == "device" else ":", markerfacecolor=style.colour if kind == "device" else "white",
        )  # fmt: skip
    sizes = sorted({size for line in lines.values() for size, _ in line})
    upward = span((v for line in lines.values() for _, v in line), least=8.0)
    if size_axis(ax, sizes) and upward is not None:
        log_axis("y", ax, *upward, form=lambda v: number(v, 1))
    ax.set_title(plain(title), fontsize=7.5)
    ax.set_xlabel(NAMES[axis])
    ax.set_ylabel("µs a time step")


def _step_lines(data: ReportData, groups: dict[str, list[OnDevice]]) -> list[Page]:
    sweep = data.sweep
    assert sweep is not None
    kinds = [kind for kind in kinds_of(data) if kind[0] in PASSES]
    several = len({dtype for _, dtype in kinds}) > 1
    panels = []
    for pass_, dtype in kinds:
        for axis in sweep.axes:
            lines = lines_of(data, groups, axis, pass_, dtype)
            still = ", ".join(f"{n} {getattr(sweep.centre, n)}" for n in NAMES if n != axis)
            panels.append((lines, axis, f"{pass_}{f' {dtype}' if several else ''}: {still}"))
    panels = [panel for panel in panels if panel[0]]
    if not panels:
        return []
    figure, axes = grid(len(panels), len(sweep.axes), 2.2, 3 + data.quick)
    headline(figure, STEP_TITLE, [f"{STEP_NOTE} Both scales log."], data.quick)
    for ax, panel in zip(axes, panels, strict=True):
        _step_panel(ax, *panel)
    names = dict.fromkeys(name for lines, *_ in panels for name, _ in lines)
    handles = line_handles({name: look(name) for name in names}, linestyle="-")
    style = {"color": INK, "marker": "o", "markersize": 4}
    handles.append(handle("wall time", linestyle=":", markerfacecolor="white", **style))
    handles.append(handle("device time", linestyle="-", **style))
    legend_outside(figure, handles, len(handles))
    alt = f"Microseconds a time step against size, ours and cuDNN's: {'; '.join(title for *_, title in panels)}"
    return [Page("gpu-step", figure, alt)]


# One hue, light to dark, for the backends of the CPU.
_BLUES = ("#0B3C6F", "#2F6CA8", "#5B93C7", "#86B3DA", "#1C5088", "#A3C4E2", "#46607C", "#7A93AB")


@dataclass(frozen=True)
class Duel:
    """One panel: its lines, and where the fastest GPU backend is ahead of the fastest CPU backend."""

    pass_: Pass
    dtype: DType
    panel: Panel
    gpu: frozenset[str]

    def line(self, names: Sequence[str] | frozenset[str]) -> dict[int, float]:
        """Size -> the shortest time of any of these."""
        return fastest_line([dict(line) for name, line in self.panel.lines.items() if name in names])

    @property
    def cpu(self) -> dict[int, float]:
        """Size -> the shortest time on the CPU."""
        return self.line([name for name in self.panel.lines if name not in self.gpu])

    @property
    def ahead(self) -> Ahead | None:
        """The sizes at which the fastest GPU backend is ahead."""
        return ahead(self.line(self.gpu), self.cpu)


def duels(data: ReportData) -> list[Duel]:
    """A panel for each pass, type and axis on which both were measured; none where no GPU backend was."""
    if data.sweep is None or not data.gpu_backends:
        return []
    gpu = frozenset(data.gpu_backends)
    made = []
    for pass_, dtype in kinds_of(data):
        for axis in data.sweep.axes:
            panel = panel_of(data, axis, pass_, dtype, call_seconds)
            if panel.lines.keys() & gpu and panel.lines.keys() - gpu:
                made.append(Duel(pass_, dtype, panel, gpu))
    return made


def looks_of(backends: Sequence[str], gpu: frozenset[str]) -> dict[str, Look]:
    """Blue and dashed on the CPU, their own colours and solid on the GPU."""
    cpu = [name for name in backends if name not in gpu]
    blues = {name: _BLUES[i % len(_BLUES)] for i, name in enumerate(cpu)}
    return {
        name: Look(blues.get(name, look(name).colour), look(name).marker, "-" if name in gpu else "--", "")
        for name in backends
    }


def _draw_duel(ax: Axes, duel: Duel, looks: dict[str, Look]) -> None:
    for name, line in duel.panel.lines.items():
        style, on_gpu = looks[name], name in duel.gpu
        ax.plot(
            *zip(*line, strict=True), color=style.colour, marker=style.marker, linestyle=style.line,
            linewidth=1.5 if on_gpu else 1.0, markersize=4, zorder=3 if on_gpu else 2,
        )  # fmt: skip
    draw_sizes(ax, duel.panel)
    limits = span([v for line in duel.panel.lines.values() for _, v in line])
    if limits is not None:
        log_axis("y", ax, limits[0], limits[1] * (limits[1] / limits[0]) ** 0.12, form=lambda v: duration(v, 1))
    _mark_crossings(ax, duel)


def _mark_crossings(ax: Axes, duel: Duel) -> None:
    """A line at each crossing, named where the GPU goes ahead; words where there is no crossing."""
    found = duel.ahead
    if found is None:
        return
    at = [size for stretch in found.stretches for size in (stretch.since, stretch.until) if size is not None]
    low, high = found.sizes[0], found.sizes[-1]
    for size in at:
        ax.axvline(size, color=INK, linewidth=0.8, linestyle=":", zorder=1)
        starts = any(stretch.since == size for stretch in found.stretches)
        right = size * size > low * high  # in the right half: words at the left of the line
        ax.annotate(
            f"GPU {'from' if starts else 'up to'} {number(size, 2)}", (size, 0.985), xycoords=ax.get_xaxis_transform(),
            xytext=(-3 if right else 3, 0), textcoords="offset points", ha="right" if right else "left", va="top",
            fontsize=6.5, color=INK,
        )  # fmt: skip
    if not at:
        said = "GPU ahead at all sizes" if found.always else "CPU ahead at all sizes"
        ax.text(0.02, 0.985, said, transform=ax.transAxes, va="top", fontsize=6.5, color=INK)


def sweep_pages(data: ReportData) -> list[Page]:
    """One page; none where nothing was swept on both."""
    found = duels(data)
    if not found:
        return []
    assert data.sweep is not None
    names = [name for name in data.backends if any(name in duel.panel.lines for duel in found)]
    looks = looks_of(names, found[0].gpu)
    figure, axes = grid(len(found), len(data.sweep.axes), 2.3, 4 + data.quick)
    note = (
        "Wall time of a call. Dashed blue: CPU. Solid: GPU. Dotted upright: where the fastest GPU backend passes the "
        "fastest CPU backend, between measured sizes. Both scales log."
    )
    headline(figure, "CPU and GPU: time of a call against size", [note], data.quick)
    for ax, duel in zip(axes, found, strict=True):
        _draw_duel(ax, duel, looks)
    ordered = sorted(looks, key=lambda name: name not in found[0].gpu)
    named = {f"{name} ({'GPU' if name in found[0].gpu else 'CPU'})": looks[name] for name in ordered}
    legend_outside(figure, line_handles(named, linewidth=1.2), 4)
    alt = f"Time of a call on CPU and GPU against size: {'; '.join(f'{d.panel.axis}, {d.panel.title}' for d in found)}"
    return [Page("gpu-sweep", figure, alt)]
