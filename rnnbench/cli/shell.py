"""What the commands share: from options to a plan, printing, and errors in one line with an exit code."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Collection, Iterable
from typing import Any

import click

from rnnbench import backends
from rnnbench.model import DType, Pass

DEFAULT_WORKLOADS = ("parity", "imdb-50", "imdb-200")


def allowed_threads(asked: int | None) -> int:
    """As many as asked, else all allowed cores."""
    from rnnbench.measure.client import allowed_cores

    cores = len(allowed_cores())
    if asked is not None and asked > cores:
        raise click.UsageError(f"--threads {asked} is more than the {cores} cores allowed here; choose 1 to {cores}")
    return asked or cores


def plan_of(
    workload: tuple[str, ...] | None,
    backend: tuple[str, ...] | None,
    passes: tuple[str, ...] | None,
    dtypes: tuple[str, ...] | None,
    **rest: Any,
) -> Any:
    """A `Plan` of the options as click gives them."""
    from rnnbench.measure.schedule import Plan

    threads = allowed_threads(rest.pop("threads"))
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


def given(ctx: click.Context, allowed: Collection[str]) -> list[click.Parameter]:
    """The options that stand on the command line, but for those that are allowed."""
    found = [
        option
        for option in ctx.command.params
        if option.name not in allowed
        and ctx.get_parameter_source(str(option.name)) is click.core.ParameterSource.COMMANDLINE
    ]
    return [  # of flags that choose between values, the one that was given
        option
        for option in found
        if not isinstance(getattr(option, "flag_value", None), str)
        or ctx.params[str(option.name)] == getattr(option, "flag_value", None)
    ]


def written(option: click.Parameter, ctx: click.Context) -> str:
    """An option that was given, as a user writes it."""
    off = ctx.params[str(option.name)] is False
    return option.secondary_opts[0] if off and option.secondary_opts else option.opts[0]


def console_of(*, stderr: bool = False) -> Any:
    """A rich console; 120 wide where it is no terminal."""
    from rich.console import Console

    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=120)


def guarded(work: Callable[[], int]) -> None:
    """Run a command's body; turn what a user can cause into one sentence and an exit code."""
    from rnnbench.commands.run import FOLDER, INTERRUPTED, NOTHING, USAGE
    from rnnbench.results.store import StoreError
    from rnnbench.workloads.base import WorkloadUnavailable

    try:
        code = work()
    except StoreError as error:
        code = complain(str(error), FOLDER)
    except WorkloadUnavailable as error:
        code = complain(str(error), NOTHING)
    except OSError as error:
        where, why = error.filename or "a file", error.strerror or error
        code = complain(f"{where}: {why}; choose another folder, or make room", FOLDER)
    except ValueError as error:
        code = complain(str(error), USAGE)
    except KeyboardInterrupt:
        code = complain("interrupted", INTERRUPTED)
    sys.exit(code)


def complain(text: str, code: int) -> int:
    """Print what went wrong; the exit code."""
    click.echo(f"Error: {text}", err=True)
    return code


def print_json(value: Any) -> None:
    """Print for programs."""
    click.echo(json.dumps(value, indent=2, default=str))


def print_table(header: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Print for people."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(*header, box=box.SIMPLE_HEAD)
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))  # no markup: brackets are an extra's
    console_of().print(table)
