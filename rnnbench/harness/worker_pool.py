"""The workers of a run: a place for each backend with a number of threads, its process started when first asked.

Where a library's number of threads can be changed, one process has the places of all numbers. A process that died is
replaced when it is asked again.
"""

from __future__ import annotations

import os
import tempfile
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
class WorkerProcess:
    """A process that is started with so many threads, and what that took; `threads` and `cores` are those of now."""

    most: int
    client: WorkerClient | None = None
    threads: int = 0
    cores: list[int] = field(default_factory=list)
    import_ns: int | None = None
    start_seconds: float = 0.0


@dataclass
class WorkerPlace:
    """The place of one backend with so many threads: its process, and what that is ready for with these threads.

    `prepared` is what the process answered to `prepare` for the present problem; `ready` are keys of cases.
    """

    threads: int
    process: WorkerProcess
    prepared: tuple[Contract, int] | None = None  # and nanoseconds
    ready: set[str] = field(default_factory=set)
    lives: int = 0  # processes it may still be given for the present problem

    @property
    def worker(self) -> WorkerClient | None:
        """The process, where it runs."""
        return self.process.client


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
        self.places: dict[tuple[str, int], WorkerPlace] = {}
        for name in names:
            self.place(name)
        self.counted: TimeKind | None = None  # what all that workers are asked counts as
        self._here = threading.local()  # `first`: the place of the core that work of this thread begins at
        self.libraries: dict[str, Any] = {}
        self.closed = False
        self.answered_ns = 0  # when any of them last did, by the monotonic clock

    @property
    def idle_ns(self) -> int:
        """Nanoseconds since one of them last answered; between requests none of them works."""
        return time.monotonic_ns() - self.answered_ns

    def place(self, name: str, threads: int | None = None) -> WorkerPlace:
        """The place of a backend, by default that with the threads of this pool."""
        threads = threads or self.threads
        if (name, threads) not in self.places:
            most = self.most(name, threads)
            known = [place.process for (other, _), place in list(self.places.items()) if other == name]
            shared = [process for process in known if process.most == most]
            self.places[name, threads] = WorkerPlace(threads, shared[0] if shared else WorkerProcess(most))
        return self.places[name, threads]

    def most(self, name: str, threads: int) -> int:
        """With how many threads a process is started that is to have so many."""
        return max(threads, self.threads) if backends.entry_of(name).sets_threads else threads

    def worker(self, name: str, threads: int | None = None) -> WorkerClient:
        """A running worker with its library imported, with the threads and on the cores that it is to use.

        WorkerFailure where it fails.
        """
        place = self.place(name, threads)
        process, cores = place.process, cores_for(place.threads, getattr(self._here, "first", 0))
        if process.client is None:
            with self.spend(TimeKind.START):
                self._begin(name, process, cores_for(process.most, getattr(self._here, "first", 0)))
        assert process.client is not None
        if (process.threads, process.cores) != (place.threads, cores):
            sets = {"threads": place.threads} if backends.entry_of(name).sets_threads else {}
            with self.spend(TimeKind.AROUND):
                process.client.ask("use", self.limit(), cores=cores, **sets)
            process.threads, process.cores = place.threads, cores
        return process.client

    @contextmanager
    def counting(self, kind: TimeKind) -> Iterator[None]:
        """What workers are asked meanwhile counts as this kind alone, such as finding the number of threads."""
        self.counted = kind
        try:
            with self.ledger.spend(kind):
                yield
        finally:
            self.counted = None

    def spend(self, kind: TimeKind) -> AbstractContextManager[None]:
        """Count what happens inside as `kind`, but in `counting`."""
        return self.ledger.spend(self.counted or kind)

    @property
    def processes(self) -> list[int]:
        """The numbers of those that run."""
        return [client.process.pid for client in self._running()]

    def _running(self) -> list[WorkerClient]:
        """Each that runs, once."""
        clients = [place.worker for place in list(self.places.values())]
        return list(dict.fromkeys(client for client in clients if client is not None))

    def _begin(self, name: str, process: WorkerProcess, cores: list[int]) -> None:
        if self.closed:
            raise WorkerFailure(Status.CRASHED, "not started: the run has been given up", alive=False)
        start = time.monotonic()
        apart = "" if process.most == self.threads else f" by {process.most}"
        log = self.folder / "logs" / f"{name}{apart}.log"
        env = environment(process.most, self.cache, self.env, self.folder)
        env["RNNBENCH_CORES"] = ",".join(map(str, cores))
        process.client = WorkerClient(name, backends.entry_of(name).target, log, env)
        # A number that can be set is, also the one that the environment says: some libraries then differ a little
        process.threads = 0 if backends.entry_of(name).sets_threads else process.most
        process.cores = cores
        try:
            hello = process.client.ask("hello", self.limit())
            _same_package(hello.pop("package"))
        except WorkerFailure:
            self._end(process)
            raise
        process.import_ns = hello.pop("import_ns")
        process.start_seconds = time.monotonic() - start
        if process.most == self.threads or name not in self.libraries:  # of the process by one thread, if it is alone
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
                for client in self._running():
                    client.signal()
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

        Raises WorkerFailure; a worker that is dead then leaves its places, and is ready for nothing. One that was
        ended for want of a budget did not die: it keeps its lives, as does a place that another one's request ended.
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
                asked = self.place(name, threads)
                for place in self._places_of(asked.process):
                    spared = failure.status is Status.SKIPPED if place is asked else place.prepared is not None
                    place.lives += spared
                self._end(asked.process)
            raise
        finally:
            self.answered_ns = time.monotonic_ns()
        if op == "turn" and self.counted is None:
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
            running = self._running()
            for client in running:
                client.let_go()
            for client in running:
                client.stop()
            for place in list(self.places.values()):
                place.process.client = place.prepared = None

    def kill(self) -> None:
        """End all workers now."""
        with self.ledger.spend(TimeKind.STOP):
            for place in list(self.places.values()):
                self._end(place.process)

    def dismiss(self, name: str, threads: int | None = None) -> None:
        """End a worker now; the next request starts another."""
        self._end(self.place(name, threads).process)

    def _end(self, process: WorkerProcess) -> None:
        if process.client is not None:
            process.client.kill()
        process.client = None
        for place in self._places_of(process):
            place.prepared, place.ready = None, set()

    def _places_of(self, process: WorkerProcess) -> list[WorkerPlace]:
        return [place for place in list(self.places.values()) if place.process is process]


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
