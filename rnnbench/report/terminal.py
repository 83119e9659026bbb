"""The table at the end of a run: first who won, by how much, how sure; then the times, and what is missing."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rnnbench.analysis.ranking import Ranking, standings
from rnnbench.analysis.stats import Summary
from rnnbench.records.record import Status
from rnnbench.report import warnings
from rnnbench.report.context import Context, Problem
from rnnbench.report.stopping import noise_lines, stops_line
from rnnbench.report.sweep import standing_line
from rnnbench.report.text import (
    FOOTNOTES,
    QUICK,
    Unit,
    duration,
    how_sure,
    short,
    unit_for,
    verdict_of,
    with_interval,
    workload_label,
)

# Text objects throughout: a reason may hold brackets, which rich would read as markup.


def _heading(context: Context) -> list[Text]:
    lines = [Text(QUICK.upper(), style="bold red")] if context.quick else []
    lines += [Text(context.unlike, style="bold red")] if context.unlike else []
    for workload, source in context.sources.items():
        if "synthetic" in f"{workload} {source}".lower():
            label = workload_label(workload, source)
            lines.append(Text(f"{label}: {source}; not real reviews", style="yellow"))
    return lines + [Text(f"disturbed: {note}", style="yellow") for note in context.disturbances]


def _answer(context: Context, answer: Ranking) -> Text:
    line = Text(f"{context.labels.of(answer.case)}: ", style="bold")
    line.append(verdict_of(answer), style="not bold")
    style = "green" if answer.sure else "yellow"
    return line.append(f" [{how_sure(answer)}]", style=f"not bold {style}")


def _cell(s: Summary | None, unit: Unit, winner: str | None) -> Text:
    if s is None:
        return Text("not asked", style="dim")
    if s.time is None:
        return Text(str(s.status), style="red" if s.status is Status.WRONG else "dim")
    text = with_interval(s.time, unit.seconds * s.case.steps)
    if s.status is Status.WRONG:
        return Text(f"wrong: {text}", style="red")
    return Text(text, style="bold green" if s.backend == winner else "")


def _table(context: Context, problem: Problem) -> Table:
    table = Table(title=Text(f"{problem.label}: time per step"), title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("backend", no_wrap=True)
    units = {}
    for pass_, group in problem.summaries.items():
        units[pass_] = unit_for(s.time.value / s.case.steps for s in group.values() if s.time)
        table.add_column(f"{pass_}, {units[pass_].name}", justify="right")
    winners = {a.case.key: a.fastest for a in context.rankings}
    for name in problem.ordered:
        cells = [_cell(problem.get(p, name), units[p], winners[problem.cases[p].key]) for p in problem.cases]
        table.add_row(Text(name), *cells)
    return table


def _on_device(context: Context) -> Table | None:
    """Device time beside wall time, where a device has a clock."""
    found = [d for d in context.on_device if d.time and d.summary.time]
    if not found or context.sweep:
        return None
    table = Table(title=Text("on the device: time per step"), title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("case", "backend", "wall", "device"):
        table.add_column(name, justify="left" if name in ("case", "backend") else "right")
    for d in found:
        s = d.summary
        cells = (duration(t.value / s.case.steps) if t else "" for t in (s.time, d.time))
        table.add_row(Text(context.labels.of(s.case)), Text(s.backend), *map(Text, cells))
    return table


def _missing(context: Context) -> list[Text]:
    """One line for each thing that went wrong, however many cases it cost."""
    reasons: dict[tuple[str, str, str], int] = {}
    for s in context.summaries:
        if s.status is not Status.OK or s.reason:
            key = (s.backend, str(s.status), short(s.reason or "no reason kept", 140))
            reasons[key] = reasons.get(key, 0) + 1
    return [
        Text(f"{backend} {status} ({count} {'case' if count == 1 else 'cases'}): {reason}")
        for (backend, status, reason), count in reasons.items()
    ]


def _trained(context: Context) -> Table | None:
    """The last held-out accuracy of each training."""
    last = {(e.workload, e.dtype, e.backend, e.seed): e for e in context.epochs}
    if not last:
        return None
    table = Table(title=Text("trainings: last epoch"), title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("workload", "backend", "epoch", "held-out loss", "held-out accuracy"):
        table.add_column(name, justify="left" if name in ("workload", "backend") else "right")
    for e in last.values():
        loss = "" if e.validation_loss is None else f"{e.validation_loss:.4f}"
        accuracy = "" if e.validation_accuracy is None else f"{100 * e.validation_accuracy:.1f} %"
        label = context.labels.problem(e.workload, e.dtype, "")
        table.add_row(Text(label), Text(e.backend), f"{e.epoch} of {e.epochs}", loss, accuracy)
    told = dict.fromkeys(f"{e.workload}: {e.expect}" for e in last.values() if e.expect)
    table.caption, table.caption_justify = Text("\n".join(told)), "left"
    return table


def render(console: Console, context: Context) -> None:
    """Print the answers, the times, what is missing and the warnings.

    ValueError where the reference that is wanted is not in the records.
    """
    for line in _heading(context):
        console.print(line)
    if not context.records and not context.epochs:
        console.print(Text("No case was measured: there are no records.", style="red"))
    for answer in context.rankings:
        console.print(_answer(context, answer))
    if context.sweep:
        for line in _standings(context):
            console.print(line)
    for problem in context.problems:
        if problem.timed and not context.sweep:
            console.print(_table(context, problem))
    if on_device := _on_device(context):
        console.print(on_device)
    _print_footnotes(console, context)
    for part in noise_lines(context):
        console.print(part)
    if stopped := stops_line(context):
        console.print(stopped)
    for line in _missing(context):
        console.print(line)
    if trained := _trained(context):
        console.print(trained)
    if context.records:
        for warned in warnings.lines([w for w in context.warnings if w.counts]):
            console.print(warned)


def _standings(context: Context) -> Iterator[Text]:
    """One line for each backend of a sweep."""
    count = len(context.rankings)
    for s in standings(context.summaries):
        yield Text(f"{s.backend}: ", style="bold").append(standing_line(s, count), style="not bold")


def _print_footnotes(console: Console, context: Context) -> None:
    """What the daggers mean, where there are any."""
    used = {with_interval(s.time)[-1] for s in context.summaries if s.time}
    for mark, words in FOOTNOTES.items():
        if mark in used:
            console.print(Text(f"{mark} {words}", style="dim"))
