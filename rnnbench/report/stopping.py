"""What a run says of its own length and noise: why each case stopped, and each backend against itself."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from rich import box
from rich.table import Table
from rich.text import Text

from rnnbench.analysis.noise import MARK, Noise, ReplicaPair, noise_of
from rnnbench.analysis.stop_rule import percent
from rnnbench.records.stops import LEAST, Rule, Why
from rnnbench.report.context import Context
from rnnbench.report.markdown import escape, marked, table
from rnnbench.report.text import number, times_with_interval

_SHORT = {Why.PRECISE: "", Why.CAP: "cap", Why.BUDGET: "budget", Why.CASE_BUDGET: "case budget", Why.ALL: ""}
_ENDED = {
    Why.PRECISE: "precise enough",
    Why.CAP: "at the cap of launches",
    Why.BUDGET: "by the budget",
    Why.CASE_BUDGET: "by the budget of a case",
    Why.ALL: "after all launches",
}


def _stops(context: Context) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Case label -> backend -> why it stopped, as `run.json` has it."""
    labels = {s.case.key: context.labels.of(s.case) for s in context.summaries}
    return {labels[key]: found for key, found in context.run.get("stops", {}).items() if key in labels}


def stops(context: Context) -> list[str]:
    """How far the interval of each time reaches, after how many launches, and what ended them."""
    found = _stops(context)
    if not found:
        return []
    names = list(dict.fromkeys(name for row in found.values() for name in row))
    rows = [[escape(label), *(_cell(row.get(name)) for name in names)] for label, row in found.items()]
    reading = (
        "How far the 95 % interval of a time reaches above it, and after how many launches; what ended them, where "
        "it was not that all times of the case were precise enough."
    )
    parts = ["## Why it stopped", *_asked(context), table(["case", *map(escape, names)], rows), reading]
    return [part for part in parts if part]


def _asked(context: Context) -> Iterator[str]:
    rule = (context.run.get("plan") or {}).get("rule")
    if rule:
        asked = msgspec.convert(rule, Rule)
        yield (
            f"Each case went on, with all its backends, until every time was precise to {percent(asked.precision)}: "
            f"{asked.fewest} launches at least, {asked.most} at most."
        )


def _cell(stop: Mapping[str, Any] | None) -> str:
    if stop is None:
        return "-"
    reached = "no interval" if stop["reached"] is None else percent(stop["reached"])
    why = _SHORT[Why(stop["why"])]
    return f"{reached}, {stop['launches']}{f' ({why})' if why else ''}"


def stops_line(context: Context) -> Text | None:
    """How many answers ended in which way, and the least precise of them."""
    every = [(label, name, s) for label, row in _stops(context).items() for name, s in row.items()]
    if not every:
        return None
    counts = Counter(Why(s["why"]) for _, _, s in every)
    said = ", ".join(f"{counts[why]} {words}" for why, words in _ENDED.items() if counts[why])
    known = [(s["reached"], f"{label} {name}") for label, name, s in every if s["reached"] is not None]
    worst = f"; the least precise is {max(known)[1]}, {percent(max(known)[0])}" if known else ""
    return Text(f"stopped: {said}{worst}")


def _noise(context: Context) -> Noise | None:
    return noise_of(context.records) if any(MARK in name for name in context.backends) else None


def _verdict(pair: ReplicaPair) -> str:
    if math.isnan(pair.q):
        return "cannot be told"
    return "different: a false alarm" if pair.different else "not told apart"


def _said(found: Noise) -> str:
    count = len(found.pairs)
    if found.launches < LEAST:
        return f"{found.launches} launches are too few to call anything different; {LEAST} at least are needed."
    alone = sum(pair.excludes_one for pair in found.pairs)
    return (
        f"False alarms: {found.false_alarms} of {count}, judged together; {alone} by their intervals alone, where "
        f"{number(0.05 * count, decimals=1)} are expected by chance. Of 100 launches, 95 have a ratio within "
        f"{percent(found.spread)} of 1. So the noise floor of {found.launches} launches is {percent(found.floor)}: "
        "compare takes it, but never below 1 %, for its margin on this machine."
    )


def noise(context: Context) -> list[str]:
    """Each backend against itself."""
    found = _noise(context)
    if found is None:
        return []
    rows = [
        [escape(context.labels.of(p.case)), escape(p.backend), times_with_interval(p.ratio), _verdict(p)]
        for p in found.pairs
    ]
    header = ["case", "backend", "its twin over it", "called"]
    return ["## The same code twice", marked(table(header, rows)), _said(found)]


def noise_lines(context: Context) -> Iterator[Table | Text]:
    """The same for the terminal."""
    found = _noise(context)
    if found is None:
        return
    shown = Table(title=Text("the same code twice"), title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("case", "backend", "its twin over it", "called"):
        shown.add_column(name, justify="right" if "twin" in name else "left")
    for p in found.pairs:
        cells = (context.labels.of(p.case), p.backend, times_with_interval(p.ratio), _verdict(p))
        shown.add_row(*map(Text, cells))
    yield shown
    yield Text(_said(found))
