"""Which backend is fastest: in each case and how sure that is, over many cases, from which size on a GPU; speed-ups."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from rnnbench.analysis.stats import Basis, Interval, Summary, by_case, case_fields, ratio_of
from rnnbench.model import Case

if TYPE_CHECKING:
    import pandas as pd

# The baseline where none was chosen: the first of these that was measured, else the first backend that was.
_REFERENCES = ("torch", "numpy")


@dataclass(frozen=True)
class Ranking:
    """The answer to one case. `lead` is how many times faster the fastest is than the runner-up, by shared rounds.

    `fastest` and its `time` of a call are None where no backend was measured, `runner_up` where only one was, `lead`
    where the two share no round. `over_reference` is the same ratio to `reference`, None where that is the fastest
    itself or was not measured. `unranked` has the status of each backend that is out of the ranking.
    """

    case: Case
    fastest: str | None
    time: Interval | None
    runner_up: str | None
    lead: Interval | None
    reference: str | None
    over_reference: Interval | None
    unranked: dict[str, str]
    threads: tuple[int, ...] = ()  # of the fastest, where they were found

    @property
    def key(self) -> str:
        """The key of the case."""
        return self.case.key

    @property
    def leads(self) -> dict[str, Interval]:
        """Runner-up and reference, as far as they are there, with the lead over each."""
        named = {self.runner_up: self.lead, self.reference: self.over_reference}
        return {name: lead for name, lead in named.items() if name and lead}

    @property
    def sure(self) -> bool:
        """Whether every lead is above 1 for sure."""
        return bool(self.leads) and all(lead.above_one for lead in self.leads.values())


def choose_reference(found: Sequence[Summary], wanted: str | None = None) -> str | None:
    """`wanted`, or a backend that was measured in some case, or None. Raises ValueError where `wanted` is not there."""
    there = list(dict.fromkeys(s.backend for s in found))
    if wanted is not None:
        if found and wanted not in there:
            raise ValueError(f"reference {wanted!r} is not in this run; choose one of {', '.join(there)}")
        return wanted
    measured = list(dict.fromkeys(s.backend for s in found if s.ranked))
    return next((name for name in (*_REFERENCES, *measured) if name in measured), None)


def _ranking(case: Case, group: Sequence[Summary], reference: str | None) -> Ranking:
    ranked = sorted((s for s in group if s.ranked), key=lambda s: s.time.value if s.time else math.inf)
    unranked = {s.backend: str(s.status) for s in group if not s.ranked}
    if not ranked:
        return Ranking(case, None, None, None, None, reference, None, unranked)
    first, second = ranked[0], ranked[1] if len(ranked) > 1 else None
    lead = ratio_of(second.turns, first.turns) if second else None
    over = next((ratio_of(s.turns, first.turns) for s in ranked[1:] if s.backend == reference), None)
    return Ranking(
        case=case,
        fastest=first.backend,
        time=first.time,
        runner_up=second.backend if second else None,
        lead=lead,
        reference=reference,
        over_reference=over,
        unranked=unranked,
        threads=first.threads if first.tried else (),
    )


def rankings(found: Iterable[Summary], reference: str | None = None) -> list[Ranking]:
    """The ranking of each case, in order."""
    return [_ranking(group[0].case, group, reference) for group in by_case(found).values()]


def _speedup_row(s: Summary, base: Summary | None, reference: str) -> dict[str, object]:
    ratio, reason = None, ""
    if not s.ranked:
        reason = f"{s.status}: {s.reason}" if s.reason else str(s.status)
    elif base is None or not base.ranked:
        reason = f"{reference} is {'not in this case' if base is None else base.status}"
    elif (ratio := ratio_of(base.turns, s.turns)) is None:
        reason = f"never measured in one round with {reference}"
    return {
        **case_fields(s.case), "backend": s.backend, "reference": reference, "status": str(s.status),
        "reason": reason, "speedup": ratio.value if ratio else math.nan, "low": ratio.low if ratio else math.nan,
        "high": ratio.high if ratio else math.nan, "basis": str(ratio.basis if ratio else Basis.NONE),
        "shared_rounds": len(s.turns.keys() & base.turns.keys()) if base and s.ranked and base.ranked else 0,
    }  # fmt: skip


def speedups(found: Iterable[Summary], reference: str) -> pd.DataFrame:
    """One row for each case and backend: the reference's time over the backend's, by shared rounds, or why not."""
    import pandas as pd

    rows = []
    for group in by_case(found).values():
        base = next((s for s in group if s.backend == reference), None)
        rows += [_speedup_row(s, base, reference) for s in group]
    return pd.DataFrame(rows)


def ranking(found: Iterable[Summary]) -> pd.DataFrame:
    """One row for each case and backend that was right and timed, the fastest of a case first.

    `behind`: its time over that of the fastest, by shared rounds, with the 95 % interval `behind_low` to `behind_high`;
    `sure`: the interval lies above 1.
    """
    import pandas as pd

    rows = []
    for group in by_case(found).values():
        ranked = sorted((s for s in group if s.ranked and s.time), key=lambda s: s.time.value if s.time else math.inf)
        for rank, s in enumerate(ranked, start=1):
            behind = ratio_of(s.turns, ranked[0].turns) if rank > 1 else Interval(1.0, 1.0, 1.0, Basis.NONE)
            assert s.time is not None
            rows.append({
                "case": s.case.key, "workload": s.case.workload, "cell": s.case.model.cell, "pass": str(s.case.pass_),
                "dtype": str(s.case.dtype), "truncation": str(s.case.truncation or ""), "rank": rank,
                "backend": s.backend, "threads": s.threads[0] if len(s.threads) == 1 else None, "seconds": s.time.value,
                "low": s.time.low, "high": s.time.high,
                "behind": behind.value if behind else math.nan, "behind_low": behind.low if behind else math.nan,
                "behind_high": behind.high if behind else math.nan, "sure": behind is not None and behind.above_one,
            })  # fmt: skip
    columns = ["case", "workload", "cell", "pass", "dtype", "truncation", "rank", "backend", "threads", "seconds",
               "low", "high", "behind", "behind_low", "behind_high", "sure"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns).astype({"threads": "Int64"})


NEAR = 0.9  # of the fastest rival's speed


@dataclass(frozen=True)
class RivalRatio:
    """One backend on one case: the fastest other backend's time over its own, by shared rounds."""

    backend: str
    case: Case
    rival: str
    ratio: float


@dataclass(frozen=True)
class Standing:
    """One backend over all cases that it and at least one rival were measured in."""

    backend: str
    cells: tuple[RivalRatio, ...]

    @property
    def first(self) -> int:
        """In how many cases it is faster than every other."""
        return sum(cell.ratio > 1 for cell in self.cells)

    @property
    def near(self) -> int:
        """In how many cases it has at least `NEAR` of the fastest rival's speed."""
        return sum(cell.ratio >= NEAR for cell in self.cells)

    @property
    def worst(self) -> RivalRatio:
        """The case in which it is furthest behind, or least ahead."""
        return min(self.cells, key=lambda cell: cell.ratio)


def rival_ratios(group: Sequence[Summary]) -> list[RivalRatio]:
    """Each right backend of a case against its fastest right rival, by shared rounds."""
    ranked = [s for s in group if s.ranked]
    cells = []
    for s in ranked:
        ratios = {other.backend: ratio_of(other.turns, s.turns) for other in ranked if other is not s}
        known = {name: ratio.value for name, ratio in ratios.items() if ratio}
        if known:
            rival = min(known, key=lambda name: known[name])
            cells.append(RivalRatio(s.backend, s.case, rival, known[rival]))
    return cells


def standings(found: Iterable[Summary]) -> list[Standing]:
    """The standing of each backend, the one that is first most often in front."""
    cells: dict[str, list[RivalRatio]] = {}
    for group in by_case(found).values():
        for cell in rival_ratios(group):
            cells.setdefault(cell.backend, []).append(cell)
    made = [Standing(backend, tuple(own)) for backend, own in cells.items()]
    return sorted(made, key=lambda s: (-s.first / len(s.cells), -s.near / len(s.cells)))


def cells_frame(found: Iterable[Summary]) -> pd.DataFrame:
    """One row for each case and right backend: the sizes, the fastest rival, and its time over the backend's."""
    import pandas as pd

    rows = [
        {
            "case": cell.case.key,
            "pass": str(cell.case.pass_),
            "dtype": str(cell.case.dtype),
            "H": cell.case.model.H,
            "B": cell.case.B,
            "T": cell.case.T,
            "E": cell.case.model.E,
            "backend": cell.backend,
            "fastest_rival": cell.rival,
            "speed_over_rival": cell.ratio,
        }
        for group in by_case(found).values()
        for cell in rival_ratios(group)
    ]
    return pd.DataFrame(rows)


Line = Mapping[int, float]  # size -> seconds


@dataclass(frozen=True)
class Stretch:
    """Sizes at which the GPU is ahead. None: from the smallest, or up to the largest that was measured."""

    since: float | None
    until: float | None


@dataclass(frozen=True)
class Ahead:
    """Where one line is below another over the sizes that both have; `stretches` from small to large."""

    sizes: tuple[int, ...]
    stretches: tuple[Stretch, ...]

    @property
    def always(self) -> bool:
        """Whether the GPU is ahead at every size."""
        return self.stretches == (Stretch(None, None),)


def fastest_line(lines: Sequence[Line]) -> dict[int, float]:
    """Size -> the shortest time of any line that has it."""
    sizes = sorted({size for line in lines for size in line})
    return {size: min(line[size] for line in lines if size in line) for size in sizes}


def crossing_size(left: tuple[int, float], right: tuple[int, float]) -> float:
    """The size between two where a ratio that is above 1 at one and not at the other is 1: a line in the logarithms."""
    (a, x), (b, y) = ((size, math.log(ratio)) for size, ratio in (left, right))
    part = x / (x - y)
    return math.exp(math.log(a) + part * (math.log(b) - math.log(a)))


def ahead(gpu: Line, cpu: Line) -> Ahead | None:
    """Where `gpu` takes less time than `cpu`; None where they share no size."""
    sizes = tuple(sorted(gpu.keys() & cpu.keys()))
    if not sizes:
        return None
    ratios = [(size, cpu[size] / gpu[size]) for size in sizes]
    stretches: list[Stretch] = []
    since: float | None = None
    inside = ratios[0][1] > 1
    for before, after in pairwise(ratios):
        if (after[1] > 1) == inside:
            continue
        at = crossing_size(before, after)
        if inside:
            stretches.append(Stretch(since, at))
        since, inside = at, not inside
    if inside:
        stretches.append(Stretch(since, None))
    return Ahead(sizes, tuple(stretches))
