"""The section on time to accuracy: what each backend needs from the start of its process to a test accuracy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from statistics import median
from typing import TYPE_CHECKING

from rnnbench.analysis.accuracy import PARTS, ToReach
from rnnbench.records.record import Status
from rnnbench.report.data import ReportData
from rnnbench.report.section import Block, Figure, Item, Markdown, Section, Toned, table
from rnnbench.report.text import ratio_text, status_text
from rnnbench.units import decimals_of, duration, number, percent, threads

if TYPE_CHECKING:
    import pandas as pd

BUSY = 0.1  # of all cores, used by other programs: trainings are slower for it
RULES = """\
The clock runs from the start of a new process: Python, the import of the library, rows read from a file of arrays,
staging, compiling, epochs. It stands still while the test rows are looked at, after each epoch. Of one seed all
backends have the same initial parameters, order of rows, optimizer and type. Rounding alone moves by epochs when a
plateau is left, so the time is the median over seeds, in brackets the fastest and the slowest; a training that did not
get there counts as slower than all that did, and is not left out. *First call*: what the first epoch takes longer than
later ones. Compiled code is on disk from a start before; *cold* is how much later the first epoch ends without."""


def by_goal(data: ReportData) -> list[list[ToReach]]:
    """The backends of each problem and accuracy, the fastest first."""
    return [list(group) for _, group in groupby(data.to_reach, key=lambda t: (t.case, t.until))]


def goal_label(data: ReportData, t: ToReach) -> str:
    """`imdb-50 to 80 %`."""
    return f"{_network(data, t)} to {percent(t.until)}"


def _network(data: ReportData, t: ToReach) -> str:
    return data.labels.problem(t.case.name, str(t.case.dtype), str(t.case.truncation or ""))


def to_accuracy_items(data: ReportData) -> list[Item]:
    """For each problem and accuracy: who gets there first, how sure that is, and how far behind the others are."""
    return [(goal_label(data, group[0]), *_said(group)) for group in by_goal(data)]


def _said(group: Sequence[ToReach]) -> list[str]:
    there = [t for t in group if math.isfinite(t.seconds)]
    others = [t for t in group if not math.isfinite(t.seconds)]
    absent = f"Not there: {', '.join(f'{t.backend} ({_why(t)})' for t in others)}." if others else ""
    if not there:
        return [Toned("no backend got there.", "absent"), absent]
    best, *rest = there
    behind = [f"{t.backend} {ratio_text(t.seconds / best.seconds)}" for t in rest]
    if behind:
        behind[0] = f"{rest[0].backend} takes {ratio_text(rest[0].seconds / best.seconds)} as long"
    lead = "; ".join([f"{best.backend} in {duration(best.seconds)}", *([", ".join(behind)] if behind else [])])
    return [f"{lead}.", _sure(best, rest), absent]


def _sure(best: ToReach, rest: Sequence[ToReach]) -> str:
    """In how many seeds the first was first."""
    times = [{r.seeds.params: r.reached_ns or math.inf for r in t.trainings} for t in (best, *rest)]
    if not rest or not times[0]:
        return ""
    won = sum(all(own < other.get(seed, math.inf) for other in times[1:]) for seed, own in times[0].items())
    tone = "good" if won == len(times[0]) > 2 else "unsure"
    return Toned(f"({best.backend} is first in {won} of {len(times[0])} seeds.)", tone)


def _why(t: ToReach) -> str:
    if not t.trainings:
        return _untrained(t)
    many = f"{len(t.reached)} of {len(t.trainings)} seeds"
    if t.status is not Status.OK:
        return f"{t.status}, {many}"
    at_end = "" if t.accuracy is None else f", {percent(t.accuracy, 1)} at the end"
    return f"{many}{at_end}"


def _untrained(t: ToReach, limit: int = 0) -> str:
    """Why no training counts; with a limit, with so much of the reason."""
    if t.status is Status.OK:
        return "not trained yet"
    return status_text(str(t.status), t.reason, limit) if limit else str(t.status)


def training_cautions(data: ReportData) -> list[Item]:
    """What others took from the machine during the trainings, where that is much, and other runs beside them."""
    shares = [r.others_share for r in data.trainings if r.others_share is not None]
    beside = sum(bool(r.disturbances) for r in data.trainings)
    said = []
    if shares and median(shares) > BUSY:
        said.append(f"other programs used {percent(median(shares), 0)} of the cores' time during the trainings")
    if beside:
        said.append(f"another run measured beside {beside} of {len(data.trainings)} trainings")
    if not said:
        return []
    return [
        (
            Toned("Perhaps disturbed", "warning"),
            f"{'; '.join(said)}.",
            Toned("Remedy: end them, and measure again.", "remedy"),
        )
    ]


def to_accuracy_section(data: ReportData) -> Section:
    """Times, how many got there, where the time went; drawn, and in figures."""
    blocks: list[Block] = []
    brief: list[Block] = []
    for group in by_goal(data):
        first = group[0]
        keys = {"network": _network(data, first), "cell": first.case.model.cell, "dtype": str(first.case.dtype)}
        times, parts = _times(group), _parts(group)
        failed: list[Item] = [(t.backend, f"{status_text(str(t.status), t.reason, 400)}.") for t in group if t.reason]
        blocks.append(Section(goal_label(data, first), [times, *parts, failed], keys=keys))
        brief.append(Section(goal_label(data, first), [times]))
    if not blocks:
        return Section("", [])
    return Section("Time to accuracy", [Figure("to-accuracy"), _ground(data), *blocks, Markdown(RULES)], brief=brief)


def _ground(data: ReportData) -> str:
    """With how many threads, from which seeds."""
    counts = sorted({r.threads for r in data.trainings if r.threads})
    seeds = sorted({r.seeds.params for r in data.trainings})
    named = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {', '.join(map(str, seeds))}"
    by = f" by {' or '.join(map(threads, counts))}" if counts else ""
    return f"Each training{by}, in a process of its own; {named}, by turns."


def _times(group: Sequence[ToReach]) -> pd.DataFrame:
    header = ["backend", f"to {percent(group[0].until)}", "ratio", "epochs", "reached", "last accuracy"]
    best = group[0].seconds
    rows = []
    for t in group:
        if not t.trainings:
            rows.append([t.backend, Toned(_untrained(t, 40), "absent"), *[""] * 4])
            continue
        ratio = ratio_text(t.seconds / best) if math.isfinite(t.seconds) else "-"
        rows.append([
            t.backend, _time(t, t is group[0]), ratio, "-" if t.epochs is None else number(t.epochs, 2),
            f"{len(t.reached)} of {len(t.trainings)}", "-" if t.accuracy is None else percent(t.accuracy, 1),
        ])  # fmt: skip
    return table(header, rows)


def _time(t: ToReach, first: bool) -> str:
    """`4.82 s (4.61 to 5.10)`, or how long it was tried."""
    if not math.isfinite(t.seconds):
        said = f"not reached in {duration(t.at_least)}" if t.status in (Status.OK, Status.SKIPPED) else str(t.status)
        return Toned(said, "absent")
    decimals = decimals_of(t.seconds)
    low, middle, high = (number(v, decimals=decimals) for v in (t.low, t.seconds, t.high))
    spread = f" ({low} to {high if math.isfinite(t.high) else 'not reached'})" if len(t.trainings) > 1 else ""
    return Toned(f"{middle} s{spread}", "best" if first else "")


def _parts(group: Sequence[ToReach]) -> list[pd.DataFrame]:
    """Means over the trainings that got there."""
    shown = [t for t in group if t.parts]
    if not shown:
        return []
    header = ["backend", *(name.replace("_", " ") for name in PARTS), "tests, not counted", "cold"]
    rows = [
        [
            t.backend, *(duration(t.parts[name]) for name in PARTS), duration(t.tests),
            "-" if t.colder is None else f"{'+' if t.colder >= 0 else '-'}{duration(abs(t.colder))}",
        ]
        for t in shown
    ]  # fmt: skip
    return [table(header, rows)]
