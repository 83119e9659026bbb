"""Making ready: workers prepare problems, and their first answers are checked against the oracle, pass by pass."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from rnnbench import backends
from rnnbench.backends import REPLICA
from rnnbench.contract import Contract
from rnnbench.correctness import tolerances
from rnnbench.correctness.oracle import FEWEST_LOSSES, LOSS_STEPS, Oracle
from rnnbench.harness import arrays
from rnnbench.harness.clock import Turn
from rnnbench.harness.run_state import RunState, Slot, Task
from rnnbench.harness.worker_client import WorkerFailure
from rnnbench.model import Case, Pass, Problem
from rnnbench.records.account import TimeKind
from rnnbench.records.record import COLD, WARM, CheckRecord, Costs, ErrorOf, Status

Known = dict[str, dict[str, ErrorOf]]  # digest of an answer that was found right -> its errors


class Checker:
    """Prepares a backend's worker for a problem and checks its first answers; what is right is ready to be timed."""

    def __init__(self, state: RunState) -> None:
        self.state = state
        self.oracles: dict[Problem, Oracle] = {}
        self._paths: dict[Problem, Path] = {}  # of parameters and rows
        self.held: dict[tuple[Case, str, int], CheckRecord] = {}  # by threads, until it is known which are ranked
        self._right: dict[tuple[Case, str, str], Known] = {}  # by backend and precision
        self._compiled: dict[tuple[Case, str, int], int] = {}  # ns of a first call that is not the one that is checked
        self._first_of: dict[str, str] = {}  # backend -> which of it and its replica was prepared first

    def ask(self, slots: list[Slot], op: str, **arguments: Any) -> dict[str, Any]:
        """What a worker replies to a request that these slots of one backend share, and pay for."""
        name, stopping = slots[0].backend, self.state.stopping
        limit = stopping.limit_of([slot.case for slot in slots], name)
        begun = time.monotonic()
        try:
            return self.state.pool.ask(name, op, limit, threads=self.state.threads_of(slots[0]), **arguments)
        finally:
            for slot in slots:
                stopping.charge(slot.case, name, (time.monotonic() - begun) / len(slots))

    def turn(self, slot: Slot, turn: Turn, round_: int) -> dict[str, Any]:
        """The reply to one turn; the order of an epoch's rows goes by the round."""
        state, case = self.state, slot.case
        given = {"turn": msgspec.to_builtins(turn), "order": state.order_of(slot.task, case, slot.launch, round_)}
        return self.ask([slot], "turn", pass_=case.pass_, idle_ns=state.pool.idle_ns, **given)

    def make_ready(self, items: Iterable[list[Slot]]) -> None:
        """Start, prepare and check, until a process is ready for each slot or failed in it; an item has one process.

        Those that are to compile alone come first; the others go side by side, those that take longest first. What an
        OpenMP team computes comes after that, one by one.
        """
        alone, others = list[list[Slot]](), list[list[Slot]]()
        for slots in items:
            (alone if self._is_alone(slots[0]) else others).append(slots)
        for slots in alone:
            self._make_one_ready(slots)
        with self.state.pool.spend(TimeKind.CHECK), self.state.ledger.wait():
            longest_first = sorted(others, key=self._length, reverse=True)
            self.state.pool.side_by_side(lambda slots: self._make_one_ready(slots, beside=True), longest_first)
        for slots in others:
            self._make_one_ready(slots)

    def _length(self, slots: list[Slot]) -> float:
        """Seconds that making ready took when it was seen, with these threads or with all."""
        slot, seen = slots[0], self.state.estimate.seen
        counts = (self.state.threads_of(slot), self.state.plan.threads)
        found = (seen.get(("check", slot.backend, threads, slot.task.problem)) for threads in counts)
        compiles = backends.entry_of(slot.backend).compiles
        return next((s for s in found if s is not None), math.inf if compiles else 0.0)

    def _waits(self, slot: Slot) -> bool:
        """Whether a check is not made beside others, as an OpenMP team computes it: on two cores that others used too
        PyTorch took 6.6 s for an epoch of 0.2 s, and 2.8 s for a gradient of 0.05 s.

        Who compiles needs one core most of the time; what takes many steps waits nevertheless.
        """
        entry, steps = backends.entry_of(slot.backend), (Pass.TRAIN_STEP, Pass.EPOCH)
        team = self.state.threads_of(slot) > 1 and "OMP_NUM_THREADS" in entry.environment
        return team and (not entry.compiles or slot.case.pass_ in steps)

    def _is_alone(self, slot: Slot) -> bool:
        return self.state.one_by_one(slot.launch) and self.state.threads_of(slot) == self.state.plan.threads

    def _make_one_ready(self, slots: list[Slot], beside: bool = False) -> None:
        """A worker that died on a case is started again, once, for the others. `beside` others some checks wait."""
        state, stopping, name, place = self.state, self.state.stopping, slots[0].backend, self.state.place_of(slots[0])
        while not state.pool.closed and (left := [slot for slot in slots if self._is_needed(slot)]):
            if stopping.left <= stopping.kept_back:
                for slot in left:
                    self._skip(slot, stopping.why_skipped(slot.case, name))
                break
            if place.prepared is None:
                if not place.lives:
                    for slot in left:
                        reason = "not tried: the worker died twice on cases of this workload"
                        self._fail(slot, Status.CRASHED, reason)
                    break
                place.lives -= 1
            waiting = any(map(self._waits, left))
            part = ("check", name, place.threads, left[0].task.problem)
            with state.stopwatch(part) if beside or not waiting else nullcontext():  # most of it was before then
                self._check(left, beside)
            if beside and waiting:
                break

    def _is_needed(self, slot: Slot) -> bool:
        state, case, name = self.state, slot.case, slot.backend
        known = case.key in state.place_of(slot).ready or (case, name, state.threads_of(slot)) in state.trial_failed
        return state.asked(case, name) and not known and not state.stopping.done(case, name)

    def _spares(self, slot: Slot, status: Status) -> bool:
        """Whether an answer that fails in a slot may still be ranked with other threads."""
        final = (Status.UNAVAILABLE, Status.UNSUPPORTED, Status.SKIPPED)
        is_open = (slot.case, slot.backend) in self.state.open
        return is_open and (status not in final or self.state.threads_of(slot) != self.state.plan.threads)

    def _fail(self, slot: Slot, status: Status, reason: str, record: CheckRecord | None = None) -> None:
        if self._spares(slot, status):
            self.state.fail_trial(slot, status, reason)
        else:
            self.state.fail(slot, status, reason, record)

    def _skip(self, slot: Slot, reason: str) -> None:
        if self._spares(slot, Status.SKIPPED):
            self.state.fail_trial(slot, Status.SKIPPED, reason)
        else:
            self.state.leave_out(slot, reason)

    def release(self, case: Case, name: str, threads: int) -> None:
        """Hand on the check of an answer that is ranked with these threads, with the costs of who compiled first."""
        threads_, tried = self.state.choices[case, name]
        first = self.held.get((case, name, self.state.plan.threads))
        if record := self.held.get((case, name, threads)):
            first = record if record.launch else first
            self.state.emit(replace(record, threads=threads_, tried=tried, costs=(first or record).costs))

    def _prepare(self, slots: list[Slot]) -> list[Slot]:
        """Prepare a problem in one backend's worker, unless that is done. The slots that are to be checked."""
        state, task, name = self.state, slots[0].task, slots[0].backend
        problem, place = task.problem, state.place_of(slots[0])
        try:
            if place.worker is None:
                state.observer.doing(f"{name}: starting", state.estimate)
                state.pool.worker(name, place.threads)
                state.estimate.done(("start", name, place.threads), place.start_seconds)
            slots = self._supported(slots)
            if not slots:
                return []
            state.observer.doing(f"{name}: preparing and checking {problem.name} {problem.dtype}", state.estimate)
            if place.prepared is None:
                given = {"problem": msgspec.to_builtins(problem), "arrays": str(self.stage(task))}
                prepared = self.ask(slots, "prepare", **given)
                place.prepared = msgspec.convert(prepared["contract"], Contract), prepared["prepare_ns"]
        except WorkerFailure as failure:
            for slot in slots:
                self._fail(slot, failure.status, failure.reason)
            return []
        return slots

    def _check(self, slots: list[Slot], beside: bool) -> None:
        """Prepare a problem in one backend's worker, and check its passes one by one, but for those that wait."""
        state, name, place = self.state, slots[0].backend, self.state.place_of(slots[0])
        slots = self._prepare(slots)
        if not slots or place.prepared is None:
            return
        contract, prepare_ns = place.prepared
        first = self._first_of.setdefault(name.partition("#")[0], name)  # its replica finds what it compiled
        launch, threads = slots[0].launch, place.threads
        cache = WARM if launch or state.part or name != first else COLD
        whole = not launch and threads == state.plan.threads
        if state.plan.effort.costs and (whole or launch):
            costs = Costs(place.import_ns if whole else None, prepare_ns, cache=cache)
        else:
            costs = Costs(cache=cache)
        for slot in slots:
            try:
                if not (beside and self._waits(slot)):
                    self._check_pass(slot, costs, contract)
                elif slot.case.pass_ is Pass.TRAIN_STEP and backends.entry_of(name).compiles:
                    self._compile(slot)
            except WorkerFailure as failure:
                self._fail(slot, failure.status, failure.reason)
                if not failure.alive:
                    return

    def _compile(self, slot: Slot) -> None:
        """A first call whose answer is not looked at: another one waits."""
        out = self.state.folder / "arrays" / f"{slot.backend} {self.state.threads_of(slot)}.npz"
        reply = self.ask([slot], "first", pass_=slot.case.pass_, order=None, out=str(out))
        self._compiled[slot.case, slot.backend, self.state.threads_of(slot)] = reply["first_call_ns"]

    def _supported(self, slots: list[Slot]) -> list[Slot]:
        supported = []
        for slot in slots:
            reply = self.ask([slot], "unsupported", case=msgspec.to_builtins(slot.case))
            if reply["reason"] is None:
                supported.append(slot)
            else:
                status = Status.UNAVAILABLE if reply["unavailable"] else Status.UNSUPPORTED
                self._fail(slot, status, reply["reason"])
        return supported

    def _check_pass(self, slot: Slot, costs: Costs, contract: Contract) -> None:
        """The first call of a pass, and the losses of a run of steps, against the oracle.

        An answer whose bits the oracle found right before, in the backend's first launch as a rule, is right. Of a
        later launch fewer losses are asked, and of its epoch only the steps that can be compared.
        """
        state, case, name, threads = self.state, slot.case, slot.backend, self.state.threads_of(slot)
        out = state.folder / "arrays" / f"{name} {threads}.npz"
        whole = order = state.order_of(slot.task, case)
        precision = tolerances.precision_of(case.dtype, contract.tf32)
        known = self._right.setdefault((case, name.removesuffix(REPLICA), precision), {})
        with state.pool.spend(TimeKind.CHECK):
            oracle = self.oracle(slot.task)
            # No further can it be compared, and the last step is as short as in all.
            epoch = oracle.epoch(precision).rows if order else []
        asked = {"pass_": case.pass_, "out": str(out), "right": list(known)}
        if slot.launch and whole:
            order = epoch
        first = reply = self.ask([slot], "first", order=order, **asked)
        if order and len(epoch) < len(order):
            reply = self.ask([slot], "first", order=epoch, **asked)
        digest = reply["digest"]
        with state.pool.spend(TimeKind.CHECK):
            errors = known.get(digest) or oracle.errors(case.pass_, arrays.load_outputs(out), precision)
        if tolerances.verdict(errors) is None:
            known[digest] = errors
        if case.pass_ is Pass.TRAIN_STEP:
            losses = self.ask([slot], "losses", steps=FEWEST_LOSSES if slot.launch else LOSS_STEPS)["losses"]
            with state.pool.spend(TimeKind.CHECK):
                errors = errors | oracle.loss_errors(losses, precision)
        if order == whole and costs.prepare_ns is not None:
            first_call_ns = self._compiled.pop((case, name, threads), first["first_call_ns"])
            costs = replace(costs, first_call_ns=first_call_ns)
        contract = replace(contract, threads=contract.threads_in(case.pass_))
        record = CheckRecord(
            **state.common_of(slot.task, case, name) | {"threads": threads},
            launch=slot.launch,
            errors=errors,
            costs=costs,
            contract=contract,
            peak_memory_bytes=first["peak_memory_bytes"],
            peak_device_bytes=first["peak_device_bytes"],
        )
        if wrong := tolerances.verdict(errors):
            self._fail(slot, Status.WRONG, wrong, record)
            return
        if (case, name) in state.open:
            self.held[case, name, threads] = record
        else:
            state.emit(record)
        state.place_of(slot).ready.add(case.key)

    def oracle(self, task: Task) -> Oracle:
        """The right answers to a task, computed when first asked for. Raises WorkerFailure where no time is left."""
        state, problem = self.state, task.problem
        if problem not in self.oracles:
            state.observer.doing(f"the oracle: {problem.name} {problem.dtype}", state.estimate)
            order = next((state.order_of(task, case) for case in task.cases if case.pass_ is Pass.EPOCH), None)
            oracle = self.oracles[problem] = Oracle(problem, task.params, task.rows, order, self._while_budget)
            with state.stopwatch(("oracle", problem)), state.pool.spend(TimeKind.CHECK):
                for case in task.cases:
                    if case.pass_ is Pass.EPOCH:
                        oracle.epoch()
                    else:
                        oracle.answer(case.pass_)
                    if case.pass_ is Pass.TRAIN_STEP:
                        oracle.losses()
        return self.oracles[problem]

    def _while_budget(self) -> None:
        limit = self.state.stopping.limit()
        if limit.seconds <= 0:
            raise WorkerFailure(limit.status, f"the oracle was ended: {limit.budget}", alive=True)

    def stage(self, task: Task) -> Path:
        """The file with a task's parameters and rows, written when first asked for."""
        problem = task.problem
        name = f"{len(self._paths)}-{problem.workload}-{problem.dtype}.npz"
        path = self._paths.setdefault(problem, self.state.folder / "arrays" / name)
        if not path.exists():
            with self.state.pool.spend(TimeKind.PREPARE):
                arrays.save_problem(path, task.params, task.rows)
        return path

    def forget(self, task: Task) -> None:
        """Drop the oracle and the file of a task that is not asked again; of many, no more than one is kept."""
        self.oracles.pop(task.problem, None)
        for key in [key for key in self._right if key[0] in task.cases]:
            del self._right[key]
        if path := self._paths.get(task.problem):
            path.unlink(missing_ok=True)
