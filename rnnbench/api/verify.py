"""`rnnbench verify`: the checks of a run and nothing else, over both float types and a truncated workload."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rnnbench.harness.checker import Task
from rnnbench.harness.observer import Observer
from rnnbench.harness.plan import Plan
from rnnbench.harness.runner import Runner
from rnnbench.harness.tasks import tasks_of
from rnnbench.model import Truncation
from rnnbench.records.record import Mode, Record, Status

MODE = Mode.QUICK
WORKLOADS = ("parity", "running-parity", "imdb-50", "imdb-200")
TRUNCATED = Truncation(20, 5)  # what `running-parity` is checked with, besides full BPTT


@dataclass(frozen=True)
class Checked:
    """One record per case and backend, and the worst array of each."""

    records: list[Record]

    @property
    def code(self) -> int:
        """0 all agree; 1 one does not, or failed; 3 nobody could be checked."""
        harmless = (Status.OK, Status.UNSUPPORTED, Status.UNAVAILABLE)
        if not any(record.errors for record in self.records):
            return 3
        return 0 if all(record.status in harmless for record in self.records) else 1

    def as_json(self) -> list[dict[str, Any]]:
        """A list of objects, one a case and backend, with the error and limit of every array."""
        return [
            {
                "case": record.case.key,
                "workload": record.case.workload,
                "pass": record.case.pass_,
                "dtype": record.case.dtype,
                "truncation": None if record.case.truncation is None else str(record.case.truncation),
                "backend": record.backend,
                "status": record.status,
                "reason": record.reason,
                "data_source": record.data_source,
                "errors": {name: {"error": e.error, "limit": e.limit} for name, e in record.errors.items()},
            }
            for record in self.records
        ]


class CheckOnly(Runner):
    """A run of one launch whose rounds are left out."""

    def _turn(self, slot: Any) -> None:
        return


def tasks_with_truncation(plan: Plan, display: Observer) -> list[Task]:
    """The plan's tasks; `running-parity` once more truncated, unless the plan itself says how to truncate."""
    tasks = tasks_of(plan, display.say)
    if plan.truncation is None and "running-parity" in plan.workloads:
        tasks += tasks_of(replace(plan, workloads=("running-parity",), truncation=TRUNCATED), display.say)
    return tasks


def check(plan: Plan, display: Observer) -> Checked:
    """Check a plan's cases. Raises ValueError and WorkloadUnavailable as `tasks_of`."""
    records: list[Record] = []
    with tempfile.TemporaryDirectory(prefix="rnnbench-verify-") as folder:
        tasks = tasks_with_truncation(plan, display)
        CheckOnly(plan, tasks, Path(folder), records.append, display, run_id="verify", machine_id="").run()
    return Checked(records)
