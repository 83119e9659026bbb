"""Budgets hold: whatever is under way when one is spent is ended, and nobody is blamed for it. Over real workers."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from typing import ClassVar

import pytest

from rnnbench.analysis.stats import summaries
from rnnbench.api.learning import trainings
from rnnbench.api.run import code_of
from rnnbench.backends.numpy import NumpySession
from rnnbench.harness import stopping
from rnnbench.harness.checker import Checker
from rnnbench.harness.clock import Turn
from rnnbench.harness.memory import measure_memory
from rnnbench.harness.plan import EFFORTS, GUESSES, Effort
from rnnbench.harness.run_loop import TurnTimer
from rnnbench.harness.stopping import Stopping
from rnnbench.harness.timers import Ledger
from rnnbench.harness.worker_client import Limit
from rnnbench.model import Pass
from rnnbench.records import store
from rnnbench.records.record import CheckRecord, Mode, Status, turns_in
from rnnbench.records.stops import Why
from tests.harness.test_run_loop import Listener, loop_of, plan_of, task_of
from tests.helpers import specs
from tests.report.fake import case, failure

ROUNDS = 3
HANGS = "1000"  # seconds, far more than any budget or limit here
SOON = 300.0  # and what no test takes, on a machine however busy
LEFT = 0.1  # seconds of a budget when the request comes that hangs
FIRST = 0  # a seed that checks numpy before the other
LONG = 600.0  # a budget that is not spent otherwise, on a machine however busy


def jump(state, slot):
    """Set the clock of a budget to its last moments: before the request that hangs others have time enough."""
    stopping = state.stopping
    if state.plan.budget is not None:
        stopping.begun = time.monotonic() - state.plan.budget + LEFT + stopping.kept_back
    else:
        spent = stopping.seconds[slot.case, slot.backend]
        stopping.charge(slot.case, slot.backend, state.plan.case_budget - LEFT - spent)


class JumpingChecker(Checker):
    hanging: ClassVar[set[tuple[str, str, Pass]]] = {
        ("compiles", "first", Pass.GRADIENT),
        ("compiles-early", "prepare", Pass.FORWARD),
        ("compiles-early", "prepare", Pass.GRADIENT),
    }

    def ask(self, slots, op, **arguments):
        for slot in slots:
            if (slot.backend, op, slot.case.pass_) in self.hanging:
                jump(self.state, slot)
        return super().ask(slots, op, **arguments)


class JumpingTimer(TurnTimer):
    def measure(self, slot):
        if (slot.backend, slot.case.pass_, slot.round) == ("hangs", Pass.GRADIENT, 2):  # its fourth
            jump(self.state, slot)
        super().measure(slot)


@pytest.fixture(autouse=True)
def _one_by_one(monkeypatch, faulty_backends):
    monkeypatch.setattr(stopping, "GRACE", 0.2)
    monkeypatch.setenv("RNNBENCH_TEST_COMPILES", HANGS)
    side_by_side(monkeypatch, yes=False)


def side_by_side(monkeypatch, *, yes):
    effort = Effort(launches=1, rounds=ROUNDS, turn=Turn(0.001, 1, 1), costs=not yes)
    monkeypatch.setitem(EFFORTS, Mode.QUICK, effort)


def made(folder, plan, passes=(Pass.FORWARD, Pass.GRADIENT), before=(), **named):
    records, listener = [], Listener()
    runner = loop_of(
        plan, [task_of(passes=passes)], folder, records.append, listener, JumpingChecker, JumpingTimer, run_id="r",
        machine_id="m", before=before, **named,
    )  # fmt: skip
    return records, listener, runner


def run(*arguments, **named):
    records, listener, runner = made(*arguments, **named)
    begun = time.monotonic()
    runner.run()
    assert time.monotonic() - begun < SOON
    assert {r.status for r in records} <= {Status.OK, Status.SKIPPED}
    assert not any(place.worker for place in runner.pool.places.values())
    return records, listener, runner


def rounds_of(records, name, pass_):
    return {r.round for r in turns_in(records) if (r.backend, r.case.pass_) == (name, pass_) and r.samples_ns}


def skipped(records):
    return {(r.backend, r.case.pass_): r.reason for r in records if r.status is Status.SKIPPED}


def test_the_smallest_limit_counts_and_says_whose_it_is():
    plan = replace(plan_of("a", timeout=60.0), budget=100.0, case_budget=30.0)
    found = Stopping(plan)
    assert found.limit() == Limit(60.0)
    assert found.limit().status is Status.TIMEOUT
    assert found.limit(0.0).seconds == pytest.approx(30.2)
    assert found.limit(29.0, 25.0).seconds == pytest.approx(10.2)  # shared by two, until the last of them is spent
    assert found.limit(0.0).status is Status.SKIPPED
    assert "25 s of the case's budget of 30 s had gone by" in found.limit(29.0, 25.0).budget
    late = Stopping(plan, begun=time.monotonic() - 90)
    assert late.limit(0.0).seconds == pytest.approx(10.2, abs=0.1)
    assert "of the run's budget of 100 s had gone by before; raise --budget" in late.limit(0.0).reason("first")


@pytest.mark.parametrize("yes", [False, True], ids=["one-by-one", "side-by-side"])
def test_the_budget_of_a_case_ends_what_is_under_way_and_the_next_case_goes_on(tmp_path, monkeypatch, yes):
    side_by_side(monkeypatch, yes=yes)
    names = ("compiles", "compiles-early", "hangs", "numpy")
    records, listener, runner = run(tmp_path, replace(plan_of(*names), case_budget=LONG))
    reasons = skipped(records)
    early = {("compiles-early", pass_) for pass_ in (Pass.FORWARD, Pass.GRADIENT)}
    assert reasons.keys() == {("compiles", Pass.GRADIENT), *early}
    assert reasons["compiles", Pass.GRADIENT].startswith("first was ended after ")
    for answer in early:
        assert reasons[answer].startswith("prepare was ended after ")
    for (name, pass_), reason in reasons.items():
        assert "of the case's budget of 10 min had gone by before; raise --case-budget" in reason
        assert rounds_of(records, name, pass_) == set()
        assert any(name in said and reason in said for said in listener.said)
    for name in ("compiles", "hangs", "numpy"):  # in another process where theirs was ended
        assert rounds_of(records, name, Pass.FORWARD) == {0, 1, 2}
    assert rounds_of(records, "numpy", Pass.GRADIENT) == {0, 1, 2}
    assert rounds_of(records, "hangs", Pass.GRADIENT) == {0, 1}  # what was measured before it hung
    gradient = next(case.key for case in runner.tasks[0].cases if case.pass_ is Pass.GRADIENT)
    assert {name: stop.why for name, stop in runner.stops[gradient].items()} == {
        "hangs": Why.CASE_BUDGET, "numpy": Why.ALL,
    }  # fmt: skip
    assert code_of(store.Loaded(records, [], {}, {}, [])) == 0


@pytest.mark.parametrize("yes", [False, True], ids=["one-by-one", "side-by-side"])
def test_the_budget_of_a_run_ends_a_compile_and_a_larger_one_tries_it_again(tmp_path, monkeypatch, yes):
    side_by_side(monkeypatch, yes=yes)
    monkeypatch.setitem(GUESSES, "turn", 30.0)
    plan = replace(plan_of("numpy", "compiles"), budget=LONG, seed=FIRST)
    records, _, runner = run(tmp_path, plan)
    reasons = skipped(records)
    reason = reasons["compiles", Pass.GRADIENT]
    assert re.match(r"first was ended after 0[.0-9]+ s: 4[.0-9]+ s of the run's budget of 10 min had gone by", reason)
    assert reason.endswith("before; raise --budget, or go on with --resume")
    assert "budget of 10 min was spent before its first round" in reasons["compiles", Pass.FORWARD]
    if not yes:  # else it may be checked at that moment
        assert {r.status for r in records if r.backend == "numpy"} == {Status.OK}
        assert all(0 in rounds_of(records, "numpy", pass_) for pass_ in (Pass.FORWARD, Pass.GRADIENT))
    assert all(isinstance(r, CheckRecord) for r in records if r.status is Status.SKIPPED)
    assert runner.state.failed == set()
    monkeypatch.setenv("RNNBENCH_TEST_COMPILES", "0.5")
    monkeypatch.setattr(JumpingChecker, "hanging", set())
    more, _, _ = run(tmp_path, replace(plan, budget=2 * LONG), before=records)
    assert skipped(more) == {}
    for name in plan.backends:
        for pass_ in (Pass.FORWARD, Pass.GRADIENT):
            assert rounds_of([*records, *more], name, pass_) == {0, 1, 2}


def test_the_budget_that_was_given_last_is_told():
    answer = case("parity", Pass.FORWARD)
    lost = [failure(answer, "numpy", Status.SKIPPED, f"the budget of {n} s was spent") for n in (9, 20)]
    (told,) = summaries(lost)
    assert (told.status, told.reason) == (Status.SKIPPED, "the budget of 20 s was spent")


def test_a_turn_that_the_budget_of_the_run_ends_leaves_the_turns_before_it(tmp_path):
    records, listener, runner = run(tmp_path, replace(plan_of("hangs", "numpy"), budget=LONG), (Pass.GRADIENT,))
    assert skipped(records) == {}
    assert rounds_of(records, "hangs", Pass.GRADIENT) == {0, 1}
    assert rounds_of(records, "numpy", Pass.GRADIENT) >= {0, 1}
    assert listener.said == []
    (stops,) = runner.stops.values()
    assert stops["hangs"].why is Why.BUDGET


def test_a_start_that_hangs_is_ended_with_the_budget(tmp_path, monkeypatch):
    monkeypatch.setenv("RNNBENCH_TEST_STARTS", str(tmp_path / "starts"))
    (tmp_path / "starts").write_bytes(b"..")
    records, _, _ = run(tmp_path, replace(plan_of("third-start"), budget=1.0))
    assert skipped(records).keys() == {("third-start", pass_) for pass_ in (Pass.FORWARD, Pass.GRADIENT)}
    assert all(reason.startswith("hello was ended after ") for reason in skipped(records).values())


def test_the_oracle_ends_with_the_budget_too(tmp_path, monkeypatch):
    forward, calls = NumpySession._forward, []

    def slow(self, *arguments):
        time.sleep(0.3)
        calls.append(None)
        return forward(self, *arguments)

    monkeypatch.setattr(NumpySession, "_forward", slow)
    records, _, _ = run(tmp_path, replace(plan_of("numpy"), budget=1.0), (Pass.EPOCH, Pass.TRAIN_STEP))
    assert len(calls) < 10  # of three steps, one, and the losses of twice 20
    assert len(skipped(records)) == len(records) == 2
    assert all("budget of 1 s was spent" in reason for reason in skipped(records).values())


def test_a_process_for_memory_ends_with_either_budget_and_is_tried_again(tmp_path, monkeypatch):
    def memory(before=(), **named):
        plan = replace(plan_of("compiles"), memory=True, **named)
        records, listener, runner = made(tmp_path, plan, (Pass.GRADIENT,), before)
        measure_memory(runner.tasks, runner.state)
        return records, listener

    for which in ("case_budget", "budget"):
        records, listener = memory(**{which: 2.0})
        assert [r.status for r in records] == [Status.SKIPPED]
        (reason,) = skipped(records).values()
        assert re.match(r"its memory: \w+ was (ended after|not begun)", reason)
        words = {"budget": "of the run's budget of 2 s", "case_budget": "of the case's budget of 2 s"}[which]
        assert words in reason
        assert any(words in said for said in listener.said)
    monkeypatch.setenv("RNNBENCH_TEST_COMPILES", "0")
    again, _ = memory(before=records)
    assert [r.status for r in again] == [Status.OK]


def test_nothing_of_memory_is_begun_once_the_budget_is_spent(tmp_path):
    plan = replace(plan_of("numpy"), memory=True, budget=5.0)
    records, _, runner = made(tmp_path, plan, (Pass.FORWARD,), begun=time.monotonic() - 9)
    measure_memory(runner.tasks, runner.state)
    (reason,) = skipped(records).values()
    assert re.match(r"its memory: not begun: [0-9.]+ s of the run's budget of 5 s had gone by", reason)
    assert not (tmp_path / "logs").exists()


class Telling:
    def __init__(self):
        self.said = []

    def say(self, text):
        self.said.append(text)

    def show(self, *_):
        pass


def test_a_training_ends_with_the_budget_and_the_next_does_not_begin(tmp_path):
    names = ("parity", "running-parity")
    plan = replace(plan_of("compiles"), workloads=specs(*names), training=names, budget=2.5)
    display, curves = Telling(), store.Journal(tmp_path, store.CURVES)
    begun = time.monotonic()
    trainings(plan, ["compiles"], tmp_path, "r", display, curves, [], Ledger(), Stopping(plan), {}, tmp_path)
    curves.close()
    assert time.monotonic() - begun < SOON
    first, second = display.said
    assert re.match(r"compiles in training parity: skipped. \w+ was (ended after|not begun)", first)
    assert second.startswith("running-parity was not trained: ")
    assert all("of the run's budget of 2.5 s had gone by" in said for said in display.said)
    kept = (tmp_path / store.CURVES).read_text().splitlines()
    assert len(kept) <= 1  # the untrained network
