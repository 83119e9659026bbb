"""The workers of a run: one place per backend, its process started when first asked and replaced when it died."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import rnnbench
from rnnbench import backends
from rnnbench.harness.timers import Ledger
from rnnbench.harness.worker_client import Limit, WorkerClient, WorkerFailure
from rnnbench.machine.cores import allowed_cores, environment
from rnnbench.records.account import TimeKind
from rnnbench.records.record import Status

KINDS = {  # request -> what the time until its answer is for; of a turn the calls are taken out again
    "unsupported": TimeKind.CHECK, "prepare": TimeKind.PREPARE, "first": TimeKind.CHECK, "losses": TimeKind.CHECK,
    "turn": TimeKind.AROUND, "close": TimeKind.PREPARE, "epoch": TimeKind.TRAINING, "evaluate": TimeKind.TRAINING,
}  # fmt: skip


@dataclass
class WorkerPlace:
    """The place of one backend: its process, what the import took, and the keys of the cases it is ready for."""

    worker: WorkerClient | None = None
    import_ns: int | None = None
    start_seconds: float = 0.0
    ready: set[str] = field(default_factory=set)
    lives: int = 0  # processes it may still be given for the present problem


def _same_package(theirs: dict[str, str]) -> None:
    """Raises WorkerFailure where a worker imported another rnnbench, or a file of this one that was changed since."""
    ours = {"version": rnnbench.__version__, "file": os.path.realpath(rnnbench.__file__)}
    if theirs != ours:
        versions = (f"{package['version']} of {Path(package['file']).parent}" for package in (theirs, ours))
        reason = f"hello: the worker has rnnbench {' and this process '.join(versions)}; start the command again"
        raise WorkerFailure(Status.CRASHED, reason, alive=False)


class WorkerPool:
    """Workers by backend name, in a folder for their logs, arrays and compiler caches.

    `cache` None leaves the compilers their own caches. `ledger` keeps what the time was for. `limit` is asked how
    long a request may take, where that is less than `timeout` in seconds.
    """

    def __init__(
        self,
        names: Iterable[str],
        folder: Path,
        threads: int,
        timeout: float,
        cache: Path | None,
        ledger: Ledger | None = None,
        limit: Callable[[], Limit] | None = None,
    ) -> None:
        self.ledger = ledger or Ledger()
        self.folder = folder
        self.limit = limit or (lambda: Limit(timeout))
        self.env = environment(threads, cache)
        self.places = {name: WorkerPlace() for name in names}
        self.libraries: dict[str, Any] = {}
        self.closed = False
        self.answered_ns = 0  # when any of them last did, by the monotonic clock

    @property
    def idle_ns(self) -> int:
        """Nanoseconds since one of them last answered; between requests none of them works."""
        return time.monotonic_ns() - self.answered_ns

    def worker(self, name: str) -> WorkerClient:
        """A running worker with its library imported. Raises WorkerFailure where that fails."""
        place = self.places[name]
        if place.worker is None:
            with self.ledger.spend(TimeKind.START):
                self._begin(name, place)
        assert place.worker is not None
        return place.worker

    def _begin(self, name: str, place: WorkerPlace) -> None:
        if self.closed:
            raise WorkerFailure(Status.CRASHED, "not started: the run has been given up", alive=False)
        start = time.monotonic()
        log = self.folder / "logs" / f"{name}.log"
        place.worker = WorkerClient(name, backends.entry_of(name).target, log, self.env)
        try:
            hello = place.worker.ask("hello", self.limit())
            _same_package(hello.pop("package"))
        except WorkerFailure:
            self._dismiss(place)
            raise
        place.import_ns = hello.pop("import_ns")
        place.start_seconds = time.monotonic() - start
        self.libraries[name] = hello

    def side_by_side(self, work: Callable[[str], None], names: Iterable[str]) -> None:
        """Do some work for each name, as many at once as there are cores. An interrupt ends the workers as well."""
        with ThreadPoolExecutor(len(allowed_cores())) as pool:
            begun = [pool.submit(work, name) for name in names]
            try:
                for done in wait(begun, return_when=FIRST_EXCEPTION).done:
                    done.result()
            except BaseException:
                self.closed = True
                for place in self.places.values():
                    if place.worker is not None:
                        place.worker.signal()
                pool.shutdown(cancel_futures=True)
                raise

    def start(self, name: str) -> None:
        """Start a worker beside others: its import is not timed. A failure is tried again, by itself, when asked."""
        with suppress(WorkerFailure):
            self.worker(name)
        self.places[name].import_ns = None

    def ask(self, name: str, op: str, limit: Limit | None = None, **arguments: Any) -> dict[str, Any]:
        """The reply, within a limit of its own or that of all requests; nothing is asked where no time is left.

        Raises WorkerFailure; a worker that is dead then leaves its place, and is ready for nothing. One that was
        ended for want of a budget did not die: it keeps its lives.
        """
        limit = limit or self.limit()
        if limit.seconds <= 0:
            raise WorkerFailure(limit.status, f"{op} was not begun: {limit.budget}", alive=True)
        try:
            worker = self.worker(name)
            with self.ledger.spend(KINDS.get(op, TimeKind.REST)):
                reply = worker.ask(op, limit, **arguments)
        except WorkerFailure as failure:
            if not failure.alive:
                self._dismiss(self.places[name])
                self.places[name].lives += failure.status is Status.SKIPPED
            raise
        finally:
            self.answered_ns = time.monotonic_ns()
        if op == "turn":
            calls_ns = sum(reply["samples_ns"])
            spent = {
                TimeKind.TURNS: calls_ns,
                TimeKind.PREPARE: reply["staging_ns"],
                TimeKind.WAITING: reply["slept_ns"],
            }
            for kind, ns in spent.items():
                self.ledger.move(ns / 1e9, TimeKind.AROUND, kind)
        return reply

    def stop(self) -> None:
        """Let all workers end by themselves."""
        with self.ledger.spend(TimeKind.STOP):
            running = [place.worker for place in self.places.values() if place.worker is not None]
            for worker in running:
                worker.let_go()
            for worker in running:
                worker.stop()
            for place in self.places.values():
                place.worker = None

    def kill(self) -> None:
        """End all workers now."""
        with self.ledger.spend(TimeKind.STOP):
            for place in self.places.values():
                self._dismiss(place)

    def dismiss(self, name: str) -> None:
        """End a worker now; the next request starts another."""
        self._dismiss(self.places[name])

    def _dismiss(self, place: WorkerPlace) -> None:
        if place.worker is not None:
            place.worker.kill()
        place.worker = None
        place.ready = set()


def computing_libraries(threads: int) -> dict[str, Any]:
    """What NumPy and our kernels compute with here, as their workers say it: BLAS, OpenMP, LLVM. Takes a second.

    By backend; one that does not start is left out.
    """
    names = ("numpy", "numba")  # they need no extra
    with tempfile.TemporaryDirectory() as folder:
        pool = WorkerPool(names, Path(folder), threads, timeout=60.0, cache=None)
        try:
            for name in names:
                with suppress(WorkerFailure):
                    pool.worker(name)
        finally:
            pool.kill()
    return pool.libraries
