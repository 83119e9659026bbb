"""The command line: parse, call, print. What computes is imported inside the commands, so that `--help` is quick."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from rnnbench import __version__, backends, workloads
from rnnbench.commands.names import Name, unknown
from rnnbench.commands.options import (
    BACKEND,
    BACKENDS,
    BATCH_SIZE,
    DATA_DIR,
    DTYPE,
    DTYPES,
    JSON,
    PASSES,
    SEED,
    SIZES,
    THREADS,
    TIME_STEPS,
    TIMEOUT,
    TRUNCATION,
    WHICH,
    WORKLOAD,
    options,
)
from rnnbench.model import DType, Pass

SEEDS = (
    "forward-golden",
    "bptt-golden",
    "parity",
    "sentiment-toy",
    "imdb-50",
    "imdb-200",
    "imdb-200-torch",
)


class Group(click.Group):
    """Commands, with the nearest right one for a wrong one."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if self.get_command(ctx, args[0]) is None:
            ctx.fail(unknown("command", args[0], self.list_commands(ctx)))
        return super().resolve_command(ctx, args)


DEFAULT_WORKLOADS = ("parity", "imdb-50", "imdb-200")


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="rnnbench")
def main() -> None:
    """How fast can a recurrent network run on this machine, and whose implementation should I use?

    \b
    Examples:
      python -m rnnbench run                      check and time everybody, write a report
      python -m rnnbench run --quick              the same as a smoke test
      python -m rnnbench sweep                    time and share of peak against size
      python -m rnnbench list                     workloads and backends, and what is missing
      python -m rnnbench train imdb-50            train on real reviews
      python -m rnnbench report reports/RUN       write a report again
    """


def _threads(asked: int | None) -> int:
    """As many as asked, else all allowed cores."""
    from rnnbench.measure.client import allowed_cores

    cores = len(allowed_cores())
    if asked is not None and asked > cores:
        raise click.UsageError(f"--threads {asked} is more than the {cores} cores allowed here; choose 1 to {cores}")
    return asked or cores


def _plan(
    workload: tuple[str, ...] | None,
    backend: tuple[str, ...] | None,
    passes: tuple[str, ...] | None,
    dtypes: tuple[str, ...] | None,
    **rest: Any,
) -> Any:
    from rnnbench.measure.schedule import Plan

    threads = _threads(rest.pop("threads"))
    data_dir, reference = rest.pop("data_dir"), rest.get("reference")
    if reference is not None and backend is not None and reference not in backend:
        raise click.UsageError(f"--reference {reference} is not among the backends of this run: {', '.join(backend)}")
    return Plan(
        workloads=workload or DEFAULT_WORKLOADS,
        backends=backend or tuple(backends.usual()),
        passes=tuple(Pass(p) for p in passes or tuple(Pass)),
        dtypes=tuple(DType(d) for d in dtypes or (DType.FLOAT32,)),
        threads=threads,
        data_dir=None if data_dir is None else str(data_dir),
        **rest,
    )


def _console(*, stderr: bool = False) -> Any:
    from rich.console import Console

    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=120)


def _guarded(work: Callable[[], int]) -> None:
    """Run a command's body; turn what a user can cause into one sentence and an exit code."""
    from rnnbench.commands.run import FOLDER, INTERRUPTED, NOTHING, USAGE
    from rnnbench.results.store import StoreError
    from rnnbench.workloads.base import WorkloadUnavailable

    try:
        code = work()
    except StoreError as error:
        code = _complain(str(error), FOLDER)
    except WorkloadUnavailable as error:
        code = _complain(str(error), NOTHING)
    except OSError as error:
        code = _complain(f"{error.filename}: {error.strerror}; choose another folder, or make room", FOLDER)
    except ValueError as error:
        code = _complain(str(error), USAGE)
    except KeyboardInterrupt:
        code = _complain("interrupted", INTERRUPTED)
    sys.exit(code)


def _complain(text: str, code: int) -> int:
    click.echo(f"Error: {text}", err=True)
    return code


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, default=str))


RUN_EPILOG = """\b
Examples:
  python -m rnnbench run
  python -m rnnbench run --quick
  python -m rnnbench run -w imdb-50,imdb-200 -b numba,jax --pass train_step -o reports/mine
  python -m rnnbench run -w running-parity -T 1000 --truncation 20:5
  python -m rnnbench run -k "imdb !epoch" --rigorous
  python -m rnnbench run --resume reports/mine

\b
Exit codes:
  0  all was measured that could be
  1  some backend was wrong, crashed, hung or ran out of memory; the rest was measured
  2  an option is wrong
  3  nothing was measured
  4  a folder cannot be read or written
  130  interrupted; continue with --resume
"""


@main.command(epilog=RUN_EPILOG)
@WHICH
@click.option("--quick", "mode", flag_value="quick", help="A smoke run: one launch, few samples; not for quoting.")
@click.option("--rigorous", "mode", flag_value="rigorous", help="Ten launches and longer turns, for publishing.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder of the run. Default: reports/RUN ID.")
@click.option("--resume", type=click.Path(path_type=Path), help="Continue the interrupted run in this folder.")
@click.option("--reference", type=BACKEND, help="Whom speed-ups are relative to.")
@click.option("--epoch-batches", type=click.IntRange(0), metavar="N",
              help="Batches of the epoch pass; 0: the whole data. Default: the short epoch.")  # fmt: skip
@click.option(
    "--training/--no-training",
    default=None,
    help="Also train each workload once, for learning curves. Default: the short ones.",
)
@options(TRUNCATION, TIME_STEPS, BATCH_SIZE, THREADS, SEED, DATA_DIR, TIMEOUT)
@click.option("--dry-run", is_flag=True, help="Print what would be measured, and stop.")
@click.pass_context
def run(
    ctx: click.Context,
    mode: str | None,
    output: Path | None,
    resume: Path | None,
    training: bool | None,
    dry_run: bool,
    filter_: str,
    **asked: Any,
) -> None:
    """Check every backend against the oracle, time those that are right, and write a report."""
    from rnnbench.commands import run as session
    from rnnbench.results.record import Mode

    def work() -> int:
        if resume is not None:
            _refuse_other_options(ctx)
            plan, described = session.read_plan(resume)
            return _execute(plan, resume, described.get("command", ""), resume=True)
        kind = Mode(mode or "default")
        plan = _plan(mode=kind, filter=filter_, training=(), **asked)
        plan = session.with_trainings(plan, training)
        if dry_run:
            return _dry_run(plan)
        folder = output or Path("reports") / session.new_run_id()
        command = " ".join(["python -m rnnbench", *sys.argv[1:]])
        return _execute(plan, folder, command)

    _guarded(work)


def _refuse_other_options(ctx: click.Context) -> None:
    given = [
        name
        for name in ctx.params
        if name != "resume" and ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    ]
    if given:
        raise ValueError(f"--resume takes everything from the run's folder; leave out: {', '.join(sorted(given))}")


def _execute(plan: Any, folder: Path, command: str, *, resume: bool = False) -> int:
    from rnnbench.commands import run as session
    from rnnbench.commands.progress import Display
    from rnnbench.report.page import write_report
    from rnnbench.report.terminal import render

    with Display(_console(stderr=True)) as display:
        result = session.execute(plan, folder, command, display, resume=resume)
        display.show("writing the report", 1.0)
        loaded, code = result.loaded, result.code
        try:
            write_report(folder, loaded.records, loaded.curves, loaded.machine, loaded.run, plan.reference)
        except OSError as error:
            display.say(f"the report cannot be written to {folder}: {error.strerror}")
            code = session.FOLDER
    render(_console(), loaded.records, loaded.curves, loaded.run, plan.reference)
    click.echo(f"Report: {folder / 'report.md'}")
    return code


def _dry_run(plan: Any) -> int:
    from rnnbench.measure.schedule import wanted, workload_of
    from rnnbench.measure.tasks import cases_of

    rows = [
        (case.key, name, "missing" if backends.missing(name) else "")
        for workload in plan.workloads
        for case in cases_of(plan, workload_of(workload, plan), 1 << 30)
        for name in plan.backends
        if wanted(plan, case, name)
    ]
    _print_table(("case", "backend", ""), rows)
    effort = plan.effort
    click.echo(f"{len(rows)} answers, each in {effort.launches} launches of {effort.rounds} rounds; nothing was run.")
    return 0 if rows else _complain("the filter leaves nothing to measure", 3)


def _print_table(header: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    from rich import box
    from rich.table import Table

    table = Table(*header, box=box.SIMPLE_HEAD)
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    _console().print(table)


SWEEP_EPILOG = """\b
Examples:
  python -m rnnbench sweep
  python -m rnnbench sweep --H 8:1024 --T 100 -b numba,jax,torch+flush
  python -m rnnbench sweep --H 16:1024 --B 1:512 --grid -o reports/map
  python -m rnnbench sweep --T 1:10000 --H 32 --pass forward --threads 1
  python -m rnnbench sweep --resume reports/map

\b
Exit codes: as of run.
"""


@main.command(epilog=SWEEP_EPILOG)
@click.option("--H", "H", type=SIZES, help="Hidden units. One number: where this axis stays. Centre: 128.")
@click.option("--B", "B", type=SIZES, help="Rows of a batch, likewise. Centre: 32.")
@click.option("--T", "T", type=SIZES, help="Time steps, likewise. Centre: 100. Default: all three axes are swept.")
@click.option("--E", "E", type=click.IntRange(1), help="Width of the inputs. Default: as wide as H.")
@click.option("--grid", is_flag=True, help="Also each H with each B, for the map of who wins where.")
@click.option("--backend", "-b", type=BACKENDS, help="Comma-separated. Default: all.")
@click.option("--pass", "passes", type=PASSES, help="Comma-separated. Default: forward,gradient.")
@click.option("--dtype", "dtypes", type=DTYPES, help="Comma-separated. Default: float32.")
@click.option("--quick", "mode", flag_value="quick", help="A smoke run: one round, few samples; not for quoting.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder of the run. Default: reports/RUN ID.")
@click.option("--resume", type=click.Path(path_type=Path), help="Continue the interrupted run in this folder.")
@options(THREADS, SEED, TIMEOUT)
@click.option("--dry-run", is_flag=True, help="Print what would be measured, and stop.")
@click.pass_context
def sweep(
    ctx: click.Context,
    H: tuple[int, ...] | None,
    B: tuple[int, ...] | None,
    T: tuple[int, ...] | None,
    E: int | None,
    grid: bool,
    passes: tuple[str, ...] | None,
    mode: str | None,
    output: Path | None,
    resume: Path | None,
    dry_run: bool,
    **asked: Any,
) -> None:
    """Check and time everybody on dense inputs of many sizes, one axis at a time; plots, and a map of who wins.

    Sizes are LOW:HIGH, doubled from LOW on, or numbers with commas between.
    """
    from rnnbench.commands import run as session
    from rnnbench.commands import sweep as sizes
    from rnnbench.measure.sweep import check_memory
    from rnnbench.model import DENSE
    from rnnbench.results.record import Mode

    def work() -> int:
        if resume is not None:
            _refuse_other_options(ctx)
            plan, described = session.read_plan(resume)
            return _execute(plan, resume, described.get("command", ""), resume=True)
        swept = sizes.sweep_of({"H": H, "B": B, "T": T}, E, grid)
        chosen = tuple(Pass(p) for p in passes or sizes.DEFAULT_PASSES)
        sizes.check_passes(chosen)
        plan = _plan((DENSE,), passes=chosen, mode=Mode(mode or "default"), sweep=swept, data_dir=None, **asked)
        if dry_run:
            rows = sizes.rows_of(plan)
            _print_table(("case", "MFLOP", "FLOP a byte"), rows)
            click.echo(f"{len(rows)} cases, each by {', '.join(plan.backends)}; nothing was run.")
            return 0
        check_memory(plan)
        folder = output or Path("reports") / session.new_run_id()
        return _execute(plan, folder, " ".join(["python -m rnnbench", *sys.argv[1:]]))

    _guarded(work)


@main.command("list")
@JSON
def list_(as_json: bool) -> None:
    """Show the workloads and backends, and how to get what is missing.

    \b
    Examples:
      python -m rnnbench list
      python -m rnnbench list --json
    """
    tasks = {name: workloads.get(name) for name in workloads.REGISTRY}
    answers = {name: (entry.summary, backends.missing(name)) for name, entry in backends.REGISTRY.items()}
    if as_json:
        _print_json(
            {
                "workloads": {
                    name: {"summary": w.summary, "B": w.B, "T": w.T, "epochs": w.epochs, "stand_in": w.stand_in,
                           "shapes": w.model.shapes}
                    for name, w in tasks.items()
                },
                "backends": {name: {"summary": text, "missing": why} for name, (text, why) in answers.items()},
                "passes": list(Pass),
                "dtypes": list(DType),
                "seeds": SEEDS,
            }
        )  # fmt: skip
        return
    _print_table(("workload", "what it is"), [(name, w.summary) for name, w in tasks.items()])
    _print_table(
        ("backend", "what it is", "here"), [(name, text, why or "ready") for name, (text, why) in answers.items()]
    )


VERIFY_EPILOG = """\b
Examples:
  python -m rnnbench verify
  python -m rnnbench verify -b numba,torch -w imdb-200 --dtype float64
  python -m rnnbench verify -w running-parity -T 200 --truncation 7:3

\b
Exit codes: 0 all agree, 1 one does not or failed, 2 usage, 3 nobody could be checked.
"""


@main.command(epilog=VERIFY_EPILOG)
@WHICH
@options(TRUNCATION, TIME_STEPS, BATCH_SIZE, THREADS, SEED, DATA_DIR, TIMEOUT, JSON)
def verify(as_json: bool, filter_: str, **asked: Any) -> None:
    """Compare every backend with the float64 oracle, array by array, and time nothing."""
    from rnnbench.commands import verify as checking
    from rnnbench.commands.progress import Display

    def work() -> int:
        asked["workload"] = asked["workload"] or checking.WORKLOADS
        asked["dtypes"] = asked["dtypes"] or tuple(DType)
        with Display(_console(stderr=True)) as display:
            result = checking.check(_plan(filter=filter_, mode=checking.MODE, **asked), display)
        if as_json:
            _print_json(result.as_json())
        else:
            result.print(_console())
        return result.code

    _guarded(work)


TRAIN_EPILOG = """\b
Examples:
  python -m rnnbench train imdb-50
  python -m rnnbench train imdb-50 --backend jax --epochs 5
  python -m rnnbench train running-parity -T 1000 --truncation 50:25 --json
"""


@main.command(epilog=TRAIN_EPILOG)
@click.argument("workload", type=WORKLOAD)
@click.option("--backend", "-b", type=BACKEND, default="numba", show_default=True)
@click.option("--epochs", type=click.IntRange(1), help="Default: the workload's.")
@click.option("--dtype", type=DTYPE, default="float32", show_default=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder to keep the learning curve in.")
@options(TRUNCATION, TIME_STEPS, BATCH_SIZE, THREADS, SEED, DATA_DIR, TIMEOUT, JSON)
def train(
    workload: str, backend: str, epochs: int | None, dtype: str, output: Path | None, as_json: bool, **asked: Any
) -> None:
    """Train one workload with one backend; loss and accuracy after each epoch, and on the test rows at the end."""
    from rnnbench.commands import train as training
    from rnnbench.results.record import Mode

    def work() -> int:
        if reason := backends.missing(backend):
            return _complain(reason, 3)
        plan = _plan((workload,), (backend,), None, (dtype,), mode=Mode.DEFAULT, **asked)
        result = training.run(plan, epochs, output, _console(stderr=as_json), quiet=as_json)
        if as_json:
            _print_json(result)
        return 0

    _guarded(work)


SEEDS_EPILOG = """\b
Examples:
  python -m rnnbench seeds
  python -m rnnbench seeds forward-golden bptt-golden
  python -m rnnbench seeds imdb-200 --backend jax
"""


@main.command(epilog=SEEDS_EPILOG)
@click.argument("experiments", nargs=-1, type=Name("experiment", SEEDS))
@click.option("--backend", "-b", type=BACKEND, default="numba", show_default=True)
@options(THREADS, SEED, DATA_DIR, TIMEOUT, JSON)
def seeds(experiments: tuple[str, ...], backend: str, as_json: bool, **asked: Any) -> None:
    """Repeat the experiments of the two notebooks this project grew from, their figures beside ours."""
    from rnnbench.commands import seeds as experiments_of_seeds
    from rnnbench.results.record import Mode

    def work() -> int:
        if reason := backends.missing(backend):
            return _complain(reason, 3)
        plan = _plan(None, (backend,), None, None, mode=Mode.DEFAULT, **asked)
        findings, code = experiments_of_seeds.run(experiments or SEEDS, plan)
        if as_json:
            _print_json(experiments_of_seeds.as_json(findings))
        else:
            experiments_of_seeds.show(findings, backend, _console())
        return code

    _guarded(work)


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--reference", type=BACKEND, help="Whom speed-ups are relative to.")
def report(folder: Path, reference: str | None) -> None:
    """Write the report of a run's folder again: report.md, tables and figures.

    \b
    Examples:
      python -m rnnbench report reports/mine
      python -m rnnbench report reports/mine --reference jax
    """
    from rnnbench.report.page import write_report
    from rnnbench.report.terminal import render
    from rnnbench.results import store

    def work() -> int:
        loaded = store.load(folder)
        for problem in loaded.problems:
            click.echo(problem, err=True)
        chosen = reference or loaded.run.get("reference")
        try:
            write_report(folder, loaded.records, loaded.curves, loaded.machine, loaded.run, chosen)
        except OSError as error:
            raise store.StoreError(f"the report cannot be written to {folder}: {error.strerror}") from error
        render(_console(), loaded.records, loaded.curves, loaded.run, chosen)
        click.echo(f"Report: {folder / 'report.md'}")
        return 0

    _guarded(work)


@main.command()
@click.option("--dtype", "dtypes", type=DTYPES, help="Comma-separated. Default: float32.")
def warm(dtypes: tuple[str, ...] | None) -> None:
    """Compile our kernels now and keep them on disk, so that nobody waits later.

    A run measures what compiling costs and keeps its own; `train`, `verify`, `seeds` and your programs profit.

    \b
    Examples:
      python -m rnnbench warm
      python -m rnnbench warm --dtype float32,float64
    """
    from rnnbench.commands import warm as warming

    def work() -> int:
        warming.run(tuple(DType(d) for d in dtypes or (DType.FLOAT32,)), _console(stderr=True))
        return 0

    _guarded(work)


@main.command()
@click.option("--peak", is_flag=True, help="Also measure multiply-adds and bytes a second, which takes seconds.")
@options(THREADS, JSON)
def env(peak: bool, threads: int | None, as_json: bool) -> None:
    """Show this machine as a run would record it.

    \b
    Examples:
      python -m rnnbench env
      python -m rnnbench env --json
      python -m rnnbench env --peak
    """
    from rnnbench.measure.machine import fingerprint
    from rnnbench.measure.peak import PeakUnknown, measure
    from rnnbench.report.peak import lines

    cores, facts, found = _threads(threads), fingerprint(), None
    if peak:
        try:
            found = measure(tuple(DType), cores)
        except PeakUnknown as error:
            sys.exit(_complain(str(error), 3))
        facts["peak"] = asdict(found)
    if as_json:
        _print_json(facts)
        return
    rows = []
    for key, value in facts.items():
        if key == "peak" and found:
            rows += [("peak", found.method), *((f"peak {name}", text) for name, text in lines(found))]
        elif isinstance(value, dict):
            rows += [(f"{key} {inner}", _short(item)) for inner, item in value.items()]
        else:
            rows.append((key, _short(value)))
    _print_table(("fact", "value"), rows)


def _short(value: object) -> str:
    if value is None:
        return "unknown"
    return " ".join(str(item) for item in value) if isinstance(value, list) else str(value)
