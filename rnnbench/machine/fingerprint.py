"""The state of the world: what computes, where, and how busy it is. Stored once per run as `machine.json`."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

from rnnbench import __version__, backends
from rnnbench.analysis.parts import digest, hashes_of
from rnnbench.machine import system
from rnnbench.machine.cores import thread_counts
from rnnbench.machine.gpu import gpu_facts
from rnnbench.machine.processor import answer_of, processor


def libraries() -> dict[str, str]:
    """Versions of everything that computes and is installed. Imports none of it."""
    versions = {}
    for name in dict.fromkeys(name for entry in backends.REGISTRY.values() for name in entry.libraries):
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
        done = answer_of(["git", "-C", str(folder), *arguments], 10)
        return done.stdout.strip() if done and done.returncode == 0 else None

    commit, status = ask("rev-parse", "HEAD"), ask("status", "--porcelain")
    return {"commit": commit, "dirty": None if status is None else bool(status)}


def fingerprint() -> dict[str, Any]:
    """All facts; None for what the system does not tell.

    `hashes` are of the parts that make two machines unlike (`analysis.parts`), and `machine_id` is of those hashes.
    """
    import psutil

    variables, replaced = system.thread_variables(), thread_counts()
    facts: dict[str, Any] = {
        "cpu": processor(),
        "gpu": gpu_facts() or None,
        "memory_bytes": psutil.virtual_memory().total,
        "swap_bytes": psutil.swap_memory().total,
        "limits": system.limits(),
        "os": f"{platform.system()} {platform.release()}",
        "distribution": _distribution(),
        "kernel": system.kernel(),
        "libc": " ".join(filter(None, platform.libc_ver())) or None,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "compiler": platform.python_compiler(),
        "rnnbench": __version__,
        "libraries": libraries(),
        "environment": {k: v for k, v in variables.items() if k not in replaced},
        "replaced_in_workers": {k: v for k, v in variables.items() if k in replaced},
        "clock": system.clock(),
    }
    hashes = hashes_of(facts)
    return {
        "machine_id": digest(hashes),
        "hashes": hashes,
        **facts,
        "git": git(),
        "load": list(os.getloadavg()),
    }


def _distribution() -> str | None:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME")
    except (OSError, AttributeError):
        return None
