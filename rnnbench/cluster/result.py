"""What a run over a cluster says: a run for each kind of machine, and which backend is fastest where."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distributed import Client

from rnnbench.analysis.machines import KindOfMachine, fastest_frame, machines_frame
from rnnbench.api import run as running
from rnnbench.api.exit_codes import INTERRUPTED
from rnnbench.api.python import Run
from rnnbench.api.verify import Checked
from rnnbench.cluster.connect import connected
from rnnbench.cluster.folders import kinds_in
from rnnbench.cluster.run import ClusterResult, execute_on_cluster, verify_on_cluster
from rnnbench.harness.observer import Observer
from rnnbench.harness.plan import Plan
from rnnbench.records import store
from rnnbench.report.data import ReportData
from rnnbench.report.machines import write_machines_page

if TYPE_CHECKING:
    import pandas as pd


def kinds_of_machines(folder: Path, data: Mapping[str, ReportData]) -> list[KindOfMachine]:
    """The kinds of machines of a run, for the page over them."""
    described = store.read_json(folder / store.MACHINES).get("kinds", {})
    return [
        KindOfMachine(label, described.get(label, {}).get("machines", ()), of.machine, of.summaries)
        for label, of in data.items()
    ]


class ClusterRun:
    """A run over a cluster: its folder, and a `Run` for each kind of machine by its label."""

    def __init__(self, folder: Path, runs: Mapping[str, Run]) -> None:
        self.folder, self.runs = folder, dict(runs)

    @cached_property
    def _kinds(self) -> list[KindOfMachine]:
        return kinds_of_machines(self.folder, {label: ReportData.of(run.loaded) for label, run in self.runs.items()})

    @property
    def machines(self) -> pd.DataFrame:
        """One row for each kind of machine: label, names, processor, cores, largest cache in bytes, vector bits."""
        return machines_frame(self._kinds)

    @property
    def fastest(self) -> pd.DataFrame:
        """One row for each case and kind: the fastest backend, seconds of a call, runner-up, lead and its interval."""
        return fastest_frame(self._kinds)

    def report(self, *, svg: bool = False) -> Path:
        """Write the page over machines, and the report of each kind into its folder; the path of the first."""
        for run in self.runs.values():
            run.report(svg=svg)
        return write_machines_page(self.folder, run_id_of(self.folder), self._kinds)

    def __repr__(self) -> str:
        return "\n\n".join(f"{label}\n{run!r}" for label, run in self.runs.items())

    def _repr_html_(self) -> str:
        return f"{self.fastest.to_html(index=False, float_format='{:.3g}'.format)}<p>{self.folder}</p>"


def run_id_of(folder: Path) -> str:
    """The id of a run over a cluster."""
    return str(store.read_json(folder / store.MACHINES).get("run_id", folder.name))


def load_cluster_run(folder: Path) -> ClusterRun:
    """A run over a cluster from its folder. Raises StoreError."""
    return ClusterRun(folder, {p.name: Run(p, store.load_run(p)) for p in kinds_in(folder).values()})


def run_with(
    client: Client, plan: Plan | None, folder: Path, observer: Observer, resume: bool = False, **rest: Any
) -> ClusterRun:
    """What `rnnbench.run` and `rnnbench.sweep` do with a client."""
    if plan is None:
        plan, _ = running.read_plan(next(iter(kinds_in(folder).values())))
    with connected(client=client) as checked:
        result = execute_on_cluster(plan, folder, "in Python", observer, checked, resume=resume, **rest)
    if result.code == INTERRUPTED:
        raise KeyboardInterrupt(f"what was measured is kept: rnnbench.load({str(folder)!r})")
    return _run_of(result)


def _run_of(result: ClusterResult) -> ClusterRun:
    return ClusterRun(result.folder, {label: Run(of.folder, of.loaded) for label, of in result.kinds.items()})


def verified_with(client: Client, plan: Plan, observer: Observer, **rest: Any) -> dict[str, Checked]:
    """What `rnnbench.verify` does with a client."""
    with connected(client=client) as checked:
        return verify_on_cluster(plan, checked, observer, **rest)
