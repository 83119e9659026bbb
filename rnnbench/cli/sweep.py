"""`sweep`."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import click

from rnnbench.api.errors import command_line
from rnnbench.api.exit_codes import INTERRUPTED, exit_code_help, of_several
from rnnbench.cli import cluster
from rnnbench.cli.names import FolderType
from rnnbench.cli.options import (
    BACKEND_LIST,
    BETTER_THREADS,
    DATA_DIR,
    DTYPES,
    ENV,
    MODEL,
    PASSES,
    PROBLEM_HELP,
    SEED,
    SIZE,
    SIZES,
    TIMEOUT,
    WORKLOAD,
    options,
    several,
)
from rnnbench.cli.resuming import check_options
from rnnbench.cli.run import _execute, say_left_out
from rnnbench.cli.shell import (
    each_cell,
    guarded,
    print_table,
    say,
)

SWEEP_EPILOG = (
    PROBLEM_HELP
    + """\b
Examples:
  python -m rnnbench sweep
  python -m rnnbench sweep --H 8:1024 --T 100 -b numba,jax,torch+flush
  python -m rnnbench sweep --H 16:1024 --B 1:512 --grid -o reports/map
  python -m rnnbench sweep --T 1:10000 --H 32 --pass forward --threads 1
  python -m rnnbench sweep -V 20000 -E 64 -H 64:512 -B 64
  python -m rnnbench sweep -w imdb-50 -T 50:400
  python -m rnnbench sweep --resume reports/map
  python -m rnnbench sweep --H 16:1024 --B 1:512 --grid --scheduler tcp://10.0.0.1:8786
"""
    + exit_code_help("sweep")
)


@click.command(epilog=SWEEP_EPILOG)
@click.option("--workload", "-w", type=WORKLOAD, help="Whose sizes are changed. Default: made-up rows.")
@several(
    "--hidden", "--H", "-H", "H", type=SIZES, help="Hidden units. One number: this axis is not swept. Centre: 128."
)
@several("--batch-size", "--B", "-B", "B", type=SIZES, help="Rows of a batch, likewise. Centre: 32.")
@several(
    "--time-steps",
    "--T",
    "-T",
    "T",
    type=SIZES,
    help="Time steps, likewise. Centre: 100. Default: all three axes are swept.",
)
@click.option(
    "--input-width",
    "--E",
    "-E",
    "E",
    type=SIZE,
    help="Width of the inputs. Default: as wide as H where they are dense and made up.",
)
@MODEL
@click.option("--grid", is_flag=True, help="Also each H with each B, for the map of the fastest.")
@BACKEND_LIST
@several("--pass", "passes", type=PASSES, help="Comma-separated. Default: forward,gradient.")
@several("--dtype", "dtypes", type=DTYPES, help="Types to measure in, comma-separated. Default: float32.")
@click.option("--quick", "mode", flag_value="quick", help="A smoke run: one round, few samples; not for quoting.")
@click.option(
    "-o", "--output", type=FolderType(), help="Folder of the run, a new or empty one. Default: reports/RUN ID."
)
@click.option("--resume", type=FolderType(), help="Continue the interrupted run in this folder.")
@options(BETTER_THREADS, SEED, DATA_DIR, TIMEOUT, ENV, cluster.CLUSTER)
@click.option("--dry-run", is_flag=True, help="Print what would be measured, and stop.")
@click.pass_context
def sweep(
    ctx: click.Context,
    workload: str | None,
    H: tuple[int, ...] | None,
    B: tuple[int, ...] | None,
    T: tuple[int, ...] | None,
    E: int | None,
    grid: bool,
    passes: tuple[str, ...] | None,
    dtypes: tuple[str, ...] | None,
    mode: str | None,
    output: Path | None,
    resume: Path | None,
    dry_run: bool,
    data_dir: Path | None,
    scheduler: str | None,
    local_cluster: int | None,
    threads: int | None,
    **asked: Any,
) -> None:
    """Check and time all backends at many sizes of one network, one axis at a time; plots, and a map of the fastest.

    Sizes are LOW:HIGH, doubled from LOW on, or numbers with commas between. While one axis is swept, the others stay at
    their centre.
    """
    from rnnbench.api import run as running
    from rnnbench.api import sweep as sizes
    from rnnbench.harness.tasks import check_sizes
    from rnnbench.records import store
    from rnnbench.workloads.resolve import Asked

    def work() -> int:
        over, execute, _ = cluster.where(scheduler, local_cluster, threads, _execute)
        if resume is not None and over:
            plan, command = cluster.planned(resume)
            check_options(ctx, plan, resume, cluster.NAMES)
            return execute(plan, resume, command, resume=True)
        if resume is not None:
            plan, described = running.read_plan(resume)
            check_options(ctx, plan, resume)
            return _execute(plan, resume, described.get("command", ""), resume=True)
        own = {name: asked.pop(name) for name in ("cell", "layers", "bidirectional", "V", "O", "head", "loss")}
        backends = asked.pop("backend")
        codes = []
        for cell, folder in each_cell(own.pop("cell") or (), output):
            codes.append(of_cell(own | {"cell": cell}, backends, folder))
            if codes[-1] == INTERRUPTED:
                break
        return of_several(codes)

    def of_cell(own: dict[str, Any], backends: Iterable[str] | None, folder: Path | None) -> int:
        over, execute, own_threads = cluster.where(scheduler, local_cluster, threads, _execute)
        plan, given = sizes.planned_sweep(
            workload, backends, passes, dtypes, {"H": H, "B": B, "T": T}, E, grid, Asked(**own),
            partial(say, err=True), mode=mode or "default", data_dir=None if data_dir is None else str(data_dir),
            **own_threads, **asked,
        )  # fmt: skip
        if not over:
            check_sizes(plan)
        if dry_run:
            rows = sizes.rows_of(plan)
            print_table(("case", "MFLOP", "FLOP a byte"), rows)
            say_left_out(plan)
            say(f"{len(rows)} cases, each by {', '.join(plan.backends)}; nothing was run.")
            return 0
        run_id = store.new_run_id()
        return execute(
            plan,
            folder or Path("reports") / run_id,
            command_line(*sys.argv[1:]),
            run_id=run_id,
            given=given,
        )

    guarded(work)
