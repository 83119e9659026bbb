"""The processor as the system describes it: model, caches, clock policy, virtualisation. None for what is not told.

Run as a process of its own, by `_described`, it asks py-cpuinfo.
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rnnbench.harness.worker import serve
from rnnbench.harness.worker_client import Limit, WorkerFailure, asked
from rnnbench.machine.cores import allowed_cores, safe_environment

CPUS = "sys/devices/system/cpu"
CACHES = {"l1d": (1, "Data"), "l1i": (1, "Instruction"), "l2": (2, "Unified"), "l3": (3, "Unified")}
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_SWITCH = {"0": "off", "1": "on"}


def read(path: Path) -> str | None:
    """The text of a small file of the system, or None where it is missing, empty or may not be read."""
    try:
        return path.read_text().strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def number_in(path: Path) -> int | None:
    """The whole number in a file, or None."""
    text = read(path)
    return int(text) if text and text.isdecimal() else None


def processor(root: Path = Path("/")) -> dict[str, Any]:
    """Facts of the processor. `root` is where `sys` and `proc` are looked for."""
    import psutil

    info = _described()
    frequency = psutil.cpu_freq()
    flags = info.get("flags", [])
    return {
        "model": info.get("brand_raw"),
        "architecture": platform.machine(),
        "features": sorted(flags),
        "sockets": sockets(root),
        "cores": psutil.cpu_count(logical=False),
        "threads": psutil.cpu_count(),
        "smt": smt(root),
        "allowed": len(allowed_cores()),
        "cache_bytes": {name: cache_bytes(root, *of) for name, of in CACHES.items()},
        "mhz": round(frequency.current) if frequency else None,
        **clock_policy(root),
        **virtualisation(root, flags),
    }


def answer_of(command: Sequence[str], seconds: float) -> subprocess.CompletedProcess[str] | None:
    """What a program prints; None where it cannot be started or takes longer.

    After that it is killed, and not waited for: one that hangs in the system, as of a file server, may not end.
    """
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            encoding="utf-8", errors="replace", start_new_session=True,
        )  # fmt: skip
    except OSError:
        return None
    try:
        out, _ = process.communicate(timeout=seconds)
    except BaseException as error:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=1)
        if isinstance(error, subprocess.TimeoutExpired):
            return None
        raise
    return subprocess.CompletedProcess(command, process.returncode, out)


def _described() -> dict[str, Any]:
    """What py-cpuinfo finds, nothing where it fails. It waits for programs without a limit, and Python's hooks may
    print into what it reads: so it is asked in a process that can be ended.
    """
    try:
        return asked("rnnbench.machine.processor", "describe", Limit(30), safe_environment())["found"]
    except (WorkerFailure, OSError):
        return {}


class _Description:
    """The operation of that process."""

    def describe(self) -> dict[str, Any]:
        from cpuinfo import cpuinfo

        # py-cpuinfo 9 would ask another process in turn, by its standard output
        return {"found": getattr(cpuinfo, "_get_cpu_info_internal", cpuinfo.get_cpu_info)()}


def sockets(root: Path) -> int | None:
    """How many packages there are."""
    found = {read(path) for path in (root / CPUS).glob("cpu[0-9]*/topology/physical_package_id")} - {None}
    return len(found) or None


def smt(root: Path) -> str | None:
    """Whether several threads share a core now: `on`, `off`; `notsupported` where it has no such threads."""
    control = read(root / CPUS / "smt/control")
    return _SWITCH.get(read(root / CPUS / "smt/active") or "") if control in ("on", "off") else control


def cache_bytes(root: Path, level: int, kind: str) -> int | None:
    """The size of that cache that the first core uses. `kind` as the system calls it."""
    for path in (root / CPUS / "cpu0/cache").glob("index*"):
        if read(path / "level") == str(level) and read(path / "type") == kind and (size := read(path / "size")):
            digits = size.rstrip("KMG")
            return int(digits) * _UNITS.get(size[len(digits) :], 1) if digits.isdecimal() else None
    return None


def clock_policy(root: Path) -> dict[str, Any]:
    """Governor, driver, range in MHz, and whether the clock may rise above its nominal one (turbo, boost).

    Over the allowed cores; several governors stand in one text.
    """
    folders = [root / CPUS / f"cpu{core}/cpufreq" for core in allowed_cores()]
    governors = sorted({text for folder in folders if (text := read(folder / "scaling_governor"))})
    lowest = [khz for folder in folders if (khz := number_in(folder / "cpuinfo_min_freq")) is not None]
    highest = [khz for folder in folders if (khz := number_in(folder / "cpuinfo_max_freq")) is not None]
    off = {"0": "on", "1": "off"}.get(read(root / CPUS / "intel_pstate/no_turbo") or "")
    return {
        "min_mhz": min(lowest) // 1000 if lowest else None,
        "max_mhz": max(highest) // 1000 if highest else None,
        "governor": ", ".join(governors) or None,
        "frequency_driver": read(folders[0] / "scaling_driver") if folders else None,
        "turbo": off or _SWITCH.get(read(root / CPUS / "cpufreq/boost") or ""),
    }


def virtualisation(root: Path, flags: list[str]) -> dict[str, Any]:
    """The hypervisor and the container, `none` where the system surely has none."""
    machine = _detected("--vm") or read(root / "sys/hypervisor/type")
    if machine is None and "hypervisor" in flags:
        machine = "a hypervisor that is not named"
    container = _detected("--container")
    if container is None and any((root / name).exists() for name in (".dockerenv", "run/.containerenv")):
        container = "docker" if (root / ".dockerenv").exists() else "podman"
    return {"hypervisor": "hypervisor" in flags, "virtual_machine": machine, "container": container}


def _detected(kind: str) -> str | None:
    """What systemd finds, where it is installed; it says `none` with exit code 1."""
    program = shutil.which("systemd-detect-virt")
    if program is None or os.name != "posix":
        return None
    done = answer_of([program, kind], 5)
    return done.stdout.strip() or None if done else None


if __name__ == "__main__":
    serve(_Description)
