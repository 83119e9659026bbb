"""`warm`."""

from __future__ import annotations

import time

import click

from rnnbench import backends
from rnnbench.api.exit_codes import NOTHING, OK, exit_code_help
from rnnbench.cli.options import DTYPES, several
from rnnbench.cli.shell import complain, console_of, guarded
from rnnbench.model import DType


@click.command(epilog=exit_code_help("warm"))
@several("--dtype", "dtypes", type=DTYPES, help="Comma-separated. Default: float32.")
def warm(dtypes: tuple[str, ...] | None) -> None:
    """Compile our kernels now and keep them on disk, to save the wait later.

    `train`, `verify`, `seeds` and your own programs use what is kept. A run does not: it measures what compiling costs.

    \b
    Examples:
      python -m rnnbench warm
      python -m rnnbench warm --dtype float32,float64
    """
    from rnnbench.cli.progress import Display

    def work() -> int:
        if reason := backends.missing("numba"):
            return complain(reason, NOTHING)
        with Display(console_of(stderr=True)) as display:
            for dtype in dtypes or (DType.FLOAT32,):
                start = time.monotonic()
                for done, parts, name in backends.load("numba").warm(DType(dtype)):
                    display.show(f"{dtype}: compiling {name}, {done + 1} of {parts}", done / parts)
                display.say(f"{dtype}: kernels ready after {time.monotonic() - start:.1f} s")
        return OK

    guarded(work)
