"""What the commands share: from options to a plan, printing, and errors in one line with an exit code."""

from __future__ import annotations

import codecs
import errno
import io
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from rnnbench.api.errors import STDOUT, told
from rnnbench.api.exit_codes import FAULT, INTERRUPTED


def asked_plan(
    workload: tuple[str, ...] | None,
    backend: tuple[str, ...] | None,
    passes: tuple[str, ...] | None,
    dtypes: tuple[str, ...] | None,
    *,
    data_dir: Path | None = None,
    default: Iterable[str] | None = None,
    **rest: Any,
) -> tuple[Any, dict[str, Any]]:
    """A `Plan` of the options as click gives them, and its workloads by name."""
    from rnnbench.api import planning
    from rnnbench.workloads import resolve

    given = {name: rest.pop(name) for name in list(rest) if name in resolve.Asked.__annotations__}
    sizes = resolve.Asked(**given | {"cell": given.get("cell") or ()})
    usual = resolve.DEFAULT if default is None else default
    found = resolve.resolve(workload, sizes, lambda text: say(text, err=True), default=usual, seed=rest.get("seed", 0))
    plan = planning.plan_of(
        found, backend, passes, dtypes, names=workload or (), sizes=sizes,
        data_dir=None if data_dir is None else str(data_dir), **rest,
    )  # fmt: skip
    return plan, {each.name: each for each in found}


def each_cell(cells: Iterable[str], output: Path | None) -> list[tuple[tuple[str, ...], Path | None]]:
    """Each of several cells, and its own folder in `output`; of one or none, `output` itself.

    Raises StoreError where several cells find anything in `output`.
    """
    from rnnbench.records.folder import refuse_used

    names = tuple(dict.fromkeys(cells))
    if len(names) < 2:
        return [(names, output)]
    if output is not None:
        refuse_used(output)
    return [((name,), None if output is None else output / name) for name in names]


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


NARROWEST, OF_A_LOG = 20, 120  # columns


def console_of(*, stderr: bool = False) -> Any:
    """A rich console; 120 wide where it is no terminal, whatever COLUMNS and FORCE_COLOR say."""
    from rich.console import Console

    if not (sys.stderr if stderr else sys.stdout).isatty():
        return Console(stderr=stderr, width=OF_A_LOG)
    console = Console(stderr=stderr)
    return console if console.width >= NARROWEST else Console(stderr=stderr, width=NARROWEST)


class Outlet(io.FileIO):
    """A standard stream that cannot end a command: what nobody reads any more is dropped.

    That stdout cannot be written for another reason, such as a full disk, is raised once: the answer is lost.
    """

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())  # also for what is flushed when Python ends
            os.close(null)
            if error.errno == errno.EPIPE or self.fileno() != 1:
                return len(data)
            error.filename = STDOUT
            raise


SHOWN = "rnnbench.shown"
_IN_ASCII = {"µ": "u", "°": "", "…": "...", "†": "+", "‡": "++", "¹": "(1)"}


def _shown(error: UnicodeError) -> tuple[str, int]:
    """What stands for signs that a stream cannot encode."""
    assert isinstance(error, UnicodeEncodeError)
    return "".join(_IN_ASCII.get(sign, "?") for sign in error.object[error.start : error.end]), error.end


codecs.register_error(SHOWN, _shown)


def own_streams() -> None:
    """Give stdout and stderr the manners of `Outlet`; signs that they cannot encode are replaced."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:  # closed: the next file that is opened would get its number, and all that is printed
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        try:
            ours = stream is None or stream.fileno() == number
        except (AttributeError, OSError, ValueError):  # a notebook's, or a test's
            ours = False
        if ours:
            if stream is not None:
                stream.flush()
            setattr(sys, name, io.TextIOWrapper(
                io.BufferedWriter(Outlet(number, "wb", closefd=False)), getattr(stream, "encoding", "utf-8"), SHOWN,
                newline="\n", line_buffering=getattr(stream, "line_buffering", False),
                write_through=getattr(stream, "write_through", False),
            ))  # fmt: skip
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=SHOWN)


class Command(click.Command):
    """A command whose exit code is true, whatever happens: 1 is never what Python or click gives an error."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """As click's, with a sentence and a code for whatever ends a command."""
        own_streams()
        try:
            code = super().main(*args, **{**kwargs, "standalone_mode": False}) or 0
        except click.UsageError as error:
            code = complain(error.format_message(), error.exit_code)
            if error.ctx is not None:
                say(f"{error.ctx.command_path} --help shows what there is", err=True)
        except click.ClickException as error:
            code = complain(error.format_message(), error.exit_code)
        except click.Abort:
            code = complain("interrupted", INTERRUPTED)
        except Exception as error:
            code = answered(error)
        sys.exit(code)

    def invoke(self, ctx: click.Context) -> Any:
        """As click's; but a broken pipe is not our output's, and ends nothing quietly."""
        try:
            return super().invoke(ctx)
        except OSError as error:
            sys.exit(answered(error))


def answered(error: Exception) -> int:
    """Say what an exception means; the exit code. RNNBENCH_TRACEBACK shows where a fault of ours was."""
    if found := told(error):
        return complain(*found)
    if os.environ.get("RNNBENCH_TRACEBACK"):
        traceback.print_exception(error)
    said = " ".join(f"{type(error).__name__}: {error}".split())[:200].rstrip(": ")
    return complain(f"this is a fault of rnnbench, {said}; RNNBENCH_TRACEBACK=1 in the environment shows where", FAULT)


@contextmanager
def ended_in_order() -> Iterator[None]:
    """SIGTERM ends what happens meanwhile as Ctrl-C does, with what was measured."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def guarded(work: Callable[[], int]) -> None:
    """Run a command's body and end with its code; `Command` turns what it raises into a sentence and a code."""
    try:
        code = work()
    except KeyboardInterrupt:
        code = complain("interrupted", INTERRUPTED)
    sys.exit(code)


def say(text: str, *, err: bool = False, nl: bool = True) -> None:
    """Print a line, by the stream as it is: of one in ASCII click makes another, in UTF-8."""
    click.echo(text, sys.stderr if err else sys.stdout, nl)


def complain(text: str, code: int) -> int:
    """Print what went wrong; the exit code."""
    say(f"Error: {text}", err=True)
    return code


def print_json(value: Any) -> None:
    """Print for programs."""
    say(json.dumps(value, indent=2, default=str))


def print_table(header: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
    """Print for people."""
    from rnnbench.report import grid

    grid.print_fitted(console_of(), header, [[str(cell) for cell in row] for row in rows])
