"""`--scheduler` and `--local-cluster`: the same commands over the machines of a Dask cluster."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rnnbench.api.exit_codes import FOLDER, of_several
from rnnbench.cli.names import Count
from rnnbench.cli.options import options
from rnnbench.cli.shell import complain, console_of, ended_in_order, print_json, say

if TYPE_CHECKING:
    from rnnbench.harness.plan import Plan

CLUSTER = options(
    click.option("--scheduler", metavar="ADDRESS", is_eager=True,
                 help="Use the machines of this Dask scheduler: each network at one size on one machine of each kind."),
    click.option("--local-cluster", type=Count(1, 1_000), metavar="N", is_eager=True,
                 help="The same over N workers on this machine, which take turns; to try it out."),
)  # fmt: skip
NAMES = frozenset({"scheduler", "local_cluster"})


def where(
    scheduler: str | None, local_cluster: int | None, threads: int | None, here: Callable[..., int]
) -> tuple[bool, Callable[..., int], dict[str, Any]]:
    """Whether a command goes over a cluster, what executes its plan, and the threads that the plan is made with.

    Over a cluster each kind of machine has its own. UsageError for two clusters, ValueError without Dask.
    """
    from rnnbench.cluster import need_dask

    if scheduler is None and local_cluster is None:
        return False, here, {"threads": threads}
    if scheduler is not None and local_cluster is not None:
        raise click.UsageError("--scheduler and --local-cluster are two clusters; give one")
    need_dask()
    over: dict[str, Any] = {"scheduler": scheduler, "local_cluster": local_cluster, "threads": threads}
    return True, partial(execute_over, **over), {}


@contextmanager
def _client(scheduler: str | None, local_cluster: int | None) -> Iterator[Any]:
    from rnnbench.cluster.connect import connected

    names = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "distributed"]
    levels = {log: log.level for log in map(logging.getLogger, names)}
    for log in levels:
        log.setLevel(logging.CRITICAL)  # what goes wrong is said by us, in a sentence
    try:
        with ended_in_order(), connected(scheduler, local_cluster) as client:
            yield client
    finally:
        for log, level in levels.items():
            log.setLevel(level)


def planned(resume: Path) -> tuple[Plan, str]:
    """What an interrupted run over a cluster was asked, and its command. Raises StoreError."""
    from rnnbench.api import run as running
    from rnnbench.cluster.folders import kinds_in

    plan, described = running.read_plan(next(iter(kinds_in(resume).values())))
    return plan, described.get("command", "")


def execute_over(
    plan: Plan, folder: Path, command: str, scheduler: str | None, local_cluster: int | None, **rest: Any
) -> int:
    """Run a plan over a cluster and write its reports; the exit code."""
    from rnnbench.cli.progress import Display
    from rnnbench.cluster.run import execute_on_cluster

    with _client(scheduler, local_cluster) as client, Display(console_of(stderr=True)) as display:
        result = execute_on_cluster(plan, folder, command, display, client, **rest)
        display.show("writing the reports", 1.0)
        return max(result.code, write_reports(result.folder, plan.reference))


def write_reports(folder: Path, reference: str | None, *, svg: bool = False) -> int:
    """The report of each kind of machine, and the page over them, written and printed; the exit code."""
    from rnnbench.api.planning import allowed_threads
    from rnnbench.cluster.folders import kinds_in
    from rnnbench.cluster.result import kinds_of_machines, run_id_of
    from rnnbench.records import store
    from rnnbench.report.data import ReportData
    from rnnbench.report.machines import machines_sections, write_machines_page
    from rnnbench.report.page import write_report
    from rnnbench.report.section import print_sections
    from rnnbench.report.terminal import render

    places = {place.name: place for place in kinds_in(folder).values()}
    data = {label: ReportData.of(store.load_run(place), reference) for label, place in places.items()}
    try:
        for label, of in data.items():
            write_report(places[label], of, vector=svg, processes=allowed_threads(None))
        page = write_machines_page(folder, run_id_of(folder), kinds_of_machines(folder, data))
    except OSError as error:
        say(f"the report cannot be written to {folder}: {error.strerror}", err=True)
        return FOLDER
    if len(data) == 1:
        render(console_of(), *data.values())
    else:
        print_sections(console_of(), machines_sections(kinds_of_machines(folder, data)))
    say(f"Report: {page}, and report.html of each kind of machine: {', '.join(places)}")
    return 0


def check(
    plan: Plan, given: Mapping[str, Any], threads: int | None, as_json: bool, scheduler: str | None,
    local_cluster: int | None,
) -> int:  # fmt: skip
    """Verify a plan over a cluster; the exit code, the worst of all kinds of machines."""
    from rnnbench.cli.progress import Display
    from rnnbench.cli.tables import print_checks
    from rnnbench.cluster.roster import ClusterLost
    from rnnbench.cluster.run import verify_on_cluster

    try:
        with _client(scheduler, local_cluster) as client, Display(console_of(stderr=True)) as display:
            found = verify_on_cluster(plan, client, display, threads=threads, given=given)
    except ClusterLost as error:
        return complain(str(error), FOLDER)
    if as_json:
        print_json([{"machine": label, **line} for label, checked in found.items() for line in checked.as_json()])
    else:
        for label, checked in found.items():
            say(f"{label}:")
            print_checks(console_of(), checked)
    return of_several(checked.code for checked in found.values())
