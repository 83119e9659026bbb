"""The sections of a run's report that show results: each is built here once, for the page and for the terminal."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

import msgspec

from rnnbench.analysis.costs import main_cases, spent
from rnnbench.analysis.devices import energy_reasons, energy_sources, joules_of, memory_of
from rnnbench.analysis.diagnostics import calls_of
from rnnbench.analysis.noise import MARK, Noise, ReplicaPair, noise_of
from rnnbench.analysis.roofline import Peak, Rates, reached
from rnnbench.analysis.stats import Summary, ratio_of
from rnnbench.analysis.warnings import Warned
from rnnbench.model import Pass
from rnnbench.records.record import Record, Status
from rnnbench.records.stops import LEAST, Rule, Why
from rnnbench.report.data import ProblemCases, ReportData
from rnnbench.report.plots.curves import curves_by_training
from rnnbench.report.plots.errors import error_shares
from rnnbench.report.section import Block, Figure, Item, Markdown, Section, Toned, table
from rnnbench.report.tables import worst_errors
from rnnbench.report.text import (
    how_sure,
    ranking_text,
    ratio_with_interval,
    scientific,
    short,
    status_text,
    with_interval,
)
from rnnbench.units import Unit, duration, number, percent, threads, unit_for
from rnnbench.work import work_of

if TYPE_CHECKING:
    import pandas as pd

LEADS = """\
Times are of one call; `3.3x (3.1 to 3.5) ahead of` is the ratio of times within rounds and its 95 % interval."""
BEST = """\
The fastest right answer of each column is bold. Times marked wrong take no part in any comparison."""
START = """\
The start is import, preparation and first call together, compiling included; our kernels, compiled once for all
sizes, pay in the first workload. *Ahead from step n* means: counted from the start of both processes, this backend has
spent less time in all once n steps are done."""
PRECISION = """\
How far the 95 % interval of a time reaches above it, and after how many launches; what ended them, where it was not
that all times of the case were precise enough."""
ENERGY = """\
Joules of one call: what the counters gained over a turn, over its calls, warm-ups too. The counters are of the whole
processor or, of a backend on a GPU, of that GPU only: the two are not to be compared. What other programs and idle
cores take is in them, so a fast answer is also charged for less of that."""
MEMORY = """\
The most resident memory of a process that did nothing but prepare and call the pass twice; in brackets what of it came
after preparing, compiling included, where the system tells. The rest is the interpreter, the library and the data."""
PEAK = """\
Operations are those of the matrix products that the equations need, two in each multiply-add; tanh, losses and the
optimizer are not counted. Equal tokens have equal products: a backend that computes them once is credited with all.
Traffic is the least that must pass to and from memory, each array once and the states twice; small networks stay in
cache, and may lie above the roof that memory sets. The formulas stand in `rnnbench/work.py`."""


def by_pass(problem: ProblemCases, cell: Callable[[Summary], str], heading: Callable[[Pass], str]) -> pd.DataFrame:
    """A row for each backend, a column for each pass."""
    rows = [
        [name, *(cell(s) if (s := problem.get(p, name)) else Toned("not asked", "absent") for p in problem.cases)]
        for name in problem.ordered
    ]
    return table(["backend", *map(heading, problem.cases)], rows)


def unmeasured(s: Summary, limit: int = 40) -> str:
    """What stands in the place of a number: the status and the reason."""
    return Toned(status_text(str(s.status), s.reason, limit), "wrong" if s.status is Status.WRONG else "absent")


def marked_wrong(s: Summary, text: str, best: bool = False) -> str:
    """A number of an answer, with a mark where that is wrong or the best of its column."""
    if s.status is Status.WRONG:
        return Toned(f"wrong: {text}", "wrong")
    return Toned(text, "best") if best else text


def answer(data: ReportData) -> Section:
    """First of all: the fastest of each case, its lead, and how sure that is."""
    if not data.records:
        return Section("Answer", [Toned("No case was measured: there are no records.", "wrong")])
    items: list[Item] = [
        (data.labels.of(r.case), ranking_text(r), Toned(f"({how_sure(r)}).", "good" if r.sure else "unsure"))
        for r in data.rankings
    ]
    return Section("Answer", [items, Markdown(LEADS)], brief=[items])


def warnings(found: Sequence[Warned]) -> Section:
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


def times(data: ReportData) -> Section:
    """Time per step, drawn and in figures."""
    title = "Time per step"
    if not any(s.time for s in data.summaries):
        silent = "Nothing was timed; the reasons are under Not measured."
        return Section(title, [silent] if data.records else [], brief=[])
    blocks: list[Block] = [Figure("time")]
    for problem in data.problems:
        shown = _times_table(data, problem)
        brief = shown.drop(columns=[name for name in map(str, shown) if name.startswith("whole epoch")])
        blocks.append(Section(problem.label, [shown, *_calls(problem)], [brief] if problem.timed else []))
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
        text = with_interval(s.time, unit.seconds * (1 if whole else s.case.steps))
        return marked_wrong(s, text, fastest[s.case.key] == name)

    def heading(pass_: Pass, unit: Unit, whole: bool) -> str:
        if pass_ is not Pass.EPOCH:
            return f"{pass_}, {unit.name}"
        steps = problem.cases[pass_].steps
        return f"whole epoch of {steps} steps, {unit.name}" if whole else f"epoch, {unit.name} a step"

    rows = [[name, *(cell(name, *column) for column in columns)] for name in problem.ordered]
    return table(["backend", *(heading(*column) for column in columns)], rows)


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
    slow: list[Item] = [
        ("", f"{s.backend}, {p}: its first counted call takes {ratio_with_interval(c.first)} as long as the later "
             "ones; it was not warm yet. The median of a turn is little moved by one call.")
        for p, s, c in found
        if c.unsettled and c.first
    ]  # fmt: skip
    return [said, *([slow] if slow else [])]


def speedup(data: ReportData) -> Section:
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

    tables = [Section(problem.label, [by_pass(problem, cell, str)]) for problem in data.problems]
    return Section(f"Speed-up over {reference}", [Figure("speedup"), *tables])


def costs(data: ReportData) -> Section:
    """Import, preparation, first call, steady state, and the step from which a slow start has paid."""
    title = "Where the time goes"
    groups = main_cases(data.summaries)
    if not any(spent(s).start for group in groups.values() for s in group):
        unknown = "Import and first calls were not timed: in a quick run the backends start and compile side by side."
        return Section(title, [unknown] if data.quick and data.records else [])
    blocks: list[Block] = [Figure("costs"), Figure("break-even"), Markdown(START)]
    for case, group in groups.items():
        tables = [_costs_table(group)]
        if any(spent(s).start is not None for s in group if s.ranked):
            tables.append(_break_even_table(data, case.key))
        blocks.append(Section(data.labels.of(case), tables))
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

    header = ["backend", "start", "steady step", *(f"ahead of {rival} ({roles[n]})" for n, rival in against.items())]
    return table(
        header,
        [
            [str(r["backend"]), seconds(r["start_seconds"]), seconds(r["steady_seconds"]),
             *(str(r[f"ahead_of_{name}"]) for name in against)]
            for r in mine
        ],
    )  # fmt: skip


def errors(data: ReportData) -> Section:
    """Errors against the oracle, as parts of their limits."""
    if not any(r.errors for r in data.records):
        return Section("", [])
    blocks: list[Block] = [Figure("errors")]
    for problem in data.problems:
        shares = {name: error_shares(problem, name) for name in problem.backends}
        if any(shares.values()):
            blocks.append(Section(problem.label, [_errors_table(problem, shares)]))
    limits: dict[str, set[float]] = {}
    for r in data.records:
        limits.setdefault(_type_of(r), set()).update(e.limit for e in r.errors.values())
    said = ", ".join(f"{dtype}: {min(of):.0e} to {max(of):.0e}, by array" for dtype, of in sorted(limits.items()) if of)
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
    """Of each case whose steps were not all judged: how many were, and whose."""
    judged: dict[str, set[str]] = {}
    for s in data.summaries:
        for name in worst_errors(s):
            if part := re.search(r"[0-9]+ of [0-9]+ steps$", name):
                judged.setdefault(f"{data.labels.of(s.case)}, {part.group()}", set()).add(s.backend)
    reason = "beyond those steps rounding alone moves the answer further than a limit can be"
    of_cases = "; ".join(f"{case} ({', '.join(sorted(names))})" for case, names in judged.items())
    return [f"Judged in part, since {reason}: {of_cases}."] if judged else []


def _type_of(record: Record) -> str:
    return "TF32" if record.contract and record.contract.tf32 else str(record.case.dtype)


def curves(data: ReportData) -> Section:
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
        said = [f"{text[0].upper() + text[1:]}." for text in expected]
        blocks.append(Section(data.labels.problem(workload, dtype, ""), [table(header, rows), *said]))
    note = "The last epoch of each training; the time of an epoch is the median, of the training only."
    return Section("Learning curves", [*blocks, Markdown(note)])


def missing(data: ReportData) -> Section:
    """Every case that has no right answer, or not in all launches, with the whole reason."""
    groups: dict[tuple[str, str, str], list[Summary]] = {}
    for s in data.summaries:
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


_SHORT = {Why.PRECISE: "", Why.CAP: "cap", Why.BUDGET: "budget", Why.CASE_BUDGET: "case budget", Why.ALL: ""}
_ENDED = {
    Why.PRECISE: "precise enough",
    Why.CAP: "at the cap of launches",
    Why.BUDGET: "by the budget",
    Why.CASE_BUDGET: "by the budget of a case",
    Why.ALL: "after all launches",
}


def stops(data: ReportData) -> Section:
    """How far the interval of each time reaches, after how many launches, and what ended them."""
    labels = {s.case.key: data.labels.of(s.case) for s in data.summaries}
    found = {labels[key]: row for key, row in data.run.get("stops", {}).items() if key in labels}
    if not found:
        return Section("", [])

    def cell(stop: Any) -> str:
        if stop is None:
            return "-"
        reached = "no interval" if stop["reached"] is None else percent(stop["reached"])
        why = _SHORT[Why(stop["why"])]
        return f"{reached}, {stop['launches']}{f' ({why})' if why else ''}"

    names = list(dict.fromkeys(name for row in found.values() for name in row))
    shown = table(["case", *names], [[label, *(cell(row.get(name)) for name in names)] for label, row in found.items()])
    every = [(label, name, stop) for label, row in found.items() for name, stop in row.items()]
    counts = Counter(Why(stop["why"]) for _, _, stop in every)
    brief = f"stopped: {', '.join(f'{counts[why]} {words}' for why, words in _ENDED.items() if counts[why])}"
    if known := [(stop["reached"], f"{label} {name}") for label, name, stop in every if stop["reached"] is not None]:
        brief += f"; the least precise is {max(known)[1]}, {percent(max(known)[0])}"
    asked: list[Block] = []
    if rule := (data.run.get("plan") or {}).get("rule"):
        r = msgspec.convert(rule, Rule)
        asked = [
            f"Each case went on, with all its backends, until every time was precise to {percent(r.precision)}: "
            f"{r.fewest} launches at least, {r.most} at most."
        ]
    return Section("Why it stopped", [*asked, shown, Markdown(PRECISION)], brief=[brief] if every else [])


def noise(data: ReportData) -> Section:
    """Each backend against itself."""
    found = noise_of(data.records) if any(MARK in name for name in data.backends) else None
    if found is None:
        return Section("", [])
    rows = [[data.labels.of(p.case), p.backend, ratio_with_interval(p.ratio), _replica_verdict(p)] for p in found.pairs]
    shown = table(["case", "backend", "its replica over it", "called"], rows)
    return Section("The same code twice", [shown, _noise_text(found)])


def _replica_verdict(pair: ReplicaPair) -> str:
    if math.isnan(pair.q):
        return "cannot be told"
    return "different: a false alarm" if pair.different else "not told apart"


def _noise_text(found: Noise) -> str:
    count = len(found.pairs)
    if found.launches < LEAST:
        return f"{found.launches} launches are too few to call anything different; {LEAST} at least are needed."
    single = sum(pair.excludes_one for pair in found.pairs)
    return (
        f"False alarms: {found.false_alarms} of {count}, judged together; {single} each by its own interval, where "
        f"{number(0.05 * count, decimals=1)} are expected by chance. Of 100 launches, 95 have a ratio within "
        f"{percent(found.spread)} of 1. So the noise floor of {found.launches} launches is {percent(found.floor)}: "
        "compare takes it, but never below 1 %, for its margin on this machine."
    )


def rate(flops_per_second: float) -> str:
    """`12.3 GFLOP/s`."""
    return f"{number(flops_per_second / 1e9)} GFLOP/s"


def ceiling_rows(peak: Peak) -> list[tuple[str, str]]:
    """Name and figures of each ceiling of the machine."""

    def said(rates: Rates) -> str:
        read, mixed = (number(value / 1e9) for value in (rates.read, rates.mixed))
        return f"{rate(rates.flops)}; {read} GB/s read, {mixed} GB/s read and written"

    return [(f"{dtype}, {threads(r.threads)}", said(r)) for dtype, every in peak.rates.items() for r in every]


def ceilings(peak: Peak) -> list[Block]:
    """What was measured of the machine, and how."""
    method = f"Best of many short trials: {peak.method}."
    return [table(["ceiling", "measured"], ceiling_rows(peak)), method, Markdown(PEAK)]


def shares_of_peak(data: ReportData) -> Section:
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

    def section(problem: ProblemCases) -> Section:
        def heading(pass_: Pass) -> str:
            work = work_of(problem.cases[pass_])
            return f"{pass_}: {number(work.flops / 1e6)} MFLOP, {number(work.intensity)} FLOP a byte"

        return Section(problem.label, [by_pass(problem, cell, heading)])

    return Section("Share of the machine's peak", [Figure("roofline"), *ceilings(peak), *map(section, data.problems)])


def energy(data: ReportData) -> Section:
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
        Section(problem.label, [by_pass(problem, cell, lambda p: f"{p}, mJ a call")])
        for problem in data.problems
        if any(joules_of(s) for group in problem.summaries.values() for s in group.values())
    ]
    return Section("Energy", [f"Counted by {', '.join(sources)}.", *tables, Markdown(ENERGY), *said])


def memory(data: ReportData) -> Section:
    """The peak memory of a pass, and what of it the pass itself came to; nothing where that was not asked for."""
    if not any(memory_of(s) for s in data.summaries):
        return Section("", [])

    def cell(s: Summary) -> str:
        found = memory_of(s)
        if found is None:
            return "not measured"
        peak, own, device = (None if v is None else number(v / 1e6) for v in (found.peak, found.own, found.device))
        return f"{peak}{f' ({own})' if own else ''}{f', {device} on the device' if device else ''}"

    tables = [Section(problem.label, [by_pass(problem, cell, lambda p: f"{p}, MB")]) for problem in data.problems]
    return Section("Peak memory of a pass", [*tables, Markdown(MEMORY)])
