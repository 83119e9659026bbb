"""Disturbed turns are measured again in the same launch, when it is quiet, for no longer than a share of the run."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import pytest

from rnnbench.analysis.stats import summaries
from rnnbench.harness import repeats, run_loop
from rnnbench.harness.clock import Turn
from rnnbench.harness.plan import EFFORTS, SWEEP_EFFORTS, Effort
from rnnbench.harness.stopping import Stopping
from rnnbench.harness.worker_client import WorkerFailure
from rnnbench.machine.contention import LIMIT, Judge, OthersWatch
from rnnbench.model import Pass
from rnnbench.records.account import TimeKind, seconds_of
from rnnbench.records.record import Mode, Status, turns_in
from rnnbench.records.stops import Why
from tests.harness.test_run_loop import Listener, loop_of, plan_of, task_of
from tests.report import fake


@pytest.fixture(autouse=True)
def _effort(monkeypatch, faulty_backends):
    monkeypatch.setitem(EFFORTS, Mode.QUICK, Effort(launches=1, rounds=3, turn=Turn(0.0, 2, 2), extra=50.0))


class Judged:
    """Says that turns are disturbed as it was given, one after the other; those after the last are not."""

    def __init__(self, *said):
        self.said, self.asked = list(said), []

    def __call__(self, answer, contention, cores, calls):
        self.asked.append((answer[1], cores))
        return self.said.pop(0) if self.said else 0.0


class Watched(OthersWatch):
    """Others use so many cores, look after look; none after the last."""

    cores: ClassVar[list[float]] = []

    @property
    def busy(self):
        return self.cores[0] if self.cores else 0.0

    def look(self):
        super().look()
        del self.cores[:1]


def measured(folder, monkeypatch, judge, *names, **of_state):
    monkeypatch.setattr(run_loop, "Judge", lambda: judge)
    monkeypatch.setattr(run_loop, "OthersWatch", Watched)
    records, listener = [], Listener()
    loop = loop_of(plan_of(*names), [task_of(passes=(Pass.FORWARD,))], folder, records.append, listener,
                   run_id="r", machine_id="m", **of_state)  # fmt: skip
    loop.run()
    return records, listener, loop


def turns(records):
    return [(r.backend, r.round, r.attempt, r.disturbed) for r in turns_in(records)]


def test_it_is_done_in_default_and_rigorous_runs_and_not_in_quick_ones():
    assert {m: e.extra for m, e in EFFORTS.items()} | {Mode.QUICK: 0.0} == {
        Mode.QUICK: 0.0, Mode.DEFAULT: 0.25, Mode.RIGOROUS: 0.25,
    }  # fmt: skip
    assert {m: e.extra for m, e in SWEEP_EFFORTS.items()} == {Mode.QUICK: 0.0, Mode.DEFAULT: 0.25}


def test_a_disturbed_turn_is_measured_again_at_the_end_of_its_round(tmp_path, monkeypatch):
    records, listener, loop = measured(tmp_path, monkeypatch, Judged(0.0, 0.4, 0.3), "numpy", "chatty")
    first = turns(records)[1][0]
    assert turns(records)[1:4] == [(first, 0, 0, 0.4), (first, 0, 1, 0.3), (turns(records)[3][0], 1, 0, 0.0)]
    assert (first, 0, 2, 0.0) in turns(records)  # disturbed again: once more after the next round
    assert len(turns(records)) == 2 * 3 + 2
    answer = next(s for s in summaries(records) if s.backend == first)
    assert [(r.round, r.attempt) for r in answer.timed_turns] == [(0, 2), (1, 0), (2, 0)]
    assert answer.disturbed == []
    assert any(text.endswith(f"{first}, again, as it was disturbed") for text in listener.doings)
    assert loop.state.stopping.turns((answer.case, first)) == answer.turns
    spent = seconds_of({"seconds": loop.state.ledger.seconds()})
    samples = {True: 0.0, False: 0.0}
    for r in turns_in(records):
        samples[r.attempt > 0] += sum(r.samples_ns) / 1e9
    assert spent[TimeKind.TURNS] == pytest.approx(samples[False], abs=2e-3)
    assert spent[TimeKind.AGAIN] >= samples[True] - 1e-3
    assert listener.fractions[-1] > 0.5


def test_it_ends_after_some_attempts_and_the_least_disturbed_counts(tmp_path, monkeypatch):
    records, _, _ = measured(tmp_path, monkeypatch, Judged(0.5, 0.4, 0.0, 0.2, 0.0, 0.3), "numpy")
    assert [turn for turn in turns(records) if turn[1] == 0] == [
        ("numpy", 0, 0, 0.5), ("numpy", 0, 1, 0.4), ("numpy", 0, 2, 0.2), ("numpy", 0, 3, 0.3),
    ]  # fmt: skip
    (answer,) = summaries(records)
    assert [(r.round, r.attempt) for r in answer.disturbed] == [(0, 2)]  # one launch: it counts
    assert len(answer.turns) == 3


def test_nobody_measures_again_while_others_work_and_waits_end(tmp_path, monkeypatch):
    monkeypatch.setattr(repeats, "LONGEST_WAIT", 0.3)
    monkeypatch.setattr(Watched, "cores", [1.2] * 1000)
    records, listener, loop = measured(tmp_path, monkeypatch, Judged(*[0.5] * 9), "numpy")
    assert {attempt for _, _, attempt, _ in turns(records)} == {0}
    waits = [text for text in listener.doings if text == "waiting for quiet: other programs use 1.20 cores"]
    assert 1 <= len(waits) <= 4  # after the first round, and not after the others
    assert 0.2 < seconds_of({"seconds": loop.state.ledger.seconds()})[TimeKind.QUIET] < 0.6


def test_it_waits_for_quiet(tmp_path, monkeypatch):
    monkeypatch.setattr(Watched, "cores", [0.0] * 2 + [0.9] * 3)
    records, listener, _ = measured(tmp_path, monkeypatch, Judged(0.5), "numpy")
    assert turns(records)[:2] == [("numpy", 0, 0, 0.5), ("numpy", 0, 1, 0.0)]
    assert sum(text.startswith("waiting for quiet") for text in listener.doings) in (2, 3)


def test_it_takes_no_more_than_its_share(tmp_path, monkeypatch):
    monkeypatch.setitem(EFFORTS, Mode.QUICK, Effort(launches=1, rounds=3, turn=Turn(0.0, 2, 2), extra=1e-9))
    records, _, loop = measured(tmp_path, monkeypatch, Judged(*[0.5] * 9), "numpy")
    assert {attempt for _, _, attempt, _ in turns(records)} == {0}
    assert loop.timer.repeats.allowed < 0
    (answer,) = summaries(records)
    assert len(answer.disturbed) == len(answer.turns) == 3


def test_no_turn_is_judged_without_a_share(tmp_path, monkeypatch):
    monkeypatch.setitem(EFFORTS, Mode.QUICK, Effort(launches=1, rounds=2, turn=Turn(0.0, 2, 2)))
    judge = Judged(0.5)
    records, _, _ = measured(tmp_path, monkeypatch, judge, "numpy")
    assert judge.asked == []
    assert turns(records) == [("numpy", 0, 0, 0.0), ("numpy", 1, 0, 0.0)]


def test_a_turn_in_which_the_machine_slept_is_measured_again(tmp_path, monkeypatch):
    records, _, _ = measured(tmp_path, monkeypatch, Judged(), "sleeper")
    assert turns(records)[:2] == [("sleeper", 0, 0, 0.0), ("sleeper", 0, 1, 0.0)]
    (answer,) = summaries(records)
    assert (answer.timed_turns[0].round, answer.timed_turns[0].attempt) == (0, 1)


def test_a_backend_that_dies_when_it_is_asked_again_fails_as_in_any_turn(tmp_path, monkeypatch):
    def asked(self, slot, turn, round_):
        self.count = getattr(self, "count", 0) + 1
        if self.count == 2:
            raise WorkerFailure(Status.CRASHED, "turn: it died", alive=True)
        return ask(self, slot, turn, round_)

    ask = run_loop.Checker.turn
    monkeypatch.setattr(run_loop.Checker, "turn", asked)
    records, _, _ = measured(tmp_path, monkeypatch, Judged(0.5), "numpy")
    assert turns_in(records)[-1].status is Status.CRASHED
    assert len(turns_in(records)) == 2


def test_the_judge_of_a_run_is_a_real_one_and_looks_around_the_turns(tmp_path, monkeypatch):
    monkeypatch.setitem(EFFORTS, Mode.QUICK, Effort(launches=1, rounds=3, turn=Turn(0.06, 2, 10_000), extra=1e-9))
    records, listener = [], Listener()
    loop = loop_of(plan_of("numpy", "chatty"), [task_of(passes=(Pass.FORWARD,))], tmp_path, records.append, listener,
                   run_id="r", machine_id="m")  # fmt: skip
    assert isinstance(loop.timer.judge, Judge)
    assert isinstance(loop.timer.watch, OthersWatch)
    loop.run()
    found = [r.contention for r in turns_in(records)]
    told = [c for c in found if c.around_share is not None]
    assert len(told) == len(found) == 6
    assert all(c.around_seconds >= 0.05 for c in told)
    assert all(r.disturbed == 0 or r.disturbed > LIMIT for r in turns_in(records))
    assert loop.state.pool.processes == []


def test_a_resumed_run_takes_what_was_measured_again(tmp_path, monkeypatch):
    records, _, _ = measured(tmp_path / "a", monkeypatch, Judged(0.5), "numpy")
    again, _, loop = measured(tmp_path / "b", monkeypatch, Judged(), "numpy", before=records)
    assert turns_in(again) == []
    ((answer, turns_),) = [(a, loop.state.stopping.turns(a)) for a in loop.state.stopping.timed]
    assert turns_ == summaries(records)[0].turns
    assert answer[1] == "numpy"
    assert replace(turns_in(records)[0], attempt=1).key == turns_in(records)[0].key


def test_launches_that_are_left_out_were_made_all_the_same(monkeypatch):
    monkeypatch.setitem(EFFORTS, Mode.QUICK, Effort(launches=4, rounds=1, turn=Turn(0.0, 2, 2), extra=0.25))
    made = fake.record(fake.case(), "numpy", [1.0, 1.0])
    records = [replace(made, launch=n, round=0, disturbed=0.5 * (n == 3)) for n in range(4)]
    stopping = Stopping(plan_of("numpy"), records)
    answer = records[0].case, "numpy"
    assert len(stopping.turns(answer)) == 3
    (stop,) = stopping.stops([answer])[records[0].case.key].values()
    assert (stop.why, stop.launches) == (Why.ALL, 3)
    assert stop.reason.startswith("all 4 launches of the mode made")
