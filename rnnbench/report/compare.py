"""A comparison for people and programs: its answer in words, a table for the terminal, JSON."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from rnnbench.analysis.compare import Comparison, Gate, Ratio, Verdict
from rnnbench.analysis.stats import Basis, Interval
from rnnbench.report.section import Item, Section, Toned, table
from rnnbench.report.text import Labels, ratio_with_interval, short
from rnnbench.units import duration, number

if TYPE_CHECKING:
    import pandas as pd

TONES = {
    Verdict.SLOWER: "severe", Verdict.FASTER: "best", Verdict.SAME: "good", Verdict.INCONCLUSIVE: "unsure",
    Verdict.NOT_COMPARABLE: "wrong", Verdict.MISSING: "absent",
}  # fmt: skip
_CHANCE = re.compile(r" \([pq] [^)]*\)")
MAX_NAMED = 3  # cases of a verdict in a sentence
HEADER = ("case", "backend", "verdict", "new / base", "base", "new", "launches", "needs")


def in_order_of_verdicts(found: Iterable[Comparison]) -> list[Comparison]:
    """Comparisons by verdict, those that need a reader first; within one as they came."""
    order = list(Verdict)
    return sorted(found, key=lambda f: (order.index(f.verdict), not f.broken))


def named(f: Comparison, labels: Labels) -> str:
    """`imdb-50 train_step numba 1.20x (1.17 to 1.23)`."""
    ratio = ratio_of_comparison(f)
    return f"{labels.of(f.case)} {f.backend}{f' {ratio_with_interval(ratio)}' if ratio else ''}"


def ratio_of_comparison(f: Comparison) -> Interval | None:
    """New over base with its interval, None where there is no ratio."""
    if f.ratio is None:
        return None
    basis = Basis.NONE if math.isnan(f.ratio.low) else Basis.LAUNCHES
    return Interval(f.ratio.value, f.ratio.low, f.ratio.high, basis)


def counts_text(found: Sequence[Comparison], gate: Gate) -> str:
    """`1 slower, 8 same; by median:5%`."""
    counts = Counter(f.verdict for f in found)
    return f"{', '.join(f'{counts[v]} {v}' for v in Verdict if counts[v])}; by {gate}"


def verdict_of(found: Sequence[Comparison]) -> str:
    """The comparison in a word or two."""
    verdicts = {f.verdict for f in found}
    if Verdict.SLOWER in verdicts:
        return "slower"
    if any(f.broken for f in found):
        return "broken"
    if not verdicts & {Verdict.FASTER, Verdict.SAME, Verdict.INCONCLUSIVE}:
        return "nothing could be compared"
    if Verdict.FASTER in verdicts:
        return "faster"
    return "inconclusive" if Verdict.INCONCLUSIVE in verdicts else "no change"


def answer_items(found: Sequence[Comparison], gate: Gate) -> list[Item]:
    """What is slower, broken or faster, by name; what is not known, and what would help."""
    labels, items = labels_of(found), list[Item]()
    margin = f"{100 * gate.margin:.3g} %"
    for verdict, towards in ((Verdict.SLOWER, -1), (Verdict.FASTER, 1)):
        changed = [f for f in found if f.verdict is verdict and f.ratio]
        changed.sort(key=lambda f: towards * f.ratio.value if f.ratio else 0.0)
        if changed:
            said = f"{_cases(len(changed), len(found))} by more than {margin}: {_first(changed, labels)}."
            items.append((Toned(str(verdict).capitalize(), TONES[verdict]), said))
    if broken := [f for f in found if f.broken]:
        said = f"{_cases(len(broken), len(found))} failed or gave a wrong answer in new: {_first(broken, labels)}."
        items.append((Toned("Broken", "severe"), said))
    if same := sum(f.verdict is Verdict.SAME for f in found):
        items.append((Toned("Same", "good"), f"{_cases(same, len(found))}, within {margin}."))
    if unsure := [f for f in found if f.verdict is Verdict.INCONCLUSIVE]:
        items.append((Toned("Inconclusive", "unsure"), f"{_cases(len(unsure), len(found))}{_needed(unsure)}."))
    if unlike := sum(f.verdict is Verdict.NOT_COMPARABLE for f in found):
        said = "the sides did not do the same work on the same machine, or one of them failed."
        items.append((Toned("Not comparable", "wrong"), f"{_cases(unlike, len(found))}: {said}"))
    ratios = [f.ratio.value for f in found if f.ratio]
    if len(ratios) > 2 and any(f.verdict in (Verdict.SLOWER, Verdict.FASTER) for f in found):
        said = "where many moved alike, look at the machine before the code."
        items.append(("Median ratio", f"{number(median(ratios))} over {len(ratios)} cases; {said}"))
    return items


def _cases(count: int, of: int) -> str:
    return f"{count} of {of} {'case' if of == 1 else 'cases'}"


def _first(found: Sequence[Comparison], labels: Labels) -> str:
    more = f" and {len(found) - MAX_NAMED} more" if len(found) > MAX_NAMED else ""
    return f"{', '.join(named(f, labels) for f in found[:MAX_NAMED])}{more}"


def _needed(found: Sequence[Comparison]) -> str:
    """What it would take to decide."""
    needed = [f.needed for f in found if f.needed]
    if not needed:
        return ""
    had = min(min(f.launches) for f in found if f.needed)
    return (
        f": one would need about {median(needed):,.0f} launches a side (median of {len(needed)}; {had} were measured); "
        "take a quiet machine, run --rigorous, or a wider margin"
    )


def labels_of(found: Iterable[Comparison]) -> Labels:
    """How cases are called here."""
    return Labels({}, len({f.case.dtype for f in found}) > 1)


def comparison_table(found: Iterable[Comparison], labels: Labels) -> pd.DataFrame:
    """A row for each case and backend; launches only where they differ, and those needed only where some are."""
    found = list(found)
    left_out = {"launches"} if len({f.launches for f in found if any(f.launches)}) < 2 else set()
    left_out |= set() if any(f.needed for f in found) else {"needs"}
    shown = table(HEADER, [_cells(f, labels) for f in found]).drop(columns=[*left_out])
    shown.attrs["keys"] = [keys_of(f, labels) for f in found]
    return shown


def keys_of(f: Comparison, labels: Labels) -> dict[str, str]:
    """What the filters of a page know a row by."""
    return labels.keys(f.case) | {"verdict": str(f.verdict)}


def _cells(f: Comparison, labels: Labels) -> list[str]:
    ratio = ratio_of_comparison(f)
    times = [duration(math.nan if t is None else t) for t in (f.base, f.new)]
    launches = f"{f.launches[0]}, {f.launches[1]}" if any(f.launches) else ""
    verdict, needs = Toned(f.verdict, TONES[f.verdict]), f"{f.needed:,}" if f.needed else ""
    said = ratio_with_interval(ratio) if ratio else ""
    return [labels.of(f.case), f.backend, verdict, said, *times, launches, needs]


def reasons(found: Sequence[Comparison], labels: Labels) -> list[str]:
    """One line for each reason, however many cases share it."""
    groups: dict[str, list[Comparison]] = {}
    for f in in_order_of_verdicts(found):
        if f.reason:
            reason = _CHANCE.sub("", f.reason)  # which differs from case to case
            groups.setdefault(f"{f.verdict}, {short(reason, 240)}", []).append(f)
    lines = []
    for reason, group in groups.items():
        more = "" if len(group) == 1 else f" and {len(group) - 1} more"
        lines.append(f"{labels.of(group[0].case)} {group[0].backend}{more}: {reason}")
    return lines


def comparison_sections(found: Sequence[Comparison], gate: Gate, notes: Sequence[str] = ()) -> list[Section]:
    """For the terminal: the table, the reasons, the notes, and last the answer, with how many of each verdict."""
    labels = labels_of(found)
    shown = comparison_table(in_order_of_verdicts(found), labels).drop(columns="needs", errors="ignore")
    every: list[Item] = [("", line) for line in (*reasons(found, labels), *notes)]
    return [Section("", [shown, every, answer_items(found, gate), counts_text(found, gate)])]


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
