"""Where the time goes: import, preparation, first call, steady state; and after how many steps a compiler has paid."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from rnnbench.analysis.stats import NS, Summary, by_case, case_fields, problem_key
from rnnbench.model import Case, Pass
from rnnbench.records.record import COLD, CheckRecord, Costs, Record, checks_in

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = ("import", "prepare_cold", "prepare_warm", "first_call_cold", "first_call_warm", "steady")

# The pass that stands for a problem where one must: a user trains, step by step.
_MAIN = (Pass.TRAIN_STEP, Pass.GRADIENT, Pass.FORWARD)


@dataclass(frozen=True)
class Spent:
    """Seconds of one backend on one case: medians over launches, None where not measured or not applicable.

    `start` is all that comes before the second call: import, preparation and first call, the latter two from a cold
    cache where that was seen: some compile while they prepare. `steady` is one later call.
    """

    backend: str
    imported: float | None
    prepared_cold: float | None
    prepared_warm: float | None
    first_cold: float | None
    first_warm: float | None
    steady: float | None

    @property
    def prepared(self) -> float | None:
        """Preparation, from a cold cache where that was seen."""
        return self.prepared_warm if self.prepared_cold is None else self.prepared_cold

    @property
    def first(self) -> float | None:
        """The first call, from a cold cache where that was seen."""
        return self.first_warm if self.first_cold is None else self.first_cold

    @property
    def start(self) -> float | None:
        """Seconds from the start of the process to the end of the first call; None where that call was not timed."""
        return None if self.first is None else (self.imported or 0.0) + (self.prepared or 0.0) + self.first

    @property
    def start_again(self) -> float | None:
        """`start` once compiled code is on disk; None where no such start was seen."""
        found = (self.imported, self.prepared_warm, self.first_warm)
        return None if self.first_warm is None else sum(v for v in found if v is not None)

    def total(self, steps: float) -> float:
        """Seconds from the start of the process to the end of that many calls, at least 1. NaN where not measured."""
        if self.start is None or self.steady is None:
            return math.nan
        return self.start + (steps - 1) * self.steady


def _median(costs: Iterable[Costs], pick: Callable[[Costs], int | None]) -> float | None:
    values = [value for cost in costs if (value := pick(cost)) is not None]
    return float(np.median(values)) * NS if values else None


def spent(summary: Summary) -> Spent:
    """The costs of one backend on one case."""
    launches: dict[tuple[int, int], Costs] = {}
    for r in checks_in(summary.records):
        if r.costs != Costs() and not summary.mixed:
            launches.setdefault((r.part, r.launch), r.costs)
    every = list(launches.values())
    cold, warm = ([c for c in every if (c.cache == COLD) is wanted] for wanted in (True, False))
    return Spent(
        backend=summary.backend,
        imported=_median(every, lambda c: c.import_ns),
        prepared_cold=_median(cold, lambda c: c.prepare_ns),
        prepared_warm=_median(warm, lambda c: c.prepare_ns),
        first_cold=_median(cold, lambda c: c.first_call_ns),
        first_warm=_median(warm, lambda c: c.first_call_ns),
        steady=summary.time.value if summary.time else None,
    )


def costs_frame(found: Iterable[Summary]) -> pd.DataFrame:
    """One row for each case and backend, in seconds; NaN where not measured or not applicable."""
    import pandas as pd

    rows = []
    for s in found:
        c = spent(s)
        rows.append(
            {
                **case_fields(s.case),
                "backend": s.backend,
                "status": str(s.status),
                "reason": s.reason or "",
                "import_seconds": c.imported,
                "prepare_cold_seconds": c.prepared_cold,
                "prepare_warm_seconds": c.prepared_warm,
                "first_call_cold_seconds": c.first_cold,
                "first_call_warm_seconds": c.first_warm,
                "steady_seconds": c.steady,
            }
        )
    numbers = [f"{name}_seconds" for name in _COLUMNS]
    return pd.DataFrame(rows).astype(dict.fromkeys(numbers, float) if rows else {})


@dataclass(frozen=True)
class BreakEven:
    """When `backend` has spent less time in all than `against`: from call `since` on, and up to call `until`.

    `since` None: never. `until` None: for ever.
    """

    backend: str
    against: str
    since: int | None
    until: int | None

    def __str__(self) -> str:
        if self.since is None:
            return "never"
        if self.until is not None:
            return f"up to step {self.until:,}"
        return "from the first step" if self.since == 1 else f"from step {self.since:,}"


def break_even(a: Spent, b: Spent) -> BreakEven | None:
    """When a is ahead of b, counted from the start of both processes. None where either was not measured.

    Solves start_a + (n - 1) steady_a < start_b + (n - 1) steady_b for whole n from 1.
    """
    if a.start is None or b.start is None or a.steady is None or b.steady is None:
        return None
    behind, gain = a.start - b.start, b.steady - a.steady  # at the first call; won back in each later one
    if behind < 0:
        until = None if gain >= 0 else math.ceil(behind / gain)
        return BreakEven(a.backend, b.backend, 1, until)
    since = math.floor(behind / gain) + 2 if gain > 0 else None
    return BreakEven(a.backend, b.backend, since, None)


def main_cases(found: Iterable[Summary]) -> dict[Case, list[Summary]]:
    """For each problem the summaries of its train step, or of the next best pass of one step that was asked for.

    Their first calls include those of the passes that were called before it in the same process: a compiler may have
    done there what the train step needs.
    """
    problems: dict[tuple[str, str, str], dict[Pass, list[Summary]]] = {}
    for group in by_case(found).values():
        problems.setdefault(problem_key(group[0].case), {})[group[0].case.pass_] = group
    best = {}
    for passes in problems.values():
        main = next((p for p in _MAIN if p in passes), None)
        if main is not None:
            before = [s for p, group in passes.items() if p in _MAIN[_MAIN.index(main) + 1 :] for s in group]
            best[passes[main][0].case] = [_with_first_calls(s, before) for s in passes[main]]
    return best


def _with_first_calls(summary: Summary, before: Sequence[Summary]) -> Summary:
    """The summary with the first calls of the same launches of `before` added to its own."""
    extra: dict[tuple[int, int], int] = {}
    for s in before:
        for r in checks_in(s.records) if s.backend == summary.backend else ():
            extra[r.part, r.launch] = extra.get((r.part, r.launch), 0) + (r.costs.first_call_ns or 0)

    def added(r: Record) -> Record:
        if not isinstance(r, CheckRecord) or r.costs.first_call_ns is None:
            return r
        whole = r.costs.first_call_ns + extra.get((r.part, r.launch), 0)
        return replace(r, costs=replace(r.costs, first_call_ns=whole))

    return replace(summary, records=tuple(added(r) for r in summary.records))


def lightest(group: Sequence[Spent]) -> Spent | None:
    """The one that ends its first call first."""
    started = [c for c in group if c.start is not None]
    return min(started, key=lambda c: c.start or 0.0, default=None)


def break_evens(found: Iterable[Summary], reference: str | None) -> pd.DataFrame:
    """One row for each problem and ranked backend: its start and when it has paid, or why that is not known.

    Against the reference, and against the backend with the shortest start.
    """
    import pandas as pd

    rows: list[dict[str, object]] = []
    for case, group in main_cases(found).items():
        known = {s.backend: spent(s) for s in group if s.ranked}
        light = lightest(list(known.values()))
        rivals = [known.get(reference or ""), light]
        for s in group:
            row: dict[str, object] = {"case": case.key, "workload": case.workload, "backend": s.backend}
            mine = known.get(s.backend)
            row["start_seconds"] = mine.start if mine else None
            row["steady_seconds"] = mine.steady if mine else None
            for name, rival in zip(("reference", "lightest"), rivals, strict=True):
                row[name] = rival.backend if rival else (reference or "") if name == "reference" else ""
                row[f"ahead_of_{name}"] = _ahead(s, mine, rival)
            rows.append(row)
    return pd.DataFrame(rows)


def _ahead(s: Summary, mine: Spent | None, rival: Spent | None) -> str:
    if mine is None:
        return str(s.status) if s.time is None or not s.ranked else "not measured"
    if rival is None:
        return "not measured"
    if rival.backend == mine.backend:
        return "itself"
    found = break_even(mine, rival)
    return "first call not measured" if found is None else str(found)
