"""The page of a sweep: who is first and how often, the plots against size, a table for each pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rnnbench.analysis.ranking import NEAR, Standing, standings
from rnnbench.analysis.stats import Summary
from rnnbench.model import DType, Pass
from rnnbench.records.record import Status
from rnnbench.report import facts, gpu, peak, sections, warnings
from rnnbench.report.context import Context
from rnnbench.report.markdown import escape, table
from rnnbench.report.plots.sweep import kinds_of, sizes_of
from rnnbench.report.tables import share, worst_errors
from rnnbench.report.text import duration, scientific, times, told

Figures = Mapping[str, Sequence[str]]  # name -> embedded pages

WORK = """\
Dense inputs of width E, tanh RNN of H units, one logit from the last of T steps, batches of B rows. Inputs are small
random numbers, targets coins; the recurrent weights start orthogonal, so that gradients do not vanish. Every answer was
compared with the float64 oracle, array by array, before it was timed."""

READING = f"""\
*Ahead* compares with the fastest other backend of each case, by rounds that both were measured in. *Near* is at least
{NEAR:g} of that one's speed. One process each: intervals over processes are not known, so a lead of a few percent is
no lead."""


def standing_line(s: Standing, count: int) -> str:
    """`first in 35 of 38 cases, near in 37; worst 0.85x of jax, dense E128 H128 B1 T100 forward`."""
    last = s.worst
    where = f"{last.case.name} {last.case.pass_}"
    missing = "" if len(s.cells) == count else f" ({count - len(s.cells)} not measured)"
    return (
        f"first in {s.first} of {len(s.cells)} cases{missing}, at least {NEAR:g} of the fastest other in {s.near}; "
        f"least {times(last.ratio)} as fast as {last.rival}, in {where}"
    )


def standings_table(found: Sequence[Standing]) -> str:
    """A row for each backend."""
    rows = [
        [
            escape(s.backend),
            f"{s.first} of {len(s.cells)}",
            f"{s.near} of {len(s.cells)}",
            times(s.worst.ratio),
            escape(f"{s.worst.rival}, {s.worst.case.name} {s.worst.case.pass_}"),
        ]
        for s in found
    ]
    return table(["backend", "ahead", "near or ahead", "least", "over whom, and where"], rows)


def answer(context: Context) -> list[str]:
    """First of all: who is fastest how often, of all passes and of each."""
    found = standings(context.summaries)
    if not found:
        return ["## Answer", "Nothing could be compared: fewer than two backends were measured in one case."]
    parts = ["## Answer", standings_table(found)]
    for pass_, dtype in kinds_of(context) if len(kinds_of(context)) > 1 else ():
        group = [s for s in context.summaries if s.case.pass_ is pass_ and s.case.dtype is dtype]
        parts += [f"### {escape(f'{pass_} {dtype}')}", standings_table(standings(group))]
    return [*parts, READING]


def _cell(s: Summary | None, best: str | None) -> str:
    if s is None:
        return "not asked"
    if s.time is None:
        return escape(told(str(s.status), s.reason, 30))
    text = duration(s.time.value)
    if s.status is Status.WRONG:
        return f"wrong: {text}"
    return f"**{text}**" if s.backend == best else text


def times_table(context: Context, pass_: Pass, dtype: DType) -> str:
    """A row for each size, a column for each backend."""
    rows = []
    for a in context.rankings:
        if a.case.pass_ is pass_ and a.case.dtype is dtype:
            mine = {s.backend: s for s in context.summaries if s.case == a.case}
            sizes = sizes_of(a.case)
            cells = [_cell(mine.get(name), a.fastest) for name in context.backends]
            rows.append([f"H {sizes.H}, B {sizes.B}, T {sizes.T}", *cells])
    return table(["sizes", *(escape(name) for name in context.backends)], rows)


def results(context: Context, figures: Figures) -> list[str]:
    """The plots, and the times behind them."""
    parts = ["## Time against size", *figures.get("sweep-time", ())]
    if figures.get("sweep-share"):
        parts += ["## Share of peak against size", *figures["sweep-share"], *figures.get("roofline", ())]
        parts += [*(peak.ceilings(context.peak) if context.peak else ()), peak.READING]
    if figures.get("crossover"):
        parts += ["## Who wins where", *figures["crossover"]]
    for pass_, dtype in kinds_of(context):
        parts += [f"## Time of a call: {escape(f'{pass_} {dtype}')}", times_table(context, pass_, dtype)]
    return parts


def errors(context: Context) -> list[str]:
    """The largest error of each backend in any case, as a part of its limit."""
    worst: dict[str, float] = {}
    for s in context.summaries:
        for e in worst_errors(s).values():
            worst[s.backend] = max(worst.get(s.backend, 0.0), share(e))
    rows = [[escape(name), scientific(value)] for name, value in worst.items()]
    if not rows:
        return []
    heading = ["## Errors against the oracle", table(["backend", "largest error over its limit"], rows)]
    return [*heading, *sections.judged_in_part(context)]


def parts(context: Context, figures: Figures) -> list[str]:
    """All of the page but its title."""
    shown = [*answer(context), *warnings.section(context), *results(context, figures), *gpu.section(context, figures)]
    shown += ["## The work", WORK, *errors(context)]
    for section in (sections.missing, facts.run, facts.subnormals, facts.contracts):
        shown += section(context)
    return [*shown, *facts.definitions()]
