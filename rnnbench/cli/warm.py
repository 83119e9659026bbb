"""`warm`."""

from __future__ import annotations

import click

from rnnbench.api.exit_codes import exit_code_help
from rnnbench.cli.options import (
    DTYPES,
    several,
)
from rnnbench.cli.shell import (
    console_of,
    guarded,
)
from rnnbench.model import DType


@click.command(epilog=exit_code_help("warm"))
@several("--dtype", "dtypes", type=DTYPES, help="Comma-separated. Default: float32.")
def warm(dtypes: tuple[str, ...] | None) -> None:
    """Compile our kernels now and keep them on disk, so that nobody waits later.

    A run measures what compiling costs and keeps its own; `train`, `verify`, `seeds` and your programs profit.

    \b
    Examples:
      python -m rnnbench warm
      python -m rnnbench warm --dtype float32,float64
    """
    from rnnbench.api import warm as warming
    from rnnbench.cli.progress import Display

    def work() -> int:
        with Display(console_of(stderr=True)) as display:
            warming.run(tuple(DType(d) for d in dtypes or (DType.FLOAT32,)), display)
        return 0

    guarded(work)
