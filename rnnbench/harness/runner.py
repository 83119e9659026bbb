"""The run: launches, rounds, turns, for as long as the plan wants. Every answer is handed on as soon as it is known."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from typing import Any

import msgspec

from rnnbench import backends
from rnnbench.harness import duration
from rnnbench.harness.checker import Checker, Slot, Task
from rnnbench.harness.plan import shuffled, wanted
from rnnbench.harness.worker_client import WorkerFailure
from rnnbench.machine.cores import allowed_cores
from rnnbench.model import Case
from rnnbench.records.account import Kind
from rnnbench.records.record import DeviceState, Energy, Record, Status, TurnRecord, turns_in
from rnnbench.records.stops import Stop

TIMED_IMPORTS = 2  # launches in which backends are imported one by one, to be timed; later ones start side by side


class Runner(Checker):
    """Measures a plan's tasks: what `before` holds is not measured again."""

    @cached_property
    def measured(self) -> set[tuple[Case, str, int, int]]:
        """Case, backend, launch and round of all turns so far."""
        return {(r.case, r.backend, r.launch, r.round) for r in turns_in(self.before)}

    def run(self) -> None:
        """Do all launches. Workers are gone when this returns, however it does."""
        try:
            self._leave_out_the_missing()
            fewest, most = self.plan.launches
            self._fill_estimate(range(fewest))
            for launch in range(most):
                self.stopping.settle(launch, self._answers())
                if all(self.stopping.done(*answer) for answer in self._answers()):
                    break
                if launch >= fewest:
                    self._fill_estimate([launch])
                self._launch(launch)
            self._leave_out_the_rest()
        finally:
            self.pool.kill()

    @property
    def stops(self) -> dict[str, dict[str, Stop]]:
        """Case key -> backend -> why it was measured no further; empty where the plan only counts launches."""
        return self.stopping.stops(self._answers()) if self.plan.rule or self.plan.budgeted else {}

    def _answers(self) -> list[tuple[Case, str]]:
        """Who is asked what, without those that failed."""
        every = [(case, name) for task in self.tasks for case in task.cases for name in self.plan.backends]
        return [
            (case, name) for case, name in every if (case, name) not in self.failed and wanted(self.plan, case, name)
        ]

    def _leave_out_the_missing(self) -> None:
        """A record for each answer of a backend that is not here, or to a problem that is too large."""
        for task in self.tasks:
            for case in task.cases:
                for name in self.plan.backends:
                    missing = backends.missing(name)
                    status, reason = Status.UNAVAILABLE, missing
                    if missing is None:
                        status, reason = Status.UNSUPPORTED, task.refused
                    if reason is not None and self._todo(case, name, 0):
                        self._fail(Slot(task, case, name, 0), status, reason)

    def _leave_out_the_rest(self) -> None:
        """A record for each answer that no budget was left for."""
        for task in self.tasks if self.plan.budgeted else ():
            for case, name in self._answers():
                if case in task.cases:
                    self._leave_out(Slot(task, case, name, 0), self.stopping.why_skipped(case, name))

    def _leave_out(self, slot: Slot, reason: str) -> bool:
        """Measure no more of an answer. Whether that is a record of its own: where nothing was measured, the first."""
        answer = slot.case, slot.backend
        told = answer in self.stopping.given_up or any(key[:2] == answer for key in self.measured)
        self.stopping.given_up.add(answer)
        if not told:
            self._emit(replace(self.record_of(replace(slot, round=None)), status=Status.SKIPPED, reason=reason))
        return not told

    def _fail(self, slot: Slot, status: Status, reason: str, record: Record | None = None) -> None:
        """As of the checks; an answer that no budget was left for did not fail, and what was measured of it stays."""
        if status is not Status.SKIPPED:
            super()._fail(slot, status, reason, record)
        elif not self.pool.closed and self._leave_out(slot, reason):
            self.observer.say(f"{slot.backend} on {slot.case.key}: {status}. {reason}")

    def able(self, name: str) -> bool:
        """Whether a backend answered, or may still answer, at least one case."""
        cases = [case for task in self.tasks for case in task.cases if wanted(self.plan, case, name)]
        return any((case, name) not in self.failed for case in cases)

    def _todo(self, case: Case, name: str, launch: int) -> list[int]:
        """The rounds of a launch that are still to be measured."""
        if (case, name) in self.failed or not wanted(self.plan, case, name) or launch >= self.plan.launches[1]:
            return []
        if self.stopping.done(case, name):
            return []
        rounds = range(self.plan.effort.rounds)
        return [r for r in rounds if (case, name, launch, r) not in self.measured]

    def _has_work(self, task: Task, name: str, launch: int) -> bool:
        return any(self._todo(case, name, launch) for case in task.cases)

    def _fill_estimate(self, launches: Iterable[int]) -> None:
        for launch in launches:
            for name in self.plan.backends:
                busy = [task for task in self.tasks if self._has_work(task, name, launch)]
                self.estimate.add(("start", name), min(1, len(busy)))
                for task in busy:
                    self.estimate.add(("check", name, task.problem))
                    for case in task.cases:
                        self.estimate.add(("turn", name, case), len(self._todo(case, name, launch)))
        for task in self.tasks:
            if 0 in launches and any(self._has_work(task, name, 0) for name in self.plan.backends):
                self.estimate.add(("oracle", task.problem))

    def expected_seconds(self) -> float:
        """How long the fewest launches will take, guessed; what is measured already is left out."""
        side_by_side = 1 if self.plan.effort.costs else min(len(self.plan.backends), len(allowed_cores()))
        ready = turns = 0.0
        tasks = [task for task in self.tasks if not task.refused]
        for launch in range(self.plan.launches[0]):
            for name in self.plan.backends:
                busy = [task for task in tasks if self._has_work(task, name, launch)]
                ready += duration.START * bool(busy)
                for task in busy:
                    ready += duration.of_check(task.cases, first=not launch)
                    turns += sum(
                        len(self._todo(case, name, launch)) * duration.of_turn(self.plan, case) for case in task.cases
                    )
        oracles = sum(duration.of_check(task.cases, first=True) for task in tasks)
        return ready / side_by_side + turns + (oracles + duration.EXTRA if ready else 0.0)

    def _launch(self, launch: int) -> None:
        names = shuffled(self.plan.backends, self.plan.seed, launch)
        if launch >= TIMED_IMPORTS and self.plan.effort.costs and self.stopping.left > 0:
            self._start_all(launch)
        for task in self.tasks:
            if self.stopping.left > 0 and any(self._has_work(task, name, launch) for name in names):
                self._task(task, names, launch)
            if not any(self._has_work(task, name, launch + 1) for name in names):  # of many, no more than one is kept
                self.oracles.pop(task.problem, None)
                self._path(task).unlink(missing_ok=True)
        self.pool.stop()

    def _start_all(self, launch: int) -> None:
        names = [n for n in self.plan.backends if any(self._has_work(task, n, launch) for task in self.tasks)]
        self.observer.doing(f"starting {len(names)} backends", self.estimate)
        with self.pool.ledger.spend(Kind.START):
            self.pool.side_by_side(self.pool.start, names)
        for name in names:
            self.estimate.drop(("start", name))

    def _task(self, task: Task, names: list[str], launch: int) -> None:
        """All rounds of all cases of one problem. Who died on a case is started again, once, for the next ones."""
        try:
            self._oracle(task)
        except WorkerFailure:  # the budget of the run was spent meanwhile: nothing can be checked any more
            return
        self._arrays(task)  # before workers that start side by side ask for it
        for name in names:
            self.pool.places[name].lives = 2
        for number, case in enumerate(task.cases):
            self.stopping.kept_back = 0.0 if launch else self._first_round(task.cases[number:], names)
            self._make_ready(task, names, launch)
            self.stopping.kept_back = 0.0
            for round_ in range(self.plan.effort.rounds):
                if not self._time_for(case, launch, round_):
                    break
                for name in shuffled(names, self.plan.seed, launch, number, round_):
                    ready = case.key in self.pool.places[name].ready
                    if ready and round_ in self._todo(case, name, launch):
                        self._turn(Slot(task, case, name, launch, round_))
        for name in names:
            self.pool.places[name].ready = set()
            if self.pool.places[name].worker is not None:
                with suppress(WorkerFailure):  # it is gone, and with it what was to be closed
                    self.pool.ask(name, "close")

    def _first_round(self, cases: Iterable[Case], names: Iterable[str]) -> float:
        """Seconds that checks leave for whoever is right by then: one turn each, of a budget half of what is left."""
        parts = [("turn", name, case) for case in cases for name in names if self._todo(case, name, 0)]
        left = self.stopping.left
        return 0.0 if math.isinf(left) else max(0.0, min(sum(map(self.estimate.of, parts)), left / 2))

    def _time_for(self, case: Case, launch: int, round_: int) -> bool:
        """Whether the budget lets a round begin. In the first launch, one round of each later case comes first."""
        left = self.stopping.left
        if launch or not round_ or math.isinf(left):
            return left > 0
        cases = [(task, c) for task in self.tasks for c in task.cases]
        here = next(i for i, (_, c) in enumerate(cases) if c == case)
        begun, names = cases[here][0].problem, self.plan.backends
        later = [(task.problem, c, name) for task, c in cases[here + 1 :] for name in names if self._todo(c, name, 0)]
        parts: set[tuple[Any, ...]] = {("turn", name, c) for _, c, name in later}
        parts |= {("check", name, problem) for problem, _, name in later if problem != begun}
        return left > sum(self.estimate.of(part) for part in parts)

    def _make_ready(self, task: Task, names: list[str], launch: int) -> None:
        """Start, prepare and check whoever has cases to come and is ready for none."""
        if self.plan.effort.costs:
            for name in names:
                self._make_one_ready(task, name, launch)
        else:
            longest_first = sorted(names, key=lambda name: not backends.entry_of(name).compiles)
            with self.pool.ledger.spend(Kind.CHECK):
                self.pool.side_by_side(lambda name: self._make_one_ready(task, name, launch), longest_first)

    def _make_one_ready(self, task: Task, name: str, launch: int) -> None:
        place = self.pool.places[name]
        while self._has_work(task, name, launch) and not place.ready and not self.pool.closed:
            slots = [Slot(task, case, name, launch) for case in task.cases if self._todo(case, name, launch)]
            if self.stopping.left <= self.stopping.kept_back:
                for slot in slots:
                    self._leave_out(slot, self.stopping.why_skipped(slot.case, name))
                break
            if not place.lives:
                for slot in slots:
                    self._fail(slot, Status.CRASHED, "not tried: the worker died twice on cases of this workload")
                break
            place.lives -= 1
            with self._timed(("check", name, task.problem)):
                self._check(slots)

    def _turn(self, slot: Slot) -> None:
        effort, case, name, round_ = self.plan.effort, slot.case, slot.backend, slot.round
        assert round_ is not None
        most = f"{'at most ' if self.plan.rule else ''}{self.plan.launches[1]}"
        where = f"launch {slot.launch + 1} of {most}, round {round_ + 1} of {effort.rounds}"
        self.observer.doing(f"{case.key}, {where}: {name}", self.estimate)
        turn = msgspec.to_builtins(effort.turn_of(case.pass_))
        order = self.order_of(slot.task, case, slot.launch, round_)
        begun = time.monotonic()
        try:
            with self._timed(("turn", name, case)):
                limit, idle_ns = self.stopping.limit_of([case], name), self.pool.idle_ns
                reply = self.pool.ask(name, "turn", limit, pass_=case.pass_, turn=turn, order=order, idle_ns=idle_ns)
        except WorkerFailure as failure:
            self._fail(slot, failure.status, failure.reason)
            return
        finally:
            self.stopping.charge(case, name, time.monotonic() - begun)
        self.measured.add((case, name, slot.launch, round_))
        record = self.record_of(slot)
        assert isinstance(record, TurnRecord)
        record = replace(
            record,
            samples_ns=tuple(reply["samples_ns"]),
            warmup=reply["warmup"],
            device_ns=tuple(reply["device_ns"]),
            device_states=msgspec.convert(reply["device_states"], tuple[DeviceState, ...]),
            energy=Energy(**reply["energy"]),
            disturbances=tuple(reply["disturbances"]),
            peak_memory_bytes=reply["peak_memory_bytes"],
            peak_device_bytes=reply["peak_device_bytes"],
        )
        self.stopping.add(record)
        self._emit(record)
