"""Learning curves: loss and accuracy by epoch, one colour a backend, trained rows solid and held-out rows dashed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rnnbench.records.record import Epoch
from rnnbench.report.data import ReportData
from rnnbench.report.plots.layout import Frame, Page, handle, headline, legend_below, paged, placed, titled
from rnnbench.report.style import FAINT, GRID, INK, look

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TRAININGS = 4  # a page
COLUMNS = 5  # of the legend
Curves = dict[tuple[str, int], list[Epoch]]  # (backend, seed) -> its epochs, in order


def curves_by_training(epochs: Sequence[Epoch]) -> dict[tuple[str, str], Curves]:
    """(workload, dtype) -> curves. Of an epoch that was kept twice, the later line counts."""
    groups: dict[tuple[str, str], dict[tuple[str, int], dict[int, Epoch]]] = {}
    for e in epochs:
        curves = groups.setdefault((e.workload, e.dtype), {})
        curves.setdefault((e.backend, e.seed), {})[e.epoch] = e
    return {
        key: {who: [by_epoch[n] for n in sorted(by_epoch)] for who, by_epoch in curves.items()}
        for key, curves in groups.items()
    }


def panel(ax: Axes, curves: Curves, what: str) -> None:
    """`what` is loss or accuracy. Lines under lines are wider, so that curves that agree are all seen."""
    from matplotlib.ticker import MaxNLocator

    drawn = False
    for rank, ((backend, _), epochs) in enumerate(curves.items()):
        width = 1.0 + 3.5 * (len(curves) - 1 - rank) / max(1, len(curves) - 1)
        for name, line in ((what, "-"), (f"validation_{what}", (0, (2.5, 1.5)))):
            found = [(e.epoch, v) for e in epochs if (v := getattr(e, name)) is not None]
            if found:
                drawn = True
                marker = look(backend).marker if len(found) == 1 else None
                ax.plot(
                    *zip(*found, strict=True),
                    color=look(backend).colour,
                    linestyle=line,
                    linewidth=width,
                    marker=marker,
                )
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(True, color=GRID, linewidth=0.6)
    ax.set_xlabel("epoch")
    ax.set_ylabel(what)
    if not drawn:
        ax.set(xticks=[], yticks=[])
        words = f"no {what}: the loss has no classes" if what == "accuracy" else f"no {what} was recorded"
        ax.text(0.5, 0.5, words, transform=ax.transAxes, ha="center", va="center", color=FAINT, fontsize=7)


def pages(data: ReportData) -> list[Page]:
    """Four trainings a page, loss beside accuracy."""
    groups = curves_by_training(data.epochs)
    backends = list(dict.fromkeys(e.backend for e in data.epochs))

    def draw(part: Sequence[tuple[str, str]]) -> tuple[Figure, str]:
        lines = math.ceil((len(backends) + 2) / COLUMNS)
        frame = Frame(title_lines=2 + data.quick, legend_lines=lines)
        figure, axes = placed(2 * len(part), 2, 1.4, frame)
        note = "Curves that agree lie on each other: the wider lines are underneath."
        headline(figure, "Learning curves: loss and accuracy by epoch", [note], data.quick)
        for row, key in enumerate(part):
            for ax, what in zip(axes[2 * row : 2 * row + 2], ("loss", "accuracy"), strict=True):
                panel(ax, groups[key], what)
                titled(ax, f"{data.labels.problem(*key, '')}: {what}")
        handles = [handle(b, color=look(b).colour, linewidth=2.5) for b in backends]
        handles.append(handle("training rows", color=INK, linewidth=1.2))
        handles.append(handle("held-out rows", color=INK, linewidth=1.2, linestyle=(0, (2.5, 1.5))))
        legend_below(figure, handles, COLUMNS)
        labels = ", ".join(data.labels.problem(*key, "") for key in part)
        return figure, f"Loss and accuracy by epoch for each backend: {labels}"

    return paged("curves", list(groups), TRAININGS, draw)
