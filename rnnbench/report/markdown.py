"""Markdown from tables: cells that cannot break their row, and the tables that a reader sees."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rnnbench.analysis.costs import main_cases, spent
from rnnbench.analysis.stats import Interval, Summary, ratio_of
from rnnbench.model import Pass
from rnnbench.records.record import Status
from rnnbench.report.context import Context, Problem
from rnnbench.report.text import (
    FOOTNOTES,
    Unit,
    duration,
    number,
    scientific,
    times_with_interval,
    told,
    unit_for,
    with_interval,
)

Rows = Sequence[Sequence[str]]


def escape(text: str) -> str:
    """Text that stays in its cell and is read as it stands."""
    line = " ".join(text.split()).replace("\\", "\\\\")
    for sign in "|<*_`[]":
        line = line.replace(sign, f"\\{sign}")
    return line


def table(header: Sequence[str], rows: Rows) -> str:
    """A table with the first column left and the others right. Cells are Markdown already."""
    import pandas as pd

    frame = pd.DataFrame([list(row) for row in rows], columns=list(header))
    align = ["left"] + ["right"] * (len(header) - 1)
    return str(frame.to_markdown(index=False, disable_numparse=True, colalign=align))


def marked(text: str) -> str:
    """The text, and under it what its daggers mean."""
    notes = [f"{mark} {words}." for mark, words in FOOTNOTES.items() if mark in text]
    return "\n\n".join([text, *notes])


def figure(paths: Sequence[Path], folder: Path, alt: str) -> str:
    """An embedded figure, its alternative text, and a link to the same as SVG where there is one."""
    place, *vector = (path.relative_to(folder).as_posix() for path in paths)
    return "\n\n".join([f"![{escape(alt)}]({place})", *(f"[as SVG]({other})" for other in vector)])


def _cell(s: Summary | None, unit: Unit, best: bool, per_call: bool = False) -> str:
    if s is None:
        return "not asked"
    if s.time is None:
        return escape(told(str(s.status), s.reason, 40))
    text = with_interval(s.time, unit.seconds * (1 if per_call else s.case.steps))
    if s.status is Status.WRONG:
        return f"wrong: {text}"
    return f"**{text}**" if best else text


def _best(problem: Problem, pass_: Pass) -> str | None:
    ranked = [s for s in problem.summaries[pass_].values() if s.ranked and s.time]
    return min(ranked, key=lambda s: s.time.value if s.time else 0.0).backend if ranked else None


def times_table(problem: Problem) -> str:
    """A row for each backend, a column for each pass, per step; epochs whole as well."""
    steps = [s.time.value / s.case.steps for group in problem.summaries.values() for s in group.values() if s.time]
    columns = [(p, unit_for(steps), False) for p in problem.cases]
    if Pass.EPOCH in problem.cases:
        whole = [s.time.value for s in problem.summaries[Pass.EPOCH].values() if s.time]
        columns.append((Pass.EPOCH, unit_for(whole), True))
    best = {p: _best(problem, p) for p in problem.cases}
    rows = [
        [escape(name), *(_cell(problem.get(p, name), unit, best[p] == name, whole) for p, unit, whole in columns)]
        for name in problem.ordered
    ]
    header = ["backend", *(_heading(problem, p, unit, whole) for p, unit, whole in columns)]
    return marked(table(header, rows))


def _heading(problem: Problem, pass_: Pass, unit: Unit, whole: bool) -> str:
    if pass_ is not Pass.EPOCH:
        return f"{escape(str(pass_))}, {unit.name}"
    return f"whole epoch of {problem.cases[pass_].steps} steps, {unit.name}" if whole else f"epoch, {unit.name} a step"


def speedup_table(context: Context, problem: Problem) -> str:
    """A row for each backend, a column for each pass: the reference's time over the backend's."""
    assert context.reference is not None
    assert context.speedups is not None
    lines = context.speedups.set_index(["case", "backend"])
    rows = []
    for name in problem.ordered:
        cells = []
        for pass_, case in problem.cases.items():
            s, base = problem.get(pass_, name), problem.get(pass_, context.reference)
            ratio = ratio_of(base.turns, s.turns) if s and base and s.ranked and base.ranked else None
            reason = str(lines.at[(case.key, name), "reason"]) if s else "not asked"
            cells.append(_speedup_cell(name, context.reference, ratio, reason))
        rows.append([escape(name), *cells])
    return marked(table(["backend", *(escape(str(p)) for p in problem.cases)], rows))


def _speedup_cell(name: str, reference: str, ratio: Interval | None, reason: str) -> str:
    if ratio is None:
        return escape(told(reason, None) if len(reason) < 40 else reason[:39] + "…")
    return "1 (reference)" if name == reference else times_with_interval(ratio)


def costs_table(group: Sequence[Summary]) -> str:
    """Seconds once per process, and one steady step."""
    rows = []
    for s in group:
        c = spent(s)
        found = (c.imported, c.prepared_cold, c.prepared_warm, c.first_cold, c.first_warm, c.steady)
        mark = " (wrong)" if s.status is Status.WRONG else ""
        if all(v is None for v in found):
            rows.append([escape(s.backend), escape(told(str(s.status), s.reason, 40)), *[""] * 5])
        else:
            rows.append([escape(s.backend) + mark, *("-" if v is None else duration(v) for v in found)])
    header = ["backend", "import", "prepare, cold", "prepare, code on disk", "first call, compiling",
              "first call, code on disk", "steady step"]  # fmt: skip
    return table(header, rows)


def break_even_table(context: Context, case_key: str) -> str:
    """When each backend is ahead of the reference, and of the one that starts soonest."""
    lines = context.break_evens
    mine = lines[lines["case"] == case_key].to_dict("records")
    against = {name: next((str(r[name]) for r in mine if r[name]), "") for name in ("reference", "lightest")}
    header = ["backend", "start", "steady step"]
    header += [f"ahead of {escape(against[name])} ({role})" for name, role in _ROLES.items() if against[name]]
    rows = []
    for r in mine:
        cells = [_seconds(r["start_seconds"]), _seconds(r["steady_seconds"])]
        cells += [str(r[f"ahead_of_{name}"]) for name in _ROLES if against[name]]
        rows.append([escape(str(r["backend"])), *cells])
    return table(header, rows)


_ROLES = {"reference": "reference", "lightest": "shortest start"}


def _seconds(value: object) -> str:
    return duration(float(value)) or "-" if isinstance(value, int | float) else "-"


def costs_tables(context: Context) -> list[str]:
    """For each problem: its label, its costs, its break-even steps."""
    parts = []
    for case, group in main_cases(context.summaries).items():
        parts.append(f"### {escape(context.labels.of(case))}")
        parts.append(costs_table(group))
        if any(spent(s).start is not None for s in group if s.ranked):
            parts.append(break_even_table(context, case.key))
    return parts


def errors_table(problem: Problem, shares: dict[str, dict[str, float]]) -> str:
    """A row for each backend, a column for each array group: error over limit."""
    groups = list(dict.fromkeys(group for row in shares.values() for group in row))
    rows = []
    for name in problem.backends:
        answers = [s for p in problem.cases if (s := problem.get(p, name))]
        status = next((s for s in answers if s.status is Status.WRONG), answers[0])
        cells = ["-" if g not in shares[name] else _share(shares[name][g]) for g in groups]
        rows.append([escape(name), str(status.status), *cells])
    return table(["backend", "status", *groups], rows)


def _share(value: float) -> str:
    if value == 0:
        return "exact"
    if value == float("inf"):
        return "**not a number**"
    return f"**{scientific(value)}**" if value > 1 else scientific(value)


def percent(value: float | None) -> str:
    """An accuracy in percent, or a dash."""
    return "-" if value is None else f"{number(100 * value, decimals=1)} %"
