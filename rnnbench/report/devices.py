"""The sections on what computes: GPUs, the share of the machine's peak, energy, memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rnnbench.analysis.devices import OnDevice, energy_reasons, energy_sources, held_back, joules_of, memory_of, span_of
from rnnbench.analysis.ranking import Ahead, ahead
from rnnbench.analysis.roofline import Peak, Rates, reached
from rnnbench.analysis.stats import Summary, ratio_of
from rnnbench.model import Pass
from rnnbench.records.record import DeviceState
from rnnbench.report.data import ProblemCases, ReportData
from rnnbench.report.plots.gpu import duels, shown
from rnnbench.report.section import Block, Figure, Markdown, Section, table
from rnnbench.report.sections import by_pass, marked_wrong, unmeasured
from rnnbench.report.text import plain, ratio_with_interval, with_interval
from rnnbench.units import duration, number, percent, threads
from rnnbench.work import work_of

if TYPE_CHECKING:
    import pandas as pd

READING = """\
*Wall* is the time of a call until the device is idle; every ranking and every other ratio of this page is by it.
*Device* is the device's own clock, from before the first launch of the call to after the last: gaps in which the device
waits for a launch are in it, the wait for its answer is not. The marks are two events inside the wall time. JAX has no
events, so no device time. Memory is the most that the process has held there so far, by each library's own count."""

CROSSING = """\
Between two measured sizes the crossing is where straight lines through the logarithms of size and time meet. No
interval stands behind it: read it as *between these two sizes*."""

ENERGY = """\
Joules of one call: what the counters gained over a turn, over its calls, warm-ups too. The counters are of the whole
processor or, of a backend on a GPU, of that GPU only: the two are not to be compared. What other programs and idle
cores take is in them, so a fast answer is also charged for less of that."""
MEMORY = """\
The most resident memory of a process that did nothing but prepare and call the pass twice; in brackets what of it came
after preparing, compiling included, where the system says. The rest is the interpreter, the library and the data."""
PEAK = """\
Operations are those of the matrix products that the equations need, two in each multiply-add; tanh, losses and the
optimizer are not counted. Equal tokens have equal products: a backend that computes them once is credited with all.
Traffic is the least that must pass to and from memory, each array once and the states twice; small networks stay in
cache, and may lie above the roof that memory sets. The formulas stand in `rnnbench/work.py`."""


def _times_table(found: Sequence[OnDevice], data: ReportData) -> pd.DataFrame:
    """A row for each case and GPU backend: wall and device time a step, memory."""
    rows = []
    for d in found:
        s = d.summary
        rows.append(
            [
                data.labels.of(s.case),
                s.backend + ("" if s.ranked else " (wrong)"),
                duration(d.wall.value / s.case.steps),
                "-" if d.time is None else duration(d.time.value / s.case.steps),
                "-" if d.share is None else percent(d.share, 0),
                "-" if d.peak_bytes is None else f"{number(d.peak_bytes / 2**20, decimals=1)} MiB",
            ]
        )
    return table(["case", "backend", "wall, a step", "device, a step", "device / wall", "device memory"], rows)


def _pairs(found: Sequence[OnDevice]) -> Iterator[tuple[OnDevice, OnDevice]]:
    """Each case's fastest right GPU backend by device time, with every other that has one."""
    for key in dict.fromkeys(d.summary.case.key for d in found):
        group = [d for d in found if d.summary.case.key == key and d.summary.ranked and d.time]
        group.sort(key=lambda d: d.time.value if d.time else 0.0)
        yield from ((group[0], other) for other in group[1:])


def _ratio_rows(found: Sequence[OnDevice], data: ReportData) -> list[list[str]]:
    """How far ahead the fastest on the device is, by its clock and by the wall's."""
    rows = []
    for first, other in _pairs(found):
        ratios = (ratio_of(other.turns, first.turns), ratio_of(other.summary.turns, first.summary.turns))
        said = ["no shared round" if value is None else ratio_with_interval(value) for value in ratios]
        rows.append([data.labels.of(first.summary.case), first.summary.backend, other.summary.backend, *said])
    return rows


def ahead_text(found: Ahead | None) -> str:
    """Where the GPU is ahead: `from 148`, `up to 40`, `from 20 to 300`, `all`, `nowhere`."""
    if found is None:
        return "no size in common"
    said = []
    for stretch in found.stretches:
        since, until = (None if v is None else number(v, 2) for v in (stretch.since, stretch.until))
        if since is None:
            said.append("all" if until is None else f"up to {until}")
        else:
            said.append(f"from {since}" if until is None else f"from {since} to {until}")
    return ", ".join(said) or "nowhere"


def crossings_section(data: ReportData) -> Section:
    """From which size a GPU is worth it; nothing where not both were swept."""
    rows = []
    for duel in duels(data):
        for name in sorted(duel.gpu & duel.panel.lines.keys()):
            measured = ", ".join(str(size) for size in sorted(dict(duel.panel.lines[name])))
            where = ahead_text(ahead(duel.line([name]), duel.cpu))
            rows.append([duel.panel.title, name, duel.panel.axis, where, measured])
    header = ["case", "GPU backend", "axis", "ahead of the fastest CPU backend at", "measured at"]
    found: list[Block] = [Figure("gpu-sweep"), table(header, rows), Markdown(CROSSING)]
    return Section("From which size the GPU is faster", found if rows else [])


def _why(states: Sequence[DeviceState]) -> str:
    if all(state.throttled is None for state in states):
        return "unknown"
    found = held_back(states)
    return plain("; ".join(f"{why}: {count} of {len(states)}" for why, count in found.items())) or "no"


def _state_rows(data: ReportData) -> list[list[str]]:
    """What the driver said before and after the turns of each backend."""
    ranges = (("sm_mhz", "MHz"), ("memory_mhz", "MHz"), ("celsius", "°C"), ("watts", "W"))
    rows = []
    for name in data.gpu_backends:
        states = [state for d in data.on_device if d.summary.backend == name for state in d.states]
        if not states:
            continue
        cells = [name, ", ".join(dict.fromkeys(f"{s.name}, driver {s.driver or 'unknown'}" for s in states))]
        for field, unit in ranges:
            span = span_of(states, field)
            ends = dict.fromkeys(number(v, decimals=0) for v in (span.low, span.high) if v is not None)
            cells.append(f"{' to '.join(ends)} {unit}" if ends else "-")
        rows.append([*cells, _why(states)])
    return rows


def on_the_gpu_section(data: ReportData) -> Section:
    """Device time beside wall time; nothing where no GPU backend was timed."""
    if not data.on_device:
        return Section("", [])
    found = shown(data)
    blocks: list[Block] = [Figure("device-time")]
    if data.sweep is not None:
        blocks.append("At the centre of the sweep; tables/times.csv has every size.")
    blocks += [Markdown(READING), *([_times_table(found, data)] if found else [])]
    if rows := _ratio_rows(found, data):
        header = ["case", "fastest by device time", "over", "by device time", "by wall time"]
        blocks.append(Section("Ratios by device time", [table(header, rows)]))
    blocks.append(Section("A time step, ours and cuDNN's", [Figure("gpu-step")]))
    if rows := _state_rows(data):
        header = ["backend", "device", "SM clock", "memory clock", "temperature", "power", "clock held back"]
        blocks.append(Section("The device before and after each turn", [table(header, rows)]))
    timed = [d for d in found if d.time]
    return Section("On the GPU", blocks, [_times_table(timed, data)] if timed and not data.sweep else [])


def rate(flops_per_second: float) -> str:
    """`12.3 GFLOP/s`."""
    return f"{number(flops_per_second / 1e9)} GFLOP/s"


def ceiling_rows(peak: Peak) -> list[tuple[str, str]]:
    """Name and figures of each ceiling of the machine."""

    def said(rates: Rates) -> str:
        read, mixed = (number(value / 1e9) for value in (rates.read, rates.mixed))
        return f"{rate(rates.flops)}; {read} GB/s read, {mixed} GB/s read and written"

    return [(f"{dtype}, {threads(r.threads)}", said(r)) for dtype, every in peak.rates.items() for r in every]


def ceiling_blocks(peak: Peak) -> list[Block]:
    """What was measured of the machine, and how."""
    method = f"Best of many short trials: {peak.method}."
    return [table(["ceiling", "measured"], ceiling_rows(peak)), method, Markdown(PEAK)]


def shares_of_peak_section(data: ReportData) -> Section:
    """What share of the machine's peak each backend reached; nothing where the ceilings are not known."""
    peak = data.peak
    if peak is None or not any(s.time for s in data.summaries):
        return Section("", [])

    def cell(s: Summary) -> str:
        found = reached(s, peak)
        if found is None:
            return unmeasured(s)
        share = ""
        if found.share is not None:
            share = f"{percent(found.share, 0 if found.share >= 0.0995 else 1)}, "
        return marked_wrong(s, f"{share}{rate(found.flops_per_second)}")

    def shares(problem: ProblemCases) -> Section:
        def heading(pass_: Pass) -> str:
            work = work_of(problem.cases[pass_])
            return f"{pass_}: {number(work.flops / 1e6)} MFLOP, {number(work.intensity)} FLOP a byte"

        return Section(problem.label, [by_pass(problem, cell, heading)], keys=problem.keys)

    return Section(
        "Share of the machine's peak", [Figure("roofline"), *ceiling_blocks(peak), *map(shares, data.problems)]
    )


def energy_section(data: ReportData) -> Section:
    """Joules a call where a counter could be read, one line where not; nothing in records that know of neither."""
    sources, reasons = energy_sources(data.records), energy_reasons(data.records)
    said: list[Block] = []
    if reasons:
        (reason, most), total = reasons[0], sum(count for _, count in reasons)
        said = [f"Not known for {total:,} turns{'' if most == total else f', for {most:,} of them'}: {reason}."]
    if not sources:
        return Section("Energy", said)

    def cell(s: Summary) -> str:
        joules = joules_of(s)
        return "unknown" if joules is None else marked_wrong(s, with_interval(joules, 1e-3))

    tables = [
        Section(problem.label, [by_pass(problem, cell, lambda p: f"{p}, mJ a call")], keys=problem.keys)
        for problem in data.problems
        if any(joules_of(s) for group in problem.summaries.values() for s in group.values())
    ]
    return Section("Energy", [f"Counted by {', '.join(sources)}.", *tables, Markdown(ENERGY), *said])


def memory_section(data: ReportData) -> Section:
    """The peak memory of a pass, and what of it the pass itself came to; nothing where that was not asked for."""
    if not any(memory_of(s) for s in data.summaries):
        return Section("", [])

    def cell(s: Summary) -> str:
        found = memory_of(s)
        if found is None:
            return "not measured"
        peak, own, device = (None if v is None else number(v / 1e6) for v in (found.peak, found.own, found.device))
        return f"{peak}{f' ({own})' if own else ''}{f', {device} on the device' if device else ''}"

    tables = [
        Section(problem.label, [by_pass(problem, cell, lambda p: f"{p}, MB")], keys=problem.keys)
        for problem in data.problems
    ]
    return Section("Peak memory of a pass", [*tables, Markdown(MEMORY)])
