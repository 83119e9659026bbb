"""A run of many cases whose workers are killed at random moments: all cases are told, and what was measured stays."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading

import pytest

from rnnbench.harness.clock import Turn
from rnnbench.harness.plan import SWEEP_EFFORTS, Effort, Plan
from rnnbench.harness.tasks import tasks_of
from rnnbench.model import DType, Pass
from rnnbench.records import store
from rnnbench.records.record import CheckRecord, Mode, Status, turns_in
from rnnbench.sizes import Sizes, Sweep
from tests.harness.test_run_loop import Listener, loop_of
from tests.helpers import swept

VICTIM = "chatty"
ROUNDS = 2


class Killer:
    """Ends the victim's process by SIGKILL, some milliseconds after records whose numbers the seed draws."""

    def __init__(self, seed, records, kills):
        self.random = random.Random(seed)
        self.moments = set(self.random.sample(range(2, records), kills))
        self.killed, self.seen, self.timers = 0, 0, []
        self.runner = None

    def saw_a_record(self):
        self.seen += 1
        if self.seen in self.moments:
            self.timers.append(threading.Timer(self.random.uniform(0, 0.03), self.kill))
            self.timers[-1].start()

    def kill(self):
        worker = self.runner.pool.place(VICTIM).worker
        if worker is not None and worker.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.process.pid, signal.SIGKILL)
                self.killed += 1


@pytest.mark.timeout(900)
@pytest.mark.usefixtures("faulty_backends")
@pytest.mark.parametrize("costs", [True, False], ids=["one-by-one", "side-by-side"])
def test_it_survives_workers_that_are_killed(tmp_path, monkeypatch, costs, request):
    """200 cases of 100 sizes with --every-case; else 20 of 10."""
    every = request.config.getoption("--every-case")
    sizes, kills = (100, 20) if every else (10, 3)
    monkeypatch.setitem(SWEEP_EFFORTS, Mode.QUICK, Effort(1, ROUNDS, Turn(0.001, 1, 2), costs=costs))
    sweep = Sweep(H=tuple(range(1, sizes + 1)), centre=Sizes(H=1, B=2, T=3), E=2)
    passes = (Pass.FORWARD, Pass.GRADIENT)
    plan = Plan(swept(sweep), ("numpy", VICTIM), passes, (DType.FLOAT32,), Mode.QUICK, 1, 0, 60.0, sweep=sweep)
    tasks = tasks_of(plan, print)
    asked = {(case.key, name) for task in tasks for case in task.cases for name in plan.backends}
    assert len(asked) == 2 * 2 * sizes
    killer = Killer(1, records=len(asked) * ROUNDS, kills=kills)
    journal = store.Journal(tmp_path)

    def emit(record):
        journal.append([record])
        killer.saw_a_record()

    runner = killer.runner = loop_of(plan, tasks, tmp_path, emit, Listener(), run_id="r", machine_id="m")
    runner.run()
    for timer in killer.timers:
        timer.cancel()
        timer.join()
    journal.close()
    assert killer.killed >= kills // 2
    assert not any(place.worker for place in runner.pool.places.values())
    _check(store.load_run(tmp_path), asked, killer.killed)


def _check(loaded, asked, killed):
    assert loaded.problems == []
    found = {key: [r for r in loaded.records if (r.case.key, r.backend) == key] for key in asked}
    crashed = {key for key, records in found.items() if any(r.status is not Status.OK for r in records)}
    assert 1 <= len(crashed) <= 2 * killed
    for key, records in found.items():
        assert isinstance(records[0], CheckRecord)
        if key not in crashed:
            assert {r.round for r in turns_in(records)} == {*range(ROUNDS)}
            assert all(r.samples_ns for r in turns_in(records))
            continue
        assert key[1] == VICTIM
        (failed,) = (r for r in records if r.status is not Status.OK)
        assert failed.status is Status.CRASHED
        assert "SIGKILL" in failed.reason or "the worker died twice" in failed.reason
        assert records[-1] is failed  # it is not tried again
