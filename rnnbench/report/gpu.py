"""The part of the page on GPUs: device time beside wall time, ratios of both, from which size a GPU pays, its state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rnnbench.analysis.devices import OnDevice, Span, held_back, span_of
from rnnbench.analysis.ranking import Ahead, Stretch, ahead
from rnnbench.analysis.stats import Interval, ratio_of
from rnnbench.records.record import DeviceState
from rnnbench.report.context import Context
from rnnbench.report.markdown import escape, marked, table
from rnnbench.report.plots.gpu import shown
from rnnbench.report.plots.gpu_sweep import Duel, duels
from rnnbench.report.text import duration, number, plain, times_with_interval

READING = """\
*Wall* is the time of a call until the device is idle; every ranking and every other ratio of this page is by it.
*Device* is the device's own clock, from before the first launch of the call to after the last: gaps in which the device
waits for a launch are in it, the wait for its answer is not. The marks are two events inside the wall time. JAX has no
events, so no device time. Memory is the most that the process has held there so far, by each library's own count."""

CROSSING = """\
Between two measured sizes the crossing is where straight lines through the logarithms of size and time meet. No
interval stands behind it: read it as *between these two sizes*."""


def _mib(count: int | None) -> str:
    return "-" if count is None else f"{number(count / 2**20, decimals=1)} MiB"


def times_table(found: Sequence[OnDevice], context: Context) -> str:
    """A row for each case and GPU backend: wall and device time a step, memory."""
    rows = []
    for d in found:
        s = d.summary
        assert s.time is not None
        steps = s.case.steps
        wrong = "" if s.ranked else " (wrong)"
        rows.append(
            [
                escape(context.labels.of(s.case)),
                escape(s.backend) + wrong,
                duration(s.time.value / steps),
                "-" if d.time is None else duration(d.time.value / steps),
                "-" if d.share is None else f"{number(100 * d.share, decimals=0)} %",
                _mib(d.peak_bytes),
            ]
        )
    return table(["case", "backend", "wall, a step", "device, a step", "device / wall", "device memory"], rows)


def _pairs(found: Sequence[OnDevice]) -> Iterator[tuple[OnDevice, OnDevice]]:
    """Each case's fastest right GPU backend by device time, with every other that has one."""
    cases = dict.fromkeys(d.summary.case.key for d in found)
    for key in cases:
        group = [d for d in found if d.summary.case.key == key and d.summary.ranked and d.time]
        group.sort(key=lambda d: d.time.value if d.time else 0.0)
        yield from ((group[0], other) for other in group[1:])


def _ratio(value: Interval | None) -> str:
    return "no shared round" if value is None else times_with_interval(value)


def ratios_table(found: Sequence[OnDevice], context: Context) -> str | None:
    """How far ahead the fastest on the device is, by its clock and by the wall's; None with fewer than two."""
    rows = [
        [
            escape(context.labels.of(first.summary.case)),
            escape(first.summary.backend),
            escape(other.summary.backend),
            _ratio(ratio_of(other.turns, first.turns)),
            _ratio(ratio_of(other.summary.turns, first.summary.turns)),
        ]
        for first, other in _pairs(found)
    ]
    header = ["case", "fastest by device time", "over", "by device time", "by wall time"]
    return marked(table(header, rows)) if rows else None


def stretch_text(stretch: Stretch) -> str:
    """`from 148`, `up to 40`, `from 20 to 300`, `all`."""
    since, until = (None if v is None else number(v, 2) for v in (stretch.since, stretch.until))
    if since is None:
        return "all" if until is None else f"up to {until}"
    return f"from {since}" if until is None else f"from {since} to {until}"


def ahead_text(found: Ahead | None) -> str:
    """Where the GPU is ahead, in words."""
    if found is None:
        return "no size in common"
    return ", ".join(stretch_text(s) for s in found.stretches) or "nowhere"


def crossing_table(found: Sequence[Duel]) -> str:
    """A row for each axis, pass and GPU backend: the sizes at which it is ahead of the fastest CPU backend."""
    rows = []
    for duel in found:
        for name in sorted(duel.gpu & duel.panel.lines.keys()):
            cells = [duel.panel.title, name, duel.panel.axis]
            measured = ", ".join(str(size) for size in sorted(dict(duel.panel.lines[name])))
            rows.append([*map(escape, cells), ahead_text(ahead(duel.line([name]), duel.cpu)), measured])
    return table(["case", "GPU backend", "axis", "ahead of the fastest CPU backend at", "measured at"], rows)


def crossings(context: Context, figures: Mapping[str, Sequence[str]]) -> list[str]:
    """From which size a GPU is worth it; nothing where not both were swept."""
    found = duels(context)
    if not found:
        return []
    return ["## Where the GPU starts to win", *figures.get("gpu-sweep", ()), crossing_table(found), CROSSING]


def _range(span: Span, unit: str) -> str:
    if span.low is None or span.high is None:
        return "-"
    low, high = (number(value, decimals=0) for value in (span.low, span.high))
    return f"{low} {unit}" if low == high else f"{low} to {high} {unit}"


def _why(states: Sequence[DeviceState]) -> str:
    if all(state.throttled is None for state in states):
        return "not told"
    found = held_back(states)
    said = "; ".join(f"{why}: {count} of {len(states)}" for why, count in found.items())
    return escape(plain(said)) or "no"


def states_table(context: Context) -> str | None:
    """What the driver said before and after the turns of each backend; None where it said nothing."""
    rows = []
    for name in context.gpu_backends:
        states = [state for d in context.on_device if d.summary.backend == name for state in d.states]
        if not states:
            continue
        drivers = dict.fromkeys(f"{s.name}, driver {s.driver or 'not told'}" for s in states)
        ranges = (("sm_mhz", "MHz"), ("memory_mhz", "MHz"), ("celsius", "°C"), ("watts", "W"))
        cells = [_range(span_of(states, field), unit) for field, unit in ranges]
        rows.append([escape(name), escape(", ".join(drivers)), *cells, _why(states)])
    header = ["backend", "device", "SM clock", "memory clock", "temperature", "power", "clock held back"]
    return table(header, rows) if rows else None


def section(context: Context, figures: Mapping[str, Sequence[str]]) -> list[str]:
    """All of it; nothing where no GPU backend was timed."""
    if not context.on_device:
        return []
    parts = [*crossings(context, figures), "## On the GPU", *figures.get("device-time", ())]
    found = shown(context)
    if context.sweep is not None:
        parts.append("At the centre of the sweep; `tables/times.csv` has every size.")
    parts += [READING, times_table(found, context)] if found else [READING]
    if ratios := ratios_table(found, context):
        parts += ["### Ratios by device time", ratios]
    if figures.get("gpu-step"):
        parts += ["### A time step, ours and cuDNN's", *figures["gpu-step"]]
    if states := states_table(context):
        parts += ["### The device before and after each turn", states]
    return parts
