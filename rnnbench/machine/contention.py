"""What other programs take from a turn: by the system's counters around its calls, and by a probe of fixed work.

Never by the turn's own samples: what is slow by itself is not disturbed.
"""

from __future__ import annotations

import os
import resource
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from rnnbench.machine.interference import CpuTimes, read_cpu_times, shares_between
from rnnbench.records.record import Contention

TASKS = "/proc/self/task"

TICK_NS = 10**9 // os.sysconf("SC_CLK_TCK")  # in which the system counts the time of its cores
MIN_TICKS = 5  # that shares are taken over: one more or less is a fifth of a core then

# The probe: multiply-adds in 4 KiB, a small part of the first cache, about 17 us; no pool of threads has a part in it.
PROBE_NUMBERS = 1024
PROBE_ROUNDS = 15
PROBE_TRIES = 3  # the least of them: the first wakes the core, and a tick of the system's clock hits one


class RunDelay(NamedTuple):
    """Nanoseconds of a thread: with a core, and ready without one."""

    ran: int
    waited: int


@dataclass(frozen=True)
class Counters:
    """What the system has counted at one moment; None for what it does not count."""

    at_ns: int
    delays: dict[str, RunDelay] | None
    switches: int | None
    cpu: CpuTimes | None


def probe_ns() -> int:
    """Nanoseconds of the fixed work on the core where this thread is."""
    x = np.full(PROBE_NUMBERS, 0.5, np.float32)  # stays 0.5
    tries = []
    for _ in range(PROBE_TRIES):
        start = time.perf_counter_ns()
        for _ in range(PROBE_ROUNDS):
            np.multiply(x, 0.5, out=x)
            np.add(x, 0.25, out=x)
        tries.append(time.perf_counter_ns() - start)
    return max(1, min(tries))


def _read(path: str) -> bytes:
    """A short file of the system's, in less than half of the time that `open` takes."""
    file = os.open(path, os.O_RDONLY)
    try:
        return os.read(file, 200)
    finally:
        os.close(file)


def run_delays() -> dict[str, RunDelay] | None:
    """Of every thread of this process, by its number; None where the system does not count, or not for us."""
    found = {}
    try:
        for task in os.listdir(TASKS):
            with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended
                ran, waited, _ = map(int, _read(f"{TASKS}/{task}/schedstat").split())
                found[task] = RunDelay(ran, waited)
    except (OSError, ValueError):
        return None
    return found if any(delay.ran for delay in found.values()) else None  # a kernel that counts nothing says 0


def involuntary_switches() -> int | None:
    """How often a core was taken from a thread of this process; None where never, as where that is not counted."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw or None


def read_counters() -> Counters:
    """This moment."""
    return Counters(time.monotonic_ns(), run_delays(), involuntary_switches(), read_cpu_times())


def contention_between(first: Counters, last: Counters, probes: tuple[int, ...]) -> Contention:
    """What others took between two moments; of a thread that ended meanwhile nothing is known."""
    delay = None
    if first.delays is not None and last.delays is not None:
        before = first.delays
        delay = sum(max(0, d.waited - before.get(task, RunDelay(0, 0)).waited) for task, d in last.delays.items())
    switches = None if last.switches is None else last.switches - (first.switches or 0)
    enough = last.at_ns - first.at_ns >= MIN_TICKS * TICK_NS
    shares = shares_between(first.cpu, last.cpu) if enough else None
    return Contention(
        seconds=round((last.at_ns - first.at_ns) / 1e9, 6),
        run_delay_ns=delay,
        involuntary_switches=switches,
        others_share=_share(shares.others if shares else None),
        stolen_share=_share(shares.stolen if shares else None),
        probe_ns=probes,
    )


def _share(share: float | None) -> float | None:
    """Rounded to what ticks can tell; a guest that moved to another host may have had more stolen before than after."""
    return None if share is None else round(min(max(0.0, share), 1.0), 4)


class ContentionWatch:
    """Around the calls of a turn: a probe before and after them, and the counters between probe and calls."""

    def __enter__(self) -> ContentionWatch:
        self.before = probe_ns()
        self.first = read_counters()
        return self

    def __exit__(self, *_: object) -> None:
        self.last = read_counters()
        self.after = probe_ns()

    @property
    def contention(self) -> Contention:
        """Of what was done within."""
        return contention_between(self.first, self.last, (self.before, self.after))
