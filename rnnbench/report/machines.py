"""The page over machines of a run on a cluster: which backend is fastest where, and how its lead changes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rnnbench.analysis.machines import KindOfMachine, fastest_frame, followed, leads_by_fact, machines_frame
from rnnbench.analysis.ranking import Ranking
from rnnbench.records.folder import refuse_foreign
from rnnbench.report.section import Markdown, Section, Toned, markdown, table
from rnnbench.report.tables import write_tables
from rnnbench.report.text import ratio_text, ratio_with_interval
from rnnbench.units import number

PAGE, TITLE = "machines.md", "# rnnbench over machines: "
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


def machines_sections(kinds: Sequence[KindOfMachine]) -> list[Section]:
    """The sections of the page."""
    cases = list(dict.fromkeys(key for kind in kinds for key in kind.rankings))
    rows = [[case, *(_fastest(kind.rankings.get(case)) for kind in kinds)] for case in cases]
    found = [
        Section("Which backend is fastest where",
                [table(["case", *(k.label for k in kinds)], rows), Markdown(READING)]),
        Section("The machines", [table(
            ["kind", "machines", "processor", "cores", "largest cache", "vectors"], _machine_rows(kinds)
        )]),
    ]  # fmt: skip
    backend = followed(kinds)
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


def write_machines_page(folder: Path, run_id: str, kinds: Sequence[KindOfMachine]) -> Path:
    """Write `machines.md` and two tables into the folder of a run over a cluster. OSError where that cannot be."""
    page = folder / PAGE
    refuse_foreign(page, TITLE)
    write_tables(folder / "tables", {"machines": machines_frame(kinds), "fastest": fastest_frame(kinds)})
    links = " · ".join(f"[{kind.label}]({kind.label}/report.md)" for kind in kinds)
    parts = [f"{TITLE}{run_id}", f"The report of each kind: {links}", markdown(machines_sections(kinds), {})]
    page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return page
