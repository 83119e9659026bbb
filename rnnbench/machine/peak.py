"""This machine's ceilings, measured in a process of its own: multiply-adds and bytes a second, by one thread and all.

`peak_worker` is the process. Best of many short trials: a ceiling is what is possible, and a busy machine hides it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from rnnbench import backends
from rnnbench.analysis.roofline import Peak
from rnnbench.harness.worker_client import Limit, WorkerFailure, asked
from rnnbench.machine import fingerprint
from rnnbench.machine.environment import environment
from rnnbench.machine.known import known
from rnnbench.model import DType
from rnnbench.records.record import Status

SECONDS, QUICK_SECONDS = 0.15, 0.04  # of trials for each figure
TIMEOUT = 60.0
CACHES = 4  # memory is measured over an array of at least so many times the last-level cache,
FEWEST_CACHES, MANY_BYTES = 2, 1 << 30  # or of so many where that is as much memory: in a guest, touching it takes 5 s
MIN_BYTES = 64 << 20
ASSUMED_CACHE = 32 << 20


class PeakUnknown(Exception):
    """The peak could not be measured. One sentence for the user."""


def last_level_cache() -> int:
    """Bytes of the largest cache of the first core; a usual size where that is unknown."""
    sizes = (known(fingerprint.cache_bytes, Path("/"), level, "Unified") for level in (2, 3, 4))
    return max((size for size in sizes if size is not None), default=0) or ASSUMED_CACHE


def array_bytes() -> int:
    """How much memory to pass over: more than any cache holds, and at most a quarter of what is free."""
    import psutil

    cache = last_level_cache()
    size = max(min(CACHES * cache, MANY_BYTES), FEWEST_CACHES * cache, MIN_BYTES)
    available = known(lambda: psutil.virtual_memory().available)
    return size if available is None else min(size, available // 4)


def measure(dtypes: Sequence[DType], threads: int, *, quick: bool = False, timeout: float = math.inf) -> Peak:
    """The ceilings in these types by one thread and by `threads`. Raises PeakUnknown where the process fails.

    Also where it takes longer than `timeout` seconds, or `TIMEOUT`.
    """
    timeout = min(timeout, TIMEOUT)
    request: dict[str, Any] = {
        "dtypes": dtypes,
        "threads": sorted({1, threads}),
        "size": array_bytes(),
        "seconds": QUICK_SECONDS if quick else SECONDS,
    }
    try:
        module = "rnnbench.machine.peak_worker"
        env = environment(threads, None)
        compiling = {name: env[name] for name in env if name not in backends.REGISTRY["numba"].contradicted}
        reply = asked(module, "peak", Limit(timeout), compiling, **request)
        return msgspec.convert(reply["peak"], Peak)
    except WorkerFailure as failure:
        if failure.status is Status.TIMEOUT:
            reason = f"it took longer than {timeout:.3g} s; try again on a less busy machine"
        else:
            reason = failure.reason
        raise PeakUnknown(f"the machine's peak was not measured: {reason}") from failure
    except OSError as error:
        raise PeakUnknown(f"the machine's peak was not measured: {error}") from error
