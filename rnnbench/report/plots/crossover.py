"""The fastest by size: a map of H and B for each pass and type, each cell in the colour of the fastest backend."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rnnbench.analysis.ranking import Ranking
from rnnbench.model import DType, Pass
from rnnbench.report.data import ReportData
from rnnbench.report.plots.layout import Page, grid, headline, legend_outside, paged, titled
from rnnbench.report.plots.sweep import kinds_of, sweep_sizes
from rnnbench.report.style import FAINT, INK, look
from rnnbench.report.text import plain, ratio_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = 4  # a page
CLOSE = 1.1  # a lead below this is drawn pale
Cells = dict[tuple[int, int], Ranking]  # (H, B) -> its answer


def map_cells(data: ReportData, pass_: Pass, dtype: DType) -> Cells:
    """The cases of the map: those at the T of the centre."""
    assert data.sweep is not None
    return {
        (a.case.model.H, a.case.B): a
        for a in data.rankings
        if a.case.pass_ is pass_ and a.case.dtype is dtype and sweep_sizes(a.case).T == data.sweep.centre.T
    }


def panel(ax: Axes, title: str, cells: Cells, H: Sequence[int], B: Sequence[int]) -> None:
    """Columns are H, rows are B, the smallest at the lower left."""
    for x, h in enumerate(H):
        for y, b in enumerate(B):
            answer = cells.get((h, b))
            if answer is not None:
                _cell(ax, x, y, answer)
    ax.set_xlim(-0.5, len(H) - 0.5)
    ax.set_ylim(-0.5, len(B) - 0.5)
    ax.set_xticks(range(len(H)), [str(h) for h in H])
    ax.set_yticks(range(len(B)), [str(b) for b in B])
    ax.tick_params(length=0)
    ax.set_xlabel("hidden units H")
    ax.set_ylabel("batch rows B")
    titled(ax, title)


def _cell(ax: Axes, x: int, y: int, answer: Ranking) -> None:
    from matplotlib.patches import Rectangle

    if answer.fastest is None:
        ax.text(x, y, "none", ha="center", va="center", fontsize=6, color=FAINT)
        return
    close = answer.lead is not None and answer.lead.value < CLOSE
    style: Any = {"facecolor": look(answer.fastest).colour, "edgecolor": "white", "linewidth": 1.0}
    ax.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, alpha=0.35 if close else 0.85, **style))
    label = "only" if answer.lead is None else ratio_text(answer.lead.value)
    ax.text(x, y, label, ha="center", va="center", fontsize=6.5, color=INK if close else "white")


def pages(data: ReportData) -> list[Page]:
    """Four maps a page; none where no grid was swept."""
    sweep = data.sweep
    if sweep is None or not sweep.grid or not any(a.fastest for a in data.rankings):
        return []
    several = len({dtype for _, dtype in kinds_of(data)}) > 1
    columns, rows = sorted(set(sweep.H)), sorted(set(sweep.B))

    def draw(part: Sequence[tuple[Pass, DType]]) -> tuple[Figure, str]:
        from matplotlib.patches import Patch

        figure, axes = grid(len(part), 2, 0.8 + 0.24 * len(rows), 3 + data.quick)
        note = (
            f"Colour: the fastest right backend at T {sweep.centre.T}. Number: how many times as fast as the next. "
            f"Pale: less than {CLOSE:g} times."
        )
        headline(figure, "Who wins where", [note], data.quick)
        counts: Counter[str] = Counter()
        for ax, (pass_, dtype) in zip(axes, part, strict=True):
            cells = map_cells(data, pass_, dtype)
            panel(ax, f"{pass_} {dtype}" if several else str(pass_), cells, columns, rows)
            counts.update(ranking.fastest for ranking in cells.values() if ranking.fastest)
        handles = [Patch(facecolor=look(n).colour, alpha=0.85, label=plain(n)) for n, _ in counts.most_common()]
        legend_outside(figure, handles, 4)
        said = ", ".join(f"{name} in {count}" for name, count in counts.items())
        return figure, f"The fastest backend by H and B: {said} cells"

    return paged("crossover", kinds_of(data), PANELS, draw)
