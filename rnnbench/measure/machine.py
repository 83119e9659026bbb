"""The state of the world: what computes, where, and how busy it is. Stored once per run as `machine.json`."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from rnnbench import __version__
from rnnbench.measure.client import allowed_cores
from rnnbench.measure.gpu import gpu_facts

LIBRARIES = (
    "numpy",
    "numba",
    "llvmlite",
    "numba-cuda",
    "scipy",
    "torch",
    "tensorflow",
    "tensorflow-cpu",
    "keras",
    "jax",
    "jaxlib",
    "optax",
)


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None


def cpu() -> dict[str, Any]:
    """Model, features, cores and clock of the processor; None for what the system does not tell."""
    import cpuinfo
    import psutil

    info = cpuinfo.get_cpu_info()
    frequency = psutil.cpu_freq()
    return {
        "model": info.get("brand_raw"),
        "architecture": platform.machine(),
        "features": sorted(info.get("flags", [])),
        "cores": psutil.cpu_count(logical=False),
        "threads": psutil.cpu_count(),
        "allowed": len(allowed_cores()),
        "mhz": round(frequency.current) if frequency else None,
        "l2_bytes": info.get("l2_cache_size"),
        "l3_bytes": info.get("l3_cache_size"),
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "turbo_off": _read("/sys/devices/system/cpu/intel_pstate/no_turbo"),
        "hypervisor": "hypervisor" in info.get("flags", []),
    }


def libraries() -> dict[str, str]:
    """Versions of everything that computes and is installed. Imports none of it."""
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def git() -> dict[str, Any] | None:
    """Commit and dirt of the checkout that this code runs from, or None where it is not one."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None

    def ask(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit, status = ask("rev-parse", "HEAD"), ask("status", "--porcelain")
    return {"commit": commit, "dirty": None if status is None else bool(status)}


def fingerprint() -> dict[str, Any]:
    """All facts; `machine_id` is a hash of those that make two machines unlike: processor, cores, system, versions."""
    import psutil

    facts: dict[str, Any] = {
        "cpu": cpu(),
        "memory_bytes": psutil.virtual_memory().total,
        "os": f"{platform.system()} {platform.release()}",
        "distribution": _distribution(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "rnnbench": __version__,
        "libraries": libraries(),
        **({"gpu": gpu} if (gpu := gpu_facts()) else {}),
    }
    stable = {**facts, "cpu": {key: value for key, value in facts["cpu"].items() if key != "mhz"}}
    digest = hashlib.sha256(json.dumps(stable, sort_keys=True).encode()).hexdigest()
    return {"machine_id": digest[:12], **facts, "git": git(), "load": list(os.getloadavg())}


def _distribution() -> str | None:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME")
    except (OSError, AttributeError):
        return None
