"""The cores that a process may use."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress

from rnnbench.machine.known import known


def allowed_cores() -> list[int]:
    """The cores that this process may run on."""
    found = known(lambda: os.sched_getaffinity(0))  # not on every system
    return sorted(found) if found else list(range(os.cpu_count() or 1))


def cores_for(threads: int, first: int = 0) -> list[int]:
    """As many of the allowed cores, from the one at this place on."""
    cores = allowed_cores()
    first %= len(cores)
    return sorted((cores[first:] + cores[:first])[:threads])


def stay_on(cores: Iterable[int]) -> None:
    """Keep all threads of this process on these cores, where the system can."""
    with suppress(AttributeError, OSError):  # not on every system
        for task in os.listdir("/proc/self/task"):
            with suppress(ProcessLookupError):  # it has ended
                os.sched_setaffinity(int(task), cores)
