"""What other programs take from a turn: by the system's counters around its calls, and by a probe of fixed work.

Never by the turn's own samples: what is slow by itself is not disturbed. docs/decisions/0039 has the limits, and how
often they err.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from statistics import median
from typing import NamedTuple

import numpy as np

from rnnbench.machine.cgroup import Throttled, throttled, throttling_files
from rnnbench.machine.cores import allowed_cores
from rnnbench.machine.interference import CpuTimes, read_cpu_times, shares_between
from rnnbench.machine.known import known
from rnnbench.records.record import Contention

TASKS = "/proc/self/task"

TICK_NS = 10**9 // os.sysconf("SC_CLK_TCK")  # in which the system counts the time of its cores
MIN_TICKS = 5  # that shares are taken over: one more or less is a fifth of a core then

# The probe: multiply-adds in 4 KiB, a small part of the first cache, about 17 us; no pool of threads has a part in it.
PROBE_NUMBERS = 1024
PROBE_ROUNDS = 15
PROBE_TRIES = 3  # the least of them: the first wakes the core, and a tick of the system's clock hits one


class RunDelay(NamedTuple):
    """Nanoseconds of a thread with a core, and ready without one; how often it got one."""

    ran: int
    waited: int
    starts: int = 0


@dataclass(frozen=True)
class Counters:
    """What the system has counted at one moment; None for what it does not count."""

    at_ns: int
    delays: dict[str, RunDelay] | None
    switches: int | None
    cpu: CpuTimes | None
    throttled: Throttled | None = None


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
                found[task] = RunDelay(*map(int, _read(f"{TASKS}/{task}/schedstat").split()))
    except (OSError, ValueError, TypeError):
        return None
    return found if any(delay.ran for delay in found.values()) else None  # a kernel that counts nothing says 0


def involuntary_switches() -> int | None:
    """How often a core was taken from a thread of this process; None where never, as where that is not counted."""
    used = known(resource.getrusage, resource.RUSAGE_SELF)
    return None if used is None else used.ru_nivcsw or None


_throttling_files = cache(throttling_files)  # a process stays in its group


def read_counters() -> Counters:
    """This moment."""
    held_back = throttled(_throttling_files())
    return Counters(time.monotonic_ns(), run_delays(), involuntary_switches(), read_cpu_times(), held_back)


def contention_between(first: Counters, last: Counters, probes: tuple[int, ...]) -> Contention:
    """What others took between two moments; of a thread that ended meanwhile nothing is known."""
    delay = starts = None
    if first.delays is not None and last.delays is not None:
        pairs = [(first.delays.get(task, RunDelay(0, 0)), d) for task, d in last.delays.items()]
        delay = sum(max(0, now.waited - before.waited) for before, now in pairs)
        starts = sum(max(0, now.starts - before.starts) for before, now in pairs)
    switches = None if last.switches is None else last.switches - (first.switches or 0)
    enough = last.at_ns - first.at_ns >= MIN_TICKS * TICK_NS
    shares = shares_between(first.cpu, last.cpu) if enough else None
    held_back: tuple[int, ...] | tuple[None, None] = None, None
    if first.throttled is not None and last.throttled is not None:
        held_back = tuple(max(0, b - a) for a, b in zip(first.throttled, last.throttled, strict=True))
    return Contention(
        seconds=round((last.at_ns - first.at_ns) / 1e9, 6),
        run_delay_ns=delay,
        starts=starts,
        involuntary_switches=switches,
        others_share=_share(shares.others if shares else None),
        stolen_share=_share(shares.stolen if shares else None),
        probe_ns=probes,
        throttled_periods=held_back[0],
        throttled_ns=held_back[1],
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


AROUND_SECONDS = 0.2  # that others are watched over, at least: over a shorter time ticks say little
STALE_SECONDS = 0.5  # without a look, after which the watch begins anew: something else was done


class OthersWatch:
    """What other programs use of the cores of a run, by looks around its turns; `workers` are its processes of now."""

    def __init__(self, workers: Callable[[], Iterable[int]]) -> None:
        self.workers = workers
        self.looks: list[CpuTimes] = []

    def look(self) -> None:
        """Keep this moment, and of those before it as many as are needed."""
        now = read_cpu_times(self.workers())
        if now is None:
            return
        if self.looks and now.at - self.looks[-1].at > STALE_SECONDS:
            self.looks.clear()
        while len(self.looks) > 1 and now.at - self.looks[1].at >= AROUND_SECONDS:
            del self.looks[0]
        self.looks.append(now)

    def refresh(self) -> None:
        """Look at what is done now, for as long as is needed to know; no worker computes meanwhile."""
        self.looks.clear()
        self.look()
        time.sleep(AROUND_SECONDS)
        self.look()

    def begin(self) -> None:
        """A turn comes: it can be told from what was done before it, unless the last turn has just ended."""
        if not self.looks or time.monotonic() - self.looks[-1].at > STALE_SECONDS:
            self.look()

    @property
    def around(self) -> tuple[float, float] | None:
        """Seconds that end with the last look, and the share of others in them; None where too little is known."""
        if not self.looks or self.looks[-1].at - self.looks[0].at < MIN_TICKS * TICK_NS / 1e9:
            return None
        shares = shares_between(self.looks[0], self.looks[-1])
        return (shares.seconds, shares.others) if shares and shares.others is not None else None

    def add_to(self, contention: Contention) -> Contention:
        """With what was seen around the turn that has just ended."""
        if (around := self.around) is None:
            return contention
        seconds, share = around
        return replace(contention, around_seconds=round(seconds, 6), around_share=_share(share))

    @property
    def busy(self) -> float | None:
        """How many cores others used, at least, by the last looks; None where that is not known."""
        if (around := self.around) is None:
            return None
        seconds, share = around
        return _surely(share, len(allowed_cores()), seconds)


LIMIT = 0.1  # of a turn's time: what others took from it and disturbs
HIT = 0.25  # of its calls that may have waited: their median lies below the 67th percentile of the others
SLOW = 1.0  # of the probe's best: the core was half as fast
DOUBT_TICKS = 2  # by which a difference of counters may be wrong


def _surely(share: float, cores: int, seconds: float) -> float:
    """A share of some cores as a number of cores, less what ticks may be wrong by."""
    return max(0.0, share * cores - DOUBT_TICKS * TICK_NS / 1e9 / max(seconds, 1e-9))


def others_cores(c: Contention, cores: int) -> list[float]:
    """How many cores others used at least: in a turn on so many of its own, and around it; what is known of both."""
    used = [] if c.others_share is None else [_surely(c.others_share, cores, c.seconds)]
    if c.around_share is not None and c.around_seconds:
        used.append(_surely(c.around_share, len(allowed_cores()), c.around_seconds))
    return used


def waited(c: Contention) -> float | None:
    """Run delay of all threads over the time of the turn: more than 1 where several wait; None where it is unknown."""
    return None if c.run_delay_ns is None else c.run_delay_ns / 1e9 / max(c.seconds, 1e-9)


def disturbed_by(c: Contention, cores: int, usual: float = 0.0, best_probe: int | None = None, calls: int = 1) -> float:
    """The share of a turn's time that others took, on so many cores of its own; 0 where it is below the limits.

    Threads wait for one another too, and what others use harms nobody who needs it not. So it is what threads waited
    more than is `usual` of them in quiet, and at most what others used meanwhile. Where one of both is not known,
    stolen time, the quota of a control group and the probe are left. The value of a turn is the median of so many
    `calls`: where threads waited and were held back in a share `HIT` of these at most, it hardly moves.
    """
    used, delay = others_cores(c, cores), waited(c)
    taken = 0.0 if not used or delay is None else max(0.0, min(delay - usual, *used))
    if c.throttled_ns is not None:
        taken += c.throttled_ns / 1e9 / max(c.seconds, 1e-9)
    if c.starts is not None and c.starts + (c.throttled_periods or 0) <= HIT * calls:
        taken = 0.0
    if c.stolen_share is not None:
        taken += _surely(c.stolen_share, cores, c.seconds)
    slowed = min(c.probe_ns) / best_probe - 1 if c.probe_ns and best_probe else 0.0
    return max(taken if taken > LIMIT else 0.0, slowed if slowed > SLOW else 0.0)


class Judge:
    """Says of each turn how much others took from it, by what is usual for its answer and at its best, so far."""

    def __init__(self) -> None:
        self.best_probe: int | None = None
        self.quiet: dict[object, list[float]] = {}  # answer -> what its threads waited while others rested

    def __call__(self, answer: object, c: Contention, cores: int, calls: int = 1) -> float:
        """As `disturbed_by`. `answer`: what has a usual of its own, on so many cores."""
        self.best_probe = min((*c.probe_ns, *filter(None, [self.best_probe])), default=None)
        quiet, used, delay = self.quiet.setdefault(answer, []), others_cores(c, cores), waited(c)
        found = disturbed_by(c, cores, median(quiet) if quiet else 0.0, self.best_probe, calls)
        if used and max(used) < LIMIT and delay is not None:
            quiet.append(delay)
        return round(found, 4)
