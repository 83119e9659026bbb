"""One session of a run: all answers into its folder, and beside them what the machine is and where the time went."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from rnnbench.analysis import noise
from rnnbench.analysis.roofline import Peak, with_work
from rnnbench.analysis.stats import BESIDE
from rnnbench.api.learning import trainings
from rnnbench.api.to_accuracy import trainings_to_accuracy
from rnnbench.harness.checker import Checker
from rnnbench.harness.memory import measure_memory
from rnnbench.harness.observer import Observer
from rnnbench.harness.plan import Plan
from rnnbench.harness.run_loop import RunLoop, TurnTimer
from rnnbench.harness.run_state import RunState
from rnnbench.harness.tasks import tasks_of
from rnnbench.harness.timers import Ledger
from rnnbench.harness.worker_pool import WorkerPool
from rnnbench.machine.interference import Neighbours, Watch
from rnnbench.machine.peak import PeakUnknown, measure
from rnnbench.records import store
from rnnbench.records.account import TimeKind, seconds_of
from rnnbench.records.record import Mode, Record, TrainingRecord
from rnnbench.units import exact_duration, rough_duration
from rnnbench.workloads.base import Workload


def now() -> str:
    """Date and time, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass
class RunSession:
    """A plan, its folder, what was there `before`, and the facts for `run.json` and `machine.json`.

    `begun` is since when a budget counts, by the monotonic clock.
    """

    plan: Plan
    folder: Path
    run: dict[str, Any]
    machine: dict[str, Any]
    before: store.Loaded
    ledger: Ledger
    display: Observer
    begun: float
    given: Mapping[str, Workload] = field(default_factory=dict)  # the plan's workloads that are here already
    peak: Peak | None = None
    pool: WorkerPool | None = None  # of processes that outlive this plan, as `RunState` has it

    def __post_init__(self) -> None:
        self.earlier: dict[TimeKind, float] = seconds_of(self.run)  # of the sessions that this one goes on with

    def measure(
        self,
        neighbours: Neighbours,
        journal: store.Journal,
        curves: store.Journal,
        to_accuracy: store.Journal,
        scratch: Path,
    ) -> None:
        """All answers, memory and trainings. What ends it early leaves the facts that are known by then."""
        self._tell(neighbours.last)
        self._keep_run()
        watch = Watch()
        machine = {**self.machine, "start": watch.start}
        if self.plan.passes:
            self.look_for_peak()
        self._keep_machine(machine)
        loop = self.loop_of(neighbours, journal, scratch)
        self.display.say(length(self.plan, loop.expected_seconds()))
        try:
            self.answer(loop, neighbours, curves, to_accuracy, lambda: store.load_run(self.folder).records)
            if loop.state.stopping.left <= 0:
                self.display.say(
                    f"the budget of {exact_duration(self.plan.budget or 0.0)} is spent; what was measured is kept"
                )
            elif self.peak and self.plan.mode is not Mode.QUICK:  # a neighbour at the start hides what is possible
                self.look_for_peak()
        except BaseException:
            with suppress(store.StoreError):  # what ended the run is what is told
                self._keep(loop, {**machine, "end": watch.end()})
            raise
        self._keep(loop, {**machine, "end": watch.end()})
        store.write_json(self.folder / store.RUN, {**self.run, "finished": now()})

    def _beside(self, neighbours: Neighbours) -> tuple[str, ...]:
        """The other runs that measure on this machine now, as a disturbance."""
        others = neighbours.seen()
        self._tell(others)
        return (f"{BESIDE}: {', '.join(others)}",) if others else ()

    def loop_of(self, neighbours: Neighbours, journal: store.Sink, scratch: Path) -> RunLoop:
        """The loop over the plan's tasks; every record goes to `journal`, with the other runs that measured then."""
        with self.ledger.spend(TimeKind.DATA):
            tasks = tasks_of(self.plan, self.display.say, self.given, self.folder)

        def emit(record: Record) -> None:
            record = replace(record, disturbances=(*record.disturbances, *self._beside(neighbours)))
            journal.append([with_work(record, self.peak)])

        state = RunState(
            self.plan,
            scratch,
            emit,
            self.display,
            run_id=self.run["run_id"],
            machine_id=self.machine["machine_id"],
            before=self.before.records,
            begun=self.begun,
            ledger=self.ledger,
            pool=self.pool,
        )
        checker = Checker(state)
        return RunLoop(tasks, state, checker, TurnTimer(state, checker))

    def answer(
        self,
        loop: RunLoop,
        neighbours: Neighbours,
        curves: store.Sink,
        to_accuracy: store.Sink,
        answered: Callable[[], list[Record]],
    ) -> None:
        """All answers of a loop, memory and trainings. `answered` gives the records that are there after the loop."""
        state = loop.state

        def emit_training(record: TrainingRecord) -> None:
            to_accuracy.append([replace(record, disturbances=self._beside(neighbours))])

        loop.run()
        with self.ledger.spend(TimeKind.MEMORY):
            measure_memory(loop.tasks, state)
        able = [name for name in self.plan.backends if loop.answering(name)]
        trainings(self.plan, able, state.folder, self.run["run_id"], self.display, curves, self.before.curves,
                  self.ledger, state.stopping, self.given, self.folder)  # fmt: skip
        answers = answered() if self.plan.passes else []
        trainings_to_accuracy(state, emit_training, self.before.trainings, answers, self.given, self.folder)

    def look_for_peak(self) -> None:
        """The machine's ceilings, by now and before together; None, said in one line, where they cannot be measured.

        They are given half of what is left of a budget, and no more.
        """
        budget = self.plan.budget
        half = math.inf if budget is None else (budget - (time.monotonic() - self.begun)) / 2
        self.display.show("measuring what this machine can do at most", 0.0)
        with self.ledger.spend(TimeKind.PEAK):
            try:
                found = measure(self.plan.dtypes, self.plan.threads, quick=self.plan.mode is Mode.QUICK,
                                timeout=half)  # fmt: skip
            except PeakUnknown as error:
                self.display.say(str(error) if self.peak else f"{error}; no share of it is shown")
                return
        self.peak = self.peak.best_of(found) if self.peak else found

    def _tell(self, others: list[str]) -> None:
        """Say once of each other run that it measures too, and keep it for `run.json`."""
        for name in others:
            if name not in self.run["beside"]:
                self.run["beside"].append(name)
                self.display.say(
                    f"another run measures on this machine: {name}; both are slower for it, and the records say so"
                )

    def _keep(self, loop: RunLoop, machine: dict[str, Any]) -> None:
        self.run["seconds"] = self.ledger.seconds(self.earlier)
        if stops := loop.stops:
            self.run["stops"] = msgspec.to_builtins(stops)
        self._keep_run()
        self._keep_machine({**machine, "workers": loop.pool.libraries})

    def _keep_run(self) -> None:
        store.write_json(self.folder / store.RUN, self.run)

    def _keep_machine(self, machine: dict[str, Any]) -> None:
        store.write_json(self.folder / store.MACHINE, {**machine, "peak": msgspec.to_builtins(self.peak)})


def length(plan: Plan, seconds: float) -> str:
    """One line before the first answer: how long all will take, as far as can be told."""
    if not plan.passes:
        return "how long trainings take is not known beforehand; Ctrl-C ends the run and keeps those that are done"
    least = "at least " if plan.rule is not None else ""
    most = "" if plan.budget is None else f"; no round begins after {exact_duration(plan.budget)}"
    return f"measuring takes {least}about {rough_duration(seconds)}{most}; Ctrl-C ends it and keeps what was measured"


def write_noise(plan: Plan, folder: Path) -> None:
    """The noise of an A/A run, as a file of its own. Nothing where no backend was measured against itself."""
    if any(noise.MARK in name for name in plan.backends):
        loaded = store.load_run(folder)
        found = noise.noise_of(loaded.records)
        if found is not None:
            value = found.as_json(str(loaded.run["run_id"]), str(loaded.machine["machine_id"]))
            store.write_json(folder / noise.NOISE, value)
