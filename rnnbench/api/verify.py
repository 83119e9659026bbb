"""`rnnbench verify`: the checks of a run and nothing else, over both float types and a truncated workload."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnnbench.analysis.stats import summaries
from rnnbench.files import temporary_folder
from rnnbench.harness.checker import Checker
from rnnbench.harness.observer import Observer
from rnnbench.harness.plan import Plan
from rnnbench.harness.run_loop import RunLoop
from rnnbench.harness.run_state import RunState, Task
from rnnbench.harness.tasks import check_sizes, tasks_of
from rnnbench.model import Head, Truncation
from rnnbench.records.record import CheckRecord, Mode, Record, Status, checks_in
from rnnbench.report.tables import errors_frame
from rnnbench.workloads.base import Workload

if TYPE_CHECKING:
    import pandas as pd

MODE = Mode.QUICK
WORKLOADS = ("parity", "running-parity", "imdb-50", "imdb-200")
TRUNCATED = Truncation(20, 5)  # what outputs at every step are checked with, besides full BPTT


@dataclass(frozen=True, repr=False)
class Checked:
    """One record per case and backend, and the worst array of each.

    `given_up`: over a cluster, the workloads that were not checked to their end, and why.
    """

    records: list[CheckRecord]
    given_up: Mapping[str, str] = field(default_factory=dict)

    @property
    def code(self) -> int:
        """0 all agree; 1 one does not, or failed; 3 nothing could be checked."""
        harmless = (Status.OK, Status.UNSUPPORTED, Status.UNAVAILABLE)
        if self.given_up:
            return 1
        if not any(record.errors for record in self.records):
            return 3
        return 0 if all(record.status in harmless for record in self.records) else 1

    @property
    def ok(self) -> bool:
        """Whether all that could be checked agree."""
        return self.code == 0

    @property
    def errors(self) -> pd.DataFrame:
        """One row for each case, backend and array; the columns are those of `tables/errors.csv`."""
        return errors_frame(summaries(self.records))

    def _lines(self) -> list[tuple[str, str, str, str]]:
        told = [(r.case.key, r.backend, str(r.status), r.reason or "") for r in self.records]
        return [*told, *((name, "", "given up", why) for name, why in self.given_up.items())]

    def __repr__(self) -> str:
        return "\n".join(": ".join(filter(None, line)) for line in self._lines()) or "no case was checked"

    def _repr_html_(self) -> str:
        import pandas as pd

        return pd.DataFrame(self._lines(), columns=["case", "backend", "status", "reason"]).to_html(index=False)

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


def tasks_with_truncation(plan: Plan, given: Mapping[str, Workload], display: Observer) -> list[Task]:
    """The plan's tasks; those with outputs at every step once more truncated, unless the plan says how to truncate."""
    tasks = tasks_of(plan, display.say, given)
    every = tuple(spec for spec in plan.workloads if spec.model.head is Head.EVERY)
    if plan.truncation is None and every:
        tasks += tasks_of(replace(plan, workloads=every, truncation=TRUNCATED), display.say, given)
    return tasks


def verify_plan(plan: Plan, given: Mapping[str, Workload], display: Observer) -> Checked:
    """Check a plan's cases. `given` are its workloads by name. Raises ValueError and WorkloadUnavailable."""
    check_sizes(plan)
    records: list[Record] = []
    with temporary_folder("rnnbench-verify-") as folder:
        tasks = tasks_with_truncation(plan, given, display)
        state = RunState(plan, Path(folder), records.append, display, run_id="verify", machine_id="")
        RunLoop(tasks, state, Checker(state)).run()
    return Checked(checks_in(records))
