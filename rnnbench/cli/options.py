"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import click

from rnnbench import backends, workloads
from rnnbench.cli.names import DurationType, FolderType, GateType, Name, Names, SizesType, TruncationType
from rnnbench.model import DType, Pass

WORKLOAD = Name("workload", list(workloads.REGISTRY))
BACKEND = Name("backend", list(backends.REGISTRY))
DTYPE = Name("dtype", [str(d) for d in DType])
WORKLOADS = Names("workload", list(workloads.REGISTRY))
BACKENDS = Names("backend", list(backends.REGISTRY))
PASSES = Names("pass", [str(p) for p in Pass])
SIZES = SizesType()
GATE = GateType()
DTYPES = Names("dtype", [str(d) for d in DType])


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
THREADS = click.option(
    "--threads", type=click.IntRange(1), help="Threads of every backend. Default: all allowed cores."
)
SEED = click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Parameters, data and order.")
DATA_DIR = click.option(
    "--data-dir", type=FolderType(), help="Folder with imdb.npz; looked in first. Also $RNNBENCH_DATA."
)
TRUNCATION = click.option(
    "--truncation", type=TruncationType(), help="Truncated BPTT, such as 20:5. Default: full BPTT."
)
TIME_STEPS = click.option(
    "--time-steps", "-T", type=int, help="Length of the rows, for running-parity, the only workload of free length."
)
BATCH_SIZE = click.option("--batch-size", "-B", type=int, help="Rows of a batch. Default: the workload's.")
TIMEOUT = click.option(
    "--timeout", type=DurationType(), default="300s", show_default=True,
    help="The longest that one request to a backend may take, compiling included.",
)  # fmt: skip
WORDS = click.option(
    "-k", "filter_", multiple=True, metavar="WORDS", callback=lambda ctx, param, value: " ".join(value),
    help="Keep the cases whose name holds every word; !WORD leaves out.",
)  # fmt: skip
BACKEND_LIST = several("--backend", "-b", type=BACKENDS, help="Comma-separated. Default: the usual, on the CPU.")


def which(workloads: str, dtypes: str) -> Callable[..., Any]:
    """Which cases; the two texts say what is taken where nothing is asked for."""
    return options(
        several("--workload", "-w", type=WORKLOADS, help=f"Comma-separated. Default: {workloads}."),
        BACKEND_LIST,
        several("--pass", "passes", type=PASSES, help="Comma-separated. Default: all."),
        several("--dtype", "dtypes", type=DTYPES, help=dtypes),
        WORDS,
    )
