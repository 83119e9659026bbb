"""The run: launches, rounds, turns, for as long as the plan wants. Every answer is handed on as soon as it is known."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import msgspec

from rnnbench import backends
from rnnbench.analysis.trial import MOST_PAIRS
from rnnbench.correctness.oracle import FEWEST_LOSSES, LOSS_STEPS
from rnnbench.harness.checker import Checker
from rnnbench.harness.clock import Turn
from rnnbench.harness.plan import shuffled
from rnnbench.harness.repeats import Repeats
from rnnbench.harness.run_state import RunState, Slot, Task
from rnnbench.harness.trials import Trials
from rnnbench.harness.worker_client import WorkerFailure
from rnnbench.harness.worker_pool import WorkerPlace
from rnnbench.machine.contention import Judge, OthersWatch
from rnnbench.machine.cores import allowed_cores
from rnnbench.model import Case, Pass
from rnnbench.records.account import TimeKind
from rnnbench.records.record import Contention, DeviceState, Energy, Status, TurnRecord
from rnnbench.records.stops import Stop
from rnnbench.work import work_of

# Guesses of how long things take, right within a factor of about two.
START_SECONDS = 1.5  # a process with its library
PREPARE_SECONDS, AGAIN_SECONDS = 2.5, 1.0  # preparing, compiling and first calls; with compiled code on disk
FLOPS_A_SECOND = 60e9
STEP_SECONDS = 1e-5  # one step of a recurrence, forward or back, where the arithmetic costs nothing
EXTRA_SECONDS = 10.0  # the peak of the machine and the report

Part = tuple[Any, ...]  # of an estimate: its kind, and what tells it from others of its kind


class TurnTimer:
    """Measures one turn after the other, and hands on its record."""

    def __init__(self, state: RunState, checker: Checker) -> None:
        self.state, self.checker = state, checker
        self.watch = OthersWatch(lambda: state.pool.processes)
        self.repeats = Repeats(state, self.watch, self.measure)
        self.judge = Judge()

    def ask(self, slot: Slot, turn: Turn, round_: int) -> tuple[dict[str, Any], Contention, float]:
        """The reply to one turn, what others took from it, and how much of that disturbed it."""
        self.watch.begin()
        reply = self.checker.turn(slot, turn, round_)
        self.watch.look()
        contention = self.watch.add_to(msgspec.convert(reply["contention"], Contention))
        answer = slot.case, slot.backend, self.state.threads_of(slot)
        judged = self.state.plan.effort.extra > 0
        cores, calls = len(self.state.place_of(slot).cores), len(reply["samples_ns"]) - reply["warmup"]
        return reply, contention, self.judge(answer, contention, cores, calls) if judged else 0.0

    def measure(self, slot: Slot, attempt: int = 0) -> None:
        """The turn of a slot, whose case its backend is ready for. What is disturbed is kept for `repeats`."""
        state, effort, case, name, round_ = self.state, self.state.plan.effort, slot.case, slot.backend, slot.round
        assert round_ is not None
        at_most = "at most " if state.plan.rule else ""
        where = f"launch {slot.launch + 1} of {at_most}{state.plan.launches[1]}, round {round_ + 1} of {effort.rounds}"
        again = ", again, as it was disturbed" if attempt else ""
        state.observer.doing(f"{case.key}, {where}: {name}{again}", state.estimate, "" if attempt else case.key)
        if attempt:
            state.estimate.add(("turn", name, case))
        try:
            with state.stopwatch(("turn", name, case)):
                reply, contention, disturbed = self.ask(slot, effort.turn_of(case.pass_), round_)
        except WorkerFailure as failure:
            state.fail(slot, failure.status, failure.reason)
            return
        record = TurnRecord(
            **state.common_of(slot.task, case, name),
            launch=slot.launch,
            round=round_,
            samples_ns=tuple(reply["samples_ns"]),
            warmup=reply["warmup"],
            step_counts=tuple(map(tuple, reply["step_counts"])),
            device_ns=tuple(reply["device_ns"]),
            device_states=msgspec.convert(reply["device_states"], tuple[DeviceState, ...]),
            energy=Energy(**reply["energy"]) if reply["energy"] else None,
            disturbances=tuple(reply["disturbances"]),
            contention=contention,
            attempt=attempt,
            disturbed=disturbed,
            peak_memory_bytes=reply["peak_memory_bytes"],
            peak_device_bytes=reply["peak_device_bytes"],
        )
        state.measured.add((case, name, slot.launch, round_))
        state.stopping.add(record)
        state.emit(record)
        if effort.extra:
            self.repeats.look_at(slot, record)


class RunLoop:
    """Orders the launches and rounds of a plan's tasks and asks the stopping rule; without a timer, it only checks."""

    def __init__(self, tasks: list[Task], state: RunState, checker: Checker, timer: TurnTimer | None = None) -> None:
        self.tasks, self.state, self.checker, self.timer = tasks, state, checker, timer
        self.plan, self.pool, self.stopping, self.estimate = state.plan, state.pool, state.stopping, state.estimate
        self.trials = Trials(state, checker, timer)

    def run(self) -> None:
        """Do all launches. Workers are gone when this returns, however it does, unless the state keeps them."""
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
            if not self.state.keeps_processes:
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
        missing = {name: backends.missing(name, self.plan.env) for name in self.plan.backends}
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
                if task.refused:
                    continue
                undecided = self.trials.undecided(task, name, launch) if self.timer and not launch else []
                for case in task.cases:
                    if rounds := self._todo(case, name, launch):
                        parts["turn", name, case] = len(rounds)
                        tried = self.plan.counts if case in undecided else [self.state.choice_of(case, name).threads]
                        for threads in tried:
                            parts["start", name, threads] = parts["check", name, threads, task.problem] = 1
                        if len(tried) > 1:
                            parts["trial", name, case] = len(tried) * MOST_PAIRS
                        if not launch:
                            parts["oracle", task.problem] = 1
        return parts

    def _fill_estimate(self, launches: Iterable[int]) -> None:
        for launch in launches:
            for part, count in self._parts(launch).items():
                self.estimate.add(part, count)

    def expected_seconds(self) -> float:
        """How long the fewest launches will take, guessed; what is measured already is left out."""
        at_once = min(len(self.plan.backends), len(allowed_cores()))
        cases = {task.problem: task.cases for task in self.tasks}
        ready = turns = oracles = 0.0
        for launch in range(self.plan.launches[0]):

            def share(threads: int, launch: int = launch) -> float:
                """Of the time of one that is made ready: others are at the same time."""
                alone = self.state.one_by_one(launch) and threads == self.plan.threads
                return 1 if alone else 1 / at_once

            for part, count in self._parts(launch).items():
                match part:
                    case ("start", _, threads):
                        ready += START_SECONDS * share(threads)
                    case ("check", _, threads, problem):
                        ready += check_seconds_of(cases[problem], first=not launch) * share(threads)
                    case ("oracle", problem):
                        oracles += check_seconds_of(cases[problem], first=True)
                    case ("trial", _, case):
                        turns += count * turn_seconds_of(self.plan.effort.trial_of(case.pass_), case)
                    case ("turn", _, case):
                        turns += count * turn_seconds_of(self.plan.effort.turn_of(case.pass_), case)
        return ready + turns + (oracles + EXTRA_SECONDS if ready else 0.0)

    def _launch(self, launch: int) -> None:
        self.pool.times_imports = not launch
        names = shuffled(self.plan.backends, self.plan.seed, launch)
        if self.plan.effort.costs and not self.state.one_by_one(launch) and self.stopping.left > 0:
            self._start_side_by_side(launch)
        for task in self.tasks:
            if self.stopping.left > 0 and any(self._has_work(task, name, launch) for name in names):
                self._do_task(task, names, launch)
            if not any(self._has_work(task, name, launch + 1) for name in names):
                self.checker.forget(task)
        if not self.state.keeps_processes:
            self.pool.stop()

    def _start_side_by_side(self, launch: int) -> None:
        """Those that take longest first. A second process for a trial is started when that is known to be needed."""
        parts = [
            part for part in self._parts(launch) if part[0] == "start" and (launch or part[2] == self.plan.threads)
        ]
        parts.sort(key=self.estimate.of, reverse=True)
        if not parts:
            return
        said = "a process" if len(parts) == 1 else f"{len(parts)} processes"
        self.state.observer.doing(f"starting {said}", self.estimate)
        with self.pool.ledger.spend(TimeKind.START):
            self.pool.side_by_side(lambda part: self.pool.start(*part[1:]), parts)
        for part in parts:
            self.estimate.drop(part)

    def _do_task(self, task: Task, names: list[str], launch: int) -> None:
        """All rounds of all cases of a task. A worker that died on a case is started again, once, for the next ones."""
        try:
            self.checker.oracle(task)
        except WorkerFailure:  # the budget of the run was spent meanwhile: nothing can be checked any more
            return
        self.checker.stage(task)  # before workers that start side by side ask for it
        for place in self._places(names):
            place.lives = 2
        self._close([name for name in names if not self._has_work(task, name, launch)])
        if self.timer:
            self.stopping.kept_back = 0.0 if launch else self._first_round(task.cases, names)
            self.trials.run(task, self._in_order(names, launch), launch)
        for number, case in enumerate(task.cases):
            self.stopping.kept_back = 0.0 if launch else self._first_round(task.cases[number:], names)
            self._make_ready(task, names, launch)
            self.stopping.kept_back = 0.0
            for round_ in range(self.plan.effort.rounds) if self.timer else ():
                if not self._time_for(case, launch, round_):
                    break
                for name in shuffled(names, self.plan.seed, launch, number, round_):
                    ready = case.key in self.state.place_of(Slot(task, case, name, launch)).ready
                    if self.timer and ready and round_ in self._todo(case, name, launch):
                        self.timer.measure(Slot(task, case, name, launch, round_))
                if self.timer:
                    self.timer.repeats.run()
        if self.timer:
            self.timer.repeats.run()
            self.timer.repeats.forget()
        for place in self._places(names):
            place.ready, place.prepared = set(), None

    def _close(self, names: Iterable[str]) -> None:
        """Let workers drop the problem before, which others do when they prepare the next one, side by side."""
        for place in self._places(names):
            if place.worker is not None:
                with suppress(WorkerFailure):  # it is gone, and with it what was to be closed
                    self.pool.ask(place.worker.name, "close", threads=place.threads)

    def _places(self, names: Iterable[str]) -> list[WorkerPlace]:
        return [self.pool.place(name, threads) for name in names for threads in self.plan.counts]

    def _in_order(self, names: Iterable[str], launch: int) -> list[str]:
        """As they are made ready: where that is side by side, those that compile first."""
        compiling_first = sorted(names, key=lambda name: not backends.entry_of(name).compiles)
        return list(names) if self.state.one_by_one(launch) else compiling_first

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
        parts |= {
            ("check", name, self.state.choice_of(c, name).threads, problem)
            for problem, c, name in later
            if problem != begun
        }
        return left > sum(self.estimate.of(part) for part in parts)

    def _make_ready(self, task: Task, names: list[str], launch: int) -> None:
        """Start, prepare and check each backend that has cases to come which it is not ready for."""
        items: dict[tuple[str, int], list[Slot]] = {}
        for name in self._in_order(names, launch):
            for case in task.cases:
                if self._todo(case, name, launch):
                    slot = Slot(task, case, name, launch)
                    items.setdefault((name, self.state.threads_of(slot)), []).append(slot)
        self.checker.make_ready(items.values())


def call_seconds_of(case: Case) -> float:
    """Seconds of one call of a case by a middling backend, guessed."""
    if case.pass_ is Pass.STEP:
        return STEP_SECONDS * len(case.model.directions) + work_of(case).flops / FLOPS_A_SECOND
    cut, T = case.truncation, case.T * len(case.model.directions)
    back = 0.0 if case.pass_ is Pass.FORWARD else 2.0 * T * (1 if cut is None else cut.window / cut.stride)
    return STEP_SECONDS * case.steps * (T + back) + work_of(case).flops / FLOPS_A_SECOND


def check_seconds_of(cases: Iterable[Case], first: bool) -> float:
    """Seconds of preparing a problem and checking its cases, guessed; more losses are checked in the `first` launch."""
    calls, losses = 0.0, LOSS_STEPS if first else FEWEST_LOSSES
    for case in cases:
        calls += call_seconds_of(case) * (1 + losses * (case.pass_ is Pass.TRAIN_STEP))
    return (PREPARE_SECONDS if first else AGAIN_SECONDS) + calls


def turn_seconds_of(turn: Turn, case: Case) -> float:
    """Seconds of one turn, guessed."""
    call = call_seconds_of(case)
    return max(turn.min_calls * call, min(turn.seconds, max(turn.least, turn.max_calls * call)))
