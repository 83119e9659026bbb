"""A comparison for people and programs: a table and sentences for the terminal or a pull request, JSON."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from rnnbench.analysis.compare import Comparison, Gate, Ratio, Verdict
from rnnbench.analysis.stats import Basis, Interval
from rnnbench.report.section import Block, Markdown, Section, Toned, escape, table
from rnnbench.report.text import Labels, ratio_with_interval, short
from rnnbench.units import duration, number

TONES = {
    Verdict.SLOWER: "severe", Verdict.FASTER: "best", Verdict.SAME: "good", Verdict.INCONCLUSIVE: "unsure",
    Verdict.NOT_COMPARABLE: "wrong", Verdict.MISSING: "absent",
}  # fmt: skip
_UNREMARKABLE = (Verdict.SAME, Verdict.INCONCLUSIVE, Verdict.MISSING)  # folded away in a pull request
HEADER = ("case", "backend", "verdict", "new / base", "base", "new", "launches", "needs")


def _ordered(found: Iterable[Comparison]) -> list[Comparison]:
    """Comparisons by verdict, those that need a reader first; within one as they came."""
    order = list(Verdict)
    return sorted(found, key=lambda f: (order.index(f.verdict), not f.broken))


def _summary(found: Sequence[Comparison], gate: Gate) -> list[str]:
    """How many of each verdict, what the ratios say together, and what it would take to decide."""
    counts = Counter(f.verdict for f in found)
    lines = [f"{', '.join(f'{counts[v]} {v}' for v in Verdict if counts[v])}; by {gate}"]
    ratios = [f.ratio.value for f in found if f.ratio]
    if len(ratios) > 2:
        lines.append(
            f"median ratio of {len(ratios)} cases: {number(median(ratios))}; where many moved alike, look at the "
            "machine before the code"
        )
    needed = [f.needed for f in found if f.verdict is Verdict.INCONCLUSIVE and f.needed]
    if needed:
        had = min(min(f.launches) for f in found if f.needed)
        lines.append(
            f"an inconclusive case would need about {median(needed):,.0f} launches a side (median of {len(needed)}; "
            f"{had} were measured): take a quiet machine, run --rigorous, or a wider margin"
        )
    return lines


def _cells(f: Comparison, labels: Labels) -> list[str]:
    ratio = ""
    if f.ratio is not None:
        basis = Basis.NONE if math.isnan(f.ratio.low) else Basis.LAUNCHES
        ratio = ratio_with_interval(Interval(f.ratio.value, f.ratio.low, f.ratio.high, basis))
    times = [duration(math.nan if t is None else t) for t in (f.base, f.new)]
    launches = f"{f.launches[0]}, {f.launches[1]}" if any(f.launches) else ""
    verdict = Toned(f.verdict, TONES[f.verdict])
    return [labels.of(f.case), f.backend, verdict, ratio, *times, launches, f"{f.needed:,}" if f.needed else ""]


def _reasons(found: Sequence[Comparison], labels: Labels) -> list[str]:
    """One line for each reason, however many cases share it."""
    groups: dict[str, list[Comparison]] = {}
    for f in _ordered(found):
        if f.reason:
            groups.setdefault(f"{f.verdict}, {short(f.reason, 240)}", []).append(f)
    lines = []
    for reason, group in groups.items():
        more = "" if len(group) == 1 else f" and {len(group) - 1} more"
        lines.append(f"{labels.of(group[0].case)} {group[0].backend}{more}: {reason}")
    return lines


def comparison_sections(
    found: Sequence[Comparison], gate: Gate, notes: Sequence[str] = (), *, folded: bool = False
) -> list[Section]:
    """The table, the reasons, the notes and the counts. `folded`: the counts first, and what is unremarkable hidden."""
    labels = Labels({}, len({f.case.dtype for f in found}) > 1)
    first, *others = _summary(found, gate)
    said = [*_reasons(found, labels), *notes, *others]
    if not folded:
        shown = table(HEADER, [_cells(f, labels) for f in _ordered(found)])
        return [Section("", [shown, *said[: len(said) - len(others)], first, *others])]
    hidden = [f.verdict in _UNREMARKABLE and not f.broken for f in _ordered(found)]
    loud, quiet = (
        [_cells(f, labels) for f, hide in zip(_ordered(found), hidden, strict=True) if hide is wanted]
        for wanted in (False, True)
    )
    blocks: list[Block] = [Markdown(f"**rnnbench**: {escape(first)}"), *([table(HEADER, loud)] if loud else [])]
    title = f"{len(quiet)} {'other cases' if loud else 'cases'}"
    rest = [Section(title, [table(HEADER, quiet)], folded=True)] if quiet else []
    return [Section("", [*blocks, [("", line) for line in said], *rest])]


def comparison_json(found: Sequence[Comparison], gate: Gate, notes: Sequence[str] = ()) -> dict[str, Any]:
    """For programs; seconds a call, None for what is not known."""
    return {
        "metric": str(gate.metric),
        "margin": gate.margin,
        "counts": Counter(str(f.verdict) for f in found),
        "notes": list(notes),
        "findings": [_fields(f) for f in found],
    }


def _fields(f: Comparison) -> dict[str, Any]:
    ratio = f.ratio or Ratio(math.nan)
    numbers = {"ratio": ratio.value, "low": ratio.low, "high": ratio.high, "p": ratio.p, "q": ratio.q}
    return {
        "case": f.case.key, "workload": f.case.workload, "pass": str(f.case.pass_), "dtype": str(f.case.dtype),
        "backend": f.backend, "verdict": str(f.verdict), "reason": f.reason, "broken": f.broken,
        "base_seconds": f.base, "new_seconds": f.new,
        **{name: value if math.isfinite(value) else None for name, value in numbers.items()},
        "launches": list(f.launches), "launches_needed": f.needed,
    }  # fmt: skip
