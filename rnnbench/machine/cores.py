"""The cores that a process may use, and the environment of a worker, which tells libraries how many."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from rnnbench import backends


def allowed_cores() -> list[int]:
    """The cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def cores_for(threads: int, first: int = 0) -> list[int]:
    """As many of the allowed cores, from the one at this place on."""
    cores = allowed_cores()
    first %= len(cores)
    return sorted((cores[first:] + cores[:first])[:threads])


def stay_on(cores: Iterable[int], *, alone: bool = False) -> None:
    """Keep all threads of this process on these cores, or the calling one `alone`, where the system can."""
    tasks = Path("/proc/self/task")
    if hasattr(os, "sched_setaffinity") and tasks.is_dir():
        for task in [0] if alone else [int(task.name) for task in tasks.iterdir()]:
            with suppress(ProcessLookupError):  # it has ended
                os.sched_setaffinity(task, cores)


def safe_environment() -> dict[str, str]:
    """This process's environment, in which no Python imports from the current folder unless PYTHONPATH names it."""
    env = os.environ | {"PYTHONSAFEPATH": "1"}
    folders = [os.path.abspath(folder) for folder in env.pop("PYTHONPATH", "").split(os.pathsep) if folder]
    if folders:  # without the empty ones, which stand for the current folder
        env["PYTHONPATH"] = os.pathsep.join(folders)
    return env


def thread_counts() -> list[str]:
    """The variables that tell the libraries of the backends how many threads they have."""
    return list(
        dict.fromkeys(
            name
            for entry in backends.REGISTRY.values()
            for name, value in entry.environment.items()
            if value == "{threads}"
        )
    )


def environment(threads: int, cache: Path | None) -> dict[str, str]:
    """The worker's environment: thread counts and cores, known before anything is imported, and where compilers cache.

    Every worker has the variables of all backends. What the user set stays, but for thread counts and caches; `cache`
    None leaves the compilers their own folders.
    """
    env, entries = safe_environment(), backends.REGISTRY.values()
    for name, value in [item for entry in entries for item in entry.environment.items()]:
        env.setdefault(name, value)
    for name in thread_counts():
        env[name] = str(threads)
    env["RNNBENCH_CORES"] = ",".join(map(str, cores_for(threads)))
    env["PYTHONUNBUFFERED"] = "1"
    if cache is not None:
        for name, value in {name: value for entry in entries for name, value in entry.caches.items()}.items():
            flags = f"{env.get(name, '')} " if name.endswith("FLAGS") else ""
            env[name] = f"{flags}{value.format(folder=cache)}".strip()
            if "{folder}" in value:  # TensorFlow, unlike the others, makes no folder
                (cache / value.partition("{folder}/")[2]).mkdir(parents=True, exist_ok=True)
    return env
