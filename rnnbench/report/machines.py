"""The page over machines of a run on a cluster: which backend is fastest where, and how its lead changes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rnnbench.analysis.machines import KindOfMachine, fastest_frame, followed, leads_by_fact, machines_frame
from rnnbench.analysis.ranking import Ranking, choose_reference
from rnnbench.analysis.stats import Summary, by_case
from rnnbench.model import Case, Pass
from rnnbench.records.folder import refuse_foreign
from rnnbench.report import html, interactive
from rnnbench.report.data import by_times, main_pass
from rnnbench.report.interactive import ROWS, Interactive
from rnnbench.report.section import Figure, Item, Markdown, Section, Toned, markdown, table
from rnnbench.report.tables import write_tables
from rnnbench.report.text import Labels, ratio_text, ratio_with_interval, status_text
from rnnbench.units import number

PAGE, WHOLE, TITLE = "machines.md", "machines.html", "# rnnbench over machines: "
MAX_DRAWN = 600  # results that the page draws in rows; of more the tables speak
READING = """\
Every ratio is of two backends on one machine, in the same rounds; times of two machines are never divided. Alike
machines share the problems of their kind: each was measured on one of them, all its backends together."""


def _bytes(size: int | None) -> str:
    return "unknown" if size is None else f"{number(size / 2**20)} MiB"


def _machine_rows(kinds: Sequence[KindOfMachine]) -> list[list[str]]:
    return [
        [
            kind.label,
            ", ".join(kind.names),
            kind.model,
            "unknown" if kind.cores is None else str(kind.cores),
            _bytes(kind.cache_bytes),
            "unknown" if kind.vector_bits is None else f"{kind.vector_bits} bits",
        ]
        for kind in kinds
    ]


def _fastest(ranking: Ranking | None) -> str:
    if ranking is None or ranking.fastest is None:
        return Toned("not measured", "absent")
    if ranking.runner_up is None or ranking.lead is None:
        return f"only {ranking.fastest} was measured"
    if not ranking.lead.above_one:
        return Toned(f"{ranking.fastest} or {ranking.runner_up}, no sure difference", "unsure")
    return f"{ranking.fastest}, {ratio_with_interval(ranking.lead)} ahead of {ranking.runner_up}"


def _value(fact: str, value: int) -> str:
    return {"cores": str(value), "largest cache": _bytes(value), "vector width": f"{value} bits"}[fact]


def _cases(kinds: Sequence[KindOfMachine]) -> list[Case]:
    """All cases, each once."""
    return list({r.key: r.case for kind in kinds for r in kind.rankings.values()}.values())


def _labels(cases: Sequence[Case]) -> Labels:
    return Labels({}, len({case.dtype for case in cases}) > 1)


def _answer(kinds: Sequence[KindOfMachine]) -> list[Item]:
    """Of each kind: how many cases each backend is surely the fastest in."""
    items: list[Item] = []
    for kind in kinds:
        found = [r for r in kind.rankings.values() if r.fastest]
        sure = Counter(r.fastest for r in found if r.lead and r.lead.above_one)
        said = [f"{name} is fastest in {count}" for name, count in sure.most_common()]
        if unsure := len(found) - sure.total():
            said.append(f"no sure difference in {unsure}")
        count = f"{len(found)} case{'s' * (len(found) != 1)}"
        items.append((kind.label, f"{count}; {', '.join(said)}" if found else "nothing was measured"))
    return items


def machines_sections(kinds: Sequence[KindOfMachine]) -> list[Section]:
    """The sections of the page, in any of its forms."""
    backend, cases = followed(kinds), _cases(kinds)
    labels = _labels(cases)
    where = table(
        ["case", *(k.label for k in kinds)],
        [[case.key, *(_fastest(kind.rankings.get(case.key)) for kind in kinds)] for case in cases],
    )
    where.attrs |= {"keys": [labels.keys(case) for case in cases], "machines": [k.label for k in kinds]}
    lead = f"{backend} is fastest most often." if backend else "No two backends were measured in one case."
    found = [
        Section("Answer", [Toned(lead, "lead"), _answer(kinds), Figure("speedup")]),
        Section("Which backend is fastest where", [where, Markdown(READING)]),
        Section("The machines", [table(
            ["kind", "machines", "processor", "cores", "largest cache", "vectors"], _machine_rows(kinds)
        )]),
    ]  # fmt: skip
    leads = leads_by_fact(kinds, backend) if backend else []
    if leads:
        header = ["by", "value", "kinds", "lead", "ahead in"]
        said = [
            [at.fact, _value(at.fact, at.value), ", ".join(at.kinds), ratio_text(at.lead), f"{at.ahead} of {at.cases}"]
            for at in leads
        ]
        note = (
            f"The time of the fastest rival of {backend} over its own, as a geometric mean over the cases that all "
            "kinds measured. Machines differ in more than one thing at a time: this shows what goes together, and not "
            "why."
        )
        found.append(Section(f"How the lead of {backend} changes", [table(header, said), note]))
    return found


def _links(kinds: Sequence[KindOfMachine], name: str) -> str:
    return "The report of each kind: " + " · ".join(f"[{kind.label}]({kind.label}/{name})" for kind in kinds)


def _result(kind: KindOfMachine, s: Summary, group: Sequence[Summary], labels: Labels, main: bool) -> dict[str, Any]:
    """A backend's speed-ups over the others in a case, all on one kind of machine."""
    made: dict[str, Any] = labels.keys(s.case) | {
        "machine": kind.label, "backend": s.backend, "main": main, "wrong": str(s.status) == "wrong",
    }  # fmt: skip
    if not s.ranked:
        return made | {"missing": status_text(str(s.status), s.reason, 80)}
    return made | {"over": interactive.ratios_over(s, group)}


def _order(kinds: Sequence[KindOfMachine]) -> list[str]:
    """All backends, by their times over the fastest's on the same machine; those that have none come last."""
    every = [s for kind in kinds for s in kind.summaries]
    groups = [group for kind in kinds for group in by_case(kind.summaries).values()]
    times = [{s.backend: s.time.value for s in group if s.ranked and s.time} for group in groups]
    return by_times(times, (s.backend for s in every))


def _script(kinds: Sequence[KindOfMachine]) -> Interactive:
    cases = _cases(kinds)
    labels = _labels(cases)
    every = [s for kind in kinds for s in kind.summaries]
    backends, passes = _order(kinds), dict[str, set[Pass]]()
    for case in cases:
        passes.setdefault(labels.keys(case)["network"], set()).add(case.pass_)
    groups = {(kind.label, key): group for kind in kinds for key, group in by_case(kind.summaries).items()}
    results = [
        _result(kind, s, group, labels, case.pass_ is main_pass(passes[labels.keys(case)["network"]]))
        for case in cases
        for kind in kinds
        for group in [groups.get((kind.label, case.key), [])]
        for s in sorted(group, key=lambda s: backends.index(s.backend))
    ]
    choices = interactive.chosen_from(results, ("machine", "network", "cell", "dtype", "pass"))
    drawn = len(results) <= MAX_DRAWN and any(len(r.get("over", ())) > 1 for r in results)
    label = "Speed-up on each kind of machine"
    figures = {"speedup": ROWS | {"main": True, "only": True, "metric": "over", "label": label}} if drawn else {}
    return Interactive(backends, choices, results, figures, choose_reference(every))


def machines_page(run_id: str, kinds: Sequence[KindOfMachine]) -> str:
    """The page as one HTML file."""
    answer, *rest = machines_sections(kinds)
    lead, items, figure = answer.blocks
    answer = replace(answer, blocks=[lead, items, Markdown(_links(kinds, "report.html")), figure])
    return html.document([answer, *rest], f"over machines {run_id}", _script(kinds))


def write_machines_page(folder: Path, run_id: str, kinds: Sequence[KindOfMachine]) -> Path:
    """Write `machines.md`, `machines.html` and two tables into the folder of a run over a cluster; the path of the
    first. OSError where that cannot be.
    """
    page, whole = folder / PAGE, folder / WHOLE
    refuse_foreign(page, TITLE)
    if os.path.lexists(whole):
        refuse_foreign(whole, html.FIRST)
    write_tables(folder / "tables", {"machines": machines_frame(kinds), "fastest": fastest_frame(kinds)})
    whole.write_text(machines_page(run_id, kinds), encoding="utf-8", errors="replace")
    link = f"[**The same as a page with filters**]({WHOLE})"
    parts = [f"{TITLE}{run_id}", link, _links(kinds, "report.md"), markdown(machines_sections(kinds), {})]
    page.write_text("\n\n".join(parts) + "\n", encoding="utf-8", errors="replace")
    return page
