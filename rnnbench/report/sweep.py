"""The sections of a sweep: which backend is fastest how often, the plots against size, a table for each pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rnnbench.analysis.ranking import NEAR, Standing, standings
from rnnbench.model import DType, Head, Model, Pass
from rnnbench.report.answer import cautions, ground, markings
from rnnbench.report.data import ReportData
from rnnbench.report.devices import ceiling_blocks
from rnnbench.report.plots.sweep import kinds_of, sweep_sizes
from rnnbench.report.section import Block, Figure, Item, Markdown, Section, Toned, escape, table
from rnnbench.report.sections import judged_in_part, marked_wrong, unmeasured
from rnnbench.report.tables import error_share, worst_errors
from rnnbench.report.text import ratio_text, scientific
from rnnbench.units import duration

if TYPE_CHECKING:
    import pandas as pd

CHECKED = "Every answer was\ncompared with the float64 oracle, array by array, before it was timed."
WORK = f"""\
Dense inputs of width E, tanh RNN of H units, one logit from the last of T steps, batches of B rows. Inputs are small
random numbers, targets coins; the recurrent weights start orthogonal, so that gradients do not vanish. {CHECKED}"""

READING = f"""\
*Ahead* compares with the fastest other backend of each case, by rounds that both were measured in. *Near* is at least
{NEAR:g} of that one's speed. One process each: intervals over processes are not known, so a lead of a few percent is
no lead."""


def work_text(data: ReportData) -> str:
    """What a case of the sweep computes: made-up dense rows and one logit, or what the first case has."""
    if not data.records:
        return WORK
    first = data.records[0]
    model, made = first.case.model, first.data_source.startswith(("random numbers", "made-up rows"))
    if made and model == Model(E=model.E, H=model.H, O=1):
        return WORK
    inputs = "Dense inputs of width E" if model.V is None else f"Tokens of a vocabulary of {model.V:,}, embedded to E"
    cell = "tanh RNN" if model.cell == "rnn" else model.cell
    cell = f"{model.layers} layers of {cell}" if model.layers > 1 else cell
    both = " in both directions" if model.bidirectional else ""
    outputs = (
        f"{model.O} output{'s' * (model.O > 1)} at {'every step' if model.head is Head.EVERY else 'the last step'}"
    )
    return (
        f"{inputs}, {cell} of H units{both}, {outputs}, batches of B rows of T steps; {escape(first.data_source)}. "
        f"{CHECKED}"
    )


def _standing_text(s: Standing, count: int) -> str:
    """`first in 35 of 38 cases, near in 37; worst 0.85x of jax, dense E128 H128 B1 T100 forward`."""
    missing = "" if len(s.cells) == count else f" ({count - len(s.cells)} not measured)"
    return (
        f"first in {s.first} of {len(s.cells)} cases{missing}, at least {NEAR:g} of the fastest other in {s.near}; "
        f"at worst {ratio_text(s.worst.ratio)} as fast as {s.worst.rival}, in {s.worst.case.name} {s.worst.case.pass_}"
    )


def _standings_table(found: Sequence[Standing]) -> pd.DataFrame:
    """A row for each backend."""
    rows = []
    for s in found:
        counts = [f"{count} of {len(s.cells)}" for count in (s.first, s.near)]
        where = f"{s.worst.rival}, {s.worst.case.name} {s.worst.case.pass_}"
        rows.append([s.backend, *counts, ratio_text(s.worst.ratio), where])
    return table(["backend", "ahead", "near or ahead", "at worst", "compared with, and where"], rows)


def sweep_answer_section(data: ReportData) -> Section:
    """First of all: which backend is fastest how often, of all passes and of each."""
    found = standings(data.summaries)
    if not found:
        said = Toned("Nothing could be compared: fewer than two backends were measured in one case.", "wrong")
        return Section("Answer", [*markings(data), said], brief=[said])
    blocks: list[Block] = [_standings_table(found)]
    for pass_, dtype in kinds_of(data) if len(kinds_of(data)) > 1 else ():
        group = [s for s in data.summaries if s.case.pass_ is pass_ and s.case.dtype is dtype]
        shown = [_standings_table(standings(group))]
        blocks.append(Section(f"{pass_} {dtype}", shown, keys=_keys(pass_, dtype)))
    first, *others = ((s.backend, f"{_standing_text(s, len(data.rankings))}.") for s in found)
    best: Item = (f"Use {first[0]}", first[1])
    before: list[Block] = [*markings(data), cautions(data), [best]]
    last = list(ground(data))
    brief: list[Block] = [Toned("Answer", "lead"), *before, list[Item](others), last]
    return Section("Answer", [*before, last, *blocks, Markdown(READING)], brief=brief)


def _times_table(data: ReportData, pass_: Pass, dtype: DType) -> pd.DataFrame:
    """A row for each size, a column for each backend."""
    rows = []
    for ranking in data.rankings:
        case = ranking.case
        if case.pass_ is not pass_ or case.dtype is not dtype:
            continue
        mine = {s.backend: s for s in data.summaries if s.case == case}
        sizes = sweep_sizes(case)
        cells = []
        for name in data.backends:
            s = mine.get(name)
            if s is None:
                cells.append("not asked")
            elif s.time is None:
                cells.append(unmeasured(s, 30))
            else:
                cells.append(marked_wrong(s, duration(s.time.value), name == ranking.fastest))
        rows.append([f"H {sizes.H}, B {sizes.B}, T {sizes.T}", *cells])
    return table(["sizes", *data.backends], rows)


def sweep_results(data: ReportData) -> list[Section]:
    """The plots against size, and the times behind them."""
    shown = [Section("Time against size", [Figure("sweep-time")])]
    if data.peak is not None:
        shown.append(
            Section(
                "Share of peak against size", [Figure("sweep-share"), Figure("roofline"), *ceiling_blocks(data.peak)]
            )
        )
    shown.append(Section("The fastest by H and B", [Figure("crossover")]))
    kinds = kinds_of(data)
    return shown + [
        Section(f"Time of a call: {p} {dtype}", [_times_table(data, p, dtype)], keys=_keys(p, dtype))
        for p, dtype in kinds
    ]


def _keys(pass_: Pass, dtype: DType) -> dict[str, str]:
    """What the filters of a page know the sections of one pass and type by."""
    return {"pass": str(pass_), "dtype": str(dtype)}


def sweep_errors_section(data: ReportData) -> Section:
    """The largest error of each backend in any case, as a part of its limit."""
    worst: dict[str, float] = {}
    for s in data.summaries:
        for e in worst_errors(s).values():
            worst[s.backend] = max(worst.get(s.backend, 0.0), error_share(e))
    shown = table(["backend", "largest error over its limit"], [[name, scientific(v)] for name, v in worst.items()])
    return Section("Errors against the oracle", [shown, *judged_in_part(data)] if worst else [])
