"""The system around the processor: limits of the control group, kernel settings, clock, variables for threads."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

from rnnbench.machine.processor import read

UNLIMITED = "unlimited"
PREFIXES = ("OMP_", "MKL_", "NUMBA_", "KMP_", "GOMP_", "OPENBLAS_", "BLIS_", "TF_NUM_", "XLA_FLAGS", "MALLOC_")
CLOCK_READS = 2000
SET_BY_LIBRARIES = ("KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK")  # by threadpoolctl, when it is imported
_NO_LIMIT = 1 << 60  # version 1 of control groups writes the largest page-aligned number
_ASLR = {"0": "off", "1": "without the heap", "2": "full"}


def limits(root: Path = Path("/")) -> dict[str, Any]:
    """What the control group allows: `cpus` (processor seconds a second) and `memory_bytes`; None where not told.

    The least of this process's group and those above it, by the interface of version 2, else of version 1.
    """
    groups = _groups(root / "proc/self/cgroup")
    mount = root / "sys/fs/cgroup"
    if "" in groups and (mount / "cgroup.controllers").exists():
        folders = _upwards(mount, groups[""])
        return {"cpus": _least(map(_cpu_max, folders)), "memory_bytes": _least(map(_memory_max, folders))}
    cpu = _upwards(mount / "cpu", groups.get("cpu", "/"))
    memory = _upwards(mount / "memory", groups.get("memory", "/"))
    return {"cpus": _least(map(_cpu_quota, cpu)), "memory_bytes": _least(map(_memory_limit, memory))}


def _groups(path: Path) -> dict[str, str]:
    """Controller -> path of this process's group; "" for version 2."""
    found: dict[str, str] = {}
    for line in (read(path) or "").splitlines():
        _, controllers, group = line.split(":", 2)
        found |= dict.fromkeys(controllers.split(","), group)
    return found


def _upwards(mount: Path, group: str) -> list[Path]:
    """The folders of a group and those above it; a container may see none but the mount itself."""
    folder = mount / group.lstrip("/")
    return [path for path in (folder, *folder.parents) if path.is_relative_to(mount) and path.is_dir()]


def _least(values: Iterable[float | str | None]) -> float | str | None:
    told = [value for value in values if value is not None]
    finite = [value for value in told if not isinstance(value, str)]
    return min(finite, default=UNLIMITED) if told else None


def _cpu_max(folder: Path) -> float | str | None:
    quota, _, period = (read(folder / "cpu.max") or "").partition(" ")
    if quota == "max":
        return UNLIMITED
    return int(quota) / int(period) if quota.isdecimal() and period.isdecimal() else None


def _memory_max(folder: Path) -> int | str | None:
    text = read(folder / "memory.max") or ""
    return UNLIMITED if text == "max" else int(text) if text.isdecimal() else None


def _cpu_quota(folder: Path) -> float | str | None:
    quota, period = read(folder / "cpu.cfs_quota_us") or "", read(folder / "cpu.cfs_period_us") or ""
    if quota.startswith("-"):
        return UNLIMITED
    return int(quota) / int(period) if quota.isdecimal() and period.isdecimal() else None


def _memory_limit(folder: Path) -> int | str | None:
    text = read(folder / "memory.limit_in_bytes") or ""
    return None if not text.isdecimal() else UNLIMITED if int(text) >= _NO_LIMIT else int(text)


def memory_left(root: Path = Path("/")) -> int | None:
    """Bytes that the control group may still take, of it and of those above it the least; None where nothing limits.

    Files that the system keeps in memory as long as nobody asks for it count as free.
    """
    groups, mount = _groups(root / "proc/self/cgroup"), root / "sys/fs/cgroup"
    if "" in groups and (mount / "cgroup.controllers").exists():
        folders, limit, used, cached = _upwards(mount, groups[""]), _memory_max, "memory.current", "inactive_file"
    else:
        folders, limit = _upwards(mount / "memory", groups.get("memory", "/")), _memory_limit
        used, cached = "memory.usage_in_bytes", "total_inactive_file"
    left = []
    for folder in folders:
        most, taken = limit(folder), read(folder / used) or ""
        if isinstance(most, int) and taken.isdecimal():
            stat = dict(line.split(" ", 1) for line in (read(folder / "memory.stat") or "").splitlines() if " " in line)
            left.append(max(0, most - int(taken) + int(stat.get(cached, 0))))
    return min(left, default=None)


def kernel(root: Path = Path("/")) -> dict[str, Any]:
    """Settings that move times: transparent huge pages, random layout of addresses, the source of the time."""
    pages = read(root / "sys/kernel/mm/transparent_hugepage/enabled") or ""
    return {
        "transparent_huge_pages": pages.partition("[")[2].partition("]")[0] or None,
        "aslr": _ASLR.get(read(root / "proc/sys/kernel/randomize_va_space") or ""),
        "clocksource": read(root / "sys/devices/system/clocksource/clocksource0/current_clocksource"),
    }


def thread_variables() -> dict[str, str]:
    """The variables of the environment that steer threads and allocators, where they are set."""
    names = (name for name in sorted(os.environ) if name.startswith(PREFIXES) and name not in SET_BY_LIBRARIES)
    return {name: os.environ[name] for name in names}


def clock(now: Callable[[], int] = time.perf_counter_ns) -> dict[str, Any]:
    """The clock of all samples: its source, its smallest step and what a reading of it takes, in nanoseconds."""
    readings = [now() for _ in range(CLOCK_READS + 1)]
    steps = [b - a for a, b in pairwise(readings)]
    return {
        "source": time.get_clock_info("perf_counter").implementation,
        "step_ns": min((step for step in steps if step > 0), default=None),
        "read_ns": round((readings[-1] - readings[0]) / CLOCK_READS),
    }
