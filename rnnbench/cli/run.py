"""`run`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rnnbench import backends
from rnnbench.api.errors import STDOUT, command_line, told
from rnnbench.api.exit_codes import FAULT, FOLDER, exit_code_help
from rnnbench.cli import cluster
from rnnbench.cli.names import MAX_SIZE, AccuracyType, Count, FolderType
from rnnbench.cli.options import (
    BACKEND,
    BETTER_THREADS,
    DATA_DIR,
    ENV,
    PROBLEM,
    PROBLEM_HELP,
    SEED,
    TIMEOUT,
    TRUNCATION,
    options,
    which,
)
from rnnbench.cli.resuming import check_options
from rnnbench.cli.shell import (
    asked_plan,
    complain,
    console_of,
    ended_in_order,
    guarded,
    print_table,
    say,
)
from rnnbench.cli.stopping import BUDGETS, STOPPING, length_of, with_budgets

if TYPE_CHECKING:
    from rnnbench.report.data import ReportData

RUN_EPILOG = (
    PROBLEM_HELP
    + """\b
Examples:
  python -m rnnbench run
  python -m rnnbench run --quick
  python -m rnnbench run -w imdb-50,imdb-200 -b numba,jax --pass train_step -o reports/mine
  python -m rnnbench run -w running-parity -T 1000 --truncation 20:5 -b numba,jax --pass gradient
  python -m rnnbench run -V 20000 -E 64 -H 256 -T 120 -B 64 --pass forward,train_step
  python -m rnnbench run -w rows.npz -H 256 -o reports/mine
  python -m rnnbench run -k "imdb !epoch" --rigorous
  python -m rnnbench run -w parity --precision 5% --max-launches 20
  python -m rnnbench run --budget 10m --case-budget 30s
  python -m rnnbench run -w imdb-50 --until-accuracy 0.8 --seeds 5
  python -m rnnbench run --aa -w parity -b numba,numpy
  python -m rnnbench run --resume reports/mine
  python -m rnnbench run --resume reports/mine --budget 1h
  python -m rnnbench run --scheduler tcp://10.0.0.1:8786 -o reports/cluster
"""
    + exit_code_help("run")
)


@click.command(epilog=RUN_EPILOG)
@which("parity,imdb-50,imdb-200", "Types to measure in, comma-separated. Default: float32.")
@click.option("--quick", "mode", flag_value="quick", help="A smoke run: one launch, few samples; not for quoting.")
@click.option(
    "--rigorous", "mode", flag_value="rigorous", help="Longer turns, launches until they are precise, and --memory."
)
@click.option(
    "-o", "--output", type=FolderType(), help="Folder of the run, a new or empty one. Default: reports/RUN ID."
)
@click.option(
    "--resume",
    type=FolderType(),
    help="Continue the interrupted run in this folder; --budget and --case-budget may be given again.",
)
@click.option("--reference", type=BACKEND, help="The backend that speed-ups are relative to.")
@click.option("--epoch-batches", type=Count(0, MAX_SIZE), metavar="N",
              help="Batches of the epoch pass; 0: the whole data. Default: the short epoch.")  # fmt: skip
@click.option(
    "--training/--no-training",
    default=None,
    help="Also train each workload once, for learning curves. Default: up to T 100 and 50,000 rows; none with -k.",
)
@click.option(
    "--until-accuracy",
    type=AccuracyType(),
    help="Time each backend from the start of its process until this share of the test rows is right, such as 0.8; in "
    "place of the passes, unless --pass names some.",
)
@click.option(
    "--seeds", type=Count(1, MAX_SIZE), metavar="N",
    help="Trainings of each backend with --until-accuracy, from --seed on. Default: 5; with --quick 1.",
)  # fmt: skip
@STOPPING
@click.option("--memory", is_flag=True, help="Also the peak memory of each pass, in processes of their own.")
@options(PROBLEM, TRUNCATION, BETTER_THREADS, SEED, DATA_DIR, TIMEOUT, ENV, cluster.CLUSTER)
@click.option("--dry-run", is_flag=True, help="Print what would be measured, and stop.")
@click.pass_context
def run(
    ctx: click.Context,
    mode: str | None,
    output: Path | None,
    resume: Path | None,
    training: bool | None,
    seeds: int | None,
    precision: float | None,
    max_launches: int | None,
    budget: float | None,
    case_budget: float | None,
    aa: bool,
    memory: bool,
    dry_run: bool,
    filter_: str,
    scheduler: str | None,
    local_cluster: int | None,
    threads: int | None,
    **asked: Any,
) -> None:
    """Check every backend against the oracle, time those that are right, and write a report."""
    from rnnbench.api import run as running
    from rnnbench.api.learning import with_trainings
    from rnnbench.api.planning import stopped
    from rnnbench.api.to_accuracy import with_seeds
    from rnnbench.harness.tasks import check_sizes
    from rnnbench.records import store
    from rnnbench.records.record import Mode

    def work() -> int:
        over, execute, own_threads = cluster.where(scheduler, local_cluster, threads, _execute)
        if resume is not None and over:
            plan, command = cluster.planned(resume)
            check_options(ctx, plan, resume, BUDGETS | cluster.NAMES)
            return execute(with_budgets(plan, budget, case_budget), resume, command, resume=True)
        if resume is not None:
            plan, described = running.read_plan(resume)
            check_options(ctx, plan, resume, BUDGETS)
            plan = with_budgets(plan, budget, case_budget)
            return _execute(plan, resume, described.get("command", ""), resume=True)
        kind = Mode(mode or "default")
        if max_launches is not None and precision is None and kind is not Mode.RIGOROUS:
            raise click.UsageError(f"--max-launches {max_launches} caps nothing; give --precision, such as 5%, too")
        memory_too = memory or kind is Mode.RIGOROUS
        plan, given = asked_plan(mode=kind, filter=filter_, training=(), memory=memory_too, **own_threads, **asked)
        plan = with_trainings(with_seeds(plan, seeds), training)
        plan = stopped(plan, precision, max_launches, budget, case_budget, aa)
        if not over:
            check_sizes(plan)
        if dry_run:
            return _dry_run(plan)
        run_id = store.new_run_id()
        folder = output or Path("reports") / run_id
        command = command_line(*sys.argv[1:])
        return execute(plan, folder, command, run_id=run_id, given=given)

    guarded(work)


@ended_in_order()
def _execute(
    plan: Any, folder: Path, command: str, *, resume: bool = False, run_id: str | None = None, given: Any = None
) -> int:
    from rnnbench.api import run as running
    from rnnbench.api.planning import allowed_threads
    from rnnbench.cli.progress import Display
    from rnnbench.records.account import TimeKind, time_in_words
    from rnnbench.report.data import ReportData
    from rnnbench.report.page import load_libraries, write_report

    with Display(console_of(stderr=True)) as display:
        result = running.execute(plan, folder, command, display, resume=resume, run_id=run_id, given=given)
        display.show("writing the report", 1.0)
        loaded, code = result.loaded, result.code
        asked = time.monotonic()
        load_libraries()
        start, failed = time.monotonic(), None
        context = ReportData.of(loaded, plan.reference)
        try:
            write_report(folder, context, processes=allowed_threads(None))
        except Exception as error:
            failed, again = error, command_line("report", folder)
            why = getattr(error, "strerror", None) or (found.text if (found := told(error)) else type(error).__name__)
            display.say(f"the report cannot be written to {folder}: {why}; write it later with: {again}")
            code = found.code if (found := told(error)) else FAULT
    spent_here = {TimeKind.START: start - asked, TimeKind.REPORT: time.monotonic() - start}
    spent = time_in_words(running.with_report(folder, loaded.run, spent_here))
    try:
        _show(plan, folder, context, spent, written=failed is None)
    except OSError as error:
        if error.filename != STDOUT:
            raise
        return complain(f"{STDOUT} cannot be written: {error.strerror}; all that was measured is in {folder}", FOLDER)
    if failed is not None and code == FAULT:
        raise failed
    return code


def _show(plan: Any, folder: Path, context: ReportData, spent: str | None, *, written: bool) -> None:
    """The end of a run on the screen."""
    from rnnbench.report.terminal import render

    render(console_of(), context)
    if spent:
        say(f"{spent}.")
    if written:
        say(f"Report: {folder / 'report.html'} and report.md")
    say_what_is_on_request(plan)
    sys.stdout.flush()


def say_what_is_on_request(plan: Any) -> None:
    """Where no backend was named: which others there are on a CPU, as they are asked for."""
    others = [name for name, e in backends.REGISTRY.items() if e.on_request and not e.gpu]
    if plan.backends == tuple(backends.usual()):
        say(f"Measured if named: -b {','.join(others)}")


def say_left_out(plan: Any) -> None:
    """What memory does not hold, a line for each size."""
    from rnnbench.harness.tasks import refused_sizes

    for reason in dict.fromkeys(refused_sizes(plan).values()):
        say(f"left out: {reason}")


def _dry_run(plan: Any) -> int:
    from rnnbench.api.to_accuracy import asked_trainings
    from rnnbench.harness.plan import cases_of, wanted

    cases = [
        (case.key, name)
        for spec in plan.workloads
        for case in cases_of(plan, spec)
        for name in plan.backends
        if wanted(plan, case, name)
    ]
    trained = list(asked_trainings(plan))
    rows = [(*row, "unavailable" if backends.missing(row[-1], plan.env) else "") for row in (*cases, *trained)]
    print_table(("case", "backend", ""), rows)
    say_left_out(plan)
    memory, said = ", then once for its memory" if plan.memory else "", []
    if plan.passes:
        said.append(f"{len(cases)} {'answer' if len(cases) == 1 else 'answers'}, each in {length_of(plan)}{memory}")
    if plan.until_accuracy:
        said.append(f"{len(trained)} to be trained, each from {plan.seeds} {'seed' if plan.seeds == 1 else 'seeds'}")
    say(f"{'; '.join(said)}; nothing was run.")
    return 0 if rows else complain("the filter leaves nothing to measure", 3)
