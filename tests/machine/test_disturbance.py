"""Suspensions and set clocks, by clocks that lie; and a real worker whose clocks do."""

from __future__ import annotations

import io
import time
from dataclasses import replace

import pytest
from rich.console import Console

from rnnbench.analysis import stats
from rnnbench.analysis.stats import summaries
from rnnbench.harness.clock import Turn
from rnnbench.harness.plan import EFFORTS, Effort
from rnnbench.machine import interference
from rnnbench.model import Pass
from rnnbench.records.record import Mode, Status, turns_in
from rnnbench.report.data import ReportData
from rnnbench.report.facts import run_section
from rnnbench.report.section import markdown
from rnnbench.report.terminal import render
from tests.harness.test_run_loop import Listener, loop_of, plan_of, task_of
from tests.report import fake

S = 10**9


class Clocks:
    """Readings take `step` ns each; the first few take `slow` more, as of a process that lost its core."""

    def __init__(self, boot=0, real=0, step=100, slow=0, slow_readings=0):
        self.ahead = {time.CLOCK_MONOTONIC: 0, time.CLOCK_BOOTTIME: boot, time.CLOCK_REALTIME: real}
        self.now, self.step, self.slow, self.left = 5 * S, step, slow, slow_readings

    def __call__(self, which):
        self.now += self.step + (self.slow if self.left > 0 else 0)
        self.left -= 1
        return self.now + self.ahead[which]


def said(before, after):
    return interference.disturbances_between(interference.read_clocks(before), interference.read_clocks(after))


def test_nothing_happened():
    assert said(Clocks(), Clocks()) == []
    assert interference.disturbances_between(interference.read_clocks(), interference.read_clocks()) == []


def test_a_suspension_moves_both_clocks_and_is_no_set_clock():
    assert said(Clocks(), Clocks(boot=90 * S, real=90 * S)) == ["suspended for 90 s"]


def test_a_clock_that_is_set_forward_or_back():
    assert said(Clocks(), Clocks(real=3600 * S)) == ["clock set by +3.6e+03 s"]
    assert said(Clocks(real=5 * S), Clocks()) == ["clock set by -5 s"]
    assert said(Clocks(), Clocks(boot=S, real=3 * S)) == ["suspended for 1 s", "clock set by +2 s"]


def test_a_jump_below_the_limit_is_none():
    assert said(Clocks(), Clocks(boot=9_000_000, real=9_000_000)) == []


def test_a_process_that_stands_still_between_two_clocks_is_no_disturbance():
    assert said(Clocks(), Clocks(slow=60 * S, slow_readings=4)) == []
    assert said(Clocks(slow=60 * S, slow_readings=9), Clocks()) == []
    always = Clocks(slow=60 * S, slow_readings=1000)
    assert said(Clocks(), always) == []


def test_a_turn_in_which_the_machine_slept_is_kept_told_and_left_out(tmp_path, monkeypatch, faulty_backends):
    monkeypatch.setitem(EFFORTS, Mode.QUICK, Effort(launches=1, rounds=3, turn=Turn(0.0, 4, 4)))
    records = []
    runner = loop_of(
        plan_of("sleeper"), [task_of(passes=(Pass.FORWARD,))], tmp_path, records.append, Listener(),
        run_id="r", machine_id="m",
    )  # fmt: skip
    runner.run()
    turns = {r.round: r for r in turns_in(records)}
    assert {n: r.disturbances for n, r in turns.items()} == {
        0: ("suspended for 3.6e+03 s",), 1: ("clock set by -50 s",), 2: (),
    }  # fmt: skip
    assert all(len(r.samples_ns) == 4 for r in turns.values())
    (summary,) = summaries(records)
    assert sorted(key[2] for key in summary.turns) == [1, 2]
    assert summary.status is Status.OK
    assert summary.reason == "1 of 3 turns left out: the machine was suspended meanwhile"
    slept, set_ = stats.disturbance_notes(records)
    assert slept.startswith("1 of 3 turns (sleeper 1): the machine was suspended")
    assert set_.startswith("1 of 3 turns (sleeper 1): the system's clock was set")


def test_an_answer_of_suspended_turns_alone_has_no_time():
    turn = replace(fake.record(fake.case(), "numba", [1.0, 1.0]), disturbances=("suspended for 9 s",))
    (summary,) = summaries([turn])
    assert summary.time is None
    assert not summary.ranked
    assert "1 of 1 turns left out" in (summary.reason or "")


@pytest.mark.parametrize("kind", [stats.SUSPENDED, stats.CLOCK_SET, stats.BESIDE])
def test_the_report_and_the_terminal_tell_of_it(kind):
    made = fake.make(("parity",), ("numpy", "numba"), (Pass.FORWARD,))
    records = [replace(r, disturbances=(f"{kind} x",)) if r.launch == 1 else r for r in made.records]
    page = markdown([run_section(ReportData(records, run=made.run))], {})
    assert "**Disturbed**: 8 of 24 turns (numpy 4, numba 4)" in page
    console = Console(record=True, width=200, file=io.StringIO())
    render(console, ReportData(records))
    assert "disturbed: 8 of 24 turns" in console.export_text()
