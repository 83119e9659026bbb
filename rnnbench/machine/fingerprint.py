"""What computes, and where: processor, system, libraries, code. Stored once per run as `machine.json`.

None for what the system does not say. Run as a process of its own, by `_described`, it asks py-cpuinfo."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

from rnnbench import __version__, backends
from rnnbench.analysis.comparable import digest, hashes_of
from rnnbench.harness.worker import serve
from rnnbench.harness.worker_client import Limit, WorkerFailure, asked
from rnnbench.machine.cgroup import group_folders, text_in
from rnnbench.machine.cores import allowed_cores
from rnnbench.machine.environment import passed, switches, thread_counts
from rnnbench.machine.gpu import gpu_facts
from rnnbench.machine.known import known


def libraries() -> dict[str, str]:
    """Versions of everything that computes and is installed. Imports none of it."""
    versions = {}
    for name in dict.fromkeys(name for entry in backends.REGISTRY.values() for name in entry.libraries):
        if version := known(importlib.metadata.version, name):  # not installed, or its metadata is damaged
            versions[name] = version
    return versions


CHECKOUT = Path(__file__).resolve().parents[2]  # or what this code is installed into


def git(folder: Path = CHECKOUT) -> dict[str, Any] | None:
    """The commit of the checkout that this code runs from, and whether its code is another; None where it is none.

    A report that a run leaves in its checkout makes the code no other.
    """
    if not os.path.exists(folder / ".git"):
        return None

    def ask(*arguments: str) -> str | None:
        done = answer_of(["git", "-C", str(folder), *arguments], 10, passed({}))  # which has no GIT_DIR
        return done.stdout.strip() if done and done.returncode == 0 else None

    commit, status = ask("rev-parse", "HEAD"), ask("status", "--porcelain", "--", "rnnbench", "pyproject.toml")
    return {"commit": commit, "dirty": None if status is None else bool(status)}


def fingerprint(env: Mapping[str, str] | None = None) -> dict[str, Any]:
    """All facts; None for what is unknown. `env`: the variables that a run gives its workers.

    `hashes` are of the parts that make two machines unlike (`analysis.parts`), and `machine_id` is of those hashes.
    """
    import psutil

    variables, replaced = switches(env or {}), thread_counts()
    facts: dict[str, Any] = {
        "cpu": processor(),
        "gpu": known(gpu_facts) or None,
        "memory_bytes": known(lambda: psutil.virtual_memory().total),
        "swap_bytes": known(lambda: psutil.swap_memory().total),
        "limits": known(control_group) or {"cpus": None, "memory_bytes": None},
        "os": f"{platform.system()} {platform.release()}".strip() or None,
        "distribution": _distribution(),
        "kernel": kernel_settings(),
        "libc": known(lambda: " ".join(filter(None, platform.libc_ver()))) or None,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "compiler": platform.python_compiler(),
        "rnnbench": __version__,
        "libraries": libraries(),
        "environment": {k: v for k, v in variables.items() if k not in replaced},
        "replaced_in_workers": {k: v for k, v in variables.items() if k in replaced},
        "clock": known(clock_facts),
    }
    hashes = hashes_of(facts)
    return {
        "machine_id": digest(hashes),
        "hashes": hashes,
        **facts,
        "git": git(),
        "load": known(lambda: list(os.getloadavg())),
    }


def _distribution() -> str | None:
    return known(lambda: platform.freedesktop_os_release().get("PRETTY_NAME"))


CPUS = "sys/devices/system/cpu"
CACHES = {"l1d": (1, "Data"), "l1i": (1, "Instruction"), "l2": (2, "Unified"), "l3": (3, "Unified")}
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_SWITCH = {"0": "off", "1": "on"}


def number_in(path: Path) -> int | None:
    """The whole number in a file, or None."""
    text = text_in(path)
    return known(int, text) if text and text.isdecimal() else None


def processor(root: Path = Path("/")) -> dict[str, Any]:
    """Facts of the processor. `root` is where `sys` and `proc` are looked for."""
    import psutil

    info, frequency = _described(), known(psutil.cpu_freq)
    found = info.get("flags")
    flags = [str(flag) for flag in found] if isinstance(found, list) else []
    return {
        "model": info.get("brand_raw"),
        "architecture": platform.machine(),
        "features": sorted(flags),
        "sockets": known(sockets, root),
        "cores": known(psutil.cpu_count, logical=False),
        "threads": known(psutil.cpu_count),
        "smt": smt(root),
        "allowed": len(allowed_cores()),
        "cache_bytes": {name: known(cache_bytes, root, *of) for name, of in CACHES.items()},
        "mhz": round(frequency.current) if frequency else None,
        **clock_policy(root),
        **virtualisation(root, flags),
    }


def answer_of(
    command: Sequence[str], seconds: float, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str] | None:
    """What a program prints, in this environment or in `env`; None where it cannot be started or takes longer.

    After that it is killed, and not waited for: one that hangs in the system, as of a file server, may not end.
    """
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            encoding="utf-8", errors="replace", start_new_session=True, env=env,
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
        found = asked("rnnbench.machine.fingerprint", "describe", Limit(30), passed({}))["found"]
    except (WorkerFailure, OSError):
        return {}
    return found if isinstance(found, dict) else {}


class _Description:
    """The operation of that process."""

    def describe(self) -> dict[str, Any]:
        from cpuinfo import cpuinfo

        # py-cpuinfo 9 would ask another process in turn, by its standard output
        return {"found": getattr(cpuinfo, "_get_cpu_info_internal", cpuinfo.get_cpu_info)()}


def sockets(root: Path) -> int | None:
    """How many packages there are."""
    found = {text_in(path) for path in (root / CPUS).glob("cpu[0-9]*/topology/physical_package_id")} - {None}
    return len(found) or None


def smt(root: Path) -> str | None:
    """Whether several threads share a core now: `on`, `off`; `notsupported` where it has no such threads."""
    control = text_in(root / CPUS / "smt/control")
    return _SWITCH.get(text_in(root / CPUS / "smt/active") or "") if control in ("on", "off") else control


def cache_bytes(root: Path, level: int, kind: str) -> int | None:
    """The size of that cache that the first core uses. `kind` as the system calls it."""
    for path in (root / CPUS / "cpu0/cache").glob("index*"):
        if (
            text_in(path / "level") == str(level)
            and text_in(path / "type") == kind
            and (size := text_in(path / "size"))
        ):
            digits = size.rstrip("KMG")
            return int(digits) * _UNITS.get(size[len(digits) :], 1) if digits.isdecimal() else None
    return None


def clock_policy(root: Path) -> dict[str, Any]:
    """Governor, driver, range in MHz, and whether the clock may rise above its nominal one (turbo, boost).

    Over the allowed cores; several governors stand in one text.
    """
    folders = [root / CPUS / f"cpu{core}/cpufreq" for core in allowed_cores()]
    governors = sorted({text for folder in folders if (text := text_in(folder / "scaling_governor"))})
    lowest = [khz for folder in folders if (khz := number_in(folder / "cpuinfo_min_freq")) is not None]
    highest = [khz for folder in folders if (khz := number_in(folder / "cpuinfo_max_freq")) is not None]
    off = {"0": "on", "1": "off"}.get(text_in(root / CPUS / "intel_pstate/no_turbo") or "")
    return {
        "min_mhz": min(lowest) // 1000 if lowest else None,
        "max_mhz": max(highest) // 1000 if highest else None,
        "governor": ", ".join(governors) or None,
        "frequency_driver": text_in(folders[0] / "scaling_driver") if folders else None,
        "turbo": off or _SWITCH.get(text_in(root / CPUS / "cpufreq/boost") or ""),
    }


def virtualisation(root: Path, flags: list[str]) -> dict[str, Any]:
    """The hypervisor and the container, `none` where the system surely has none."""
    machine = _detected("--vm") or text_in(root / "sys/hypervisor/type")
    if machine is None and "hypervisor" in flags:
        machine = "a hypervisor that is not named"
    container = _detected("--container")
    if container is None and any(os.path.exists(root / name) for name in (".dockerenv", "run/.containerenv")):
        container = "docker" if os.path.exists(root / ".dockerenv") else "podman"
    return {"hypervisor": "hypervisor" in flags, "virtual_machine": machine, "container": container}


def _detected(kind: str) -> str | None:
    """What systemd finds, where it is installed; it says `none` with exit code 1."""
    program = shutil.which("systemd-detect-virt")
    if program is None or os.name != "posix":
        return None
    done = answer_of([program, kind], 5)
    return done.stdout.strip() or None if done else None


UNLIMITED = "unlimited"
CLOCK_READS = 2000
_NO_LIMIT = 1 << 60  # version 1 of control groups writes the largest page-aligned number
_ASLR = {"0": "off", "1": "without the heap", "2": "full"}


def control_group(root: Path = Path("/")) -> dict[str, Any]:
    """What the control group allows: `cpus` (processor seconds a second) and `memory_bytes`; None where unknown.

    The least of this process's group and those above it, by the interface of version 2, else of version 1.
    """
    version, cpu = group_folders("cpu", root)
    memory = group_folders("memory", root)[1]
    cpus, most = (_cpu_max, _memory_max) if version == 2 else (_cpu_quota, _memory_limit)
    return {"cpus": _least(map(cpus, cpu)), "memory_bytes": _least(map(most, memory))}


def _least(values: Iterable[float | str | None]) -> float | str | None:
    known = [value for value in values if value is not None]
    finite = [value for value in known if not isinstance(value, str)]
    return min(finite, default=UNLIMITED) if known else None


def _cpu_max(folder: Path) -> float | str | None:
    quota, _, period = (text_in(folder / "cpu.max") or "").partition(" ")
    if quota == "max":
        return UNLIMITED
    return int(quota) / int(period) if quota.isdecimal() and period.isdecimal() else None


def _memory_max(folder: Path) -> int | str | None:
    text = text_in(folder / "memory.max") or ""
    return UNLIMITED if text == "max" else int(text) if text.isdecimal() else None


def _cpu_quota(folder: Path) -> float | str | None:
    quota, period = text_in(folder / "cpu.cfs_quota_us") or "", text_in(folder / "cpu.cfs_period_us") or ""
    if quota.startswith("-"):
        return UNLIMITED
    return int(quota) / int(period) if quota.isdecimal() and period.isdecimal() else None


def _memory_limit(folder: Path) -> int | str | None:
    text = text_in(folder / "memory.limit_in_bytes") or ""
    return None if not text.isdecimal() else UNLIMITED if int(text) >= _NO_LIMIT else int(text)


def memory_left(root: Path = Path("/")) -> int | None:
    """Bytes that the control group may still take, of it and of those above it the least; None where nothing limits.

    Files that the system keeps in memory as long as no program needs it count as free.
    """
    version, folders = group_folders("memory", root)
    if version == 2:
        limit, used, cached = _memory_max, "memory.current", "inactive_file"
    else:
        limit, used, cached = _memory_limit, "memory.usage_in_bytes", "total_inactive_file"
    left = []
    for folder in folders:
        most, taken = limit(folder), text_in(folder / used) or ""
        if isinstance(most, int) and taken.isdecimal():
            stat = dict(
                line.split(" ", 1) for line in (text_in(folder / "memory.stat") or "").splitlines() if " " in line
            )
            left.append(max(0, most - int(taken) + (known(int, stat.get(cached, 0)) or 0)))
    return min(left, default=None)


def kernel_settings(root: Path = Path("/")) -> dict[str, Any]:
    """Settings that move times: transparent huge pages, random layout of addresses, the source of the time."""
    pages = text_in(root / "sys/kernel/mm/transparent_hugepage/enabled") or ""
    return {
        "transparent_huge_pages": pages.partition("[")[2].partition("]")[0] or None,
        "aslr": _ASLR.get(text_in(root / "proc/sys/kernel/randomize_va_space") or ""),
        "clocksource": text_in(root / "sys/devices/system/clocksource/clocksource0/current_clocksource"),
    }


def clock_facts(now: Callable[[], int] = time.perf_counter_ns) -> dict[str, Any]:
    """The clock of all samples: its source, its smallest step and what a reading of it takes, in nanoseconds."""
    readings = [now() for _ in range(CLOCK_READS + 1)]
    steps = [b - a for a, b in pairwise(readings)]
    return {
        "source": time.get_clock_info("perf_counter").implementation,
        "step_ns": min((step for step in steps if step > 0), default=None),
        "read_ns": round((readings[-1] - readings[0]) / CLOCK_READS),
    }


if __name__ == "__main__":
    serve(_Description)
