"""The two figures of docs/kernels.md: the register tile, and the ladder of measured steps.

    python docs/draw_kernels.py

The times are those of the ladder in rnnbench/kernels/README.md.
"""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

FOLDER = Path(__file__).resolve().parent
ROWS, VECTORS, LANES = 6, 2, 8  # of a tile: six rows, two vectors of eight float32
SUM, LEFT, RIGHT, QUIET = "#0072B2", "#E69F00", "#009E73", "#DDDDDD"  # of Okabe and Ito, 2002

# One train step of imdb-200, ms: what was done, the least and the most that were measured
ONE_THREAD = [
    ("plain loops, rows innermost", 820.0, 820.0),
    ("plain loops, columns innermost", 124.0, 124.0),
    ("register tiles of 4 x 4 vectors", 24.3, 24.3),
    ("6 x 2 vectors, weights in panels", 11.6, 11.6),
]
TWO_THREADS = [
    ("4 x 4 tiles, Numba's parallel regions", 13.2, 15.3),
    ("6 x 2 tiles, shares that threads claim", 7.6, 8.4),
    ("and rows spaced apart", 6.3, 6.9),
]


def tile() -> Figure:
    """out = start + A B: the tile of `out` in registers, the column of A and the row of B's panel of one k."""
    figure = Figure(figsize=(8, 4.2))
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(-1, 35), ylim=(-3.2, 15.4), aspect="equal")
    ax.axis("off")

    def cells(x: float, y: float, columns: int, rows: int, colour: str, alpha: float = 1.0) -> None:
        for i in range(columns):
            for j in range(rows):
                ax.add_patch(Rectangle((x + i, y + j), 1, 1, facecolor=colour, edgecolor="white", alpha=alpha))

    width, k = VECTORS * LANES, 3
    cells(0, 0, 8, ROWS, QUIET)
    cells(k, 0, 1, ROWS, LEFT)
    cells(14, 7, width, 8, QUIET)
    cells(14, 7 + 8 - 1 - k, width, 1, RIGHT)
    cells(14, 0, width, ROWS, SUM)
    for vector in range(1, VECTORS):
        for low, high in ((0, ROWS), (7, 15)):
            ax.plot([14 + vector * LANES] * 2, [low, high], color="black", linewidth=1.6)
    ax.annotate("", (13.6, ROWS / 2), (8.4, ROWS / 2), arrowprops={"arrowstyle": "->", "linewidth": 1.6})
    ax.text(0, 6.4, "A: six rows of h or x,\nk runs to the right", va="bottom", fontsize=10)
    ax.text(13.6, 11, "B: a panel of the weights,\nk runs down", ha="right", va="center", fontsize=10)
    ax.text(
        14, -0.5, "out: 6 rows x 2 vectors = 12 registers that stay\nwhile k runs; 12 multiply-adds for each k",
        va="top", fontsize=10,
    )  # fmt: skip
    ax.text(0, -0.5, "one number of each row,\ncopied to all lanes", va="top", fontsize=10, color="#9A6A00")
    ax.text(30.6, 7 + 8 - 0.5 - k, "2 vectors", va="center", fontsize=10, color=RIGHT)
    return figure


def ladder() -> Figure:
    """Times by step, log scale; a bar ends in the middle of what was measured, the line shows least and most."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    ax = figure.subplots()
    steps = [(*step, "one thread", "#0072B2") for step in ONE_THREAD]
    steps += [(*step, "two threads", "#E69F00") for step in TWO_THREADS]
    ax.set_yticks(range(len(steps)), [name for name, *_ in steps])
    ax.tick_params(axis="y", length=0)
    for at, (_, low, high, threads, colour) in enumerate(steps):
        middle = (low * high) ** 0.5
        label = threads if threads not in ax.get_legend_handles_labels()[1] else None
        ax.barh(at, middle, color=colour, label=label, height=0.7)
        ax.plot([low, high], [at, at], color="black", linewidth=1.4)
        ax.text(high * 1.08, at, f"{low:g} ms" if low == high else f"{low:g} to {high:g} ms", va="center", fontsize=10)
    ax.set(xscale="log", xlim=(3, 3000), xlabel="ms, one train step of imdb-200, log scale")
    ax.invert_yaxis()
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.legend(frameon=False, loc="lower right")
    return figure


if __name__ == "__main__":
    tile().savefig(FOLDER / "kernel_tile.png", dpi=120)
    ladder().savefig(FOLDER / "kernel_ladder.png", dpi=120)
