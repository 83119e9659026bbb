"""A comparison as the comment on a pull request: the verdict, what changed, the rest folded; a screen at most."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rnnbench.analysis.comparable import Side
from rnnbench.analysis.compare import Comparison, Gate, Verdict
from rnnbench.report.compare import (
    TONES,
    answer_items,
    comparison_table,
    counts_text,
    in_order_of_verdicts,
    labels_of,
    reasons,
    verdict_of,
)
from rnnbench.report.facts import processor_text
from rnnbench.report.section import Block, Markdown, Section, Toned, escape, markdown, table
from rnnbench.report.text import Labels, ratio_text

MAX_LINES = 59
MAX_CHANGED, MAX_REASONS, MAX_NOTES = 12, 6, 5  # lines of each
MARGIN = "margin "  # how a note on the noise of the machine begins
CHANGED = (Verdict.SLOWER, Verdict.FASTER)
LEGEND = "new / base of each case; *?*: inconclusive, *unlike*: not comparable, *-*: missing on one side."


def comment(
    found: Sequence[Comparison], gate: Gate, notes: Sequence[str], base: Side, new: Side, backends: Sequence[str]
) -> str:
    """Markdown of fewer than 60 lines, however many cases there are. `backends`: all, in their order."""
    labels = labels_of(found)
    changed = [f for f in in_order_of_verdicts(found) if f.verdict in CHANGED or f.broken]
    named = [(Toned(lead, "lead"), *pieces) for lead, *pieces in answer_items(found, gate)]
    blocks: list[Block] = [Markdown(f"**rnnbench: {verdict_of(found)}.** {escape(counts_text(found, gate))}"), named]
    if changed:
        blocks.append(comparison_table(changed[:MAX_CHANGED], labels))
    blocks += _more(len(changed) - MAX_CHANGED, "changed case")
    blocks += _lines(reasons(found, labels), MAX_REASONS, "reason") + _lines(
        [note for note in notes if not note.startswith(MARGIN)], MAX_NOTES, "note"
    )
    noise = [note for note in notes if note.startswith(MARGIN)]
    margin = noise[0] if noise else f"{MARGIN}{100 * gate.margin:.3g} %, by no A/A run"
    rows = _rows(found, labels, backends)
    title = f"All {len(found)} results" if len(found) > 1 else "The result"

    def whole(count: int) -> str:
        shown = [table(["case", *backends], rows[:count]), *_more(len(rows) - count, "case"), Markdown(LEGEND)]
        sections = [Section("", blocks), Section(title, shown, folded=True), Section("", [_ground(base, new, margin)])]
        return markdown(sections, {})

    text = whole(len(rows))
    over = text.count("\n") + 1 - MAX_LINES
    return text if over <= 0 else whole(len(rows) - over - 2)  # which takes two lines to say so


def _more(count: int, what: str) -> list[Block]:
    """That there are more than are shown."""
    said = f"{count} more {what}{'' if count == 1 else 's'} in the page that `compare -o` writes."
    return [Markdown(said)] if count > 0 else []


def _lines(texts: Sequence[str], most: int, what: str) -> list[Block]:
    return [[("", text) for text in texts[:most]], *_more(len(texts) - most, what)] if texts else []


def _rows(found: Iterable[Comparison], labels: Labels, backends: Sequence[str]) -> list[list[str]]:
    """The ratios of each case, a column for each backend."""
    cases: dict[str, dict[str, Comparison]] = {}
    for f in found:
        cases.setdefault(labels.of(f.case), {})[f.backend] = f
    return [[case, *(_ratio(of.get(name)) for name in backends)] for case, of in cases.items()]


def _ratio(f: Comparison | None) -> str:
    """`1.20x slower`, `1.02x`, `1.04x ?`."""
    if f is None or f.verdict is Verdict.MISSING:
        return "-"
    if f.broken:
        return Toned("broken", "severe")
    if f.ratio is None or f.verdict is Verdict.NOT_COMPARABLE:
        return "unlike"
    text = ratio_text(f.ratio.value)
    if f.verdict in CHANGED:
        return Toned(f"{text} {f.verdict}", TONES[f.verdict])
    return f"{text} ?" if f.verdict is Verdict.INCONCLUSIVE else text


def _ground(base: Side, new: Side, margin: str) -> str:
    """The machine, the commit of either side, and where the margin is from, in one line."""
    machines = list(dict.fromkeys(filter(None, (processor_text(side.machine) for side in (base, new)))))
    machine = [" / ".join(machines)] if machines else []
    return f"{'; '.join([*machine, f'base {side_text(base)}', f'new {side_text(new)}', margin])}."


def side_text(side: Side) -> str:
    """`20261130-235026-0b6a at commit b7e3f9b`: the runs, and the commit where it is known."""
    runs = list(dict.fromkeys(r.run_id for r in side.records))
    more = f" and {len(runs) - 1} more" if len(runs) > 1 else ""
    git = side.machine.get("git") or {}
    commit = f" at commit {git['commit'][:7]}{'+' if git.get('dirty') else ''}" if git.get("commit") else ""
    return f"{runs[0] if runs else 'no run'}{more}{commit}"
