"""CPU and GPU in one plot of time against size: blue dashed lines against solid ones, and where the GPU overtakes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rnnbench.analysis.ranking import Ahead, ahead, fastest_line
from rnnbench.model import DType, Pass
from rnnbench.report.context import Context
from rnnbench.report.plots.layout import Page, grid, headline, log_axis, page_name, span
from rnnbench.report.plots.sweep import Panel, draw_sizes, kinds_of, panel_of
from rnnbench.report.style import INK, Look, look
from rnnbench.report.text import duration, number, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# One hue, light to dark, for whoever computes on the CPU.
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
        """Where the fastest on the GPU is ahead."""
        return ahead(self.line(self.gpu), self.cpu)


def duels(context: Context) -> list[Duel]:
    """A panel for each pass, type and axis on which both were measured; none where no GPU backend was."""
    if context.sweep is None or not context.gpu_backends:
        return []
    gpu = frozenset(context.gpu_backends)
    made = []
    for pass_, dtype in kinds_of(context):
        for axis in context.sweep.axes:
            panel = panel_of(context, axis, pass_, dtype, lambda s: s.time.value if s.time else None)
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


def _draw(ax: Axes, duel: Duel, looks: dict[str, Look]) -> None:
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
    _mark(ax, duel)


def _mark(ax: Axes, duel: Duel) -> None:
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


def _legend(figure: Figure, looks: dict[str, Look], gpu: frozenset[str]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=s.colour, marker=s.marker, linestyle=s.line, markersize=4, linewidth=1.2,
               label=f"{plain(name)} ({'GPU' if name in gpu else 'CPU'})")
        for name, s in sorted(looks.items(), key=lambda item: item[0] not in gpu)
    ]  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", ncols=4)


def pages(context: Context) -> list[Page]:
    """One page; none where nothing was swept on both."""
    found = duels(context)
    if not found:
        return []
    assert context.sweep is not None
    names = [name for name in context.backends if any(name in duel.panel.lines for duel in found)]
    looks = looks_of(names, found[0].gpu)
    figure, axes = grid(len(found), len(context.sweep.axes), 2.3, 4 + context.quick)
    note = (
        "Wall time of a call. Dashed blue: CPU. Solid: GPU. Dotted upright: where the fastest GPU backend passes the "
        "fastest CPU backend, between measured sizes. Both scales log."
    )
    headline(figure, "CPU and GPU: time of a call against size", [note], context.quick)
    for ax, duel in zip(axes, found, strict=True):
        _draw(ax, duel, looks)
    _legend(figure, looks, found[0].gpu)
    alt = f"Time of a call on CPU and GPU against size: {'; '.join(f'{d.panel.axis}, {d.panel.title}' for d in found)}"
    return [Page(page_name("gpu-sweep", 0), figure, alt)]
