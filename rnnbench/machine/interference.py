"""How busy the machine is: a moment of it, and what other processes and the hypervisor took between two moments."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rnnbench.machine.cores import allowed_cores

LOOK_SECONDS = 0.2  # how long a single look lasts


@dataclass(frozen=True)
class Moment:
    """Seconds since some fixed time: of the clock, of all allowed cores, and of this process and its ended children."""

    at: float
    busy: float  # not idle, stolen time left out
    stolen: float | None  # the hypervisor gave it to others
    total: float
    own: float


@dataclass(frozen=True)
class Shares:
    """What happened between two moments, as shares of the time of the allowed cores; None for what is not told."""

    seconds: float
    others: float | None
    stolen: float | None


def now() -> Moment | None:
    """This moment, or None where the system does not count its processors' time."""
    import psutil

    try:
        every = psutil.cpu_times(percpu=True)
    except (OSError, RuntimeError, NotImplementedError):
        return None
    cores = [every[core] for core in allowed_cores() if core < len(every)]
    if not cores:
        return None
    idle = sum(c.idle + getattr(c, "iowait", 0.0) for c in cores)
    # guest time is part of user time
    total = sum(sum(c) - getattr(c, "guest", 0.0) - getattr(c, "guest_nice", 0.0) for c in cores)
    stolen = sum(c.steal for c in cores) if hasattr(cores[0], "steal") else None
    spent = os.times()
    own = spent.user + spent.system + spent.children_user + spent.children_system
    return Moment(time.monotonic(), total - idle - (stolen or 0.0), stolen, total, own)


def between(first: Moment | None, last: Moment | None) -> Shares | None:
    """From one moment to another. Children that still run count as others: end them before the second.

    So does what a child left behind when it ended, as a compiler's helpers.
    """
    if first is None or last is None or last.total <= first.total:
        return None
    whole = last.total - first.total
    others = (last.busy - first.busy) - (last.own - first.own)
    stolen = None if last.stolen is None or first.stolen is None else (last.stolen - first.stolen) / whole
    return Shares(last.at - first.at, max(0.0, others / whole), stolen)


def state(shares: Shares | None) -> dict[str, Any]:
    """Load, free memory, swap and the shares, as `machine.json` holds them."""
    import psutil

    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    load = list(os.getloadavg())
    return {
        "load": load,
        "load_per_core": round(load[0] / len(allowed_cores()), 3),
        "available_bytes": memory.available,
        "swap_used_bytes": swap.used,
        "seconds": None if shares is None else round(shares.seconds, 3),
        "others_share": None if shares is None or shares.others is None else round(shares.others, 4),
        "stolen_share": None if shares is None or shares.stolen is None else round(shares.stolen, 4),
    }


class Watch:
    """From the start of a run to its end; no child of this process runs at either."""

    def __init__(self) -> None:
        self.first, self.since = now(), time.monotonic()

    @cached_property
    def start(self) -> dict[str, Any]:
        """The state of the first moments, at least `LOOK_SECONDS` of them; what this process spends then is its own."""
        time.sleep(max(0.0, LOOK_SECONDS - (time.monotonic() - self.since)))
        return state(between(self.first, now()))

    def end(self) -> dict[str, Any]:
        """The state now, and the shares since the start. For when all workers have ended."""
        return state(between(self.first, now()))
