"""Was the machine suspended, or its clock set, between two moments? Its clocks, read together, tell.

CLOCK_BOOTTIME goes on while the machine is suspended and CLOCK_MONOTONIC does not; else they run alike. CLOCK_REALTIME
runs as CLOCK_BOOTTIME does, slewing by NTP included, unless it is set.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from rnnbench.analysis.disturbances import CLOCK_SET, SUSPENDED

SHORTEST_NS = 10_000_000  # a shorter jump does no harm, and may be the reading's own
SURE_NS = 50_000  # clocks read within this are taken as read at once
TRIES = 5

Clock = Callable[[int], int]  # the number of a clock -> nanoseconds


@dataclass(frozen=True)
class Moment:
    """Nanoseconds of the clocks against CLOCK_MONOTONIC, and by how much each may be wrong."""

    boot: int
    real: int
    doubt: int


def now(clock: Clock | None = None) -> Moment:
    """This moment: the surest of a few readings, as the process may lose its core between two clocks."""
    boot = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # where it is missing, a suspension sets the clock
    read, found = clock or time.clock_gettime_ns, list[Moment]()
    while len(found) < TRIES and not (found and found[-1].doubt <= SURE_NS):
        before = read(time.CLOCK_MONOTONIC)
        booted, real = read(boot), read(time.CLOCK_REALTIME)
        after = read(time.CLOCK_MONOTONIC)
        found.append(Moment(booted - before, real - before, after - before))
    return min(found, key=lambda moment: moment.doubt)


def between(before: Moment, after: Moment) -> list[str]:
    """What happened between two moments, in words that `analysis.disturbances` knows."""
    least = SHORTEST_NS + before.doubt + after.doubt
    slept = after.boot - before.boot
    jumped = after.real - before.real - slept
    said = [f"{SUSPENDED} for {slept / 1e9:.3g} s"] if slept > least else []
    return said + ([f"{CLOCK_SET} by {jumped / 1e9:+.3g} s"] if abs(jumped) > least else [])
