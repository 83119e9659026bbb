"""`rnnbench warm`: compile ahead, with a line that says how far it is."""

from __future__ import annotations

import time
from collections.abc import Iterable

from rich.console import Console

from rnnbench import backends
from rnnbench.cli.progress import Display
from rnnbench.model import DType


def run(dtypes: Iterable[DType], console: Console) -> None:
    """Compile or load our kernels for these types, here and now, and say what each took."""
    for dtype in dtypes:
        start = time.monotonic()
        with Display(console) as display:
            backend = backends.load("numba")
            for done, parts, name in backend.warm(dtype):
                display.show(f"{dtype}: compiling {name}, {done + 1} of {parts}", done / parts)
        display.say(f"{dtype}: kernels ready after {time.monotonic() - start:.1f} s")
