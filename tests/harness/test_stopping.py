"""Rules and budgets: by a fake clock, and over real workers."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace

import pytest

from rnnbench import backends
from rnnbench.harness import stopping
from rnnbench.harness.clock import Turn
from rnnbench.harness.plan import EFFORTS, Effort
from rnnbench.harness.stopping import Stopping
from rnnbench.model import Pass
from rnnbench.records.record import CheckRecord, Mode, Status, turns_in
from rnnbench.records.stops import StopRule, Why
from rnnbench.units import exact_duration
from tests.harness.test_run_loop import Listener, loop_of, plan_of, task_of
from tests.report.fake import case, record

CASE, OTHER = case("parity", Pass.FORWARD), case("parity", Pass.GRADIENT)


@pytest.fixture(autouse=True)
def _quick(monkeypatch, faulty_backends):
    monkeypatch.setitem(EFFORTS, Mode.QUICK, Effort(launches=3, rounds=2, turn=Turn(0.01, 2, 4)))


def turns(case_, name, values):
    return [record(case_, name, [v], launch=i) for i, v in enumerate(values)]


STEADY, RESTLESS = (1.0, 1.01, 1.0, 1.01), (1.0, 2.0, 1.0, 2.0)


def test_a_case_goes_on_for_all_while_one_is_not_precise():
    plan = replace(plan_of("a", "b"), rule=StopRule(0.1, 3, 9))
    before = [*turns(CASE, "a", STEADY), *turns(CASE, "b", RESTLESS), *turns(OTHER, "a", STEADY)]
    stopping = Stopping(plan, [*before, *turns(OTHER, "b", STEADY)])
    answers = [(c, name) for c in (CASE, OTHER) for name in "ab"]
    stopping.settle(2, answers)
    assert not stopping.settled  # never before the fewest launches
    stopping.settle(4, answers)
    assert stopping.settled == {OTHER}
    assert [stopping.done(c, n) for c, n in answers] == [False, False, True, True]
    stopping.settle(4, [answer for answer in answers if answer != (CASE, "b")])  # b failed
    assert CASE in stopping.settled


def test_only_launches_before_the_present_one_count():
    """So a resumed run decides as the whole one did, and makes up what is missing of a launch that was cut."""
    plan = replace(plan_of("a"), rule=StopRule(0.1, 3, 9))
    stopping = Stopping(plan, turns(CASE, "a", (1.0, 2.0, 1.0, *[1.4] * 30)))
    stopping.settle(3, [(CASE, "a")])
    assert not stopping.settled
    stopping.settle(33, [(CASE, "a")])
    assert stopping.settled == {CASE}


def test_what_was_interrupted_has_no_reason_and_a_resumed_launch_is_one(monkeypatch):
    plan = replace(plan_of("a"), rule=StopRule(1e-6, 3, 3), budget=60.0)
    cut = [record(CASE, "a", [v], launch=i, round=r, part=part) for v, i, r, part in
           [(1.0, 0, 0, 0), (2.0, 0, 1, 0), (1.0, 1, 0, 0), (2.0, 1, 1, 1)]]  # fmt: skip
    stopping = Stopping(plan, cut)
    assert stopping.stops([(CASE, "a")]) == {}
    monkeypatch.setattr(Stopping, "now", lambda self: stopping.begun + 61.0)
    assert stopping.stops([(CASE, "a")])[CASE.key]["a"].why is Why.BUDGET
    for r in (0, 1):
        stopping.add(record(CASE, "a", [1.5], launch=2, round=r, part=1))
    assert stopping.stops([(CASE, "a")])[CASE.key]["a"].why is Why.CAP


def test_budgets_are_counted_by_the_clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(Stopping, "now", lambda self: now[0])
    plan = replace(plan_of("a", "b"), budget=60.0, case_budget=5.0)
    stopping = Stopping(plan, begun=90.0)
    assert stopping.left == 50
    stopping.charge(CASE, "a", 4.0)
    assert not stopping.over(CASE, "a")
    stopping.charge(CASE, "a", 1.0)
    assert stopping.done(CASE, "a")
    assert not stopping.done(CASE, "b")
    assert not stopping.done(OTHER, "a")
    assert "took 5 s, the budget of a case is 5 s; raise --case-budget" in stopping.why_skipped(CASE, "a")
    assert "budget of 1 min was spent" in stopping.why_skipped(CASE, "b")
    now[0] = 200.0
    assert stopping.left < 0
    assert (exact_duration(90), exact_duration(600), exact_duration(0.5)) == ("90 s", "10 min", "0.5 s")


def run(folder, plan, passes=(Pass.FORWARD,), before=(), **named):
    records = []
    runner = loop_of(
        plan, [task_of(passes=passes)], folder, records.append, Listener(),
        run_id="r", machine_id="m", before=before, **named,
    )  # fmt: skip
    runner.run()
    return records, runner


def slots(records, name):
    return {(r.launch, r.round) for r in turns_in(records) if r.backend == name and r.samples_ns}


def whys(runner):
    return {name: stop.why for found in runner.stops.values() for name, stop in found.items()}


def test_launches_end_when_they_are_precise_or_at_the_cap(tmp_path):
    plan = plan_of("numpy", "slow")
    records, runner = run(tmp_path / "wide", replace(plan, rule=StopRule(0.999, 3, 9)))
    assert slots(records, "numpy") == slots(records, "slow")
    assert 3 <= len(slots(records, "slow")) / 2 < 9
    assert set(whys(runner).values()) == {Why.PRECISE}
    narrow = replace(plan, rule=StopRule(1e-9, 3, 4))
    records, runner = run(tmp_path / "narrow", narrow)
    assert slots(records, "numpy") == slots(records, "slow") == {(i, j) for i in range(4) for j in range(2)}
    assert set(whys(runner).values()) == {Why.CAP}
    again, runner = run(tmp_path / "again", narrow, before=records)
    assert again == []
    assert set(whys(runner).values()) == {Why.CAP}


def test_a_spent_budget_leaves_records_with_a_reason(tmp_path):
    plan = replace(plan_of("numpy", "slow"), budget=5.0)
    records, runner = run(tmp_path, plan, begun=time.monotonic() - 9.0)
    assert {(r.backend, r.status, type(r)) for r in records} == {
        ("numpy", Status.SKIPPED, CheckRecord), ("slow", Status.SKIPPED, CheckRecord),
    }  # fmt: skip
    assert all("budget of 5 s was spent" in r.reason for r in records)
    assert runner.stops == {}
    resumed, runner = run(tmp_path, plan_of("numpy", "slow"), before=records)
    assert len(slots(resumed, "numpy")) == len(slots(resumed, "slow")) == 6


def test_a_budget_costs_whole_rounds_of_all(tmp_path, monkeypatch):
    """By a clock that goes on by a second each time it is looked at."""
    monkeypatch.setitem(EFFORTS, Mode.QUICK, Effort(launches=500, rounds=3, turn=Turn(0.01, 2, 4)))
    monkeypatch.setattr(stopping, "GRACE", 60.0)  # a round that began is ended
    plan = replace(plan_of("numpy", "slow"), budget=200.0)
    ticks = itertools.count()
    monkeypatch.setattr(Stopping, "now", lambda self: next(ticks))
    records, runner = run(tmp_path, plan, begun=0.0)
    assert slots(records, "numpy") == slots(records, "slow")
    assert 3 <= len(slots(records, "slow")) < 60
    assert set(whys(runner).values()) == {Why.BUDGET}


def test_the_first_launch_gives_each_case_one_round_before_a_second(tmp_path, monkeypatch):
    plan = replace(plan_of("numpy", "slow"), budget=100.0)
    passes = (Pass.FORWARD, Pass.GRADIENT, Pass.TRAIN_STEP)
    task = task_of(passes=passes)
    runner = loop_of(plan, [task], tmp_path, print, Listener(), run_id="r", machine_id="m", begun=0.0)
    for name in plan.backends:
        for c in task.cases:
            runner.estimate.seen["turn", name, c] = 10.0
    monkeypatch.setattr(Stopping, "now", lambda self: 65.0)  # 35 s are left, the later cases need 40, 20 and none
    assert [runner._time_for(c, 0, 1) for c in task.cases] == [False, True, True]
    assert all(runner._time_for(c, 0, 0) and runner._time_for(c, 1, 1) for c in task.cases)
    monkeypatch.setattr(Stopping, "now", lambda self: 101.0)
    assert not any(runner._time_for(c, launch, 0) for c in task.cases for launch in (0, 1))


def test_a_case_budget_ends_one_backend_and_not_its_rivals(tmp_path, monkeypatch):
    monkeypatch.setitem(EFFORTS, Mode.QUICK, Effort(launches=1, rounds=12, turn=Turn(0.01, 2, 2)))
    charge = Stopping.charge
    monkeypatch.setattr(Stopping, "charge", lambda self, c, name, _: charge(self, c, name, 1.0 + 9 * (name == "slow")))
    records, runner = run(tmp_path, replace(plan_of("numpy", "slow"), case_budget=50.0))
    assert whys(runner) == {"numpy": Why.ALL, "slow": Why.CASE_BUDGET}
    assert slots(records, "slow") == {(0, j) for j in range(2)}  # after three requests of the check
    assert slots(records, "numpy") == {(0, j) for j in range(12)}


def test_checks_are_paid_from_the_budget_of_a_case(tmp_path, monkeypatch):
    monkeypatch.setattr(stopping, "GRACE", 60.0)
    records, runner = run(tmp_path, replace(plan_of("numpy", "slow"), case_budget=0.02))
    last = {r.backend: r for r in records}
    assert last["slow"].status is Status.SKIPPED
    assert "checks and compiling took" in last["slow"].reason
    assert "slow" not in whys(runner)


def test_a_twin_runs_in_a_process_of_its_own(tmp_path):
    records, runner = run(tmp_path, plan_of("slow", "slow#2"))
    assert slots(records, "slow") == slots(records, "slow#2")
    assert len(slots(records, "slow#2")) == 6
    assert (tmp_path / "logs" / "slow#2.log").exists()
    cold = [r.backend for r in records if isinstance(r, CheckRecord) and r.costs.cache == "cold"]
    assert len(cold) == 1  # who came second found what the first compiled
    assert runner.stops == {}  # nothing but the launches was asked for
    assert backends.missing("absent#2") == backends.missing("absent") is not None
