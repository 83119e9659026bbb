"""The answer of a run: for each network what to use and what comes near, how sure that is, and on what machine.

What weakens it stands before it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from rnnbench.analysis.costs import Spent, break_even, lightest, main_cases, spent
from rnnbench.analysis.ranking import Ranking
from rnnbench.analysis.stats import ratio_of
from rnnbench.analysis.warnings import Severity, disturbing
from rnnbench.model import Pass
from rnnbench.records.record import Status, turns_in
from rnnbench.records.stops import MIN_LAUNCHES
from rnnbench.report.data import ProblemCases, ReportData
from rnnbench.report.facts import processor_text
from rnnbench.report.section import Block, Figure, Item, Section, Toned
from rnnbench.report.text import QUICK, how_sure, leads_text, ratio_text, time_text
from rnnbench.report.to_accuracy import to_accuracy_items, training_cautions
from rnnbench.units import duration

CLOSE = 1.5  # times as long as the fastest: what is named beside it where it starts sooner
A_CALL = {
    Pass.FORWARD: "a forward pass",
    Pass.GRADIENT: "a gradient",
    Pass.TRAIN_STEP: "a train step",
    Pass.EPOCH: "an epoch",
    Pass.STEP: "a time step",
}


def markings(data: ReportData) -> list[Block]:
    """What must be known before any number of the run is read."""
    return [Toned(text, "severe") for text in (data.quick and QUICK, data.unlike) if text]


def cautions(data: ReportData) -> list[Item]:
    """The severe warnings, and what disturbed the run where that is none, with what helps; nothing of a quiet run."""
    if not data.records:
        return []
    worst = disturbing(data.warnings)
    found = [w for w in data.warnings if w.severity is Severity.SEVERE or w is worst]
    items: list[Item] = []
    for w in found:
        if w.kind == "quick" and data.quick:
            continue  # it is one of the marks
        disturbed = "Disturbed" if w.severity is Severity.SEVERE else "Perhaps disturbed"
        lead = disturbed if w is worst else w.title.capitalize()
        items.append((Toned(lead, w.severity), f"{w.text}.", Toned(f"Remedy: {w.remedy}.", "remedy")))
    return items


def answer_section(data: ReportData) -> Section:
    """First of all: what to use for each network, and how sure that is."""
    if not data.records and not data.trainings:
        return Section("Answer", [Toned("No case was measured: there are no records.", "wrong")])
    costs = {case.key: [spent(s) for s in group if s.ranked] for case, group in main_cases(data.summaries).items()}
    items = [_advice(data, problem, costs.get(problem.cases[problem.main].key, [])) for problem in data.problems]
    items += to_accuracy_items(data)
    blocks = [*markings(data), [*cautions(data), *training_cautions(data)], items, list(ground(data))]
    return Section("Answer", [*blocks, Figure("speedup")], brief=[Toned("Answer", "lead"), *blocks])


def _advice(data: ReportData, problem: ProblemCases, costs: Sequence[Spent]) -> Item:
    """What to use for one network, what else comes near, and from where on."""
    rankings = {r.case.pass_: r for r in data.rankings if r.case in problem.cases.values()}
    main = rankings[problem.main]
    if main.fastest is None:
        return (problem.label, Toned(_unmeasured(main), "absent"))
    call = A_CALL[problem.main]
    if main.runner_up is None:
        said = f"only {main.fastest} was measured: {call} takes {time_text(main)}."
        return (problem.label, said, *_other_passes(rankings, main))
    level = _level(problem, main)
    use = f"use {_listed([main.fastest, *level], 'or')}"
    sure = how_sure(main)
    lead = f"{call} takes {f'{main.fastest} ' if level else ''}{time_text(main)}, {leads_text(main)}"
    tone = "good" if main.sure else "unsure"
    pieces = [f"{use}:", *([lead, Toned(f"({sure}).", tone)] if sure else [Toned(f"{lead}.", tone)])]
    return (problem.label, *pieces, *_other_passes(rankings, main), *_sooner(problem, main, level, costs))


def _unmeasured(ranking: Ranking) -> str:
    counts = Counter(ranking.unranked.values())
    return f"no backend was measured ({', '.join(f'{n} {status}' for status, n in counts.items())})."


def _listed(names: Sequence[str], word: str) -> str:
    """`a`, `a or b`, `a, b or c`."""
    return f" {word} ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _level(problem: ProblemCases, main: Ranking) -> list[str]:
    """The backends that the fastest is not surely ahead of, in the order of their times."""
    group = problem.summaries[problem.main]
    first = group[main.fastest or ""]
    found = []
    for s in sorted((s for s in group.values() if s.ranked and s.time), key=lambda s: s.time.value if s.time else 0.0):
        ratio = ratio_of(s.turns, first.turns) if s is not first else None
        if ratio and ratio.lowest <= 1:
            found.append(s.backend)
    return found


def _other_passes(rankings: dict[Pass, Ranking], main: Ranking) -> Iterator[str]:
    """Where the same backend is first in the other passes too, and what is first elsewhere."""
    others = [r for r in rankings.values() if r is not main and r.fastest and r.runner_up]
    if same := [str(r.case.pass_) for r in others if r.fastest == main.fastest]:
        yield f"First in {_listed(same, 'and')} too."
    for r in others:
        if r.fastest != main.fastest:
            yield f"In {r.case.pass_} {r.fastest} is first: {time_text(r)}, {leads_text(r)}."


def _sooner(problem: ProblemCases, main: Ranking, level: Sequence[str], costs: Sequence[Spent]) -> Iterator[str]:
    """What is little slower but starts sooner; and below how many steps the quickest to start is done first."""
    known = {c.backend: c for c in costs if c.start is not None}
    mine, light = known.get(main.fastest or ""), lightest(list(known.values()))
    if mine is None or light is None or mine.start is None:
        return
    group = problem.summaries[problem.main]
    for name, c in known.items():
        ratio = ratio_of(group[name].turns, group[mine.backend].turns)
        if ratio and name not in level and 1 < ratio.value <= CLOSE and (c.start or 0.0) < 0.5 * mine.start:
            yield f"{name} takes {ratio_text(ratio.value)} as long, but starts in {duration(c.start or 0.0, 2)}."
    found = break_even(mine, light) if light is not mine else None
    if found and (found.since is None or found.since > 1) and light.start is not None:
        until = (
            f"For fewer than about {float(f'{found.since:.2g}'):,.0f} steps"
            if found.since
            else "For any number of steps"
        )
        again = mine.start_again
        kept = f", {duration(again, 2)} with its code on disk" if again and again < 0.5 * mine.start else ""
        starts = f"it starts in {duration(light.start, 2)}, {mine.backend} in {duration(mine.start, 2)}{kept}"
        yield f"{until} {light.backend} is done first: {starts}."


def ground(data: ReportData) -> Iterator[Item]:
    """What the answer stands on: how many leads are sure, the machine, and what is left out."""
    compared = [r for r in data.rankings if r.leads]
    launches = len({(r.part, r.launch) for r in turns_in(data.records)})
    if compared:
        if launches < MIN_LAUNCHES:
            counted = "there was only one launch" if launches == 1 else f"there were only {launches} launches"
            said = f"no lead is sure: {counted}, and the spread between launches is known from {MIN_LAUNCHES} on."
        else:
            sure = sum(r.sure for r in compared)
            said = f"in {sure} of {len(compared)} cases every lead is above 1 with its whole 95 % interval"
            said += f", over {launches} launches."
        yield ("How sure", said)
    if where := processor_text(data.machine):
        started = str(data.run.get("started", ""))[:10]
        yield ("Measured on", f"{where}{f', {started}' if started else ''}.")
    wrong = Counter(s.backend for s in data.summaries if s.status is Status.WRONG)
    if wrong:
        named = ", ".join(f"{name} in {n}" for name, n in wrong.items())
        yield (Toned("Wrong, in no ranking", "wrong"), f"{named} of {len(data.rankings)} cases.")
