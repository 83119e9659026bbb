"""The sections of a run's report that show results: each is built here once, for the page and for the terminal."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from statistics import median
from typing import TYPE_CHECKING, Any

from rnnbench.analysis.costs import main_cases, spent
from rnnbench.analysis.devices import on_gpu
from rnnbench.analysis.diagnostics import calls_of
from rnnbench.analysis.stats import WIDEST, Summary, ratio_of
from rnnbench.analysis.trial import CLEAR, FEWEST_PAIRS, MOST_PAIRS, TIE, Trial, trial_of
from rnnbench.analysis.warnings import Warned
from rnnbench.model import Pass
from rnnbench.records.record import Status, checks_in
from rnnbench.report.data import ProblemCases, ReportData
from rnnbench.report.plots.curves import curves_by_training
from rnnbench.report.plots.errors import error_shares
from rnnbench.report.section import Block, Figure, Item, Markdown, Section, Toned, table
from rnnbench.report.tables import worst_errors
from rnnbench.report.text import (
    ONE_THREAD,
    how_sure,
    ranking_text,
    ratio_text,
    ratio_with_interval,
    scientific,
    short,
    status_text,
    with_interval,
)  # fmt: skip
from rnnbench.units import Unit, duration, number, percent, unit_for

if TYPE_CHECKING:
    import pandas as pd

LEADS = f"""\
Times are of one call; `3.3x (3.1 to 3.5) ahead of` is the ratio of times within rounds and its 95 % interval.
*Noisy*: that is wider than a factor of {WIDEST:g}. *Sure*: ahead of every backend that is named, by however much."""
BEST = """\
The fastest right answer of each column is bold. Times marked wrong take no part in any comparison."""
THREADS = f"""\
Before the first round each backend computes with one thread and with all, in processes of their own, which take turns
in pairs; only the better goes on, and the turns of the trial count in no other number. One thread is taken where the
median of {MOST_PAIRS} pairs shows it faster by more than {100 * (TIE - 1):.0f} %, else all; {FEWEST_PAIRS} pairs are
enough where each shows a factor of {CLEAR}. In brackets: the time by the other number over the time by the one
that is ranked. *Disturbed*: other programs left fewer than {FEWEST_PAIRS} pairs alone; one thread is taken then, unless
all are faster in each pair even so."""
START = """\
The start is import, preparation and first call together, compiling included; our kernels, compiled once for all
sizes, pay in the first workload. *Ahead from step n* means: counted from the start of both processes, this backend has
spent less time in all once n steps are done. With code on disk is after the first launch. As many processes are made
ready at a time as there are cores; of a rigorous run, while nothing is compiled yet, one."""


def by_pass(problem: ProblemCases, cell: Callable[[Summary], str], heading: Callable[[Pass], str]) -> pd.DataFrame:
    """A row for each backend, a column for each pass."""
    rows = [
        [name, *(cell(s) if (s := problem.get(p, name)) else Toned("not asked", "absent") for p in problem.cases)]
        for name in problem.backends
    ]
    return _of_passes(table(["backend", *map(heading, problem.cases)], rows), problem.cases)


def _of_passes(frame: pd.DataFrame, passes: Iterable[Pass]) -> pd.DataFrame:
    """A table that knows which pass each column after the first is of, so that a page can filter by it."""
    frame.attrs["passes"] = {heading: str(p) for heading, p in zip(list(map(str, frame))[1:], passes, strict=True)}
    return frame


def unmeasured(s: Summary, limit: int = 40) -> str:
    """What stands in the place of a number: the status and the reason."""
    return Toned(status_text(str(s.status), s.reason, limit), "wrong" if s.status is Status.WRONG else "absent")


def with_threads(data: ReportData, s: Summary, text: str) -> str:
    """A time with the mark of one thread, in a run that looked for the better number."""
    shown = s.threads == (1,) and not on_gpu(s.records) and any(other.tried for other in data.summaries)
    return f"{text}{ONE_THREAD}" if shown else text


def marked_wrong(s: Summary, text: str, best: bool = False) -> str:
    """A number of an answer, with a mark where that is wrong or the best of its column."""
    if s.status is Status.WRONG:
        return Toned(f"wrong: {text}", "wrong")
    return Toned(text, "best") if best else text


def leads_section(data: ReportData) -> Section:
    """The fastest of each case, its lead, and how sure that is."""
    items: list[Item] = []
    for r in data.rankings:
        said, sure = ranking_text(r), how_sure(r)
        pieces = (said, Toned(f"({sure}).", "good" if r.sure else "unsure")) if sure else (Toned(f"{said}.", "unsure"),)
        items.append((data.labels.of(r.case), *pieces))
    return Section("The fastest in each case", [items, Markdown(LEADS)] if items else [], brief=[items])


def warnings_section(found: Sequence[Warned]) -> Section:
    """What to bear in mind, with its remedy."""
    items: list[Item] = [
        (
            Toned(f"{w.severity}, {w.title}", w.severity),
            f"{w.text}.",
            Toned(f"Remedy: {w.remedy}." * w.counts, "remedy"),
        )
        for w in found
    ]
    return Section("Warnings", [items])


def times_section(data: ReportData) -> Section:
    """Time per step, drawn and in figures."""
    title = "Time per step"
    if not any(s.time for s in data.summaries):
        silent = "Nothing was timed; the reasons are under Not measured."
        return Section(title, [silent] if data.records else [], brief=[])
    blocks: list[Block] = [Figure("time")]
    for problem in data.problems:
        shown = _times_table(data, problem)
        brief = shown.drop(columns=[name for name in map(str, shown) if name.startswith("whole epoch")])
        brief_of = [brief] if problem.timed else []
        blocks.append(Section(problem.label, [shown, *_calls(problem)], brief_of, keys=problem.keys))
    return Section(title, [*blocks, Markdown(BEST)])


def _times_table(data: ReportData, problem: ProblemCases) -> pd.DataFrame:
    """Time per step of each pass; epochs whole as well."""
    every = [s for group in problem.summaries.values() for s in group.values() if s.time]
    per_step = unit_for(s.time.value / s.case.steps for s in every if s.time)
    columns: list[tuple[Pass, Unit, bool]] = [(p, per_step, False) for p in problem.cases]
    if Pass.EPOCH in problem.cases:
        whole = unit_for(s.time.value for s in every if s.time and s.case.pass_ is Pass.EPOCH)
        columns.append((Pass.EPOCH, whole, True))
    fastest = {r.key: r.fastest for r in data.rankings}

    def cell(name: str, pass_: Pass, unit: Unit, whole: bool) -> str:
        s = problem.get(pass_, name)
        if s is None:
            return Toned("not asked", "absent")
        if s.time is None:
            return unmeasured(s)
        text = with_threads(data, s, with_interval(s.time, unit.seconds * (1 if whole else s.case.steps)))
        return marked_wrong(s, text, fastest[s.case.key] == name)

    def heading(pass_: Pass, unit: Unit, whole: bool) -> str:
        if pass_ is not Pass.EPOCH:
            return f"{pass_}, {unit.name}"
        steps = problem.cases[pass_].steps
        return f"whole epoch of {steps} steps, {unit.name}" if whole else f"epoch, {unit.name} a step"

    rows = [[name, *(cell(name, *column) for column in columns)] for name in problem.backends]
    shown = table(["backend", *(heading(*column) for column in columns)], rows)
    return _of_passes(shown, (pass_ for pass_, _, _ in columns))


def _calls(problem: ProblemCases) -> list[Block]:
    """How many calls stand behind the table, how many were warm-ups and outliers, and what was not warm yet."""
    found = [(p, s, calls_of(s)) for p, group in problem.summaries.items() for s in group.values() if s.time]
    kept, warmups, outliers = (sum(getattr(c, name) for _, _, c in found) for name in ("kept", "warmups", "outliers"))
    if not kept:
        return []
    by_backend: Counter[str] = Counter()
    for _, s, c in found:
        by_backend[s.backend] += c.outliers
    most = ", ".join(f"{name} {count:,}" for name, count in by_backend.most_common(3) if count)
    said = f"{kept:,} calls, after {warmups:,} warm-ups that are left out. Outliers, kept: {outliers:,}"
    said += f" ({percent(outliers / kept, 1)}), most of {most}." if outliers else "."
    slow = [
        f"{s.backend} {p} {ratio_with_interval(c.first)}" for p, s, c in found if c.unsettled and c.first is not None
    ]
    late = "Not warm yet at the first counted call, which takes so many times as long as the later ones: "
    late = f"{late}{'; '.join(slow)}. It moves the median of a turn little." if slow else ""
    return [Toned(text, "note") for text in (said, late) if text]


def threads_section(data: ReportData) -> Section:
    """With how many threads each answer is ranked, and by how much they were the better."""
    found = {(s.case.key, s.backend): trial for s in data.summaries if s.time and (trial := trial_of(s))}
    if not found:
        return Section("", [])
    counts = Counter(trial.ranked for trial in found.values())
    said = ", ".join(f"{n:,} of {len(found):,} {_threads(ranked)}" for ranked, n in sorted(counts.items()))
    brief = f"Threads: {said}, the faster in a trial before."
    if data.sweep:
        return Section("Threads", [brief, Markdown(THREADS)], brief=[brief])

    def cell(s: Summary) -> str:
        trial = found.get((s.case.key, s.backend))
        return _trial(trial) if trial else "-"

    named = {name for _, name in found}
    tables = []
    for problem in data.problems:
        shown = by_pass(problem, cell, str)
        tables.append(Section(problem.label, [shown[shown["backend"].isin(named)]], keys=problem.keys))
    return Section("Threads", [brief, *tables, Markdown(THREADS)], brief=[brief], folded=True)


def _threads(ranked: Sequence[int]) -> str:
    return f"by {' or '.join(map(str, ranked))}"


def _trial(trial: Trial) -> str:
    """`1 (1.35x)`: by one thread, with which it was so much faster than with the other number."""
    ranked = " or ".join(map(str, trial.ranked))
    if trial.failed:
        return f"{ranked}, {short(trial.failed, 40)}"
    if trial.ratio is None:
        return ranked
    most = max(trial.tried)
    if trial.disturbed:
        return f"{ranked} (disturbed)"
    return f"{ranked} ({ratio_text(1 / trial.ratio if trial.ranked == (most,) else trial.ratio)})"


def speedup_section(data: ReportData) -> Section:
    """Speed-up over the reference; left out where there is no other backend to compare."""
    reference, lines = data.reference, data.speedups
    if reference is None or lines is None or not (lines["speedup"].notna() & (lines["backend"] != reference)).any():
        return Section("", [])
    reasons = lines.set_index(["case", "backend"])["reason"]
    bases = {s.case.key: s for s in data.summaries if s.backend == reference}

    def cell(s: Summary) -> str:
        base = bases.get(s.case.key)
        ratio = ratio_of(base.turns, s.turns) if base and s.ranked and base.ranked else None
        if ratio is None:
            reason = str(reasons[s.case.key, s.backend])
            return reason if len(reason) < 40 else reason[:39] + "…"
        return "1 (reference)" if s.backend == reference else ratio_with_interval(ratio)

    tables = [Section(problem.label, [by_pass(problem, cell, str)], keys=problem.keys) for problem in data.problems]
    return Section(f"Speed-up over {reference}", tables, keys={"ratio": reference})


def costs_section(data: ReportData) -> Section:
    """Import, preparation, first call, steady state, and the step from which a slow start has paid."""
    title = "Where the time goes"
    groups = {case: data.in_order(group) for case, group in main_cases(data.summaries).items()}
    if not any(spent(s).start for group in groups.values() for s in group):
        unknown = "Import and first calls were not timed: in a quick run the backends start and compile side by side."
        return Section(title, [unknown] if data.quick and data.records else [])
    blocks: list[Block] = [Figure("costs"), Figure("break-even"), Markdown(START)]
    keys = {case.key: problem.keys for problem in data.problems for case in problem.cases.values()}
    for case, group in groups.items():
        tables = [_costs_table(group)]
        if any(spent(s).start is not None for s in group if s.ranked):
            tables.append(_break_even_table(data, case.key))
        blocks.append(Section(data.labels.of(case), tables, keys=keys[case.key]))
    return Section(title, blocks)


def _costs_table(group: Sequence[Summary]) -> pd.DataFrame:
    """Seconds once per process, and one steady step."""
    header = ["backend", "import", "prepare, cold", "prepare, code on disk", "first call, compiling",
              "first call, code on disk", "steady step"]  # fmt: skip
    rows = []
    for s in group:
        c = spent(s)
        found = (c.imported, c.prepared_cold, c.prepared_warm, c.first_cold, c.first_warm, c.steady)
        if all(v is None for v in found):
            rows.append([s.backend, unmeasured(s), *[""] * 5])
        else:
            mark = " (wrong)" if s.status is Status.WRONG else ""
            rows.append([s.backend + mark, *("-" if v is None else duration(v) for v in found)])
    return table(header, rows)


def _break_even_table(data: ReportData, case_key: str) -> pd.DataFrame:
    """When each backend is ahead of the reference, and of the one with the shortest start."""
    lines = data.break_evens
    mine = lines[lines["case"] == case_key].to_dict("records")
    roles = {"reference": "reference", "lightest": "shortest start"}
    against = {name: rival for name in roles if (rival := next((str(r[name]) for r in mine if r[name]), ""))}

    def seconds(value: Any) -> str:
        return duration(float(value)) or "-" if isinstance(value, int | float) else "-"

    mine = data.in_order(mine, itemgetter("backend"))
    header = ["backend", "start", "steady step", *(f"ahead of {rival} ({roles[n]})" for n, rival in against.items())]
    return table(
        header,
        [
            [str(r["backend"]), seconds(r["start_seconds"]), seconds(r["steady_seconds"]),
             *(str(r[f"ahead_of_{name}"]) for name in against)]
            for r in mine
        ],
    )  # fmt: skip


def errors_section(data: ReportData) -> Section:
    """Errors against the oracle, as parts of their limits."""
    if not any(r.errors for r in checks_in(data.records)):
        return Section("", [])
    blocks: list[Block] = [Figure("errors")]
    for problem in data.problems:
        shares = {name: error_shares(problem, name) for name in problem.backends}
        if any(shares.values()):
            blocks.append(Section(problem.label, [_errors_table(problem, shares)], keys=problem.keys))
    limits: dict[str, set[float]] = {}
    for r in checks_in(data.records):
        dtype = "TF32" if r.contract and r.contract.tf32 else str(r.case.dtype)
        limits.setdefault(dtype, set()).update(e.limit for e in r.errors.values())
    said = ", ".join(f"{name}: {min(of):.0e} to {max(of):.0e}, by array" for name, of in sorted(limits.items()) if of)
    blocks.append(f"Each figure is the largest error of any pass and round, as a part of its limit ({said}).")
    return Section("Errors against the oracle", [*blocks, *judged_in_part(data)])


def _errors_table(problem: ProblemCases, shares: dict[str, dict[str, float]]) -> pd.DataFrame:
    groups = list(dict.fromkeys(group for row in shares.values() for group in row))
    rows = []
    for name in problem.backends:
        answers = [s for p in problem.cases if (s := problem.get(p, name))]
        status = next((s for s in answers if s.status is Status.WRONG), answers[0]).status
        rows.append([name, str(status), *(_error_share(shares[name].get(g)) for g in groups)])
    return table(["backend", "status", *groups], rows)


def _error_share(value: float | None) -> str:
    if value is None:
        return "-"
    text = "exact" if value == 0 else "not a number" if math.isinf(value) else scientific(value)
    return Toned(text, "severe") if value > 1 else text


def judged_in_part(data: ReportData) -> list[Block]:
    """A sentence on the cases whose steps were not all judged: how many were, and of which backends."""
    judged: dict[str, set[str]] = {}
    for s in data.summaries:
        for name in worst_errors(s):
            if part := re.search(r"[0-9]+ of [0-9]+ steps$", name):
                judged.setdefault(f"{data.labels.of(s.case)}, {part.group()}", set()).add(s.backend)
    reason = "beyond those steps mere rounding moves the answer further than a limit can be"
    of_cases = "; ".join(f"{case} ({', '.join(sorted(names))})" for case, names in judged.items())
    return [f"Judged in part, since {reason}: {of_cases}."] if judged else []


def curves_section(data: ReportData) -> Section:
    """Learning curves, and where each training ended."""
    if not data.epochs:
        return Section("", [])
    blocks: list[Block] = [Figure("curves")]
    header = ["backend", "seed", "epoch", "loss", "held-out loss", "accuracy", "held-out accuracy", "an epoch"]
    for (workload, dtype), group in curves_by_training(data.epochs).items():
        rows = []
        for (backend, seed), epochs in group.items():
            last, seconds = epochs[-1], [e.seconds for e in epochs if e.epoch > 0]
            losses = ["-" if v is None else number(v, 4) for v in (last.loss, last.validation_loss)]
            accuracies = ["-" if v is None else percent(v, 1) for v in (last.accuracy, last.validation_accuracy)]
            took = duration(median(seconds)) if seconds else "-"
            rows.append([backend, str(seed), f"{last.epoch} of {last.epochs}", *losses, *accuracies, took])
        expected = dict.fromkeys(e.expect for epochs in group.values() for e in epochs if e.expect)
        said: list[Item] = [(workload, f"{text}.") for text in expected]
        label = data.labels.problem(workload, dtype, "")
        blocks.append(Section(label, [table(header, rows), said], keys={"network": label, "dtype": dtype}))
    note = "The last epoch of each training; the time of an epoch is the median, of the training only."
    return Section("Learning curves", [*blocks, Markdown(note)])


def missing_section(data: ReportData) -> Section:
    """Every case that has no right answer, or not in all launches, with the whole reason."""
    groups: dict[tuple[str, str, str], list[Summary]] = {}
    for s in data.in_order(data.summaries):
        if s.status is not Status.OK or s.reason:
            groups.setdefault((s.backend, str(s.status), s.reason or "no reason kept"), []).append(s)
    cases = len({s.case.key for s in data.summaries})
    rows, brief = [], list[Item]()
    for (backend, status, reason), group in groups.items():
        where = "every case" if len(group) == cases else ", ".join(data.labels.of(s.case) for s in group)
        rows.append([backend, status, where, reason])
        count = f"{len(group)} {'case' if len(group) == 1 else 'cases'}"
        brief.append((Toned(f"{backend} {status}", ""), f"{count}, {short(reason, 140)}"))
    shown = [table(["backend", "status", "cases", "reason"], rows)] if rows else []
    return Section("Not measured, or not fully", shown, brief=[brief])
