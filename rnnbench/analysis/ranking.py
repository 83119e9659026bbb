"""Who won: the fastest right backend of each case, how far ahead, how sure; and every speed-up over a reference."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rnnbench.analysis.stats import Basis, Interval, Summary, by_case, ratio_of
from rnnbench.model import Case

if TYPE_CHECKING:
    import pandas as pd

# Whom to compare with where nobody was chosen: the first of these that was measured, else the first backend that was.
_REFERENCES = ("torch", "numpy")


@dataclass(frozen=True)
class Answer:
    """The answer to one case. `ratio` is how many times faster the winner is than the runner-up, by shared rounds.

    `winner` is None where nobody was measured, `runner_up` where nobody else was, `ratio` where the two share no
    round. `sure`: the whole interval of the ratio, taken over launches, lies above 1. `over_reference` is the same
    ratio to `reference`, None where that is the winner itself or was not measured. `silent` tells the status of each
    backend that is out of the ranking.
    """

    case: Case
    winner: str | None
    seconds: float  # a call
    runner_up: str | None
    ratio: float | None
    low: float
    high: float
    basis: Basis
    sure: bool
    reference: str | None
    over_reference: Interval | None
    silent: dict[str, str]

    @property
    def key(self) -> str:
        """The key of the case."""
        return self.case.key


def choose_reference(found: Sequence[Summary], wanted: str | None = None) -> str | None:
    """`wanted`, or a backend that was measured in some case, or None. Raises ValueError where `wanted` is not there."""
    there = list(dict.fromkeys(s.backend for s in found))
    if wanted is not None:
        if found and wanted not in there:
            raise ValueError(f"reference {wanted!r} is not in this run; choose one of {', '.join(there)}")
        return wanted
    measured = list(dict.fromkeys(s.backend for s in found if s.ranked))
    return next((name for name in (*_REFERENCES, *measured) if name in measured), None)


def _answer(case: Case, group: Sequence[Summary], reference: str | None) -> Answer:
    ranked = sorted((s for s in group if s.ranked), key=lambda s: s.time.value if s.time else math.inf)
    silent = {s.backend: str(s.status) for s in group if not s.ranked}
    if not ranked:
        nothing = (None, math.nan, None, None, math.nan, math.nan, Basis.NONE, False)
        return Answer(case, *nothing, reference, None, silent)
    first, second = ranked[0], ranked[1] if len(ranked) > 1 else None
    lead = ratio_of(second.turns, first.turns) if second else None
    over = next((ratio_of(s.turns, first.turns) for s in ranked[1:] if s.backend == reference), None)
    assert first.time is not None
    return Answer(
        case=case,
        winner=first.backend,
        seconds=first.time.value,
        runner_up=second.backend if second else None,
        ratio=lead.value if lead else None,
        low=lead.low if lead else math.nan,
        high=lead.high if lead else math.nan,
        basis=lead.basis if lead else Basis.NONE,
        sure=lead is not None and lead.above_one,
        reference=reference,
        over_reference=over,
        silent=silent,
    )


def answers(found: Iterable[Summary], reference: str | None = None) -> list[Answer]:
    """One for each case, in order."""
    return [_answer(group[0].case, group, reference) for group in by_case(found).values()]


def _speedup_row(s: Summary, base: Summary | None, reference: str) -> dict[str, object]:
    ratio, reason = None, ""
    if not s.ranked:
        reason = f"{s.status}: {s.reason}" if s.reason else str(s.status)
    elif base is None or not base.ranked:
        reason = f"{reference} is {'not in this case' if base is None else base.status}"
    elif (ratio := ratio_of(base.turns, s.turns)) is None:
        reason = f"never measured in one round with {reference}"
    return {
        "case": s.case.key,
        "workload": s.case.workload,
        "pass": str(s.case.pass_),
        "dtype": str(s.case.dtype),
        "truncation": str(s.case.truncation or ""),
        "backend": s.backend,
        "reference": reference,
        "status": str(s.status),
        "reason": reason,
        "speedup": ratio.value if ratio else math.nan,
        "low": ratio.low if ratio else math.nan,
        "high": ratio.high if ratio else math.nan,
        "basis": str(ratio.basis if ratio else Basis.NONE),
        "shared_rounds": len(s.turns.keys() & base.turns.keys()) if base and s.ranked and base.ranked else 0,
    }


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
                "backend": s.backend, "seconds": s.time.value, "low": s.time.low, "high": s.time.high,
                "behind": behind.value if behind else math.nan, "behind_low": behind.low if behind else math.nan,
                "behind_high": behind.high if behind else math.nan, "sure": behind is not None and behind.above_one,
            })  # fmt: skip
    columns = ["case", "workload", "cell", "pass", "dtype", "truncation", "rank", "backend", "seconds", "low", "high",
               "behind", "behind_low", "behind_high", "sure"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)
