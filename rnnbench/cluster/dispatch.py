"""Gives a run's problems to the workers of a cluster and takes in what they send, until all is measured.

A kind's problems are submitted to Dask a few at a time, so that one worker's death makes few of them suspicious to it.
Whatever may end on the way, a worker, the scheduler or the connection, a problem goes on from the lines that are kept.
"""

from __future__ import annotations

import pickle
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, Protocol

from distributed import Client, Future, KilledWorker

from rnnbench.cluster import machine as there
from rnnbench.cluster.roster import RESOURCE, ClusterLost, Host, Roster, SchedulerLost
from rnnbench.cluster.unit import Job, WorkUnit, measure_units, shares_processes
from rnnbench.harness.observer import Observer
from rnnbench.records import store
from rnnbench.workloads.base import Spec

LOOK = 1.0  # seconds between two looks at the workers
WAIT = 600.0  # seconds that a run waits for a scheduler, or for a machine of a kind that has none left
STOP = 15.0  # seconds that a run that is given up waits for the turns that are under way
LEAVE = 5.0  # seconds for leaving the cluster as it was
MISSES = 5  # requests that may fail one after the other while the scheduler is there
QUIET = 10.0  # seconds after which the answer to a problem that Dask calls finished will not come any more
A_HOST, MORE = 8, 8  # problems of a kind that are submitted at a time: so many for each host, and more
A_TASK = 16  # problems in a task at most
MANY, FEW = 200, 12  # so many for each host before a task has two; the same where they share their processes
DEATHS = 5  # workers that may die over a problem one after the other without anything of it being measured

Work = Callable[[Job, WorkUnit, Any], None]


class Keeper(Protocol):
    """Keeps what arrives of one kind of machine."""

    def keep(self, number: int, file: str, lines: Sequence[bytes]) -> int:
        """Lines of a problem; how many of them are new."""

    def kept(self, number: int) -> Mapping[str, tuple[bytes, ...]]:
        """The lines of a problem by file."""

    def facts(self, message: Mapping[str, Any]) -> None:
        """What is known of a machine after a problem."""

    def finished(self, number: int) -> None:
        """Nothing is left of a problem."""


@dataclass
class Live:
    """A problem that is submitted: where it was begun, and what arrived of it."""

    future: Future
    attempt: int
    at: str = ""
    lines: int = 0
    fresh: int = 0
    ended: float | None = None


@dataclass
class KindQueue:
    """The problems of one kind of machine. `left` are the numbers of those that are not finished."""

    job: Job
    specs: Sequence[Spec]
    left: set[int]
    keeper: Keeper
    todo: deque[int] = field(default_factory=deque)
    live: dict[int, Live] = field(default_factory=dict)
    attempts: dict[int, int] = field(default_factory=dict)
    deaths: dict[int, int] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)
    fault: bool = False  # whether one failed by a fault of ours
    without: float | None = None  # since when no machine of this kind is there
    broken: str = ""  # why it could not be finished

    def __post_init__(self) -> None:
        self.todo.extend(sorted(self.left))
        self.pickled = pickle.dumps(self.job)


class Dispatch:
    """One run over a cluster, whose budget is spent when the monotonic clock `ends`.

    `work` stands in for measuring, for tests of the scheduling.
    """

    def __init__(self, roster: Roster, topic: str, groups: Mapping[str, KindQueue], observer: Observer,
                 work: Work | None = None, ends: float | None = None) -> None:  # fmt: skip
        self.roster, self.topic, self.groups, self.observer = roster, topic, groups, observer
        self.work, self.ends = work, ends
        self.messages: SimpleQueue[Mapping[str, Any]] = SimpleQueue()
        self.total = sum(len(group.left) for group in groups.values())
        self.looked, self.missed = 0.0, 0
        self.made = ExitStack()  # connections that this run has made anew
        self.client.subscribe_topic(topic, lambda event: self.messages.put(event[1]))

    @property
    def client(self) -> Client:
        """The present connection."""
        return self.roster.client

    @property
    def done(self) -> int:
        """How many problems are finished."""
        return self.total - sum(len(group.left) for group in self.groups.values())

    def run(self) -> None:
        """Until all is measured, or cannot be. Raises ClusterLost where the scheduler does not come back."""
        clear = True
        try:
            for kind, group in self.groups.items():
                self._offer((host for host in self.roster.hosts.values() if host.kind == kind), group)
            while any(group.left for group in self.groups.values()):
                try:
                    self._step()
                    self.missed = 0
                except (OSError, TimeoutError, RuntimeError) as error:
                    self._look_into(error)
        except BaseException as error:
            # where it was not stopped by hand, lines may be on the machines that are not here
            clear = isinstance(error, KeyboardInterrupt)
            clear = self._give_up() and clear
            raise
        finally:
            self._end(clear)

    def _offer(self, hosts: Iterable[Host], group: KindQueue) -> None:
        """Let hosts have problems, and know how much is left of the budget."""
        left = None if self.ends is None else self.ends - time.monotonic()
        self.roster.offer(hosts, group.job.resource, 1, self.topic, left)

    def _step(self) -> None:
        if time.monotonic() - self.looked >= LOOK:
            self._look()
            self.looked = time.monotonic()
        for group in self.groups.values():
            self._submit(group)
        self.roster.has_problems()
        with suppress(Empty):
            self._heed(self.messages.get(timeout=LOOK / 4))
            while True:
                self._heed(self.messages.get_nowait())

    def _look_into(self, error: Exception) -> None:
        """Whether the scheduler is gone, or one request to it or to a worker failed, which may be repeated."""
        time.sleep(LOOK)  # by then Dask knows, too
        self.missed += 1
        if isinstance(error, SchedulerLost) or self.client.status != "running":
            self._find_again()
        elif self.missed > MISSES:
            raise ClusterLost(
                f"the cluster answers no more ({type(error).__name__}: {error}); look at the logs of its scheduler"
            ) from error

    def _submit(self, group: KindQueue) -> None:
        hosts = sum(host.kind == group.job.kind for host in self.roster.hosts.values())
        least = FEW if shares_processes(group.job.plan) and not group.job.only_checks else MANY
        size = max(1, min(A_TASK, len(group.left) // (least * max(1, hosts))))
        most = size * (A_HOST * hosts + MORE)  # without a host, too: a cluster may grow for them
        if not group.todo or len(group.live) > most / 2:
            return
        numbers = [group.todo.popleft() for _ in range(min(most - len(group.live), len(group.todo)))]
        units = []
        for number in numbers:
            attempt = group.attempts[number] = group.attempts.get(number, -1) + 1
            units.append(WorkUnit(number, group.specs[number], attempt, group.keeper.kept(number)))
        tasks = [tuple(units[i : i + size]) for i in range(0, len(units), size)]
        futures = self.client.map(
            measure_units, [pickle.dumps(task) for task in tasks], job_pickled=group.pickled, work=self.work,
            pure=False, resources={RESOURCE: 1, group.job.resource: 1},
            key=[self._key(group, task[0].number, task[0].attempt) for task in tasks],
        )  # fmt: skip
        for task, future in zip(tasks, futures, strict=True):
            for unit in task:
                group.live[unit.number] = Live(future, unit.attempt)
                future.add_done_callback(partial(self._ended, group.job.kind, unit.number, unit.attempt))

    def _ended(self, kind: str, number: int, attempt: int, future: Future) -> None:
        """In a thread of Dask's: hand it on to that of the run."""
        error = future.exception() if future.status == "error" else None
        self.messages.put({"op": "ended", "kind": kind, "unit": number, "attempt": attempt, "status": future.status,
                           "error": error})  # fmt: skip

    def _heed(self, message: Mapping[str, Any]) -> None:
        group, number = self.groups[message["kind"]], message["unit"]
        live = group.live.get(number)
        current = live is not None and live.attempt == message["attempt"]
        if message["op"] == "lines":  # kept whoever measured them
            new = group.keeper.keep(number, message["file"], message["lines"])
            if live is not None and current:
                live.lines, live.fresh = live.lines + len(message["lines"]), live.fresh + new
        elif message["op"] == "facts":
            group.keeper.facts(message)
        elif message["op"] == "doing":
            self.observer.show(f"{message['machine']}: {message['text']}", self.done / max(1, self.total))
        elif message["op"] == "say":
            self.observer.say(f"{message['machine']}: {message['text']}")
        elif message["op"] == "begun":
            for each in self._of_task(group, message):
                group.live[each].at = message["at"]
        elif message["op"] == "again":
            first, *others = self._of_task(group, message) or [-1]
            for each in reversed(others):  # these had not been begun
                self._again(group, each)
            if first in group.live:
                self._died(group, first, group.live[first])
        elif live is not None and current:
            getattr(self, f"_{message['op']}_heard")(group, number, live, message)

    def _of_task(self, group: KindQueue, message: Mapping[str, Any]) -> list[int]:
        """Of the problems of a task those that are still given out by it, in order."""
        key = self._key(group, message["unit"], message["attempt"])
        return [n for n in message["units"] if n in group.live and group.live[n].future.key == key]

    def _key(self, group: KindQueue, number: int, attempt: int) -> str:
        """Of a task, by its first problem."""
        return f"{self.topic}-{group.job.kind}-{number}-{attempt}"

    def _done_heard(self, group: KindQueue, number: int, live: Live, message: Mapping[str, Any]) -> None:
        if message["count"] != live.lines:  # some were lost with a connection; the machine's journal has them
            self._again(group, number)
            return
        del group.live[number]
        group.left.discard(number)
        group.keeper.finished(number)
        self.observer.show(f"{self.done} of {self.total} problems", self.done / max(1, self.total))

    def _stopped_heard(self, group: KindQueue, number: int, live: Live, message: Mapping[str, Any]) -> None:
        self._again(group, number)

    def _failed_heard(self, group: KindQueue, number: int, live: Live, message: Mapping[str, Any]) -> None:
        group.fault = group.fault or message.get("fault", False)
        self._fail(group, number, message["text"])

    def _unfit_heard(self, group: KindQueue, number: int, live: Live, message: Mapping[str, Any]) -> None:
        """A machine cannot go on, such as one whose disk is full. What was given to it and not begun goes elsewhere."""
        name = message["machine"]
        self.roster.unfit.add(name)
        for host in [host for host in self.roster.hosts.values() if host.name == name]:
            del self.roster.hosts[host.address]
            self.roster.refused.add(host.address)
        group.broken = f"{name}: {message['text']}"
        self.observer.say(f"{name} measures no more for this run: {message['text']}; what it measured is kept")
        self._again(group, number)
        self._take_back(group)

    def _ended_heard(self, group: KindQueue, number: int, live: Live, message: Mapping[str, Any]) -> None:
        if message["status"] == "error":
            if isinstance(message["error"], KilledWorker):
                self._died(group, number, live)
            else:
                self._fail(group, number, f"{type(message['error']).__name__}: {message['error']}")
        elif message["status"] in ("cancelled", "lost"):
            raise SchedulerLost
        else:
            live.ended = time.monotonic()

    def _died(self, group: KindQueue, number: int, live: Live) -> None:
        """A worker died over a problem, or while the problem waited for it."""
        group.deaths[number] = group.deaths.get(number, 0) + 1 if live.at and not live.fresh else 0
        if group.deaths[number] < DEATHS:
            self._again(group, number)
        else:
            self._fail(group, number, f"{DEATHS} workers died over it, and nothing of it was measured meanwhile")

    def _again(self, group: KindQueue, number: int) -> None:
        del group.live[number]
        group.todo.appendleft(number)

    def _fail(self, group: KindQueue, number: int, why: str) -> None:
        del group.live[number]
        group.left.discard(number)
        group.failed[number] = why
        self.observer.say(f"{group.specs[number].name} was given up: {why}")

    def _take_back(self, group: KindQueue) -> None:
        """Submit anew what no present worker has begun: Dask gives out nothing that has waited for a resource."""
        waiting = [n for n, live in group.live.items() if live.at not in self.roster.hosts and live.ended is None]
        futures = [group.live.pop(number).future for number in waiting]
        if futures:
            self.client.cancel(list({future.key: future for future in futures}.values()), force=True)
        group.todo.extendleft(sorted(waiting, reverse=True))

    def _look(self) -> None:
        """Who came and went."""
        added, gone = self.roster.look()
        for host in gone:
            self.observer.say(f"the worker at {host.address} on {host.name} is gone; what it measured is kept")
        for kind, group in self.groups.items():
            new = [host for host in added if host.kind == kind]
            if new:
                self._offer(new, group)
                self._take_back(group)
            for number, live in list(group.live.items()):
                if live.ended is not None and time.monotonic() - live.ended > QUIET:
                    self._again(group, number)
            self._mind_absence(kind, group)
        for host in added:
            if host.kind not in self.groups:
                self.roster.tell(f"{host.name} is unlike the machines that this run began with; it gets nothing")

    def _mind_absence(self, kind: str, group: KindQueue) -> None:
        if not group.left or any(host.kind == kind for host in self.roster.hosts.values()):
            group.without = None
            return
        count = f"{len(group.left)} problem{'s' * (len(group.left) > 1)}"
        if group.without is None:
            group.without = time.monotonic()
            self.observer.say(f"no machine like {group.job.kind} is there for {count}; waiting for one up to "
                              f"{WAIT / 60:.0f} minutes, Ctrl-C ends it")  # fmt: skip
        elif time.monotonic() - group.without > (0.0 if group.broken else WAIT):
            group.broken = group.broken or f"no machine like {group.job.kind} came"
            self.observer.say(f"{count} are left over; continue with --resume")
            self.total -= len(group.left)
            group.left.clear()

    def _find_again(self) -> None:
        """Wait for the scheduler, and begin with all that was not finished."""
        address, security = self.client.scheduler.address, self.client.security
        self.observer.say(f"the scheduler at {address} is gone; {self.done} of {self.total} problems are measured and "
                          f"kept; waiting for it up to {WAIT / 60:.0f} minutes, Ctrl-C ends it")  # fmt: skip
        deadline = time.monotonic() + WAIT
        while self.client.status != "running":  # Dask looks for it for a while, then we do
            if self.client.status != "connecting":
                with suppress(OSError, TimeoutError):
                    self.roster.client = Client(address, security=security, timeout=5, set_as_default=False)
                    self.made.callback(self.client.close)
            if time.monotonic() > deadline:
                raise ClusterLost(f"the scheduler at {address} did not come back")
            time.sleep(LOOK / 4)
        self.observer.say("the scheduler is back")
        self.client.subscribe_topic(self.topic, lambda event: self.messages.put(event[1]))
        self.roster.forget()
        for group in self.groups.values():
            group.todo = deque(sorted(group.left))
            group.live.clear()
        self.looked = 0.0

    def _give_up(self) -> bool:
        """Stop what runs, and take in what it sends until then. Whether nothing runs any more."""
        with suppress(OSError, TimeoutError, RuntimeError):
            self.roster.on_all(there.give_up, self.topic)
            for group in self.groups.values():
                waiting = [number for number, live in group.live.items() if not live.at]
                self.client.cancel([group.live.pop(number).future for number in waiting], force=True)
        deadline = time.monotonic() + STOP
        with suppress(store.StoreError, OSError):
            while any(group.live for group in self.groups.values()) and time.monotonic() < deadline:
                with suppress(Empty):
                    self._heed(self.messages.get(timeout=LOOK / 4))
        return not any(group.live for group in self.groups.values())

    def _end(self, clear: bool) -> None:
        """Leave the cluster as it was, as far as it answers: workers that leave meanwhile would be waited for."""

        def leave() -> None:
            with suppress(Exception):
                self.client.unsubscribe_topic(self.topic)
                if clear:
                    self.roster.on_all(there.clear, self.roster.run_id)
                for group in self.groups.values():
                    self.roster.offer(self.roster.hosts.values(), group.job.resource, 0)
            with suppress(Exception):
                self.made.close()

        leaving = Thread(target=leave, daemon=True)
        leaving.start()
        leaving.join(LEAVE)


def hosts_of(roster: Roster) -> dict[str, list[Host]]:
    """The machines by kind."""
    found: dict[str, list[Host]] = {}
    for host in roster.hosts.values():
        found.setdefault(host.kind, []).append(host)
    return found
