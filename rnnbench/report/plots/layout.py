"""What the figures share: pages of small panels, rows of points with intervals, log axes with plain numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from rnnbench.analysis.stats import WIDEST
from rnnbench.report.style import FAINT, GRID, INK, WRONG, Look, look
from rnnbench.report.text import QUICK, plain, short
from rnnbench.units import number

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Transform

T = TypeVar("T")
NAME_SIZE = 7.5  # points, of the names of rows
WIDTH = 7.2  # inches: the text width of a printed page
NEAR = math.sqrt(WIDEST)  # as a factor: how far from its value an interval makes an axis longer
LEFT, RIGHT, UP, DOWN = 4, 5, 6, 7  # matplotlib's arrow heads, whose tip is at their place
MARGINS = (0.01, 0.005, 0.98, 0.99)  # left, bottom, width, height of what is drawn, as parts of the page


@dataclass(frozen=True)
class Page:
    """One figure: its file name without suffix, the figure, and what it shows in words."""

    name: str
    figure: Figure
    alt: str


@dataclass(frozen=True)
class Mark:
    """A point in its colour, filled or hollow."""

    x: float
    y: float
    colour: str
    filled: bool = True


@dataclass(frozen=True)
class Row:
    """One backend's line of a panel: a point with its interval, or the reason why there is none."""

    backend: str
    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    label: str = ""
    wrong: bool = False
    weak: bool = False  # the interval is not taken over launches

    @property
    def drawn(self) -> bool:
        """Whether there is a point."""
        return math.isfinite(self.value)


def paged(name: str, items: Sequence[T], size: int, draw: Callable[[Sequence[T]], tuple[Figure, str]]) -> list[Page]:
    """Pages of so many items each, by a function that draws them and says what they show; `time`, `time-2`, ..."""
    parts = [items[i : i + size] for i in range(0, len(items), size)]
    return [Page(name if i == 0 else f"{name}-{i + 1}", *draw(part)) for i, part in enumerate(parts)]


TITLE_LETTERS = 42  # of a panel's title on one line, where two panels stand side by side


def headline(figure: Figure, title: str, notes: Sequence[str], quick: bool) -> None:
    """What is shown, and under it how to read it; the smoke-run mark above all."""
    from textwrap import wrap

    lines = [QUICK.upper()] if quick else []
    lines += [title, *(line for note in notes for line in wrap(note, 104))]
    at = {} if figure.get_layout_engine() else {"y": 1 - 0.05 / figure.get_figheight()}
    colour = WRONG if quick else INK
    figure.suptitle("\n".join(plain(line) for line in lines), x=0.01, ha="left", fontsize=9, color=colour, **at)


def titled(ax: Axes, title: str) -> None:
    """A panel's title; a long one in smaller letters on two lines, so that it stays above its panel."""
    from textwrap import wrap

    lines = wrap(title, TITLE_LETTERS)
    if len(lines) < 2:
        ax.set_title(title)
    else:
        ax.set_title("\n".join(wrap(title, max(TITLE_LETTERS, -(-len(title) // 2) + 4))), fontsize=6.5)


def grid(panels: int, columns: int, height: float, title_lines: int) -> tuple[Figure, list[Axes]]:
    """That many axes in rows of `columns`, each `height` inches high, with room for the headline."""
    from matplotlib.figure import Figure

    columns = min(columns, panels)
    rows = math.ceil(panels / columns)
    figure = Figure(figsize=(WIDTH, rows * height + 0.16 * title_lines + 0.15), layout="constrained")
    engine = figure.get_layout_engine()
    engine.set(w_pad=0.06, h_pad=0.05, hspace=0.02, wspace=0.02, rect=MARGINS)  # type: ignore[union-attr, call-arg]
    return figure, _axes(figure, rows, columns, panels)


def _axes(figure: Figure, rows: int, columns: int, panels: int) -> list[Axes]:
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for spare in axes[panels:]:
        spare.remove()
    return axes[:panels]


@dataclass(frozen=True)
class Frame:
    """Room in inches beside each panel for its names, and in lines of text above the first and below the last row."""

    left: float = 0.62
    right: float = 0.12
    title_lines: int = 2
    legend_lines: int = 0
    axis: float = 0.42  # below the axis, for its numbers and what they are


def placed(panels: int, columns: int, inside: float, frame: Frame) -> tuple[Figure, list[Axes]]:
    """Axes `inside` inches high, each in its frame: known beforehand.

    A constrained layout finds the same by drawing all text several times.
    """
    from matplotlib.figure import Figure

    columns = min(columns, panels)
    rows = math.ceil(panels / columns)
    above, below = 0.16 * frame.title_lines + 0.38, frame.axis + 0.17 * frame.legend_lines
    gap = frame.axis + 0.22
    width = WIDTH / columns - frame.left - frame.right
    height = above + rows * inside + (rows - 1) * gap + below
    figure = Figure(figsize=(WIDTH, height))
    figure.subplots_adjust(
        left=frame.left / WIDTH, right=1 - frame.right / WIDTH, bottom=below / height, top=1 - above / height,
        wspace=(frame.left + frame.right) / width, hspace=gap / inside,
    )  # fmt: skip
    axes = _axes(figure, rows, columns, panels)
    for ax in axes:
        ax.xaxis.set_label_coords(0.5, -0.23 / inside)
        ax.yaxis.set_label_coords(-(frame.left - 0.14) / width, 0.5)
    return figure, axes


def placed_rows(
    panels: int, columns: int, names: Sequence[str], most: int, title_lines: int, legend_lines: int = 0,
    row: float = 0.16,
) -> tuple[Figure, list[Axes]]:  # fmt: skip
    """Axes for `most` rows of backends each, with room for the widest of their `names`, and none for a label below.

    A row is `row` inches high.
    """
    left = 0.2 + max(map(_inches, names), default=0.0)
    return placed(panels, columns, row * most, Frame(left, 0.2, title_lines, legend_lines, 0.26))


@cache
def _inches(name: str) -> float:
    """How wide the name of a row is."""
    from matplotlib.textpath import TextPath

    return float(TextPath((0, 0), _row_name(name), size=NAME_SIZE).get_extents().width) / 72


def handle(label: str, **style: Any) -> Artist:
    """A line of a legend."""
    from matplotlib.lines import Line2D

    return Line2D([], [], label=plain(label), **style)


def line_handles(looks: Mapping[str, Look], **style: Any) -> list[Artist]:
    """Lines of a legend, one for each backend, in its colour, marker and line, or as `style` says."""
    return [
        handle(name, **{"color": s.colour, "marker": s.marker, "linestyle": s.line, "markersize": 4} | style)
        for name, s in looks.items()
    ]


def legend_below(figure: Figure, handles: Sequence[Artist], columns: int) -> None:
    """The legend at the foot of the page."""
    figure.legend(handles=handles, loc="lower center", ncols=columns, borderaxespad=0.2)


def legend_outside(figure: Figure, handles: Sequence[Artist], columns: int) -> None:
    """The legend at the foot of a page whose layout is found when it is drawn."""
    figure.legend(handles=handles, loc="outside lower center", ncols=columns)


def size_axis(ax: Axes, sizes: Sequence[int]) -> bool:
    """A log axis that names each measured size; False where there is none."""
    limits = span(sizes)
    if limits is None:
        return False
    log_axis("x", ax, *limits)
    ax.set_xticks(sizes, [str(size) for size in sizes], fontsize=7.5 if len(sizes) < 8 else 6)
    return True


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers on a log axis between two values: 1, 2, 5 of each decade, or fewer where those are too many."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 2, 5), (1,)):
        found = [d * 10.0**k for k in decades for d in digits if low <= d * 10.0**k <= high]
        if len(found) <= most:
            return found
    return found[:: math.ceil(len(found) / most)]


def log_axis(axis: str, ax: Axes, low: float, high: float, form: Callable[[float], str] | None = None) -> None:
    """A log axis from low to high with few plain numbers and a light grid."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    getattr(ax, f"set_{axis}scale")("log")
    getattr(ax, f"set_{axis}lim")(low, high)
    part = ax.xaxis if axis == "x" else ax.yaxis
    part.set_major_locator(FixedLocator(ticks(low, high)))
    part.set_minor_locator(NullLocator())
    part.set_major_formatter(FuncFormatter(lambda v, _: form(v) if form else number(v, 1)))
    ax.grid(True, axis="x" if axis == "x" else "y", color=GRID, linewidth=0.6)


def span(values: Iterable[float], right: float = 0.0, least: float = 3.0) -> tuple[float, float] | None:
    """Limits of a log axis that hold all values, at least a factor `least` apart, with room on the right for labels.

    `right` is that room as a part of the whole axis. None where there is no positive finite value.
    """
    logs = [math.log10(v) for v in values if v > 0 and math.isfinite(v)]
    if not logs:
        return None
    low, high = min(logs), max(logs)
    missing = max(0.0, math.log10(least) - (high - low)) / 2
    low, high = low - missing, high + missing
    margin = 0.05 * (high - low)
    low, high = low - margin, high + margin
    return 10**low, 10 ** (high + (high - low) * right / (1 - right))


def _row_name(name: str) -> str:
    return plain(short(name, 24))


def backend_rows(ax: Axes, names: Sequence[str]) -> None:
    """One row for each backend, the first on top, its name at the left."""
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.yaxis.set_visible(False)  # names are plain text: a tick each would take twice the time to draw
    for y, name in enumerate(names):
        _shifted(ax, -4, 0.0, y, _row_name(name), ax.get_yaxis_transform(), ha="right", fontsize=NAME_SIZE)
    ax.spines["left"].set_visible(False)


def _shifted(ax: Axes, points: float, x: float, y: float, words: str, at: Transform, **style: Any) -> None:
    """Words in the middle of a height, moved to the right by some points."""
    from matplotlib.transforms import ScaledTranslation

    figure = ax.get_figure(root=True)
    assert figure is not None
    moved = at + ScaledTranslation(points / 72, 0, figure.dpi_scale_trans)
    ax.text(x, y, words, transform=moved, va="center", **style)


def write_in_row(ax: Axes, y: float, text: str, colour: str = FAINT) -> None:
    """Words at the left of a row, where it has no point."""
    words = plain(short(text, 44))
    ax.text(0.02, y, words, transform=ax.get_yaxis_transform(), va="center", fontsize=7, color=colour, style="italic")


def say_nothing_drawn(ax: Axes) -> None:
    """An axis with no number on it has no ticks either."""
    ax.set_xticks([])
    ax.spines["bottom"].set_visible(False)


def marks(ax: Axes, marker: str, points: Sequence[Mark], size: float, **style: Any) -> None:
    """Points of one shape, drawn together: a line for each takes many times as long."""
    from matplotlib.markers import MarkerStyle

    shape, edges = MarkerStyle(marker), [p.colour for p in points]
    if shape.is_filled():
        style |= {"facecolors": [p.colour if p.filled else "white" for p in points], "edgecolors": edges}
    else:
        style["c"] = edges
    ax.scatter([p.x for p in points], [p.y for p in points], s=size**2, marker=shape, zorder=3, **style)


@dataclass(frozen=True)
class RowAxis:
    """The one log axis of all panels of a figure: its limits, and those of what is drawn, without room for labels."""

    limits: tuple[float, float]
    ends: tuple[float, float]
    form: Callable[[float], str] | None = None


def row_axis(rows: Iterable[Row], form: Callable[[float], str] | None = None) -> RowAxis | None:
    """An axis that holds the points of all rows and their labels; None where there is no point."""
    drawn = [row for row in rows if row.drawn]
    reach = [end for row in drawn for end in (row.value, *_near(row)) if math.isfinite(end)]
    limits, ends = span(reach, right=max([0.26, *(0.028 * len(row.label) for row in drawn)])), span(reach)
    return RowAxis(limits, ends, form) if limits and ends else None


def mark_lanes(places: Sequence[float], gap: float) -> list[int]:
    """A lane for each place, so that no two in one lane are nearer than `gap`; the first lane where it can be."""
    last: list[float] = []
    found = [0] * len(places)
    for i in sorted(range(len(places)), key=lambda i: places[i]):
        lane = next((k for k, end in enumerate(last) if places[i] - end >= gap), len(last))
        last[lane : lane + 1] = [places[i]]
        found[i] = lane
    return found


def in_lanes(
    ax: Axes, values: Sequence[float], limits: tuple[float, float], size: float, upright: bool = False
) -> list[float]:
    """Offsets in points across a log axis that keep marks of that size apart, of values along it."""
    length = points_of(ax)[1 if upright else 0]
    low, high = map(math.log10, limits)
    found = mark_lanes([length * (math.log10(v) - low) / (high - low) for v in values], size + 1)
    return [(size + 0.5) * (lane - max(found) / 2) for lane in found]


def points_of(ax: Axes) -> tuple[float, float]:
    """Width and height of the axes, in points."""
    width, height = ax.get_position().size * ax.figure.get_size_inches() * 72  # type: ignore[union-attr]
    return float(width), float(height)


def point_rows(ax: Axes, rows: Sequence[Row], axis: RowAxis | None) -> None:
    """Points with intervals and their labels, one row a backend."""
    backend_rows(ax, [row.backend for row in rows])
    for y, row in enumerate(rows):
        if row.drawn and axis:
            _point(ax, y, row, axis.ends)
        elif not row.drawn:
            write_in_row(ax, y, row.label, WRONG if row.wrong else FAINT)
    if axis is None:
        say_nothing_drawn(ax)
    else:
        log_axis("x", ax, *axis.limits, form=axis.form)


def _near(row: Row) -> tuple[float, float]:
    """The ends of the interval, or how far the axis follows them: one wild interval would squeeze all else."""
    return max(row.low, row.value / NEAR), min(row.high, row.value * NEAR)


def interval_bar(
    ax: Axes, low: float, high: float, at: float, limits: tuple[float, float], upright: bool = False, **style: Any
) -> float:
    """A bar from low to high, cut at the limits, with an arrow where it goes on; the end that is drawn.

    `at` is its place on the other axis.
    """
    ends = (max(low, limits[0]), min(high, limits[1]))
    whole, arrows = (low, high), (DOWN, UP) if upright else (LEFT, RIGHT)
    ax.plot(*((at, at), ends)[:: 1 if upright else -1], **style)
    for end, own, arrow in zip(ends, whole, arrows, strict=True):
        if end != own:
            point = (at, end) if upright else (end, at)
            ax.plot(*point, marker=arrow, color=style["color"], markersize=5, markeredgewidth=0, clip_on=False)
    return ends[1]


def _point(ax: Axes, y: int, row: Row, limits: tuple[float, float]) -> None:
    style = look(row.backend)
    right = row.value
    if math.isfinite(row.low):
        line = ":" if row.weak else "-"
        right = interval_bar(ax, row.low, row.high, y, limits, color=style.colour, linewidth=1.6, linestyle=line)
    fill = "white" if row.wrong else style.colour
    ax.plot(row.value, y, style.marker, color=style.colour, markerfacecolor=fill, markersize=6, markeredgewidth=1.0)
    colour = WRONG if row.wrong else INK
    _shifted(ax, 6, max(right, row.value), y, plain(row.label), ax.transData, fontsize=7, color=colour)


def spread(positions: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """The positions moved apart to stand at least `gap` from each other, in their order, within [low, high]."""
    order = sorted(range(len(positions)), key=lambda i: positions[i])
    gap = min(gap, (high - low) / max(1, len(positions) - 1))
    placed: list[float] = []
    for i in order:
        placed.append(max(positions[i], placed[-1] + gap if placed else low))
    ceiling = high
    for n in reversed(range(len(placed))):
        placed[n] = min(placed[n], ceiling)
        ceiling = placed[n] - gap
    found = [0.0] * len(positions)
    for i, place in zip(order, placed, strict=True):
        found[i] = place
    return found
