"""What a worker is asked of its machine: facts, a folder for the run, rows by hash, and the lock of the host.

These run on workers. Two workers of one host take turns by a lock that the kernel keeps, so that it holds whatever
becomes of the scheduler. `RNNBENCH_MACHINE` names the machine of a worker that has cores of its own on a shared host.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import platform
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import dask
from distributed import Worker

from rnnbench.data import ROWS
from rnnbench.files import temporary_place
from rnnbench.machine.cgroup import text_in
from rnnbench.machine.cores import allowed_cores
from rnnbench.machine.fingerprint import fingerprint
from rnnbench.machine.interference import usual_place
from rnnbench.workloads import imdb_cache

NAME = "RNNBENCH_MACHINE"
POLL = 0.1  # seconds between two looks at the lock

stopped: set[str] = set()  # topics of runs that were given up; what measures for them stops at its next record
ends: dict[str, float] = {}  # topic -> when the budget of the run is spent, by the monotonic clock of this worker


def slug(text: str) -> str:
    """A text as a part of a file's name."""
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-").lower()


def machine_name() -> str:
    """The name of this worker's machine."""
    return os.environ.get(NAME) or platform.node() or "a machine without a name"


def _lock_file() -> Path:
    place = usual_place()
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    given = slug(os.environ.get(NAME, ""))
    path = place / f"measures{f'-{given}' if given else ''}.lock"
    path.touch()
    return path


def run_folder(worker: Worker, run_id: str) -> Path:
    """The folder of a run on this machine. It outlives the worker, so that the next one finds what is there."""
    return Path(worker.local_directory).parent / f"rnnbench-{run_id}-{slug(machine_name())}"


def forget_what_dask_set() -> None:
    """Take out of the environment what Dask's nanny sets for its workers.

    Backends would get MALLOC_TRIM_THRESHOLD_, by which the allocator gives memory back to the system again and again.
    """
    for name, value in dask.config.get("distributed.nanny.pre-spawn-environ", {}).items():
        if os.environ.get(name) == str(value):
            del os.environ[name]


async def facts_of_worker(env: Mapping[str, str], run_id: str, dask_worker: Worker) -> dict[str, Any]:
    """The machine of a worker, and the files of rows that are there already."""
    forget_what_dask_set()
    facts = await asyncio.to_thread(fingerprint, env)
    lock = _lock_file().stat()
    rows = run_folder(dask_worker, run_id) / ROWS
    return {
        "name": machine_name(),
        "named": bool(os.environ.get(NAME)),
        "host": text_in(Path("/proc/sys/kernel/random/boot_id")) or platform.node(),
        "lock": (lock.st_dev, lock.st_ino),
        "cores": len(allowed_cores()),
        "rows": [*(path.stem for path in rows.glob("*.npz")), *(path.name for path in _lasting().glob("*.npz"))],
        "machine": facts,
    }


def _lasting() -> Path:
    """The folder of rows that later runs find."""
    return imdb_cache.folder() or Path(temporary_place())


async def receive(
    run_id: str, sha256: str, name: str | None, offset: int, piece: bytes, last: bool, dask_worker: Worker
) -> str | None:
    """Take a piece of a file of rows; after the last one the file is there, or the reason why it is not.

    One with a `name` is for later runs too; others are known by their sha256 and go with the run.
    """
    folder = _lasting() if name else run_folder(dask_worker, run_id) / ROWS
    part = folder / f"{sha256}.{run_id}.part"  # two runs may send the same rows at once
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with part.open("r+b" if offset else "wb") as file:
            file.seek(offset)
            file.write(piece)
        if last:
            with part.open("rb") as file:
                arrived = hashlib.file_digest(file, "sha256").hexdigest()
            if arrived != sha256:
                part.unlink()
                return "the rows that arrived have another sha256 than those that were sent"
            part.rename(folder / (name or f"{sha256}.npz"))
    except OSError as error:
        with contextlib.suppress(OSError):  # half of it would only fill the disk
            part.unlink()
        return f"{folder}: {error.strerror or error}"
    return None


async def offer(resource: str, amount: int, topic: str, left: float | None, dask_worker: Worker) -> None:
    """Let the worker have problems that ask for this resource, or no more of them.

    `left`: seconds of the run's budget. Clocks of two machines may be apart, and so no time of day is sent.
    """
    if left is not None:
        ends[topic] = time.monotonic() + left
    await dask_worker.set_resources(**{resource: amount})


async def give_up(topic: str) -> None:
    """Stop what this worker measures for a run."""
    stopped.add(topic)


async def clear(run_id: str, dask_worker: Worker) -> None:
    """Delete the folder of a run."""
    await asyncio.to_thread(shutil.rmtree, run_folder(dask_worker, run_id), ignore_errors=True)


@contextlib.contextmanager
def hold_host(topic: str, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of the host. Raises KeyboardInterrupt where the run is given up meanwhile."""
    with _lock_file().open("rb") as file:
        told = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if topic in stopped:
                    raise KeyboardInterrupt from None
                if not told:
                    say("another worker measures on this host; waiting for it")
                told = True
                time.sleep(POLL)
        yield
