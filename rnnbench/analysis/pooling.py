"""Several runs of one machine as one with more launches: renumbered so that no two coincide, all curves kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import msgspec

from rnnbench.analysis.comparable import Side, first_few, unlike_machines, unlike_work
from rnnbench.analysis.roofline import peak_of
from rnnbench.records.account import TimeKind, seconds_of
from rnnbench.records.record import CheckRecord, MemoryRecord, Record
from rnnbench.records.store import Loaded


@dataclass(frozen=True)
class NamedRun:
    """A run that was read, and what the user called it."""

    name: str
    loaded: Loaded

    @property
    def run_ids(self) -> list[str]:
        """The runs that its lines are of: several where older versions had merged them into its folder."""
        loaded = self.loaded
        ids = [line.run_id for of in (loaded.records, loaded.curves, loaded.trainings) for line in of]
        return list(dict.fromkeys(ids))

    @property
    def side(self) -> Side:
        """Its records and its machine."""
        return Side(self.loaded.records, self.loaded.machine)

    @property
    def plan(self) -> Mapping[str, Any]:
        """What was asked of it; empty where its `run.json` does not say."""
        plan = self.loaded.run.get("plan")
        return plan if isinstance(plan, Mapping) else {}


def pool(runs: Sequence[NamedRun], *, force: bool = False) -> Loaded:
    """One run of all; of a single one, that one. Records keep their `run_id`.

    Like machines all get the id of the first. Unlike ones, which only `force` admits, keep theirs, with the commit, so
    that a case that several of them measured has no number; `unlike` in the pooled `run` names what differs.

    Raises ValueError for a run that is there twice, for unlike work under one name, and for unlike machines.
    """
    if len(runs) == 1:
        return runs[0].loaded
    unlike = _differences(runs, force)
    machine_id = next((r.machine_id for run in runs for r in run.loaded.records), "")
    records: list[Record] = []
    described: dict[str, dict[str, Any]] = {}
    offset = 0  # of the launches of the next run
    for run in runs:
        commit = str((run.loaded.machine.get("git") or {}).get("commit"))[:7]
        own = [
            replace(
                r if isinstance(r, MemoryRecord) else replace(r, launch=r.launch + offset),
                machine_id=f"{r.machine_id} at {commit}" if unlike else machine_id,
            )
            for r in run.loaded.records
        ]
        records += own
        described |= {run_id: _described(run_id, run.loaded.run, own) for run_id in run.run_ids}
        offset = 1 + max((r.launch for r in own if not isinstance(r, MemoryRecord)), default=offset - 1)
    curves = [epoch for run in runs for epoch in run.loaded.curves]
    trainings = [training for run in runs for training in run.loaded.trainings]
    problems = [f"{run.name}: {problem}" for run in runs for problem in run.loaded.problems]
    return Loaded(records, curves, _run(runs, described, unlike), _machine(runs), problems, trainings)


def _differences(runs: Sequence[NamedRun], force: bool) -> list[str]:
    """What differs between the machines, nothing where they are alike. Raises ValueError for what cannot be pooled."""
    unlike: list[str] = []
    for a, b in combinations(runs, 2):
        if shared := set(a.run_ids) & set(b.run_ids):
            raise ValueError(f"{a.name} and {b.name} both hold run {', '.join(sorted(shared))}; give each run once")
        if found := [*_unlike_plans(a, b), *_unlike_cases(a.loaded.records, b.loaded.records)]:
            raise ValueError(
                f"{a.name} and {b.name} did not do the same: {first_few(found)}; compare them, or leave one out"
            )
        if all(run.loaded.records or run.loaded.trainings for run in (a, b)):
            unlike += [line for line in unlike_machines(a.side, b.side) if line not in unlike]
    if unlike and not force:
        raise ValueError(
            f"the runs are of unlike machines or versions: {first_few(unlike)}; give runs of one machine together, or "
            "have `report --force` mark the cases that several of them measured as not comparable"
        )
    return unlike


def _unlike_plans(a: NamedRun, b: NamedRun) -> list[str]:
    modes = [" ".join(sorted({str(r.mode) for r in run.loaded.records})) for run in (a, b)]
    sweeps = [run.plan.get("sweep") or "none" for run in (a, b)]
    found = [f"mode {modes[0]} / {modes[1]}"] if all(modes) and modes[0] != modes[1] else []
    return found if sweeps[0] == sweeps[1] else [*found, f"sweep {sweeps[0]} / {sweeps[1]}"]


def _unlike_cases(a: Sequence[Record], b: Sequence[Record]) -> list[str]:
    """Of cases that have one name: sizes, model and seeds, whichever the backend; of each backend its contract too."""
    found: dict[str, None] = {}
    for with_contract in (False, True):
        ours, theirs = _by_case(a, with_contract), _by_case(b, with_contract)
        for key in (key for key in ours if key in theirs):
            lines = unlike_work(Side(ours[key]), Side(theirs[key]))
            found |= dict.fromkeys(f"{' '.join(key)}: {line}" for line in lines)
    return list(found)


def _by_case(records: Iterable[Record], with_contract: bool) -> dict[tuple[str, ...], list[Record]]:
    groups: dict[tuple[str, ...], list[Record]] = {}
    for r in records:
        key = (r.case.key, r.backend) if with_contract else (r.case.key,)
        if not with_contract and isinstance(r, CheckRecord):
            r = replace(r, contract=None)
        groups.setdefault(key, []).append(r)
    return groups


def _described(run_id: str, run: Mapping[str, Any], records: Sequence[Record]) -> dict[str, Any]:
    """What the pooled `run` says of one of them: what is known of it, and which launches are now its."""
    known = run.get("merged", {}).get(run_id) or {name: run.get(name) for name in ("command", "started", "finished")}
    launches = sorted({r.launch for r in records if r.run_id == run_id and not isinstance(r, MemoryRecord)})
    machines = sorted({r.machine_id for r in records if r.run_id == run_id})
    return {**known, "launches": f"{launches[0]} to {launches[-1]}" if launches else "", "machine": ", ".join(machines)}


def _run(runs: Sequence[NamedRun], described: Mapping[str, Any], unlike: Sequence[str]) -> dict[str, Any]:
    """What `run.json` would say of all: lists of a plan together, and of all else what the first one says."""
    every = [run.loaded.run for run in runs]
    plan: dict[str, Any] = {}
    for run in runs:
        for name, value in run.plan.items():
            both = isinstance(value, list) and isinstance(plan.get(name), list)
            plan[name] = [*plan[name], *(v for v in value if v not in plan[name])] if both else plan.get(name, value)
    started, finished = ([run[name] for run in every if run.get(name)] for name in ("started", "finished"))
    seconds = {str(kind): round(sum(seconds_of(run).get(kind, 0.0) for run in every), 3) for kind in TimeKind}
    return {
        "run_id": " + ".join(described),
        "mode": next((str(r.mode) for run in runs for r in run.loaded.records), every[0].get("mode")),
        "started": min(started, default=None),
        "finished": max(finished, default=None),
        "merged": dict(described),
        "unlike": list(unlike),
        "beside": list(dict.fromkeys(name for run in every for name in run.get("beside", ()))),
        "seed": every[0].get("seed"),
        "reference": every[0].get("reference") if len({run.get("reference") for run in every}) == 1 else None,
        "plan": plan,
        "seconds": {kind: s for kind, s in seconds.items() if s},
    }


def _machine(runs: Sequence[NamedRun]) -> dict[str, Any]:
    """The first one's facts, the workers of all, the highest peak of any, and how busy the busiest was."""
    machines = [run.loaded.machine for run in runs]
    workers = {name: facts for m in reversed(machines) for name, facts in m.get("workers", {}).items()}
    best = None
    for peak in filter(None, map(peak_of, machines)):
        if best is None or _threads(best.rates) == _threads(peak.rates):
            best = best.best_of(peak) if best else peak
    facts = {**machines[0], "peak": msgspec.to_builtins(best), "workers": workers}
    for when in ("start", "end"):
        moments = [m[when] for m in machines if isinstance(m.get(when), Mapping)]
        for name in ("load_per_core", "others_share", "stolen_share"):
            if values := [moment[name] for moment in moments if isinstance(moment.get(name), int | float)]:
                facts[when] = {**moments[0], **facts.get(when, {}), name: max(values)}
    return facts


def _threads(rates: Mapping[Any, Sequence[Any]]) -> dict[Any, list[int]]:
    return {dtype: [r.threads for r in group] for dtype, group in rates.items()}
