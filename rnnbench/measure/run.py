"""The run: launches, rounds, turns. Every answer is handed on as soon as it is known."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import msgspec

from rnnbench import backends
from rnnbench.measure.checks import Checker, Observer, Slot, Task
from rnnbench.measure.client import WorkerFailure
from rnnbench.measure.schedule import Plan, shuffled, wanted
from rnnbench.model import Case
from rnnbench.results.record import Record, Status

SETTLE_SECONDS = 0.005  # between turns, for the thread pools of the one before to fall asleep
TIMED_IMPORTS = 2  # launches in which backends are imported one by one, to be timed; later ones start side by side


class Runner(Checker):
    """Measures a plan's tasks: what `before` holds is not measured again."""

    def __init__(
        self,
        plan: Plan,
        tasks: list[Task],
        folder: Path,
        emit: Callable[[Record], None],
        observer: Observer,
        *,
        run_id: str,
        machine_id: str,
        before: list[Record] | None = None,
    ) -> None:
        super().__init__(plan, tasks, folder, emit, observer, run_id=run_id, machine_id=machine_id, before=before)
        self.measured = {(r.case, r.backend, r.launch, r.round) for r in before or [] if r.round >= 0}

    def run(self) -> None:
        """Do all launches. Workers are gone when this returns, however it does."""
        try:
            self._leave_out_the_missing()
            self._fill_estimate()
            for launch in range(self.plan.effort.launches):
                self._launch(launch)
        finally:
            self.crew.kill()

    def _leave_out_the_missing(self) -> None:
        for task in self.tasks:
            for case in task.cases:
                for name in self.plan.backends:
                    reason = backends.missing(name)
                    if reason is not None and self._todo(case, name, 0):
                        self._fail(Slot(task, case, name, 0), Status.UNAVAILABLE, reason)

    def _todo(self, case: Case, name: str, launch: int) -> list[int]:
        """The rounds of a launch that are still to be measured."""
        if (case, name) in self.failed or not wanted(self.plan, case, name):
            return []
        rounds = range(self.plan.effort.rounds)
        return [r for r in rounds if (case, name, launch, r) not in self.measured]

    def _has_work(self, task: Task, name: str, launch: int) -> bool:
        return any(self._todo(case, name, launch) for case in task.cases)

    def _fill_estimate(self) -> None:
        for launch in range(self.plan.effort.launches):
            for name in self.plan.backends:
                busy = [task for task in self.tasks if self._has_work(task, name, launch)]
                self.estimate.add(("start", name), min(1, len(busy)))
                for task in busy:
                    self.estimate.add(("check", name, task.problem))
                    for case in task.cases:
                        self.estimate.add(("turn", name, case), len(self._todo(case, name, launch)))
        for task in self.tasks:
            if any(self._has_work(task, name, 0) for name in self.plan.backends):
                self.estimate.add(("oracle", task.problem))

    def _launch(self, launch: int) -> None:
        names = shuffled(self.plan.backends, self.plan.seed, launch)
        if launch >= TIMED_IMPORTS and self.plan.effort.costs:
            self._start_all(launch)
        for task in self.tasks:
            if any(self._has_work(task, name, launch) for name in names):
                self._task(task, names, launch)
            if launch == self.plan.effort.launches - 1:  # of many large problems, no more than one is kept
                self.oracles.pop(task.problem, None)
                self._path(task).unlink(missing_ok=True)
        self.crew.stop()

    def _start_all(self, launch: int) -> None:
        names = [n for n in self.plan.backends if any(self._has_work(task, n, launch) for task in self.tasks)]
        self.observer.doing(f"starting {len(names)} backends", self.estimate)
        self.crew.side_by_side(self.crew.start, names)
        for name in names:
            self.estimate.drop(("start", name))

    def _task(self, task: Task, names: list[str], launch: int) -> None:
        """All rounds of all cases of one problem. Who died on a case is started again, once, for the next ones."""
        self._oracle(task)
        self._arrays(task)  # before workers that start side by side ask for it
        for name in names:
            self.crew.places[name].lives = 2
        for number, case in enumerate(task.cases):
            self._make_ready(task, names, launch)
            for round_ in range(self.plan.effort.rounds):
                for name in shuffled(names, self.plan.seed, launch, number, round_):
                    ready = case.key in self.crew.places[name].ready
                    if ready and round_ in self._todo(case, name, launch):
                        self._turn(Slot(task, case, name, launch, round_))
        for name in names:
            self.crew.places[name].ready = set()
            if self.crew.places[name].worker is not None:
                with suppress(WorkerFailure):  # it is gone, and with it what was to be closed
                    self.crew.ask(name, "close")

    def _make_ready(self, task: Task, names: list[str], launch: int) -> None:
        """Start, prepare and check whoever has cases to come and is ready for none."""
        if self.plan.effort.costs:
            for name in names:
                self._make_one_ready(task, name, launch)
        else:
            longest_first = sorted(names, key=lambda name: not backends.REGISTRY[name].compiles)
            self.crew.side_by_side(lambda name: self._make_one_ready(task, name, launch), longest_first)

    def _make_one_ready(self, task: Task, name: str, launch: int) -> None:
        place = self.crew.places[name]
        while self._has_work(task, name, launch) and not place.ready and not self.crew.closed:
            slots = [Slot(task, case, name, launch) for case in task.cases if self._todo(case, name, launch)]
            if not place.lives:
                for slot in slots:
                    self._fail(slot, Status.CRASHED, "not tried: the worker died twice on cases of this workload")
                break
            place.lives -= 1
            with self._timed(("check", name, task.problem)):
                self._check(slots)

    def _turn(self, slot: Slot) -> None:
        effort, case, name = self.plan.effort, slot.case, slot.backend
        where = f"launch {slot.launch + 1} of {effort.launches}, round {slot.round + 1} of {effort.rounds}"
        self.observer.doing(f"{case.key}, {where}: {name}", self.estimate)
        time.sleep(SETTLE_SECONDS)
        turn = msgspec.to_builtins(effort.turn_of(case.pass_))
        order = self._order(slot.task, case, slot.launch, slot.round)
        try:
            with self._timed(("turn", name, case)):
                reply = self.crew.ask(name, "turn", pass_=case.pass_, turn=turn, order=order)
        except WorkerFailure as failure:
            self._fail(slot, failure.status, failure.reason)
            return
        self.measured.add((case, name, slot.launch, slot.round))
        self._emit(
            replace(
                self._record(slot),
                samples_ns=tuple(reply["samples_ns"]),
                warmup=reply["warmup"],
                peak_memory_bytes=reply["peak_memory_bytes"],
            )
        )
