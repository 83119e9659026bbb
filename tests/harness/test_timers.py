"""The account of a run's time: every second once, by a fake clock."""

from __future__ import annotations

import threading

import pytest

from rnnbench.harness.timers import Ledger
from rnnbench.records import account
from rnnbench.records.account import WORK, TimeKind, overhead, seconds_of, time_in_words


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now

    def pass_(self, seconds):
        self.now += seconds


def test_every_second_is_counted_once_by_the_innermost_kind():
    clock = Clock()
    ledger = Ledger(clock)
    clock.pass_(1)
    with ledger.spend(TimeKind.CHECK):
        clock.pass_(2)
        with ledger.spend(TimeKind.START):
            clock.pass_(4)
        clock.pass_(8)
    clock.pass_(16)
    assert ledger.seconds() == {"compiling and checking": 10.0, "starting and importing": 4.0, "the rest": 17.0}
    clock.pass_(32)
    assert ledger.seconds()["the rest"] == 49.0


def test_what_fails_is_counted_too():
    clock = Clock()
    ledger = Ledger(clock)

    def fail():
        with ledger.spend(TimeKind.DATA):
            clock.pass_(3)
            raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        fail()
    clock.pass_(1)
    assert ledger.seconds() == {"reading data": 3.0, "the rest": 1.0}


def test_seconds_are_moved_and_those_of_a_part_before_are_added():
    clock = Clock()
    ledger = Ledger(clock)
    with ledger.spend(TimeKind.AROUND):
        clock.pass_(5)
    ledger.move(4.5, TimeKind.AROUND, TimeKind.TURNS)
    before = {TimeKind.TURNS: 10.0, TimeKind.REPORT: 2.0}
    assert ledger.seconds(before) == {"timed calls": 14.5, "around the calls": 0.5, "report": 2.0}


def test_other_threads_are_the_time_that_is_waited_for_them():
    clock = Clock()
    ledger = Ledger(clock)

    def work():
        with ledger.spend(TimeKind.PREPARE):
            clock.pass_(7)
        ledger.move(7, TimeKind.PREPARE, TimeKind.TURNS)

    with ledger.spend(TimeKind.START):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert ledger.seconds() == {"starting and importing": 7.0}


@pytest.mark.parametrize("failing", [False, True])
def test_what_is_waited_is_divided_by_what_the_others_do(failing):
    clock = Clock()
    ledger = Ledger(clock)

    def work(*kinds):
        for kind, seconds in kinds:
            with ledger.spend(kind):
                clock.pass_(seconds)
        clock.pass_(10)  # of no kind

    def wait(*threads):
        for thread in threads:
            thread.start()
            thread.join()
        if failing:
            raise ValueError("x")

    def waited():
        with ledger.spend(TimeKind.CHECK), ledger.wait():
            wait(
                threading.Thread(target=work, args=((TimeKind.START, 2), (TimeKind.PREPARE, 1))),
                threading.Thread(target=work, args=((TimeKind.PREPARE, 3), (TimeKind.CHECK, 4))),
            )

    if failing:
        with pytest.raises(ValueError, match="x"):
            waited()
        assert ledger.seconds() == {"compiling and checking": 30.0}
    else:
        waited()
        assert ledger.seconds() == {
            "starting and importing": 6.0, "preparing": 12.0, "compiling and checking": 12.0,
        }  # fmt: skip
    with ledger.spend(TimeKind.CHECK), ledger.wait():  # nobody works
        clock.pass_(5)
    assert ledger.seconds()["compiling and checking"] == (35.0 if failing else 17.0)


def test_the_line_tells_the_share_of_the_harness():
    seconds = {
        TimeKind.TURNS: 93.0,
        TimeKind.START: 1.0,
        TimeKind.WAITING: 2.0,
        TimeKind.REPORT: 3.0,
        TimeKind.REST: 1.0,
    }
    run = {"seconds": {str(kind): s for kind, s in seconds.items()}}
    assert overhead(seconds_of(run)) == pytest.approx(0.04)
    assert time_in_words(run) == (
        "Of 100 s: starting and importing 1.0 %, timed calls 93.0 %, waiting between turns 2.0 %; harness 4.0 % "
        "(report 3.0 s, the rest 1.0 s)"
    )
    unwritten = time_in_words({"seconds": {str(TimeKind.TURNS): 9.0, str(TimeKind.REST): 1.0}})
    assert unwritten == "Of 10 s: timed calls 90.0 %; harness 10.0 % (the rest 1.0 s), the report not yet counted"
    assert time_in_words({}) is None
    assert time_in_words({"seconds": "damaged"}) is None
    assert time_in_words({"seconds": {"timed calls": "x"}}) is None


def test_the_harness_is_all_that_is_no_work():
    assert set(TimeKind) - set(WORK) == {TimeKind.DATA, TimeKind.AROUND, TimeKind.STOP, TimeKind.REPORT, TimeKind.REST}
    assert account.overhead({}) == 0
