"""Joules over a turn, by the counters of processor (RAPL) or, of turns of 10 s and more, GPU (NVML).

They are read before and after the turn, outside the clock.

The counters are of whole packages: every process of the machine is in them, and what an idle core takes, too.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rnnbench.machine.gpu import Gpu
from rnnbench.records.record import Energy

POWERCAP = Path("/sys/class/powercap")
UPDATE_SECONDS = 0.001  # how often RAPL counts: Haehnel et al., Measuring Energy Consumption for Short Code Paths, 2012
GPU_UPDATE_SECONDS = 0.1  # the slowest that was seen: Yang et al., Part-time Power Measurements, 2023
MIN_UPDATES = 100  # in a window: an error of 1 % at each end
MIN_FILLED = 0.9  # of the window by calls: the rest is putting back and choosing batches
MAX_WATTS = 1000.0  # of a package: a slower counter cannot have wrapped twice meanwhile


class EnergyUnknown(Exception):
    """Why no counter can be read, in one sentence with the way out."""


class Meter(Protocol):
    """What counts joules: `source` names it, `update_seconds` is how often it counts."""

    source: str
    update_seconds: float

    def read(self) -> list[int]:
        """The counters now, in a unit of its own."""

    def joules(self, before: list[int], after: list[int], seconds: float) -> float:
        """What was spent between two readings. Raises EnergyUnknown where that cannot be known."""


@dataclass(frozen=True)
class Zone:
    """One counter in microjoules, which goes back to 0 after `range_uj`."""

    name: str
    file: Path
    range_uj: int


class Rapl:
    """All packages of the machine, and their memory where it is counted apart.

    Linux names the counters `intel-rapl` on AMD processors as well. Raises EnergyUnknown where none can be read.
    """

    update_seconds = UPDATE_SECONDS

    def __init__(self, root: Path = POWERCAP) -> None:
        self.zones = _zones(root)
        if not self.zones:
            raise EnergyUnknown(
                f"no energy counter: {root} has no intel-rapl package, as in virtual machines and most containers; "
                "measure on the host itself"
            )
        self.read()
        self.source = f"rapl {' + '.join(zone.name for zone in self.zones)}"

    def read(self) -> list[int]:
        """Microjoules of each zone."""
        return [_number(zone.file) for zone in self.zones]

    def joules(self, before: list[int], after: list[int], seconds: float) -> float:
        """Over all zones, each at most once back at 0."""
        total = 0
        for zone, first, last in zip(self.zones, before, after, strict=True):
            most = zone.range_uj / 1e6 / MAX_WATTS
            if seconds > most:
                raise EnergyUnknown(
                    f"{zone.name} may have gone back to 0 more than once in {seconds:.0f} s, longer than {most:.0f} s; "
                    "use shorter turns"
                )
            total += last - first if last >= first else last - first + zone.range_uj
        if not total:
            raise EnergyUnknown(f"the counter stood still for {seconds:.3g} s; the system does not count here")
        return total / 1e6


class GpuEnergy:
    """The joules of one GPU since its driver was loaded. Raises EnergyUnknown where its driver does not count.

    It counts so rarely that only windows of 10 s and more mean anything; shorter ones have no energy.
    """

    source = "nvml"
    update_seconds = GPU_UPDATE_SECONDS

    def __init__(self, gpu: Gpu) -> None:
        self.gpu = gpu
        self.read()

    def read(self) -> list[int]:
        """One counter, in millijoules."""
        found = self.gpu.ask("nvmlDeviceGetTotalEnergyConsumption")
        if found is None:
            raise EnergyUnknown("this GPU or its driver does not count energy; GPUs from Volta on do")
        return [int(found)]

    def joules(self, before: list[int], after: list[int], seconds: float) -> float:
        """The difference of the two."""
        if after[0] <= before[0]:
            raise EnergyUnknown(f"the GPU's counter stood still for {seconds:.3g} s, or began anew; repeat the run")
        return (after[0] - before[0]) / 1e3


def _zones(root: Path) -> list[Zone]:
    """Packages, and the memory inside of each; not `psys`, which holds both, nor the copies of `intel-rapl-mmio`."""
    found = []
    for folder in sorted(root.glob("intel-rapl:*")):
        try:
            name = (folder / "name").read_text().strip()
            if (folder.name.count(":") == 1 and name.startswith("package")) or name == "dram":
                of = f"{name}-{folder.name.split(':')[1]}" if name == "dram" else name
                found.append(Zone(of, folder / "energy_uj", _number(folder / "max_energy_range_uj")))
        except OSError:
            continue
    return found


def _number(file: Path) -> int:
    try:
        return int(file.read_text())
    except PermissionError as error:
        raise EnergyUnknown(f"{file} may not be read; allow it: sudo chmod a+r {file}") from error
    except (OSError, ValueError) as error:
        raise EnergyUnknown(f"{file} cannot be read: {error}") from error


def meter_of(make: Callable[[], Meter] = Rapl) -> Meter | str:
    """The meter, or why there is none."""
    try:
        return make()
    except EnergyUnknown as error:
        return str(error)
    except Exception as error:
        return f"the energy counter cannot be read: {type(error).__name__}: {error}"


class Window:
    """Counts from before a turn to after it: `with Window(meter) as window: ...`, then `window.energy(samples_ns)`."""

    def __init__(self, meter: Meter | str, clock: Callable[[], float] = time.perf_counter) -> None:
        self.meter, self.clock = meter, clock
        self.reason = meter if isinstance(meter, str) else None
        self.before: list[int] = []
        self.after: list[int] = []
        self.seconds = 0.0

    def _read(self) -> list[int]:
        if isinstance(self.meter, str) or self.reason:
            return []
        try:
            return self.meter.read()
        except EnergyUnknown as error:
            self.reason = str(error)
            return []

    def __enter__(self) -> Window:
        self.before = self._read()
        self.start = self.clock()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = self.clock() - self.start
        self.after = self._read()

    def energy(self, samples_ns: list[int]) -> Energy | None:
        """The joules of the window, or why they say nothing of these calls; None of a GPU in too short a window."""
        if isinstance(self.meter, str) or self.reason:
            return Energy(reason=self.reason)
        shortest, filled = MIN_UPDATES * self.meter.update_seconds, sum(samples_ns) / 1e9 / max(self.seconds, 1e-9)
        reason = None
        if self.seconds < shortest:
            if isinstance(self.meter, GpuEnergy):
                return None
            reason = (
                f"a window of {1e3 * self.seconds:.0f} ms is shorter than {MIN_UPDATES} updates of the counter, "
                f"{1e3 * shortest:.0f} ms; use longer turns, as of run --rigorous"
            )
        elif filled < MIN_FILLED:
            reason = f"calls fill {100 * filled:.0f} % of the window, less than {100 * MIN_FILLED:.0f} %"
        if reason is None:
            try:
                joules = self.meter.joules(self.before, self.after, self.seconds)
                return Energy(joules, self.seconds, self.meter.source)
            except EnergyUnknown as error:
                reason = str(error)
        return Energy(seconds=self.seconds, source=self.meter.source, reason=reason)
