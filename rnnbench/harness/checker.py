"""Making ready: workers prepare problems, and their first answers are checked against the oracle, pass by pass."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import msgspec

from rnnbench.contract import Contract
from rnnbench.correctness import tolerances
from rnnbench.correctness.oracle import LOSS_STEPS, Oracle
from rnnbench.harness import arrays
from rnnbench.harness.limits import Limit
from rnnbench.harness.observer import Observer
from rnnbench.harness.plan import Estimate, Plan, order_of
from rnnbench.harness.stopping import Stopping
from rnnbench.harness.timers import Ledger
from rnnbench.harness.worker_client import WorkerFailure
from rnnbench.harness.worker_pool import WorkerPool
from rnnbench.model import Case, Pass, Problem
from rnnbench.params import Params
from rnnbench.records.account import Kind
from rnnbench.records.record import CheckRecord, Costs, MemoryRecord, Record, Seeds, Status, TurnRecord
from rnnbench.workloads.base import Split


@dataclass(frozen=True)
class Task:
    """One problem with its rows, its parameters and the cases asked of it."""

    problem: Problem
    cases: tuple[Case, ...]
    rows: Split  # training rows, whole batches of them staged in every worker
    params: Params
    source: str
    refused: str | None = None  # why nobody is asked: there are neither rows nor parameters then


@dataclass(frozen=True)
class Slot:
    """Where an answer belongs: one backend, one case, one launch, and a round of it or its check."""

    task: Task
    case: Case
    backend: str
    launch: int
    round: int | None = None


class Checker:
    """Checks answers, and hands every record to `emit` as soon as it is known.

    `before` are the records of an interrupted run: what failed in them is not tried again.
    `begun` is since when a budget counts, by the monotonic clock.
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
        begun: float | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        self.before, self.begun = before or [], begun
        self.plan, self.tasks, self.folder = plan, tasks, folder
        self.emit, self.observer = emit, observer
        self.run_id, self.machine_id = run_id, machine_id
        self.pool = WorkerPool(plan.backends, folder, plan.threads, plan.timeout, folder / "cache", ledger, self._limit)
        self.oracles: dict[Problem, Oracle] = {}
        self.first_of: dict[str, str] = {}  # backend -> which of it and its twin was prepared first
        self.estimate = Estimate()
        self.writing = Lock()
        self.part = 1 + max((r.part for r in self.before), default=-1)
        self.failed = {
            (r.case, r.backend)
            for r in self.before
            if not isinstance(r, MemoryRecord) and r.status not in (Status.OK, Status.SKIPPED)
        }

    @cached_property
    def stopping(self) -> Stopping:
        """What is precise enough, and what is left of the budgets."""
        return Stopping(self.plan, self.before, self.begun)

    def _limit(self) -> Limit:
        return self.stopping.limit()

    def _while_budget(self) -> None:
        """Raises WorkerFailure where no time is left for the oracle."""
        limit = self._limit()
        if limit.seconds <= 0:
            raise WorkerFailure(limit.status, f"the oracle was ended: {limit.budget}", alive=True)

    def _ask(self, slots: list[Slot], op: str, **arguments: Any) -> dict[str, Any]:
        """What a worker replies to a request that these slots of one backend share, and pay for."""
        name = slots[0].backend
        limit = self.stopping.limit_of([slot.case for slot in slots], name)
        begun = time.monotonic()
        try:
            return self.pool.ask(name, op, limit, **arguments)
        finally:
            for slot in slots:
                self.stopping.charge(slot.case, name, (time.monotonic() - begun) / len(slots))

    def _check(self, slots: list[Slot]) -> None:
        """Prepare a problem and check its passes one by one; whatever is right becomes ready to be timed."""
        name, problem = slots[0].backend, slots[0].task.problem
        try:
            self._start(name)
            slots = self._supported(slots)
            if not slots:
                return
            self.observer.doing(f"{name}: preparing and checking {problem.name} {problem.dtype}", self.estimate)
            prepared = self._ask(
                slots, "prepare", problem=msgspec.to_builtins(problem), arrays=str(self._arrays(slots[0].task))
            )
        except WorkerFailure as failure:
            for slot in slots:
                self._fail(slot, failure.status, failure.reason)
            return
        contract = msgspec.convert(prepared["contract"], Contract)
        first = self.first_of.setdefault(name.partition("#")[0], name)  # its twin finds what it compiled
        cache = "warm" if slots[0].launch or self.part or name != first else "cold"
        costs = Costs(self.pool.places[name].import_ns, prepared["prepare_ns"], None, cache)
        for slot in slots:
            try:
                self._check_pass(slot, costs, contract)
            except WorkerFailure as failure:
                self._fail(slot, failure.status, failure.reason)
                if not failure.alive:
                    return

    def _start(self, name: str) -> None:
        place = self.pool.places[name]
        if place.worker is None:
            self.observer.doing(f"{name}: starting", self.estimate)
            self.pool.worker(name)
            self.estimate.done(("start", name), place.start_seconds)

    def _supported(self, slots: list[Slot]) -> list[Slot]:
        supported = []
        for slot in slots:
            reply = self._ask([slot], "unsupported", case=msgspec.to_builtins(slot.case))
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
        order = self.order_of(slot.task, case)
        first = self._ask([slot], "first", pass_=case.pass_, order=order, out=str(out))
        precision = tolerances.precision_of(case.dtype, contract.tf32)
        with self.pool.ledger.spend(Kind.CHECK):
            oracle = self._oracle(slot.task)
            epoch = oracle.epoch(precision).rows if order else []
        if order and len(epoch) < len(order):  # no further can it be compared, and the last step is as short as in all
            self._ask([slot], "first", pass_=case.pass_, order=epoch, out=str(out))
        with self.pool.ledger.spend(Kind.CHECK):
            errors = oracle.errors(case.pass_, arrays.load_outputs(out), precision)
        if case.pass_ is Pass.TRAIN_STEP and slot.launch == 0:
            losses = self._ask([slot], "losses", steps=LOSS_STEPS)["losses"]
            with self.pool.ledger.spend(Kind.CHECK):
                errors |= oracle.loss_errors(losses, precision)
        wrong = tolerances.verdict(errors)
        record = CheckRecord(
            **self.common_of(slot.task, case, name),
            launch=slot.launch,
            errors=errors,
            costs=replace(costs, first_call_ns=first["first_call_ns"]) if self.plan.effort.costs else Costs(),
            contract=contract,
            peak_memory_bytes=first["peak_memory_bytes"],
            peak_device_bytes=first["peak_device_bytes"],
        )
        if wrong is None:
            self._emit(record)
            self.pool.places[name].ready.add(case.key)
        else:
            self._fail(slot, Status.WRONG, wrong, record)

    def _oracle(self, task: Task) -> Oracle:
        if task.problem not in self.oracles:
            self.observer.doing(f"the oracle: {task.problem.name} {task.problem.dtype}", self.estimate)
            order = next((self.order_of(task, case) for case in task.cases if case.pass_ is Pass.EPOCH), None)
            oracle = Oracle(task.problem, task.params, task.rows, order, self._while_budget)
            self.oracles[task.problem] = oracle
            with self._timed(("oracle", task.problem)), self.pool.ledger.spend(Kind.CHECK):
                for case in task.cases:
                    if case.pass_ is Pass.EPOCH:
                        oracle.epoch()
                    else:
                        oracle.answer(case.pass_)
                    if case.pass_ is Pass.TRAIN_STEP:
                        oracle.losses()
        return self.oracles[task.problem]

    def _timed(self, part: tuple[Any, ...]) -> _Stopwatch:
        return _Stopwatch(self.estimate, part)

    def order_of(self, task: Task, case: Case, *seed: int) -> list[int] | None:
        """Rows of the `epoch` pass: for its check, or with launch and round for a turn."""
        if case.pass_ is not Pass.EPOCH:
            return None
        return order_of(len(task.rows.inputs), case.steps, case.B, self.plan.seed, *seed)

    def _path(self, task: Task) -> Path:
        return self.folder / "arrays" / f"{self.tasks.index(task)}-{task.problem.workload}-{task.problem.dtype}.npz"

    def _arrays(self, task: Task) -> Path:
        path = self._path(task)
        if not path.exists():
            with self.pool.ledger.spend(Kind.PREPARE):
                arrays.save_problem(path, task.params, task.rows)
        return path

    def common_of(self, task: Task, case: Case, name: str) -> dict[str, Any]:
        """What a record of any kind holds of an answer that is yet to come."""
        return {
            "run_id": self.run_id,
            "case": case,
            "backend": name,
            "status": Status.OK,
            "mode": self.plan.mode,
            "part": self.part,
            "seeds": Seeds(self.plan.seed, self.plan.seed, self.plan.seed),
            "machine_id": self.machine_id,
            "data_source": task.source,
            "started": datetime.now(UTC).isoformat(timespec="milliseconds"),
        }

    def record_of(self, slot: Slot) -> CheckRecord | TurnRecord:
        """The record of a slot, without an answer yet."""
        common = self.common_of(slot.task, slot.case, slot.backend)
        if slot.round is None:
            return CheckRecord(**common, launch=slot.launch)
        return TurnRecord(**common, launch=slot.launch, round=slot.round)

    def _fail(self, slot: Slot, status: Status, reason: str, record: Record | None = None) -> None:
        """Record why; the case is not tried again by this backend. Whoever was ended with the run did not fail."""
        if self.pool.closed:
            return
        self.failed.add((slot.case, slot.backend))
        self.pool.places[slot.backend].ready.discard(slot.case.key)
        self.estimate.drop(("turn", slot.backend, slot.case))
        if status not in (Status.UNAVAILABLE, Status.UNSUPPORTED):
            self.observer.say(f"{slot.backend} on {slot.case.key}: {status}. {reason}")
        self._emit(replace(record or self.record_of(slot), status=status, reason=reason))

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
