"""What is known of a run so far, and the one way by which records leave it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from rnnbench.analysis.trial import decision_of
from rnnbench.backends import REPLICA
from rnnbench.harness.observer import Observer
from rnnbench.harness.plan import Estimate, Plan, order_of, wanted
from rnnbench.harness.stopping import Stopping
from rnnbench.harness.timers import Ledger
from rnnbench.harness.worker_pool import WorkerPlace, WorkerPool
from rnnbench.model import Case, Pass, Problem
from rnnbench.params import Params
from rnnbench.records.record import (
    CheckRecord,
    Record,
    Seeds,
    Status,
    TrialRecord,
    TurnRecord,
    trials_in,
    turns_in,
)
from rnnbench.units import threads as words
from rnnbench.workloads.base import Split


@dataclass(frozen=True)
class Task:
    """One problem with its rows, its parameters and the cases asked of it."""

    problem: Problem
    cases: tuple[Case, ...]
    rows: Split  # training rows, whole batches of them staged in every worker
    params: Params
    source: str
    refused: str | None = None  # why no backend is asked: there are neither rows nor parameters then


@dataclass(frozen=True)
class Slot:
    """Where an answer belongs: one backend, one case, one launch, and a round of it; None for its check.

    `threads` None are those that the answer is ranked with; a trial names them.
    """

    task: Task
    case: Case
    backend: str
    launch: int
    round: int | None = None
    threads: int | None = None


class Choice(NamedTuple):
    """With how many threads an answer is ranked, and of which numbers that is the better."""

    threads: int
    tried: tuple[int, ...] = ()


class RunState:
    """What checker, timer and loop share: plan, workers, budgets, estimate, and what failed or was measured.

    Every record goes to `emit` as soon as it is known. `before` are the records of an interrupted run: what they hold
    is not measured again, and what failed in them is not tried again. `begun` is since when a budget counts, by the
    monotonic clock. `pool`: one whose processes outlive this plan, for a plan of one launch; the next plan goes on
    with them, as the next problem of a sweep does.
    """

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        emit: Callable[[Record], None],
        observer: Observer,
        *,
        run_id: str,
        machine_id: str,
        before: Iterable[Record] = (),
        begun: float | None = None,
        ledger: Ledger | None = None,
        pool: WorkerPool | None = None,
    ) -> None:
        folder = folder.absolute()  # workers have a current folder of their own
        self.plan, self.folder, self.observer = plan, folder, observer
        self.run_id, self.machine_id = run_id, machine_id
        self.before = list(before)
        self.stopping = Stopping(plan, self.before, begun)
        cache, limit = folder / "cache", self.stopping.limit
        self.keeps_processes = pool is not None
        self.pool = pool or WorkerPool(plan.backends, folder, plan.threads, plan.timeout, cache, env=plan.env)
        self.pool.work_for(ledger or Ledger(), limit)
        self.ledger = self.pool.ledger
        self.estimate = Estimate()
        self.part = 1 + max((r.part for r in self.before), default=-1)
        self.measured = {(r.case, r.backend, r.launch, r.round) for r in turns_in(self.before)}
        self.failed = {
            (r.case, r.backend)
            for r in self.before
            if isinstance(r, CheckRecord | TurnRecord) and r.status not in (Status.OK, Status.SKIPPED)
        }
        self.choices = {
            (r.case, r.backend): Choice(r.threads, r.tried)
            for r in turns_in(self.before)
            if r.threads is not None and not r.backend.endswith(REPLICA)
        }
        self.doubtful = set[tuple[Case, str]]()  # of the choices those that others disturbed
        for key, trials in self._trials().items():
            if (found := decision_of(trials, last=key in self.choices)) is not None:
                self.choices.setdefault(key, Choice(found.threads, plan.counts))
                self.doubtful |= set() if found.sure else {key}
        self.open: set[tuple[Case, str]] = set()  # answers whose threads are being found
        self.trial_failed: dict[tuple[Case, str, int], tuple[Status, str]] = {}  # by threads
        self._emit, self._writing = emit, Lock()

    def _trials(self) -> dict[tuple[Case, str], list[TrialRecord]]:
        """Of an interrupted run: what its last session tried."""
        last = max((r.part for r in self.before), default=0)
        found: dict[tuple[Case, str], list[TrialRecord]] = {}
        for r in trials_in(self.before):
            if r.part == last:
                found.setdefault((r.case, r.backend), []).append(r)
        return found

    def one_by_one(self, launch: int) -> bool:
        """Whether backends start, compile and are checked alone in a launch, as nothing is compiled yet."""
        return self.plan.effort.costs and self.plan.effort.alone and not launch

    def asked(self, case: Case, name: str) -> bool:
        """Whether the plan asks this backend for the case, and it has not failed."""
        return wanted(self.plan, case, name) and (case, name) not in self.failed

    def choice_of(self, case: Case, name: str) -> Choice:
        """The threads of an answer, all that the plan has until another number was chosen; a replica's are the same."""
        return self.choices.get((case, name.removesuffix(REPLICA)), Choice(self.plan.threads))

    def threads_of(self, slot: Slot) -> int:
        """How many threads the process of a slot has."""
        return slot.threads or self.choice_of(slot.case, slot.backend).threads

    def place_of(self, slot: Slot) -> WorkerPlace:
        """The place of a slot's process."""
        return self.pool.place(slot.backend, self.threads_of(slot))

    def order_of(self, task: Task, case: Case, *seed: int) -> list[int] | None:
        """Rows of the `epoch` pass: for its check, or with launch and round for a turn."""
        if case.pass_ is not Pass.EPOCH:
            return None
        return order_of(len(task.rows.inputs), case.steps, case.B, self.plan.seed, *seed)

    @contextmanager
    def stopwatch(self, part: tuple[Any, ...]) -> Iterator[None]:
        """Keep for the estimate what a part takes, unless it fails."""
        start = time.monotonic()
        yield
        self.estimate.done(part, time.monotonic() - start)

    def common_of(self, task: Task, case: Case, name: str) -> dict[str, Any]:
        """What a record of any kind holds of an answer that is yet to come."""
        threads, tried = self.choice_of(case, name)
        return {
            "threads": threads,
            "tried": tried,
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

    def emit(self, record: Record) -> None:
        """Hand on a record; backends side by side wait for one another."""
        with self._writing:
            self._emit(record)

    def fail(self, slot: Slot, status: Status, reason: str, record: Record | None = None) -> None:
        """Record why a slot has no answer; the case is not tried again by this backend.

        What ends with the run did not fail. Nor did an answer that no budget was left for: what was measured of it
        stays. `record` is what is known of the slot, where that is more than its place.
        """
        if self.pool.closed:
            return
        line = f"{slot.backend} on {slot.case.key}: {status}. {reason}"
        if status is Status.SKIPPED:
            if self.leave_out(slot, reason):
                self.observer.say(line)
            return
        self.failed.add((slot.case, slot.backend))
        self.place_of(slot).ready.discard(slot.case.key)
        self.estimate.drop(("turn", slot.backend, slot.case))
        if status not in (Status.UNAVAILABLE, Status.UNSUPPORTED):
            self.observer.say(line)
        if record is None:
            common = self.common_of(slot.task, slot.case, slot.backend) | {"threads": self.threads_of(slot)}
            if slot.round is None:
                record = CheckRecord(**common, launch=slot.launch)
            else:
                record = TurnRecord(**common, launch=slot.launch, round=slot.round)
        self.emit(replace(record, status=status, reason=reason))

    def fail_trial(self, slot: Slot, status: Status, reason: str) -> None:
        """Record why an answer is not ranked with these threads. It may be with others."""
        if self.pool.closed:
            return
        threads = self.threads_of(slot)
        self.trial_failed[slot.case, slot.backend, threads] = status, reason
        self.place_of(slot).ready.discard(slot.case.key)
        if status is not Status.SKIPPED:
            self.observer.say(f"{slot.backend} on {slot.case.key} with {words(threads)}: {status}. {reason}")
        common = self.common_of(slot.task, slot.case, slot.backend)
        common |= {"threads": threads, "tried": self.plan.counts, "status": status, "reason": reason}
        self.emit(TrialRecord(**common, launch=slot.launch, pair=0))

    def leave_out(self, slot: Slot, reason: str) -> bool:
        """Measure no more of an answer. Returns whether it gets a record that says so: where nothing was measured."""
        answer = slot.case, slot.backend
        known = answer in self.stopping.given_up or any(key[:2] == answer for key in self.measured)
        self.stopping.given_up.add(answer)
        if not known:
            common = self.common_of(slot.task, *answer) | {"status": Status.SKIPPED, "reason": reason}
            self.emit(CheckRecord(**common, launch=slot.launch))
        return not known
