"""A comparison as a page: the answer, a picture of what changed, every case, the two sides."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rnnbench.analysis.comparable import Side, unlike_machines
from rnnbench.analysis.compare import Comparison, Gate, Verdict
from rnnbench.model import Pass
from rnnbench.records.folder import refuse_foreign
from rnnbench.report import html, interactive
from rnnbench.report.comment import CHANGED, comment, side_text
from rnnbench.report.compare import (
    TONES,
    answer_items,
    comparison_table,
    in_order_of_verdicts,
    keys_of,
    labels_of,
    ratio_of_comparison,
    reasons,
    verdict_of,
)
from rnnbench.report.data import main_pass
from rnnbench.report.facts import processor_text
from rnnbench.report.interactive import Interactive
from rnnbench.report.section import Block, Figure, Item, Markdown, Section, Toned, table
from rnnbench.report.text import Labels, ratio_value, ratio_with_interval, status_text

PAGE, SHORT = "compare.html", "compare.md"
NEAR = 1.3  # by what factor the axis of ratios follows an interval
JUDGED = """\
New / base is the median of all ratios of a launch of new to one of base, with its 95 % interval by ranks: their
launches are no pairs. *Slower*: surely not equal, and more than the margin above 1. *Faster*: the same in the other
direction. *Same*: the whole interval is within the margin. *Inconclusive*: neither; more launches or a quieter machine
would decide. *Not comparable*: unlike work, threads, type, machine or versions, or one side failed. Of all that is
called slower or faster no more than 5 % is wrong (Benjamini and Hochberg, over all cases together)."""


def comparison_page(
    found: Sequence[Comparison], gate: Gate, notes: Sequence[str], base: Side, new: Side, backends: Sequence[str]
) -> str:
    """The whole file. `backends`: all, in their order."""
    shown = _sections(found, gate, notes, base, new, backends)
    return html.document(shown, f"compare {side_text(base)} with {side_text(new)}", _script(found, gate, backends))


def write_comparison(
    folder: Path, found: Sequence[Comparison], gate: Gate, notes: Sequence[str], base: Side, new: Side,
    backends: Sequence[str],
) -> list[Path]:  # fmt: skip
    """Write the page and the comment. OSError where that cannot be, or a file of that name is not ours."""
    page, short = folder / PAGE, folder / SHORT
    for path, first in ((page, html.FIRST), (short, "**rnnbench: ")):
        if os.path.lexists(path):
            refuse_foreign(path, first)
    folder.mkdir(parents=True, exist_ok=True)
    given = found, gate, notes, base, new, backends
    page.write_text(comparison_page(*given), encoding="utf-8", errors="replace")
    short.write_text(f"{comment(*given)}\n", encoding="utf-8", errors="replace")
    return [page, short]


def _sections(
    found: Sequence[Comparison], gate: Gate, notes: Sequence[str], base: Side, new: Side, backends: Sequence[str]
) -> list[Section]:
    labels, order = labels_of(found), {name: place for place, name in enumerate(backends)}
    judged = f"the {gate.metric} of a turn's calls, over launches; up to {100 * gate.margin:.3g} % is no change."
    ground: list[Item] = [("Judged by", judged)]
    if where := processor_text(new.machine) or processor_text(base.machine):
        ground.append(("Measured on", f"{where}."))
    ground += [("Note", f"{note}.") for note in notes]
    said, items = verdict_of(found).capitalize(), answer_items(found, gate)
    lead: list[Block] = [] if items[0][0] == said else [Toned(f"{said}.", "lead")]
    answer: list[Block] = [*lead, items, ground, Figure("changed")]
    changed = [f for f in in_order_of_verdicts(found) if _changed(f)]
    shown = [Section("Answer", answer)]
    if changed:
        shown.append(Section("What changed", [comparison_table(changed, labels)]))
    why: list[Item] = [("", reason) for reason in reasons(found, labels)]
    return [
        *shown,
        Section("Every case", [Figure("changes"), *_by_network(found, labels, order)]),
        Section("Reasons", [why]),
        Section("The two sides", _sides(base, new)),
        Section("How this is judged", [Markdown(JUDGED)], folded=True),
    ]


def _by_network(found: Sequence[Comparison], labels: Labels, order: Mapping[str, int]) -> list[Block]:
    """A table for each network; in each pass the backends in their order."""
    groups: dict[str, list[Comparison]] = {}
    for f in found:
        groups.setdefault(keys_of(f, labels)["network"], []).append(f)
    passes = list(Pass)
    made: list[Block] = []
    for name, group in groups.items():
        group.sort(key=lambda f: (passes.index(f.case.pass_), order[f.backend]))
        keys = keys_of(group[0], labels)
        own = {key: keys[key] for key in ("network", "cell", "dtype")}
        made.append(Section(name, [comparison_table(group, labels)], keys=own))
    return made


def _sides(base: Side, new: Side) -> list[Block]:
    rows = [[name, *(facts.get(name, "") for facts in (_facts(base), _facts(new)))] for name in _facts(base)]
    unlike: list[Item] = [("Unlike", line) for line in unlike_machines(base, new)]
    return [table(("fact", "base", "new"), rows), unlike]


def _facts(side: Side) -> dict[str, str]:
    """What a reader asks of a side first."""
    git, records = side.machine.get("git") or {}, side.records
    started = sorted(r.started for r in records if r.started)
    return {
        "run": ", ".join(dict.fromkeys(r.run_id for r in records)),
        "started": started[0][:16].replace("T", " ") if started else "unknown",
        "commit": f"{git['commit'][:12]}{', files were changed beside it' if git.get('dirty') else ''}"
        if git.get("commit")
        else "unknown",
        "machine": ", ".join(dict.fromkeys(r.machine_id for r in records)),
        "mode": ", ".join(dict.fromkeys(str(r.mode) for r in records)),
    }


def _changed(f: Comparison) -> bool:
    return f.verdict in CHANGED or f.broken


def _script(found: Sequence[Comparison], gate: Gate, backends: Sequence[str]) -> Interactive:
    labels, order = labels_of(found), {name: place for place, name in enumerate(backends)}
    ordered = sorted(found, key=lambda f: order[f.backend])
    cases = list(dict.fromkeys(f.case.key for f in found))
    ordered.sort(key=lambda f: cases.index(f.case.key))
    first = {f.case.key for f in found if _changed(f)}
    if not first:  # nothing changed: the main pass of each network
        main: dict[str, set[Pass]] = {}
        for f in found:
            main.setdefault(keys_of(f, labels)["network"], set()).add(f.case.pass_)
        first = {f.case.key for f in found if f.case.pass_ is main_pass(main[keys_of(f, labels)["network"]])}
    results = [_result(f, labels, f.case.key in first) for f in ordered]
    choices = interactive.chosen_from(
        [keys_of(f, labels) for f in found], ("network", "cell", "dtype", "pass", "verdict")
    )
    spec = interactive.ROWS | {
        "only": True, "metric": "change", "near": NEAR, "narrowest": 1.5,
        "band": [1 / (1 + gate.margin), 1 + gate.margin],
    }  # fmt: skip
    changed = any(map(_changed, found))
    figures: dict[str, dict[str, Any]] = {}
    if any(f.ratio for f in found):
        label = "What changed" if changed else "New over base in the main pass"
        figures["changed"] = spec | {"main": True, "label": label}
        if not all(r["main"] for r in results):
            figures["changes"] = spec | {"label": "New over base in every case"}
    return Interactive(backends, choices, results, figures)


def _result(f: Comparison, labels: Labels, main: bool) -> dict[str, Any]:
    made: dict[str, Any] = keys_of(f, labels) | {"backend": f.backend, "main": main, "wrong": f.broken}
    ratio = ratio_of_comparison(f)
    if ratio is None:
        return made | {"missing": status_text(str(f.verdict), f.reason, 80)}
    said = f" {f.verdict}" if f.verdict is not Verdict.SAME else ""
    words = f"{ratio_with_interval(ratio)}, {f.verdict}{f': {f.reason}' if f.reason else ''}"
    tone = TONES[f.verdict] if f.verdict in CHANGED else "faint"
    label = f"{ratio_value(ratio)}{said if f.verdict in CHANGED else ''}"
    return made | {"change": interactive.point(ratio, label, words) | {"tone": tone}}
