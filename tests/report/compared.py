"""Made-up comparisons, histories and kinds of machines, for pages and comments. Nothing here was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rnnbench.analysis.comparable import Side
from rnnbench.analysis.compare import Gate, compare_sides
from rnnbench.analysis.history import DatedRun, in_order, lines_of_runs
from rnnbench.analysis.machines import KindOfMachine
from rnnbench.analysis.stats import summaries
from rnnbench.model import Pass
from rnnbench.records.record import Record, Status, TurnRecord
from rnnbench.report.data import ReportData
from tests.report.fake import failure, make

MACHINE = {"cpu": {"model": "A processor", "cores": 2}, "machine_id": "one", "git": {"commit": "a" * 40}}
Changes = Mapping[tuple[str, str], float]  # (workload, backend) -> by how much longer it takes
BROKEN = ("parity", "jax")
CHANGES = {("imdb-50", "numba"): 1.3, ("parity", "torch"): 0.5}


def scaled(records: list[Record], run_id: str, changes: Changes, wobble: float = 1.0) -> list[Record]:
    """The records as another run would have them: its id, and times that changed in train steps."""
    found: list[Record] = []
    for r in records:
        fields: dict[str, Any] = {"run_id": run_id, "machine_id": "one"}
        if isinstance(r, TurnRecord):
            by = changes.get((r.case.workload, r.backend), 1.0) if r.case.pass_ is Pass.TRAIN_STEP else 1.0
            fields["samples_ns"] = tuple(round(by * wobble * s) for s in r.samples_ns)
        found.append(replace(r, **fields))
    return found


def compared(
    workloads=("parity", "imdb-50"), backends=("numpy", "numba", "torch", "jax"), changes: Changes = CHANGES, **options
):
    """What a page and a comment of two runs take: new has jax crash in parity."""
    passes = options.pop("passes", (Pass.FORWARD, Pass.TRAIN_STEP))
    records = make(workloads, backends, passes, rounds=2, launches=8, samples=2, **options).records
    base = Side(scaled(records, "run-base", {}), MACHINE)
    found = [r for r in scaled(records, "run-new", changes) if (r.case.workload, r.backend) != BROKEN]
    gone = {r.case: r for r in records if (r.case.workload, r.backend) == BROKEN}
    found += [failure(case, BROKEN[1], Status.CRASHED, "killed by signal 9", run_id="run-new") for case in gone]
    new = Side(found, MACHINE | {"git": {"commit": "b" * 40, "dirty": True}})
    gate = Gate()
    return compare_sides(base, new, gate), gate, ["a note"], base, new, ReportData(new.records).backends


def history(runs: int = 14, workloads=("parity", "imdb-50"), backends=("numpy", "numba", "torch"), since: int = 8):
    """What a page of a history takes: from run `since` on imdb-50 by numba takes 1.3 times as long."""
    passes = (Pass.FORWARD, Pass.TRAIN_STEP)
    records = make(workloads, backends, passes, rounds=1, launches=3, samples=2).records
    dated = []
    for n in range(runs):
        wobble = 1 + 0.01 * ((7 * n) % 5 - 2)
        found = scaled(records, f"run-{n:03}", {("imdb-50", "numba"): 1.3} if n >= since else {}, wobble)
        day = f"2026-{1 + n // 28:02}-{1 + n % 28:02}T03:00:00"
        dated.append(DatedRun(f"run-{n:03}", "", day, f"{n:07}" + "c" * 33, n == 2, Side(found, MACHINE)))
    lines = lines_of_runs(in_order(dated), 0.05)
    origins = {
        (i, j): "with commit 0000008 Change it" for i, line in enumerate(lines) for j, _ in enumerate(line.steps)
    }
    return lines, origins, 0.05, ["a note"]


def machines(workloads=("parity", "imdb-50"), backends=("numpy", "numba", "torch", "jax")) -> list[KindOfMachine]:
    """What the page over machines takes: two kinds; on the second numba takes four times as long, and jax crashed."""
    records = make(workloads, backends, (Pass.FORWARD, Pass.TRAIN_STEP), rounds=2, launches=5, samples=2).records
    found = []
    for label, cores, slower in (("amd-epyc-7b13-1-core-2e034b", 1, 1), ("intel-xeon-platinum-2-cores-0a1b2c", 2, 4)):
        own = scaled(records, "run", {(name, "numba"): slower for name in workloads})
        if slower > 1:
            gone = {r.case: r for r in own if r.backend == "jax"}
            own = [r for r in own if r.backend != "jax"]
            own += [failure(case, "jax", Status.CRASHED, "killed by signal 9") for case in gone]
        machine = {"cpu": {"model": label, "allowed": cores, "cache_bytes": {"l2": cores << 20}, "features": ["avx2"]}}
        found.append(KindOfMachine(label, [f"node{cores}"], machine, summaries(own)))
    return found
