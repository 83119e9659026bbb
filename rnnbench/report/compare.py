"""A comparison for people and programs: a table for the terminal, Markdown for a pull request, JSON."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rnnbench.analysis.compare import Comparison, Gate, Ratio, Verdict
from rnnbench.analysis.stats import Basis, Interval
from rnnbench.report.markdown import escape, table
from rnnbench.report.text import FOOTNOTES, NO_INTERVAL, Labels, duration, number, short, times_with_interval

_STYLES = {
    Verdict.SLOWER: "bold red", Verdict.FASTER: "bold green", Verdict.SAME: "green", Verdict.INCONCLUSIVE: "yellow",
    Verdict.NOT_COMPARABLE: "red", Verdict.MISSING: "dim",
}  # fmt: skip
_PLAIN = (Verdict.SAME, Verdict.INCONCLUSIVE, Verdict.MISSING)  # folded away in a pull request
HEADER = ("case", "backend", "verdict", "new / base", "base", "new", "launches", "needs")


def ordered(findings: Iterable[Comparison]) -> list[Comparison]:
    """By verdict, what needs a reader first; within one as they came."""
    order = list(Verdict)
    return sorted(findings, key=lambda f: (order.index(f.verdict), not f.broken))


def summary(findings: Sequence[Comparison], gate: Gate) -> list[str]:
    """How many of each verdict, what the ratios say together, and what it would take to decide."""
    counts = Counter(f.verdict for f in findings)
    lines = [f"{', '.join(f'{counts[v]} {v}' for v in Verdict if counts[v])}; by {gate}"]
    ratios = [f.ratio.value for f in findings if f.ratio]
    if len(ratios) > 2:
        lines.append(
            f"median ratio of {len(ratios)} cases: {number(median(ratios))}; where many moved alike, look at the "
            "machine before the code"
        )
    needed = [f.needed for f in findings if f.verdict is Verdict.INCONCLUSIVE and f.needed]
    if needed:
        had = min(min(f.launches) for f in findings if f.needed)
        lines.append(
            f"an inconclusive case would need about {median(needed):,.0f} launches a side (median of {len(needed)}; "
            f"{had} were measured): take a quiet machine, run --rigorous, or a wider margin"
        )
    return lines


def _ratio(ratio: Ratio | None) -> str:
    if ratio is None:
        return ""
    basis = Basis.NONE if math.isnan(ratio.low) else Basis.LAUNCHES
    return times_with_interval(Interval(ratio.value, ratio.low, ratio.high, basis))


def _labels(findings: Iterable[Comparison]) -> Labels:
    return Labels({}, len({f.case.dtype for f in findings}) > 1)


def _cells(f: Comparison, labels: Labels) -> list[str]:
    times = [duration(math.nan if t is None else t) for t in (f.base, f.new)]
    launches = f"{f.launches[0]}, {f.launches[1]}" if any(f.launches) else ""
    return [labels.of(f.case), f.backend, str(f.verdict), _ratio(f.ratio), *times, launches, _needs(f)]


def _needs(f: Comparison) -> str:
    return f"{f.needed:,}" if f.needed else ""


def _reasons(findings: Sequence[Comparison], labels: Labels) -> list[str]:
    """One line for each reason, however many cases share it."""
    groups: dict[str, list[Comparison]] = {}
    for f in ordered(findings):
        if f.reason:
            groups.setdefault(f"{f.verdict}, {short(f.reason, 240)}", []).append(f)
    return [f"{_who(group, labels)}: {reason}" for reason, group in groups.items()]


def _who(group: Sequence[Comparison], labels: Labels) -> str:
    first = f"{labels.of(group[0].case)} {group[0].backend}"
    return first if len(group) == 1 else f"{first} and {len(group) - 1} more"


def _footnotes(findings: Sequence[Comparison]) -> list[str]:
    marked = any(f.ratio and math.isnan(f.ratio.low) for f in findings)
    return [f"{NO_INTERVAL} {FOOTNOTES[NO_INTERVAL]}"] if marked else []


def render(console: Console, findings: Sequence[Comparison], gate: Gate, notes: Sequence[str] = ()) -> None:
    """Print the table, then the reasons, the notes and the counts."""
    labels = _labels(findings)
    shown = Table(box=box.SIMPLE_HEAD)
    for name in HEADER:
        shown.add_column(name, justify="left" if name in ("case", "backend", "verdict") else "right")
    for f in ordered(findings):
        case, backend, verdict, *numbers = _cells(f, labels)
        shown.add_row(Text(case), Text(backend), Text(verdict, style=_STYLES[f.verdict]), *(Text(n) for n in numbers))
    console.print(shown)
    for line in (*_footnotes(findings), *_reasons(findings, labels), *notes, *summary(findings, gate)):
        console.print(Text(line))


def markdown(findings: Sequence[Comparison], gate: Gate, notes: Sequence[str] = ()) -> str:
    """What a reviewer must see as a table, the rest folded."""
    labels = _labels(findings)
    first, *others = summary(findings, gate)
    parts = [f"**rnnbench**: {escape(first)}"]
    rows = [(f.verdict in _PLAIN and not f.broken, [escape(c) for c in _cells(f, labels)]) for f in ordered(findings)]
    loud, quiet = ([cells for plain, cells in rows if plain is folded] for folded in (False, True))
    if loud:
        parts.append(table(HEADER, loud))
    lines = (*_footnotes(findings), *_reasons(findings, labels), *notes, *others)
    if lines:
        parts.append("\n".join(f"- {escape(line)}" for line in lines))
    if quiet:
        more = "other cases" if loud else "cases"
        parts.append(f"<details><summary>{len(quiet)} {more}</summary>\n\n{table(HEADER, quiet)}\n\n</details>")
    return "\n\n".join(parts) + "\n"


def as_json(findings: Sequence[Comparison], gate: Gate, notes: Sequence[str] = ()) -> dict[str, Any]:
    """For programs; seconds a call, None for what is not known."""
    return {
        "metric": str(gate.metric),
        "margin": gate.margin,
        "counts": Counter(str(f.verdict) for f in findings),
        "notes": list(notes),
        "findings": [_fields(f) for f in findings],
    }


def _fields(f: Comparison) -> dict[str, Any]:
    ratio = f.ratio or Ratio(math.nan)
    numbers = {"ratio": ratio.value, "low": ratio.low, "high": ratio.high, "p": ratio.p, "q": ratio.q}
    return {
        "case": f.case.key,
        "workload": f.case.workload,
        "pass": str(f.case.pass_),
        "dtype": str(f.case.dtype),
        "backend": f.backend,
        "verdict": str(f.verdict),
        "reason": f.reason,
        "broken": f.broken,
        "base_seconds": f.base,
        "new_seconds": f.new,
        **{name: value if math.isfinite(value) else None for name, value in numbers.items()},
        "launches": list(f.launches),
        "launches_needed": f.needed,
    }
