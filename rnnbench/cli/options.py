"""Options that several commands share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import click

from rnnbench import backends, workloads
from rnnbench.cells import CELLS
from rnnbench.cli.names import (
    MAX_LAYERS,
    MAX_LETTER,
    MAX_SEED,
    MAX_SIZE,
    BackendName,
    Count,
    DurationType,
    FolderType,
    GateType,
    Name,
    Names,
    SizesType,
    TruncationType,
    WorkloadName,
)
from rnnbench.model import DType, Head, Loss, Pass

WORKLOAD = WorkloadName(list(workloads.REGISTRY))
BACKEND = BackendName("backend", list(backends.REGISTRY))
DTYPE = Name("dtype", [str(d) for d in DType])
WORKLOADS = Names(WORKLOAD)
BACKENDS = Names(BACKEND)
PASSES = Names(Name("pass", [str(p) for p in Pass]))
SIZES = SizesType()
GATE = GateType()
DTYPES = Names(DTYPE)


def options(*which: Callable[..., Any]) -> Callable[..., Any]:
    """Several options as one decorator, in the order given."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(which):
            function = option(function)
        return function

    return decorate


def _joined(ctx: click.Context, param: click.Parameter, value: Iterable[tuple[Any, ...]]) -> tuple[Any, ...] | None:
    return tuple(dict.fromkeys(part for each in value for part in each)) or None


def several(*names: str, type: click.ParamType, help: str) -> Callable[..., Any]:
    """An option of several values: with commas between, or given more than once. None where it is not given."""
    return click.option(*names, type=type, multiple=True, callback=_joined, help=help)


JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, for programs.")


def _threads(ctx: click.Context, param: click.Parameter, value: int | None) -> int | None:
    from rnnbench.machine.cores import allowed_cores

    if value is None or ctx.params.get("scheduler"):  # of other machines: they are asked
        return value
    if value > (cores := len(allowed_cores())):
        raise click.UsageError(f"--threads {value} is more than the {cores} cores allowed here; choose 1 to {cores}")
    return value


def _with_threads(default: str) -> Callable[..., Any]:
    words = f"Threads of every backend. Default: {default}."
    return click.option("--threads", type=Count(1, MAX_SIZE), callback=_threads, help=words)


THREADS = _with_threads("all allowed cores")
BETTER_THREADS = _with_threads(
    "1 or all allowed cores, whichever a trial shows to be faster for each backend and case; all with --quick"
)
SEED = click.option("--seed", type=Count(0, MAX_SEED), default=0, show_default=True, help="Parameters, data and order.")
DATA_DIR = click.option(
    "--data-dir", type=FolderType(), help="Folder with imdb.npz, which is looked in first. Default: $RNNBENCH_DATA."
)
TRUNCATION = click.option(
    "--truncation", type=TruncationType(), help="Truncated BPTT, such as 20:5. Default: full BPTT."
)
SIZE = Count(1, MAX_LETTER)


def _lower(ctx: click.Context, param: click.Parameter, value: str | None) -> Any:
    return None if value is None else {"head": Head, "loss": Loss}[str(param.name)](value)


MODEL = options(
    several("--cell", type=Names(Name("cell", list(CELLS))),
            help=f"{', '.join(CELLS)}; comma-separated. Default: the workload's, else rnn."),
    click.option("--layers", type=Count(1, MAX_LAYERS),
                 help="Layers, one above the other. Default: the workload's, else 1."),
    click.option("--bidirectional", is_flag=True, default=None, help="Each layer also from a row's end to its start."),
    click.option("-V", "V", type=SIZE, help="Vocabulary. Default: read from x; made-up rows are dense without it."),
    click.option("-O", "O", type=SIZE, help="Outputs. Default: read from y; 1 for made-up rows."),
    click.option("--head", type=Name("head", list(Head)), callback=_lower,
                 help=f"Where outputs are: {', '.join(Head)}. Default: read from y; last for made-up rows."),
    click.option("--loss", type=Name("loss", list(Loss)), callback=_lower,
                 help=f"{', '.join(Loss)}. Default: read from y; for made-up rows binary, or categorical with -O."),
)  # fmt: skip
PROBLEM = options(
    click.option("--hidden", "-H", "H", type=SIZE,
                 help="Hidden units. Default: the workload's; 128 for rows.npz and sizes alone."),
    click.option("--input-width", "-E", "E", type=SIZE,
                 help="Width of the embedding. Default: the workload's, else as -H. Dense rows have their own."),
    click.option("--time-steps", "-T", "T", type=SIZE,
                 help="Steps of a row. Default: the workload's; 100 for sizes alone. rows.npz has its own."),
    click.option("--batch-size", "-B", "B", type=SIZE, help="Rows of a batch. Default: the workload's, else 32."),
    MODEL,
)  # fmt: skip
PROBLEM_HELP = """\b
Which network:
  -w parity,imdb-50     built-in workloads (`list`); -H -E -T -B change them
  -w rows.npz           your rows: arrays x and y, optionally lengths, x_test, y_test, lengths_test
  -w mine.toml          a description of yours, with or without rows
  -w mine.py:WORKLOAD   a rnnbench.Workload of yours
  -V 20000 -E 64 -H 256 -T 120 -B 64
                        sizes alone: made-up rows, under the name made-up

"""
TIMEOUT = click.option(
    "--timeout", type=DurationType(), default="300s", show_default=True,
    help="The longest that one request to a backend may take, compiling included.",
)  # fmt: skip


def _variables(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> dict[str, str]:
    from rnnbench.machine.environment import variables_of

    try:
        return variables_of(value)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


ENV = click.option(
    "--env", multiple=True, callback=_variables, metavar="NAME[=VALUE]",
    help="An environment variable that backends get besides the usual ones; may be given more than once.",
)  # fmt: skip
WORDS = click.option(
    "-k", "filter_", multiple=True, metavar="WORDS", callback=lambda ctx, param, value: " ".join(value),
    help="Keep the cases and backends whose names hold every word, such as 'imdb jax'; !WORD leaves out.",
)  # fmt: skip
ONE_BACKEND = click.option(
    "--backend", "-b", type=BACKEND, help="What computes. Default: numba, or numpy where Numba is switched off."
)


def backend_or_default(name: str | None, env: Mapping[str, str] | None = None) -> str:
    """The backend that is asked for, else numba or, said in a line, numpy. Raises WorkloadUnavailable."""
    from rnnbench.workloads.base import WorkloadUnavailable

    reason = backends.missing(name or "numba", env)
    if reason is None:
        return name or "numba"
    if name is None:
        click.echo(f"numpy computes in place of numba: {reason}", sys.stderr)
        return "numpy"
    here = [other for other in ("numba", "numpy") if not backends.missing(other, env)]
    raise WorkloadUnavailable(f"{reason}. Of what is here, -b {' or -b '.join(here)} does it")


BACKEND_LIST = several(
    "--backend", "-b", type=BACKENDS, help="Comma-separated: names, or FILE.py:CLASS. Default: the usual, on the CPU."
)


def which(workloads: str, dtypes: str) -> Callable[..., Any]:
    """Which cases; the two texts say what is taken where nothing is asked for."""
    return options(
        several("--workload", "-w", type=WORKLOADS,
                help=f"Comma-separated: names, or rows.npz, mine.toml, mine.py:NAME. Default: {workloads}."),
        BACKEND_LIST,
        several("--pass", "passes", type=PASSES, help=f"{', '.join(Pass)}; comma-separated. Default: all but step."),
        several("--dtype", "dtypes", type=DTYPES, help=dtypes),
        WORDS,
    )  # fmt: skip
