"""`rnnbench warm`: compile ahead, with a line that says how far it is."""

from __future__ import annotations

import time
from collections.abc import Iterable

from rnnbench import backends
from rnnbench.harness.observer import Observer
from rnnbench.model import DType


def run(dtypes: Iterable[DType], observer: Observer) -> None:
    """Compile or load our kernels for these types, here and now, and say what each took."""
    for dtype in dtypes:
        start = time.monotonic()
        backend = backends.load("numba")
        for done, parts, name in backend.warm(dtype):
            observer.show(f"{dtype}: compiling {name}, {done + 1} of {parts}", done / parts)
        observer.say(f"{dtype}: kernels ready after {time.monotonic() - start:.1f} s")
