"""The parts of the page that show results: answer, time, speed-up, costs, errors, learning curves, what is missing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import median

from rnnbench.analysis.diagnostics import calls_of
from rnnbench.analysis.stats import Summary
from rnnbench.records.record import Epoch, Record, Status
from rnnbench.report.context import Context, Problem
from rnnbench.report.markdown import (
    costs_tables,
    errors_table,
    escape,
    percent,
    speedup_table,
    table,
    times_table,
)
from rnnbench.report.plots.curves import trainings
from rnnbench.report.plots.errors import shares_of
from rnnbench.report.tables import worst_errors
from rnnbench.report.text import duration, how_sure, number, times_with_interval, verdict_of

Figures = Mapping[str, Sequence[str]]  # name -> embedded pages


def answer(context: Context) -> list[str]:
    """First of all: who won, by how much, how sure, for each case."""
    if not context.records:
        return ["## Answer", "No case was measured: there are no records."]
    lines = [
        f"- **{escape(context.labels.of(a.case))}**: {escape(verdict_of(a))} ({how_sure(a)})." for a in context.rankings
    ]
    reading = (
        "Times are of one call; `3.3x (3.1 to 3.5) ahead of` is the ratio of times within rounds and its 95 % interval."
    )
    return ["## Answer", "\n".join(lines), reading]


def times(context: Context, figures: Figures) -> list[str]:
    """Time per step, drawn and in figures."""
    if not any(s.time for s in context.summaries):
        return (
            ["## Time per step", "Nothing was timed; the reasons are under *Not measured*."] if context.records else []
        )
    parts = ["## Time per step", *figures.get("time", ())]
    for problem in context.problems:
        parts += [f"### {escape(problem.label)}", times_table(problem), *_calls(problem)]
    parts.append("The fastest right answer of each column is bold. Times marked wrong take no part in any comparison.")
    return parts


def _calls(problem: Problem) -> list[str]:
    """How many calls stand behind the table, how many were warm-ups and outliers, and who was not warm yet."""
    found = [(p, s, calls_of(s)) for p, group in problem.summaries.items() for s in group.values() if s.time]
    kept, warmups, outliers = (sum(getattr(c, name) for _, _, c in found) for name in ("kept", "warmups", "outliers"))
    if not kept:
        return []
    by_backend: Counter[str] = Counter()
    for _, s, c in found:
        by_backend[s.backend] += c.outliers
    most = ", ".join(f"{escape(name)} {count:,}" for name, count in by_backend.most_common(3) if count)
    said = f"{kept:,} calls, after {warmups:,} warm-ups that are left out. Outliers, kept: {outliers:,}"
    said += f" ({percent(outliers / kept)}), most of {most}." if outliers else "."
    slow = [
        f"- {escape(s.backend)}, {escape(str(p))}: its first counted call takes {times_with_interval(c.first)} as long "
        "as the later ones; it was not warm yet. The median of a turn is little moved by one call."
        for p, s, c in found
        if c.unsettled and c.first
    ]
    return [said, "\n".join(slow)] if slow else [said]


def speedup(context: Context, figures: Figures) -> list[str]:
    """Speed-up over the reference; left out where there is nobody to compare."""
    if not figures.get("speedup") or context.reference is None:
        return []
    parts = [f"## Speed-up over {escape(context.reference)}", *figures["speedup"]]
    for problem in context.problems:
        parts += [f"### {escape(problem.label)}", speedup_table(context, problem)]
    return parts


def costs(context: Context, figures: Figures) -> list[str]:
    """Import, preparation, first call, steady state, and the break-even step."""
    drawn = [*figures.get("costs", ()), *figures.get("break-even", ())]
    if not drawn:
        unknown = "Import and first calls were not timed: in a quick run the backends start and compile side by side."
        return ["## Where the time goes", unknown] if context.quick and context.records else []
    reading = (
        "The start is import, preparation and first call together, compiling included; our kernels, compiled once for "
        "all sizes, pay in the first workload. *Ahead from step n* means: counted from the start "
        "of both processes, this backend has spent less time in all once n steps are done."
    )
    return ["## Where the time goes", *drawn, reading, *costs_tables(context)]


def errors(context: Context, figures: Figures) -> list[str]:
    """Errors against the oracle."""
    if not figures.get("errors"):
        return []
    parts = ["## Errors against the oracle", *figures["errors"]]
    for problem in context.problems:
        shares = {name: shares_of(problem, name) for name in problem.backends}
        if any(shares.values()):
            parts += [f"### {escape(problem.label)}", errors_table(problem, shares)]
    limits: dict[str, set[float]] = {}
    for r in context.records:
        limits.setdefault(_type_of(r), set()).update(e.limit for e in r.errors.values())
    said = ", ".join(f"{dtype}: {min(of):.0e} to {max(of):.0e}, by array" for dtype, of in sorted(limits.items()) if of)
    parts.append(f"Each figure is the largest error of any pass and round, as a part of its limit ({said}).")
    return [*parts, *judged_in_part(context)]


def judged_in_part(context: Context) -> list[str]:
    """Of each case whose steps were not all judged: how many were, and whose."""
    judged: dict[str, set[str]] = {}
    for s in context.summaries:
        for name in worst_errors(s):
            if part := re.search(r"[0-9]+ of [0-9]+ steps$", name):
                judged.setdefault(f"{escape(context.labels.of(s.case))}, {part.group()}", set()).add(escape(s.backend))
    reason = "beyond those steps rounding alone moves the answer further than a limit can be"
    of_cases = "; ".join(f"{case} ({', '.join(sorted(names))})" for case, names in judged.items())
    return [f"Judged in part, since {reason}: {of_cases}."] if judged else []


def _type_of(record: Record) -> str:
    return "TF32" if record.contract and record.contract.tf32 else str(record.case.dtype)


def _last_row(backend: str, seed: int, epochs: Sequence[Epoch]) -> list[str]:
    last, seconds = epochs[-1], [e.seconds for e in epochs if e.epoch > 0]
    losses = ["-" if v is None else number(v, 4) for v in (last.loss, last.validation_loss)]
    spent = duration(median(seconds)) if seconds else "-"
    accuracies = [percent(last.accuracy), percent(last.validation_accuracy)]
    return [escape(backend), str(seed), f"{last.epoch} of {last.epochs}", *losses, *accuracies, spent]


def _expected(epochs: Iterable[Epoch]) -> list[str]:
    """What accuracy to expect, each once."""
    return list(dict.fromkeys(e.expect for e in epochs if e.expect))


def curves(context: Context, figures: Figures) -> list[str]:
    """Learning curves, and where each training ended."""
    if not figures.get("curves"):
        return []
    parts = ["## Learning curves", *figures["curves"]]
    header = ["backend", "seed", "epoch", "loss", "held-out loss", "accuracy", "held-out accuracy", "an epoch"]
    for (workload, dtype), group in trainings(context.epochs).items():
        rows = [_last_row(backend, seed, epochs) for (backend, seed), epochs in group.items()]
        parts += [f"### {escape(context.labels.problem(workload, dtype, ''))}", table(header, rows)]
        expected = _expected(e for epochs in group.values() for e in epochs)
        parts += [f"{escape(text[0].upper() + text[1:])}." for text in expected]
    parts.append("The last epoch of each training; the time of an epoch is the median, training alone.")
    return parts


def _broken(context: Context) -> dict[tuple[str, str, str], list[Summary]]:
    """(backend, status, reason) -> where it happened."""
    groups: dict[tuple[str, str, str], list[Summary]] = {}
    for s in context.summaries:
        if s.status is not Status.OK or s.reason:
            groups.setdefault((s.backend, str(s.status), s.reason or "no reason kept"), []).append(s)
    return groups


def missing(context: Context) -> list[str]:
    """Every case that has no right answer, or not in all launches, with the whole reason."""
    rows = []
    for (backend, status, reason), group in _broken(context).items():
        where = "every case" if len(group) == len({s.case.key for s in context.summaries}) else _cases(context, group)
        rows.append([escape(backend), status, where, escape(reason)])
    return ["## Not measured, or not fully", table(["backend", "status", "cases", "reason"], rows)] if rows else []


def _cases(context: Context, group: Sequence[Summary]) -> str:
    return escape(", ".join(context.labels.of(s.case) for s in group))
