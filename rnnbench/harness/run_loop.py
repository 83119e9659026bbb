"""The run: launches, rounds, turns, for as long as the plan wants. Every answer is handed on as soon as it is known."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import msgspec

from rnnbench import backends
from rnnbench.correctness.oracle import LOSS_STEPS
from rnnbench.harness.checker import Checker
from rnnbench.harness.plan import Plan, shuffled
from rnnbench.harness.run_state import RunState, Slot, Task
from rnnbench.harness.worker_client import WorkerFailure
from rnnbench.machine.cores import allowed_cores
from rnnbench.model import Case, Pass
from rnnbench.records.account import TimeKind
from rnnbench.records.record import DeviceState, Energy, Status, TurnRecord
from rnnbench.records.stops import Stop
from rnnbench.work import work_of

TIMED_IMPORTS = 2  # launches in which backends are imported one by one, to be timed; later ones start side by side

# Guesses of how long things take, right within a factor of about two.
START_SECONDS = 2.5  # a process with its library
PREPARE_SECONDS = 2.5  # preparing, compiling and first calls
FLOPS_A_SECOND = 20e9
STEP_SECONDS = 1e-5  # one step of a recurrence, forward or back, where the arithmetic costs nothing
EXTRA_SECONDS = 10.0  # the peak of the machine and the report

Part = tuple[Any, ...]  # of an estimate: its kind, and what tells it from others of its kind


class TurnTimer:
    """Measures one turn after the other, and hands on its record."""

    def __init__(self, state: RunState) -> None:
        self.state = state

    def measure(self, slot: Slot) -> None:
        """The turn of a slot, whose case its backend is ready for."""
        state, effort, case, name, round_ = self.state, self.state.plan.effort, slot.case, slot.backend, slot.round
        assert round_ is not None
        at_most = "at most " if state.plan.rule else ""
        where = f"launch {slot.launch + 1} of {at_most}{state.plan.launches[1]}, round {round_ + 1} of {effort.rounds}"
        state.observer.doing(f"{case.key}, {where}: {name}", state.estimate)
        turn = msgspec.to_builtins(effort.turn_of(case.pass_))
        order = state.order_of(slot.task, case, slot.launch, round_)
        begun = time.monotonic()
        try:
            with state.stopwatch(("turn", name, case)):
                limit, idle_ns = state.stopping.limit_of([case], name), state.pool.idle_ns
                reply = state.pool.ask(name, "turn", limit, pass_=case.pass_, turn=turn, order=order, idle_ns=idle_ns)
        except WorkerFailure as failure:
            state.fail(slot, failure.status, failure.reason)
            return
        finally:
            state.stopping.charge(case, name, time.monotonic() - begun)
        record = TurnRecord(
            **state.common_of(slot.task, case, name),
            launch=slot.launch,
            round=round_,
            samples_ns=tuple(reply["samples_ns"]),
            warmup=reply["warmup"],
            device_ns=tuple(reply["device_ns"]),
            device_states=msgspec.convert(reply["device_states"], tuple[DeviceState, ...]),
            energy=Energy(**reply["energy"]) if reply["energy"] else None,
            disturbances=tuple(reply["disturbances"]),
            peak_memory_bytes=reply["peak_memory_bytes"],
            peak_device_bytes=reply["peak_device_bytes"],
        )
        state.measured.add((case, name, slot.launch, round_))
        state.stopping.add(record)
        state.emit(record)


class RunLoop:
    """Orders the launches and rounds of a plan's tasks and asks the stopping rule; without a timer, it only checks."""

    def __init__(self, tasks: list[Task], state: RunState, checker: Checker, timer: TurnTimer | None = None) -> None:
        self.tasks, self.state, self.checker, self.timer = tasks, state, checker, timer
        self.plan, self.pool, self.stopping, self.estimate = state.plan, state.pool, state.stopping, state.estimate

    def run(self) -> None:
        """Do all launches. Workers are gone when this returns, however it does."""
        try:
            self._leave_out_the_missing()
            min_launches, max_launches = self.plan.launches
            self._fill_estimate(range(min_launches))
            for launch in range(max_launches):
                self.stopping.settle(launch, self._answers())
                if all(self.stopping.done(*answer) for answer in self._answers()):
                    break
                if launch >= min_launches:
                    self._fill_estimate([launch])
                self._launch(launch)
            for task in self.tasks if self.plan.budgeted else ():
                for case, name in self._answers(task):
                    self.state.leave_out(Slot(task, case, name, 0), self.stopping.why_skipped(case, name))
        finally:
            self.pool.kill()

    @property
    def stops(self) -> dict[str, dict[str, Stop]]:
        """Case key -> backend -> why it was measured no further; empty where the plan only counts launches."""
        return self.stopping.stops(self._answers()) if self.plan.rule or self.plan.budgeted else {}

    def _answers(self, *tasks: Task) -> list[tuple[Case, str]]:
        """Cases and backends that are asked for them, of some tasks or of all, without those that failed."""
        every = [(case, name) for task in tasks or self.tasks for case in task.cases for name in self.plan.backends]
        return [answer for answer in every if self.state.asked(*answer)]

    def answering(self, name: str) -> bool:
        """Whether a backend answered, or may still answer, at least one case."""
        return any(backend == name for _, backend in self._answers())

    def _leave_out_the_missing(self) -> None:
        """A record for each answer of a backend that is not installed, or to a problem that is too large."""
        missing = {name: backends.missing(name) for name in self.plan.backends}
        for task in self.tasks:
            for case in task.cases:
                for name, absent in missing.items():
                    reason = absent or task.refused
                    if reason and self._todo(case, name, 0):
                        status = Status.UNAVAILABLE if absent else Status.UNSUPPORTED
                        self.state.fail(Slot(task, case, name, 0), status, reason)

    def _todo(self, case: Case, name: str, launch: int) -> list[int]:
        """The rounds of a launch that are still to be measured."""
        if not self.state.asked(case, name) or launch >= self.plan.launches[1] or self.stopping.done(case, name):
            return []
        return [r for r in range(self.plan.effort.rounds) if (case, name, launch, r) not in self.state.measured]

    def _has_work(self, task: Task, name: str, launch: int) -> bool:
        return any(self._todo(case, name, launch) for case in task.cases)

    def _parts(self, launch: int) -> Counter[Part]:
        """What is still to come of a launch, and how often."""
        parts: Counter[Part] = Counter()
        for name in self.plan.backends:
            for task in self.tasks:
                if not task.refused and self._has_work(task, name, launch):
                    parts["start", name] = 1
                    parts["check", name, task.problem] = 1
                    if not launch:
                        parts["oracle", task.problem] = 1
                    for case in task.cases:
                        parts["turn", name, case] = len(self._todo(case, name, launch))
        return parts

    def _fill_estimate(self, launches: Iterable[int]) -> None:
        for launch in launches:
            for part, count in self._parts(launch).items():
                self.estimate.add(part, count)

    def expected_seconds(self) -> float:
        """How long the fewest launches will take, guessed; what is measured already is left out."""
        side_by_side = 1 if self.plan.effort.costs else min(len(self.plan.backends), len(allowed_cores()))
        cases = {task.problem: task.cases for task in self.tasks}
        ready = turns = oracles = 0.0
        for launch in range(self.plan.launches[0]):
            for (kind, *_, what), count in self._parts(launch).items():
                if kind == "start":
                    ready += START_SECONDS
                elif kind == "turn":
                    turns += count * turn_seconds_of(self.plan, what)
                elif kind == "check":
                    ready += check_seconds_of(cases[what], first=not launch)
                else:
                    oracles += check_seconds_of(cases[what], first=True)
        return ready / side_by_side + turns + (oracles + EXTRA_SECONDS if ready else 0.0)

    def _launch(self, launch: int) -> None:
        names = shuffled(self.plan.backends, self.plan.seed, launch)
        if launch >= TIMED_IMPORTS and self.plan.effort.costs and self.stopping.left > 0:
            self._start_all(launch)
        for task in self.tasks:
            if self.stopping.left > 0 and any(self._has_work(task, name, launch) for name in names):
                self._do_task(task, names, launch)
            if not any(self._has_work(task, name, launch + 1) for name in names):
                self.checker.forget(task)
        self.pool.stop()

    def _start_all(self, launch: int) -> None:
        names = [n for n in self.plan.backends if any(self._has_work(task, n, launch) for task in self.tasks)]
        self.state.observer.doing(f"starting {len(names)} backends", self.estimate)
        with self.pool.ledger.spend(TimeKind.START):
            self.pool.side_by_side(self.pool.start, names)
        for name in names:
            self.estimate.drop(("start", name))

    def _do_task(self, task: Task, names: list[str], launch: int) -> None:
        """All rounds of all cases of a task. A worker that died on a case is started again, once, for the next ones."""
        try:
            self.checker.oracle(task)
        except WorkerFailure:  # the budget of the run was spent meanwhile: nothing can be checked any more
            return
        self.checker.stage(task)  # before workers that start side by side ask for it
        for name in names:
            self.pool.places[name].lives = 2
        for number, case in enumerate(task.cases):
            self.stopping.kept_back = 0.0 if launch else self._first_round(task.cases[number:], names)
            self._make_ready(task, names, launch)
            self.stopping.kept_back = 0.0
            for round_ in range(self.plan.effort.rounds) if self.timer else ():
                if not self._time_for(case, launch, round_):
                    break
                for name in shuffled(names, self.plan.seed, launch, number, round_):
                    ready = case.key in self.pool.places[name].ready
                    if self.timer and ready and round_ in self._todo(case, name, launch):
                        self.timer.measure(Slot(task, case, name, launch, round_))
        for name in names:
            self.pool.places[name].ready = set()
            if self.pool.places[name].worker is not None:
                with suppress(WorkerFailure):  # it is gone, and with it what was to be closed
                    self.pool.ask(name, "close")

    def _first_round(self, cases: Iterable[Case], names: Iterable[str]) -> float:
        """Seconds that checks leave for what is right by then: one turn each, of a budget half of what is left."""
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
        parts: set[Part] = {("turn", name, c) for _, c, name in later}
        parts |= {("check", name, problem) for problem, _, name in later if problem != begun}
        return left > sum(self.estimate.of(part) for part in parts)

    def _make_ready(self, task: Task, names: list[str], launch: int) -> None:
        """Start, prepare and check each backend that has cases to come and is ready for none."""
        if self.plan.effort.costs:
            for name in names:
                self._make_one_ready(task, name, launch)
        else:
            longest_first = sorted(names, key=lambda name: not backends.entry_of(name).compiles)
            with self.pool.ledger.spend(TimeKind.CHECK):
                self.pool.side_by_side(lambda name: self._make_one_ready(task, name, launch), longest_first)

    def _make_one_ready(self, task: Task, name: str, launch: int) -> None:
        place = self.pool.places[name]
        while self._has_work(task, name, launch) and not place.ready and not self.pool.closed:
            slots = [Slot(task, case, name, launch) for case in task.cases if self._todo(case, name, launch)]
            if self.stopping.left <= self.stopping.kept_back:
                for slot in slots:
                    self.state.leave_out(slot, self.stopping.why_skipped(slot.case, name))
                break
            if not place.lives:
                for slot in slots:
                    reason = "not tried: the worker died twice on cases of this workload"
                    self.state.fail(slot, Status.CRASHED, reason)
                break
            place.lives -= 1
            with self.state.stopwatch(("check", name, task.problem)):
                self.checker.check(slots)


def call_seconds_of(case: Case) -> float:
    """Seconds of one call of a case by a middling backend, guessed."""
    cut, T = case.truncation, case.T * len(case.model.directions)
    back = 0.0 if case.pass_ is Pass.FORWARD else 2.0 * T * (1 if cut is None else cut.window / cut.stride)
    return STEP_SECONDS * case.steps * (T + back) + work_of(case).flops / FLOPS_A_SECOND


def check_seconds_of(cases: Iterable[Case], first: bool) -> float:
    """Seconds of preparing a problem and checking its cases, guessed; the losses are checked in the `first` launch."""
    calls = 0.0
    for case in cases:
        calls += call_seconds_of(case) * (1 + LOSS_STEPS * (first and case.pass_ is Pass.TRAIN_STEP))
    return PREPARE_SECONDS + calls


def turn_seconds_of(plan: Plan, case: Case) -> float:
    """Seconds of one turn, guessed."""
    turn = plan.effort.turn_of(case.pass_)
    return max(turn.seconds, turn.min_calls * call_seconds_of(case))
