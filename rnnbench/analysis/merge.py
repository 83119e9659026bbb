"""Several runs of one machine as one: all their launches, renumbered so that no two coincide, and all their curves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import msgspec

from rnnbench.analysis.comparable import Side, unlike_machines, unlike_work
from rnnbench.analysis.roofline import peak_of
from rnnbench.records.account import TimeKind, seconds_of
from rnnbench.records.record import CheckRecord, Epoch, MemoryRecord, Record
from rnnbench.records.store import Loaded

MOST_DIFFERENCES = 5  # told one by one


@dataclass(frozen=True)
class Parent:
    """A run that is merged, and what the user called it."""

    name: str
    loaded: Loaded

    @property
    def run_ids(self) -> list[str]:
        """The runs that its lines are of: several where it is a merge itself."""
        ids = [r.run_id for r in self.loaded.records] + [e.run_id for e in self.loaded.curves]
        return list(dict.fromkeys(ids))

    @property
    def side(self) -> Side:
        """Its records and its machine."""
        return Side(self.loaded.records, self.loaded.machine)

    def asked(self, name: str) -> Any:
        """What its `run.json` says of a field of its plan; None where it does not."""
        plan = self.loaded.run.get("plan")
        return plan.get(name) if isinstance(plan, Mapping) else None


def check(parents: Sequence[Parent], *, force: bool = False) -> list[str]:
    """What differs between the machines, which `force` lets pass; nothing where they are alike.

    Raises ValueError for a run that is there twice, for unlike work under one name, and for unlike machines.
    """
    unlike: list[str] = []
    for a, b in combinations(parents, 2):
        if shared := set(a.run_ids) & set(b.run_ids):
            raise ValueError(f"{a.name} and {b.name} both hold run {', '.join(sorted(shared))}; give each run once")
        if found := _unlike_asked(a, b) or _unlike_work(a.loaded.records, b.loaded.records):
            raise ValueError(f"{a.name} and {b.name} did not do the same: {few(found)}; use compare, or leave one out")
        if a.loaded.records and b.loaded.records:
            unlike += [line for line in unlike_machines(a.side, b.side) if line not in unlike]
    if unlike and not force:
        raise ValueError(
            f"the runs are of unlike machines or versions: {few(unlike)}; merge runs of one machine, or mark the "
            "cases that several of them measured as not comparable with --force"
        )
    return unlike


def few(found: Sequence[str]) -> str:
    """Differences in one sentence; of many the first."""
    more = len(found) - MOST_DIFFERENCES
    return "; ".join([*found[:MOST_DIFFERENCES], *([f"and {more} more"] if more > 0 else [])])


def _unlike_asked(a: Parent, b: Parent) -> list[str]:
    modes = [sorted({str(r.mode) for r in p.loaded.records}) for p in (a, b)]
    found = [] if modes[0] == modes[1] or not all(modes) else [f"mode {' '.join(modes[0])} / {' '.join(modes[1])}"]
    sweeps = [p.asked("sweep") for p in (a, b)]
    return found if sweeps[0] == sweeps[1] else [*found, f"sweep {sweeps[0] or 'none'} / {sweeps[1] or 'none'}"]


def _unlike_work(a: Sequence[Record], b: Sequence[Record]) -> list[str]:
    """Of cases that have one name: sizes, model and seeds, whoever answered; of each backend its contract too."""
    found: dict[str, None] = {}
    for with_contract in (False, True):
        ours, theirs = _by_case(a, with_contract), _by_case(b, with_contract)
        for key in (key for key in ours if key in theirs):
            said = unlike_work(Side(ours[key]), Side(theirs[key]))
            found |= dict.fromkeys(f"{' '.join(key)}: {line}" for line in said)
    return list(found)


def _by_case(records: Iterable[Record], with_contract: bool) -> dict[tuple[str, ...], list[Record]]:
    groups: dict[tuple[str, ...], list[Record]] = {}
    for r in records:
        key = (r.case.key, r.backend) if with_contract else (r.case.key,)
        if not with_contract and isinstance(r, CheckRecord):
            r = replace(r, contract=None)
        groups.setdefault(key, []).append(r)
    return groups


def merged(parents: Sequence[Parent], run_id: str, command: str, unlike: Sequence[str] = ()) -> Loaded:
    """One run of all. Records keep their `run_id`; of like machines all get the first one's id.

    Of `unlike` ones they keep it, with the commit, so that the same machine with other code is another one.
    """
    records: list[Record] = []
    curves: list[Epoch] = []
    told: dict[str, Any] = {}
    machine_id = next((r.machine_id for p in parents for r in p.loaded.records), "")
    first = 0
    for p in parents:
        commit = str((p.loaded.machine.get("git") or {}).get("commit"))[:7]
        mine = [
            replace(
                r if isinstance(r, MemoryRecord) else replace(r, launch=r.launch + first),
                machine_id=f"{r.machine_id} at {commit}" if unlike else machine_id,
            )
            for r in p.loaded.records
        ]
        records += mine
        curves += p.loaded.curves
        told |= {name: _told(name, p, mine) for name in p.run_ids}
        first = 1 + max((r.launch for r in mine if not isinstance(r, MemoryRecord)), default=first - 1)
    run = _run(parents, run_id, command, told, unlike)
    return Loaded(records, curves, run, _machine(parents), [])


def _told(run_id: str, parent: Parent, records: Sequence[Record]) -> dict[str, Any]:
    """What the merged `run.json` says of a run: what is known of it, and which launches are now its."""
    run = parent.loaded.run
    known = run.get("merged", {}).get(run_id) or {name: run.get(name) for name in ("command", "started", "finished")}
    mine = [r for r in records if r.run_id == run_id]
    launches = sorted({r.launch for r in mine if not isinstance(r, MemoryRecord)})
    machines = sorted({r.machine_id for r in mine})
    return {**known, "launches": f"{launches[0]} to {launches[-1]}" if launches else "", "machine": ", ".join(machines)}


def _run(
    parents: Sequence[Parent], run_id: str, command: str, told: Mapping[str, Any], unlike: Sequence[str]
) -> dict[str, Any]:
    runs = [p.loaded.run for p in parents]
    started, finished = ([run[name] for run in runs if run.get(name)] for name in ("started", "finished"))
    seconds = {str(k): round(sum(seconds_of(run).get(k, 0.0) for run in runs), 3) for k in TimeKind}
    return {
        "schema": 1,
        "run_id": run_id,
        "mode": next((str(r.mode) for p in parents for r in p.loaded.records), runs[0].get("mode")),
        "command": command,
        "started": min(started, default=None),
        "finished": max(finished, default=None),
        "merged": dict(told),
        "unlike": list(unlike),
        "beside": list(dict.fromkeys(name for run in runs for name in run.get("beside", ()))),
        "seed": runs[0].get("seed"),
        "reference": runs[0].get("reference") if len({run.get("reference") for run in runs}) == 1 else None,
        "plan": _plan(parents),
        "seconds": {kind: s for kind, s in seconds.items() if s},
    }


def _plan(parents: Sequence[Parent]) -> dict[str, Any]:
    """What was asked of any of them: lists together, and of all else what the first one says."""
    plan: dict[str, Any] = {}
    for p in parents:
        asked = p.loaded.run.get("plan")
        for name, value in (asked if isinstance(asked, Mapping) else {}).items():
            both = isinstance(value, list) and isinstance(plan.get(name), list)
            plan[name] = [*plan[name], *(v for v in value if v not in plan[name])] if both else plan.get(name, value)
    return plan


def _machine(parents: Sequence[Parent]) -> dict[str, Any]:
    """The first one's facts, the workers of all, the highest peak of any, and how busy the busiest was."""
    machines = [p.loaded.machine for p in parents]
    workers = {name: facts for m in reversed(machines) for name, facts in m.get("workers", {}).items()}
    peaks = [peak for m in machines if (peak := peak_of(m))]
    best = peaks[0] if peaks else None
    for other in peaks[1:]:
        if best and _shape(best.rates) == _shape(other.rates):
            best = best.best_of(other)
    facts = {**machines[0], "peak": msgspec.to_builtins(best), "workers": workers}
    for when in ("start", "end"):
        if moments := [m[when] for m in machines if isinstance(m.get(when), Mapping)]:
            facts[when] = _busiest(moments)
    return facts


def _busiest(moments: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of each share and load the highest, and of all else what the first one says."""
    found: dict[str, Any] = dict(moments[0])
    for name in ("load_per_core", "others_share", "stolen_share"):
        values = [m[name] for m in moments if isinstance(m.get(name), int | float)]
        if values:
            found[name] = max(values)
    return found


def _shape(rates: Mapping[Any, Sequence[Any]]) -> dict[Any, list[int]]:
    return {dtype: [r.threads for r in group] for dtype, group in rates.items()}
