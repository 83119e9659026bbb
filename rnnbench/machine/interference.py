"""What else happens on the machine: load and stolen time, a suspension or a clock that was set, other runs."""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from rnnbench.analysis.stats import CLOCK_SET, SUSPENDED
from rnnbench.files import open_file, temporary_place
from rnnbench.machine.cores import allowed_cores
from rnnbench.machine.known import known

LOOK_SECONDS = 0.2  # how long a single look lasts


@dataclass(frozen=True)
class CpuTimes:
    """Seconds since some fixed time: of the clock, of all allowed cores, and of our own processes."""

    at: float
    busy: float  # not idle, stolen time left out
    stolen: float | None  # the hypervisor gave it to others
    total: float
    own: float


@dataclass(frozen=True)
class Shares:
    """What happened between two moments, as shares of the time of the allowed cores; None for what is unknown."""

    seconds: float
    others: float | None
    stolen: float | None


def read_cpu_times(running: Iterable[int] = ()) -> CpuTimes | None:
    """This moment, or None where the system does not count its processors' time.

    This process and its ended children are our own, and the processes of these numbers, which still run.
    """
    import psutil

    every = known(psutil.cpu_times, percpu=True) or ()
    cores = [every[core] for core in allowed_cores() if core < len(every)]
    if not cores:
        return None
    idle = sum(c.idle + getattr(c, "iowait", 0.0) for c in cores)
    # guest time is part of user time
    total = sum(sum(c) - getattr(c, "guest", 0.0) - getattr(c, "guest_nice", 0.0) for c in cores)
    stolen = sum(c.steal for c in cores) if hasattr(cores[0], "steal") else None
    spent = [known(resource.getrusage, whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    if None in spent:
        return None
    own = sum(used.ru_utime + used.ru_stime for used in spent if used is not None)  # in us, where os.times counts ticks
    own += sum(_seconds_of(process) for process in running)
    return CpuTimes(time.monotonic(), total - idle - (stolen or 0.0), stolen, total, own)


def _seconds_of(process: int) -> float:
    """Of the processor, in ticks; 0 of one that is gone."""
    import psutil

    spent = known(lambda: psutil.Process(process).cpu_times())
    return 0.0 if spent is None else float(spent.user + spent.system)


def shares_between(first: CpuTimes | None, last: CpuTimes | None) -> Shares | None:
    """What others took between two moments. Children that still run count as others: end them before the second.

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

    load = known(lambda: list(os.getloadavg()))
    return {
        "load": load,
        "load_per_core": round(load[0] / len(allowed_cores()), 3) if load else None,
        "available_bytes": known(lambda: psutil.virtual_memory().available),
        "swap_used_bytes": known(lambda: psutil.swap_memory().used),
        "seconds": None if shares is None else round(shares.seconds, 3),
        "others_share": None if shares is None or shares.others is None else round(shares.others, 4),
        "stolen_share": None if shares is None or shares.stolen is None else round(shares.stolen, 4),
    }


class Watch:
    """Watches the machine from the start of a run to its end; no child of this process runs at either."""

    def __init__(self) -> None:
        self.first, self.since = read_cpu_times(), time.monotonic()

    @cached_property
    def start(self) -> dict[str, Any]:
        """The state of the first moments, at least `LOOK_SECONDS` of them; what this process spends then is its own."""
        time.sleep(max(0.0, LOOK_SECONDS - (time.monotonic() - self.since)))
        return state(shares_between(self.first, read_cpu_times()))

    def end(self) -> dict[str, Any]:
        """The state now, and the shares since the start. For when all workers have ended."""
        return state(shares_between(self.first, read_cpu_times()))


MIN_JUMP_NS = 10_000_000  # a shorter jump does no harm, and may be the reading's own
SURE_NS = 50_000  # clocks read within this are taken as read at once
TRIES = 5

Clock = Callable[[int], int]  # the number of a clock -> nanoseconds


@dataclass(frozen=True)
class ClockReading:
    """Nanoseconds of the clocks against CLOCK_MONOTONIC, and by how much each may be wrong."""

    boot: int
    real: int
    doubt: int


def read_clocks(clock: Clock | None = None) -> ClockReading:
    """This moment: the surest of a few readings, as the process may lose its core between two clocks."""
    boot = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # where it is missing, a suspension sets the clock
    read, found = clock or time.clock_gettime_ns, list[ClockReading]()
    while len(found) < TRIES and not (found and found[-1].doubt <= SURE_NS):
        before = read(time.CLOCK_MONOTONIC)
        booted, real = read(boot), read(time.CLOCK_REALTIME)
        after = read(time.CLOCK_MONOTONIC)
        found.append(ClockReading(booted - before, real - before, after - before))
    return min(found, key=lambda moment: moment.doubt)


def disturbances_between(before: ClockReading, after: ClockReading) -> list[str]:
    """What happened between two moments, in words that `analysis.stats` knows."""
    least = MIN_JUMP_NS + before.doubt + after.doubt
    slept = after.boot - before.boot
    jumped = after.real - before.real - slept
    said = [f"{SUSPENDED} for {slept / 1e9:.3g} s"] if slept > least else []
    return said + ([f"{CLOCK_SET} by {jumped / 1e9:+.3g} s"] if abs(jumped) > least else [])


ENDING = ".run"


def usual_place() -> Path:
    """The folder of this user: under XDG_RUNTIME_DIR, else in the folder for temporary files."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime) / "rnnbench" if runtime else Path(temporary_place()) / f"rnnbench-{os.getuid()}"


class Neighbours:
    """Announces this run as `name` while it is entered, and knows the other runs.

    Where the folder cannot be used no other run is known: no run is lost for want of it.
    """

    def __init__(self, name: str, place: Path | None = None) -> None:
        self.name, self.place = name, place
        self.mine: Path | None = None
        self.last: list[str] = []

    def __enter__(self) -> Self:
        with contextlib.suppress(OSError):
            self.place = self.place or usual_place()
            self.place.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self.place.stat().st_uid == os.getuid():
                self._announce()
        self.last = self._others()
        return self

    def _announce(self) -> None:
        """A file under its last name is locked already, so that it is not taken for a dead run's."""
        self.handle, scratch = tempfile.mkstemp(dir=self.place)
        try:
            os.write(self.handle, f"{self.name} (process {os.getpid()})\n".encode(errors="surrogateescape"))
            fcntl.flock(self.handle, fcntl.LOCK_EX)
            os.rename(scratch, f"{scratch}{ENDING}")
        except OSError:
            os.close(self.handle)
            os.unlink(scratch)
            raise
        self.mine = Path(f"{scratch}{ENDING}")

    def __exit__(self, *_: object) -> None:
        if self.mine is not None:
            with contextlib.suppress(OSError):
                self.mine.unlink()
            os.close(self.handle)

    def seen(self) -> list[str]:
        """The other runs that measure now, or did when this was asked before."""
        now, before = self._others(), self.last
        self.last = now
        return list(dict.fromkeys([*before, *now]))

    def _others(self) -> list[str]:
        if self.mine is None or self.place is None:
            return []
        try:
            files = [file for file in os.listdir(self.place) if file.endswith(ENDING) and file != self.mine.name]
        except OSError:
            return []
        return sorted(name for file in files if (name := _running(self.place / file)))


def _running(path: Path) -> str | None:
    """The run that has locked this file; None of a dead one, whose file is removed, and of one that just ended."""
    with contextlib.suppress(OSError), open_file(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return file.read().decode(errors="replace").strip() or path.name
        path.unlink(missing_ok=True)
    return None
