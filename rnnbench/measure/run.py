"""The run: launches, checks, rounds. It asks workers, compares, and hands every answer to the journal at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import msgspec

from rnnbench import backends
from rnnbench.backends.base import Contract
from rnnbench.measure import arrays, verify
from rnnbench.measure.client import WorkerFailure
from rnnbench.measure.crew import Crew
from rnnbench.measure.oracle import Oracle
from rnnbench.measure.schedule import Estimate, Plan, order_of, shuffled, wanted
from rnnbench.model import Case, Pass, Problem
from rnnbench.params import Params
from rnnbench.results.record import CHECK, Costs, Energy, Record, Seeds, Status
from rnnbench.workloads.base import Split

SETTLE_SECONDS = 0.005  # between turns, for the thread pools of the one before to fall asleep
TIMED_IMPORTS = 2  # launches in which backends are imported one by one, to be timed; later ones start side by side


class Observer(Protocol):
    """Who is told what runs."""

    def doing(self, what: str, estimate: Estimate) -> None:
        """`what` begins now."""

    def say(self, text: str) -> None:
        """A sentence for the user."""


@dataclass(frozen=True)
class Task:
    """One problem with its rows, its parameters and the cases asked of it."""

    problem: Problem
    cases: tuple[Case, ...]
    rows: Split  # training rows, whole batches of them staged in every worker
    params: Params
    source: str


@dataclass(frozen=True)
class Slot:
    """Where an answer belongs: one backend, one case, one round of one launch."""

    task: Task
    case: Case
    backend: str
    launch: int
    round: int = CHECK


class Runner:
    """Measures a plan's tasks.

    `emit` is called with every record as soon as it is known. `before` are the records of an interrupted run, which
    are not measured again.
    """

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
        self.plan, self.tasks, self.folder = plan, tasks, folder
        self.emit, self.observer = emit, observer
        self.run_id, self.machine_id = run_id, machine_id
        self.crew = Crew(plan.backends, folder, plan.threads, plan.timeout, folder / "cache")
        self.oracles: dict[Problem, Oracle] = {}
        self.estimate = Estimate()
        self.writing = Lock()
        records = before or []
        self.part = 1 + max((r.part for r in records), default=-1)
        self.measured = {(r.case, r.backend, r.launch, r.round) for r in records if r.round >= 0}
        self.failed = {(r.case, r.backend) for r in records if r.status is not Status.OK}

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

    def _check(self, slots: list[Slot]) -> None:
        """Prepare a problem and check its passes one by one; whatever is right becomes ready to be timed."""
        name, problem = slots[0].backend, slots[0].task.problem
        try:
            self._start(name)
            slots = self._supported(slots)
            if not slots:
                return
            self.observer.doing(f"{name}: preparing and checking {problem.name} {problem.dtype}", self.estimate)
            prepared = self.crew.ask(
                name, "prepare", problem=msgspec.to_builtins(problem), arrays=str(self._arrays(slots[0].task))
            )
        except WorkerFailure as failure:
            for slot in slots:
                self._fail(slot, failure.status, failure.reason)
            return
        contract = msgspec.convert(prepared["contract"], Contract)
        cache = "warm" if slots[0].launch or self.part else "cold"
        costs = Costs(self.crew.places[name].import_ns, prepared["prepare_ns"], None, cache)
        for slot in slots:
            try:
                self._check_pass(slot, costs, contract)
            except WorkerFailure as failure:
                self._fail(slot, failure.status, failure.reason)
                if not failure.alive:
                    return

    def _start(self, name: str) -> None:
        place = self.crew.places[name]
        if place.worker is None:
            self.observer.doing(f"{name}: starting", self.estimate)
            self.crew.worker(name)
            self.estimate.done(("start", name), place.start_seconds)

    def _supported(self, slots: list[Slot]) -> list[Slot]:
        supported = []
        for slot in slots:
            reply = self.crew.ask(slot.backend, "unsupported", case=msgspec.to_builtins(slot.case))
            if reply["reason"] is None:
                supported.append(slot)
            else:
                status = Status.UNAVAILABLE if reply["unavailable"] else Status.UNSUPPORTED
                self._fail(slot, status, reply["reason"])
        return supported

    def _check_pass(self, slot: Slot, costs: Costs, contract: Contract) -> None:
        """The first call of a pass against the oracle; after the first start, the losses of a run of steps too."""
        case, name = slot.case, slot.backend
        out = self.folder / "arrays" / f"{name}.npz"
        order = self._order(slot.task, case)
        first = self.crew.ask(name, "first", pass_=case.pass_, order=order, out=str(out))
        oracle = self._oracle(slot.task)
        errors = oracle.errors(case.pass_, arrays.load_outputs(out))
        if case.pass_ is Pass.TRAIN_STEP and slot.launch == 0:
            errors |= oracle.loss_errors(self.crew.ask(name, "losses", steps=len(oracle.losses()))["losses"])
        wrong = verify.verdict(errors)
        record = replace(
            self._record(slot),
            errors=errors,
            costs=replace(costs, first_call_ns=first["first_call_ns"]) if self.plan.effort.costs else Costs(),
            contract=contract,
            peak_memory_bytes=first["peak_memory_bytes"],
        )
        if wrong is None:
            self._emit(record)
            self.crew.places[name].ready.add(case.key)
        else:
            self._fail(slot, Status.WRONG, wrong, record)

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
                energy=Energy(**reply["energy"]),
                peak_memory_bytes=reply["peak_memory_bytes"],
            )
        )

    def _oracle(self, task: Task) -> Oracle:
        if task.problem not in self.oracles:
            self.observer.doing(f"the oracle: {task.problem.name} {task.problem.dtype}", self.estimate)
            order = next((self._order(task, case) for case in task.cases if case.pass_ is Pass.EPOCH), None)
            oracle = self.oracles[task.problem] = Oracle(task.problem, task.params, task.rows, order)
            with self._timed(("oracle", task.problem)):
                for case in task.cases:
                    oracle.answer(case.pass_)
                    if case.pass_ is Pass.TRAIN_STEP:
                        oracle.losses()
        return self.oracles[task.problem]

    def _timed(self, part: tuple[Any, ...]) -> _Stopwatch:
        return _Stopwatch(self.estimate, part)

    def _order(self, task: Task, case: Case, *seed: int) -> list[int] | None:
        """Rows of the `epoch` pass: for its check, or with launch and round for a turn."""
        if case.pass_ is not Pass.EPOCH:
            return None
        return order_of(len(task.rows.inputs), case.steps, case.B, self.plan.seed, *seed)

    def _path(self, task: Task) -> Path:
        return self.folder / "arrays" / f"{self.tasks.index(task)}-{task.problem.workload}-{task.problem.dtype}.npz"

    def _arrays(self, task: Task) -> Path:
        path = self._path(task)
        if not path.exists():
            arrays.save_problem(path, task.params, task.rows)
        return path

    def _record(self, slot: Slot) -> Record:
        return Record(
            run_id=self.run_id,
            case=slot.case,
            backend=slot.backend,
            status=Status.OK,
            mode=self.plan.mode,
            launch=slot.launch,
            round=slot.round,
            part=self.part,
            seeds=Seeds(self.plan.seed, self.plan.seed, self.plan.seed),
            machine_id=self.machine_id,
            data_source=slot.task.source,
            started=datetime.now(UTC).isoformat(timespec="milliseconds"),
        )

    def _fail(self, slot: Slot, status: Status, reason: str, record: Record | None = None) -> None:
        """Record why; the case is not tried again by this backend. Whoever was ended with the run did not fail."""
        if self.crew.closed:
            return
        self.failed.add((slot.case, slot.backend))
        self.crew.places[slot.backend].ready.discard(slot.case.key)
        self.estimate.drop(("turn", slot.backend, slot.case))
        if status not in (Status.UNAVAILABLE, Status.UNSUPPORTED):
            self.observer.say(f"{slot.backend} on {slot.case.key}: {status}. {reason}")
        self._emit(replace(record or self._record(slot), status=status, reason=reason))

    def _emit(self, record: Record) -> None:
        with self.writing:
            self.emit(record)


class _Stopwatch:
    """Tells the estimate what a part took, unless it failed."""

    def __init__(self, estimate: Estimate, part: tuple[Any, ...]) -> None:
        self.estimate, self.part = estimate, part

    def __enter__(self) -> None:
        self.start = time.monotonic()

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.estimate.done(self.part, time.monotonic() - self.start)
