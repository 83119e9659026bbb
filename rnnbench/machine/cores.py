"""The cores that a process may use."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def allowed_cores() -> list[int]:
    """The cores that this process may run on."""
    with suppress(AttributeError, OSError):  # not on every system, and not told by every one
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def cores_for(threads: int, first: int = 0) -> list[int]:
    """As many of the allowed cores, from the one at this place on."""
    cores = allowed_cores()
    first %= len(cores)
    return sorted((cores[first:] + cores[:first])[:threads])


def stay_on(cores: Iterable[int]) -> None:
    """Keep all threads of this process on these cores, where the system can."""
    tasks = Path("/proc/self/task")
    if hasattr(os, "sched_setaffinity") and tasks.is_dir():
        for task in tasks.iterdir():
            with suppress(ProcessLookupError):  # it has ended
                os.sched_setaffinity(int(task.name), cores)
