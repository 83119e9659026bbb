"""The workers of a run: a place for each backend with a number of threads, its process started when first asked.

A process that died is replaced when it is asked again.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

import rnnbench
from rnnbench import backends
from rnnbench.contract import Contract
from rnnbench.files import temporary_folder
from rnnbench.harness.timers import Ledger
from rnnbench.harness.worker_client import Limit, WorkerClient, WorkerFailure
from rnnbench.machine.cores import allowed_cores, cores_for
from rnnbench.machine.environment import environment
from rnnbench.records.account import TimeKind
from rnnbench.records.record import Status

KINDS = {  # request -> what the time until its answer is for; of a turn the calls are taken out again
    "unsupported": TimeKind.CHECK, "prepare": TimeKind.PREPARE, "first": TimeKind.CHECK, "losses": TimeKind.CHECK,
    "turn": TimeKind.AROUND, "close": TimeKind.PREPARE, "epoch": TimeKind.TRAINING, "evaluate": TimeKind.TRAINING,
}  # fmt: skip


Item = TypeVar("Item")


@dataclass
class WorkerPlace:
    """The place of one backend with so many threads: its process, what its start took, and what it is ready for.

    `prepared` is what the process answered to `prepare` for the present problem; `ready` are keys of cases.
    """

    threads: int
    worker: WorkerClient | None = None
    cores: list[int] = field(default_factory=list)
    import_ns: int | None = None
    start_seconds: float = 0.0
    prepared: tuple[Contract, int] | None = None  # and nanoseconds
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
    """Workers by backend and threads, in a folder for their logs, arrays and compiler caches.

    `threads` are those of a worker of which nothing else is said. `cache` None leaves the compilers their own caches.
    `ledger` keeps what the time was for. `limit` is asked how long a request may take, where that is less than
    `timeout` in seconds. `env` are variables that workers get besides those that pass through to all.
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
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.ledger = ledger or Ledger()
        self.folder, self.env = folder.absolute(), env
        self.limit = limit or (lambda: Limit(timeout))
        self.threads, self.cache = threads, cache
        self.places = {(name, threads): WorkerPlace(threads) for name in names}
        self.counted: TimeKind | None = None  # what all that workers are asked counts as
        self._here = threading.local()  # `first`: the place of the core that work of this thread begins at
        self.libraries: dict[str, Any] = {}
        self.times_imports = False  # of workers with the threads of this pool; others import faster
        self.closed = False
        self.answered_ns = 0  # when any of them last did, by the monotonic clock

    def work_for(self, ledger: Ledger, limit: Callable[[], Limit]) -> None:
        """Keep what the time is for in another ledger from now on, and go by another limit; processes stay."""
        self.ledger, self.limit = ledger, limit

    @property
    def idle_ns(self) -> int:
        """Nanoseconds since one of them last answered; between requests none of them works."""
        return time.monotonic_ns() - self.answered_ns

    def place(self, name: str, threads: int | None = None) -> WorkerPlace:
        """The place of a backend, by default that with the threads of this pool."""
        threads = threads or self.threads
        return self.places.setdefault((name, threads), WorkerPlace(threads))

    def worker(self, name: str, threads: int | None = None) -> WorkerClient:
        """A running worker with its library imported, on the cores that it is to use. WorkerFailure where it fails."""
        place = self.place(name, threads)
        cores = cores_for(place.threads, getattr(self._here, "first", 0))
        if place.worker is None:
            with self.spend(TimeKind.START):
                self._begin(name, place, cores)
        elif place.cores != cores:
            place.worker.ask("stay", self.limit(), cores=cores)
            place.cores = cores
        assert place.worker is not None
        return place.worker

    @contextmanager
    def counting(self, kind: TimeKind) -> Iterator[None]:
        """What workers are asked meanwhile counts as this kind alone, such as finding the number of threads."""
        before, self.counted = self.counted, kind
        try:
            with self.ledger.spend(kind):
                yield
        finally:
            self.counted = before

    def spend(self, kind: TimeKind) -> AbstractContextManager[None]:
        """Count what happens inside as `kind`, but in `counting`."""
        return self.ledger.spend(self.counted or kind)

    @property
    def processes(self) -> list[int]:
        """The numbers of those that run."""
        return [place.worker.process.pid for place in list(self.places.values()) if place.worker is not None]

    def _begin(self, name: str, place: WorkerPlace, cores: list[int]) -> None:
        if self.closed:
            raise WorkerFailure(Status.CRASHED, "not started: the run has been given up", alive=False)
        start = time.monotonic()
        apart = "" if place.threads == self.threads else f" by {place.threads}"
        log = self.folder / "logs" / f"{name}{apart}.log"
        env = environment(place.threads, self.cache, self.env, self.folder)
        env["RNNBENCH_CORES"] = ",".join(map(str, cores))
        if self.times_imports and place.threads == self.threads:
            env["RNNBENCH_TIMES_IMPORT"] = "1"
        place.worker, place.cores = WorkerClient(name, backends.entry_of(name).target, log, env), cores
        try:
            hello = place.worker.ask("hello", self.limit())
            _same_package(hello.pop("package"))
        except WorkerFailure:
            self._dismiss(place)
            raise
        place.import_ns = hello.pop("import_ns")
        place.start_seconds = time.monotonic() - start
        if place.threads == self.threads or name not in self.libraries:  # of the process by one thread, if it is alone
            self.libraries[name] = hello

    def side_by_side(self, work: Callable[[Item], None], items: Iterable[Item]) -> None:
        """Do some work for each item, as many at once as there are cores. An interrupt ends the workers as well.

        Workers that may not use all cores go from different ones on meanwhile, and back when they are asked next.
        """
        firsts: SimpleQueue[int] = SimpleQueue()
        for first in range(len(allowed_cores())):
            firsts.put(first)

        def placed(item: Item) -> None:
            self._here.first = firsts.get()
            try:
                work(item)
            finally:
                firsts.put(self._here.first)

        with ThreadPoolExecutor(firsts.qsize()) as pool:
            begun = [pool.submit(placed, item) for item in items]
            try:
                for done in wait(begun, return_when=FIRST_EXCEPTION).done:
                    done.result()
            except BaseException:
                self.closed = True
                for place in list(self.places.values()):
                    if place.worker is not None:
                        place.worker.signal()
                pool.shutdown(cancel_futures=True)
                raise

    def start(self, name: str, threads: int | None = None) -> None:
        """Start a worker beside others. A failure is tried again, by itself, when asked."""
        with suppress(WorkerFailure):
            self.worker(name, threads)

    def ask(
        self, name: str, op: str, limit: Limit | None = None, threads: int | None = None, **arguments: Any
    ) -> dict[str, Any]:
        """The reply, within a limit of its own or that of all requests; nothing is asked where no time is left.

        Raises WorkerFailure; a worker that is dead then leaves its place, and is ready for nothing. One that was
        ended for want of a budget did not die: it keeps its lives.
        """
        limit = limit or self.limit()
        if limit.seconds <= 0:
            raise WorkerFailure(limit.status, f"{op} was not begun: {limit.budget}", alive=True)
        try:
            worker = self.worker(name, threads)
            with self.spend(KINDS.get(op, TimeKind.REST)):
                reply = worker.ask(op, limit, **arguments)
        except WorkerFailure as failure:
            if not failure.alive:
                place = self.place(name, threads)
                self._dismiss(place)
                place.lives += failure.status is Status.SKIPPED
            raise
        finally:
            self.answered_ns = time.monotonic_ns()
        if op == "turn" and self.counted is None:
            spent = {
                TimeKind.TURNS: reply["calls_ns"],
                TimeKind.PREPARE: reply["staging_ns"],
                TimeKind.WAITING: reply["slept_ns"],
            }
            for kind, ns in spent.items():
                self.ledger.move(ns / 1e9, TimeKind.AROUND, kind)
        return reply

    def stop(self) -> None:
        """Let all workers end by themselves."""
        with self.ledger.spend(TimeKind.STOP):
            running = [place.worker for place in list(self.places.values()) if place.worker is not None]
            for worker in running:
                worker.let_go()
            for worker in running:
                worker.stop()
            for place in list(self.places.values()):
                place.worker = place.prepared = None

    def kill(self) -> None:
        """End all workers now."""
        with self.ledger.spend(TimeKind.STOP):
            for place in list(self.places.values()):
                self._dismiss(place)

    def dismiss(self, name: str, threads: int | None = None) -> None:
        """End a worker now; the next request starts another."""
        self._dismiss(self.place(name, threads))

    def _dismiss(self, place: WorkerPlace) -> None:
        if place.worker is not None:
            place.worker.kill()
        place.worker = place.prepared = None
        place.ready = set()


def computing_libraries(threads: int) -> dict[str, Any]:
    """What NumPy and our kernels compute with here, as their workers say it: BLAS, OpenMP, LLVM. Takes a second.

    By backend; one that does not start is left out.
    """
    names = ("numpy", "numba")  # they need no extra
    with temporary_folder() as folder:
        pool = WorkerPool(names, Path(folder), threads, timeout=60.0, cache=None)
        try:
            for name in names:
                with suppress(WorkerFailure):
                    pool.worker(name)
        finally:
            pool.kill()
    return pool.libraries
