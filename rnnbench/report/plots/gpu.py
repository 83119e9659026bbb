"""Device time and wall time apart: a pair of bars for each GPU backend, a panel for each workload and pass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rnnbench.analysis.devices import OnDevice
from rnnbench.analysis.stats import Interval
from rnnbench.report.context import Context
from rnnbench.report.plots.layout import Page, backend_rows, cut, grid, headline, page_name
from rnnbench.report.plots.sweep import sizes_of
from rnnbench.report.style import GRID, INK, look
from rnnbench.report.text import Unit, number, plain, unit_for

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = 12  # a page
ROOM = 2.2  # of the longest bar, for the words at its right
NOTE = (
    "Pale: wall time, from the call until the device is idle. Solid: the device's own clock, from before the first "
    "launch to after the last, gaps between launches included. Lines: 95 % interval over launches."
)


@dataclass(frozen=True)
class Pair:
    """One row: a backend, its wall time and its device time, or None where the device has no clock."""

    backend: str
    wall: Interval
    device: Interval | None

    @property
    def top(self) -> float:
        """The end of the longer bar."""
        return max(self.wall.value, self.device.value if self.device else 0.0)


def pair_of(d: OnDevice) -> Pair:
    """In seconds a call."""
    assert d.summary.time is not None
    return Pair(d.summary.backend, d.summary.time, d.time)


def draw_pairs(ax: Axes, pairs: Sequence[Pair], scale: float, unit: Unit) -> None:
    """The rows from the top on; values are divided by `scale` and then shown in `unit`."""
    backend_rows(ax, [pair.backend for pair in pairs])
    size = scale * unit.seconds
    for y, pair in enumerate(pairs):
        _draw_pair(ax, y, pair, size)
    ax.set_xlim(0, ROOM * max(pair.top for pair in pairs) / size)
    ax.grid(True, axis="x", color=GRID, linewidth=0.6)


def _draw_pair(ax: Axes, y: float, pair: Pair, size: float) -> None:
    colour = look(pair.backend).colour
    ends = []
    for offset, value, shade in ((-0.19, pair.wall, pale(colour)), (0.19, pair.device, colour)):
        if value is None:
            continue
        ax.barh(y + offset, value.value / size, height=0.36, color=shade, linewidth=0)
        ends.append(value.value / size)
        if math.isfinite(value.low):
            ax.plot([value.low / size, value.high / size], [y + offset] * 2, color=INK, linewidth=0.8)
            ends.append(value.high / size)
    said = f"{number(pair.wall.value / size)} wall, "
    said += "no device clock" if pair.device is None else f"{number(pair.device.value / size)} device"
    ax.annotate(
        said, (max(ends), y), xytext=(5, 0), textcoords="offset points", va="center", fontsize=7, color=INK,
        bbox={"facecolor": "white", "linewidth": 0, "pad": 0.8},
    )  # fmt: skip


def pale(colour: str) -> tuple[float, float, float]:
    """The colour as it looks thin on white."""
    from matplotlib.colors import to_rgb

    red, green, blue = (1 - 0.35 * (1 - part) for part in to_rgb(colour))
    return red, green, blue


def legend(figure: Figure) -> None:
    """What pale and solid mean."""
    from matplotlib.patches import Patch

    handles = [Patch(facecolor=pale(INK), label="wall time"), Patch(facecolor=INK, label="device time")]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)


def shown(context: Context) -> list[OnDevice]:
    """The answers of GPU backends; of a sweep those at its centre."""
    sweep = context.sweep
    return [d for d in context.on_device if sweep is None or sizes_of(d.summary.case) == sweep.centre]


def groups_of(context: Context) -> dict[str, list[OnDevice]]:
    """Case -> right answers, fastest first."""
    groups: dict[str, list[OnDevice]] = {}
    for d in shown(context):
        if d.summary.ranked:
            groups.setdefault(d.summary.case.key, []).append(d)
    for group in groups.values():
        group.sort(key=lambda d: pair_of(d).wall.value)
    return {key: group for key, group in groups.items() if any(d.time for d in group)}


def pages(context: Context) -> list[Page]:
    """Twelve cases a page; none where no device has a clock."""
    groups = groups_of(context)
    made = []
    for index, part in enumerate(cut(list(groups), PANELS)):
        most = max(len(groups[key]) for key in part)
        figure, axes = grid(len(part), 2, 0.6 + 0.3 * most, 4 + context.quick)
        headline(figure, "Device time and wall time of a step: smaller is better", [NOTE], context.quick)
        for ax, key in zip(axes, part, strict=True):
            group = groups[key]
            case, pairs = group[0].summary.case, [pair_of(d) for d in group]
            unit = unit_for(pair.wall.value / case.steps for pair in pairs)
            draw_pairs(ax, pairs, case.steps, unit)
            ax.set_title(plain(context.labels.of(case)), fontsize=7.5 if context.sweep else None)
            ax.set_xlabel(f"{unit.name} a step")
        legend(figure)
        labels = ", ".join(context.labels.of(groups[key][0].summary.case) for key in part)
        alt = f"Wall time and device time of a step by GPU backend, in pairs of bars: {labels}"
        made.append(Page(page_name("device-time", index), figure, alt))
    return made
