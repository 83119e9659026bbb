"""The clock, with a clock of its own."""

from __future__ import annotations

import time

import numpy as np
import pytest

from rnnbench.backends.numpy import NumpyBackend
from rnnbench.harness.clock import SETTLE_NS, DeviceTimes, Turn, begin_turn, time_turn, warmups
from rnnbench.model import Pass
from tests.helpers import random_data, random_params, small_problem


class FakeClock:
    """Time goes on only when a pass runs; each call of it takes `cost`."""

    def __init__(self, cost):
        self.now, self.cost = 0, cost

    def __call__(self):
        return self.now


class Spy:
    """A session that notes what is asked of it, and lets time pass."""

    def __init__(self, clock):
        self.clock, self.calls = clock, []

    def __getattr__(self, name):
        def call(*arguments):
            self.calls.append((name, *arguments))
            if name in ("gradient", "synchronize", "train_epoch"):
                self.clock.now += self.clock.cost
            return (lambda: self.train_epoch(*arguments)) if name == "epoch_of" else None

        return call


def test_a_sample_is_the_call_and_its_synchronisation():
    clock = FakeClock(cost=5)
    spy = Spy(clock)
    assert time_turn(spy, Pass.GRADIENT, Turn(1.0, 2, 4), batches=3, clock=clock) == [10] * 4
    assert [c for c in spy.calls if c[0] == "select"] == [("select", i) for i in (0, 1, 2, 0)]
    assert [c[0] for c in spy.calls] == ["select", "gradient", "synchronize"] * 4


@pytest.mark.parametrize(
    ("seconds", "least", "calls"),
    [(1.0, 0.0, 4), (1.0, 1e-7, 10), (1.0, 3e-8, 4), (6e-8, 1e-7, 6), (3e-8, 1e-7, 3), (0.0, 1e-7, 2)],
)
def test_a_turn_of_short_calls_lasts_until_they_are_steady(seconds, least, calls):
    """Of 10 ns each: more than four where they are over too soon, and never longer than the turn may be."""
    clock = FakeClock(cost=5)
    turn = Turn(seconds, min_calls=2, max_calls=4, least=least)
    assert len(time_turn(Spy(clock), Pass.GRADIENT, turn, batches=3, clock=clock)) == calls


class Marks:
    """A device's clock that notes what is asked of it between the calls of the session."""

    def __init__(self, spy):
        self.calls, self.read = spy.calls, 0

    def start(self):
        self.calls.append(("start",))

    def stop(self):
        self.calls.append(("stop",))

    def nanoseconds(self):
        self.calls.append(("nanoseconds",))
        self.read += 1
        return self.read


def test_the_device_is_marked_inside_a_sample_and_read_after_it():
    clock = FakeClock(cost=5)
    spy = Spy(clock)
    device = DeviceTimes(Marks(spy))
    samples = time_turn(spy, Pass.GRADIENT, Turn(1.0, 2, 3), batches=1, clock=clock, device=device)
    assert samples == [10] * 3
    assert device.ns == [1, 2, 3]
    order = ["select", "start", "gradient", "stop", "synchronize", "nanoseconds"]
    assert [c[0] for c in spy.calls] == order * 3


@pytest.mark.parametrize("cost_ms", [0, 2, 9])
def test_a_turn_begins_no_sooner_than_threads_of_others_sleep(cost_ms):
    """What the reset takes is a part of that time."""
    spy = Spy(FakeClock(0))
    spy.reset = lambda: time.sleep(cost_ms / 1e3)
    begun = time.perf_counter_ns()
    slept = begin_turn(spy)
    assert time.perf_counter_ns() - begun >= SETTLE_NS
    assert 0 <= slept <= max(0, SETTLE_NS - cost_ms * 1_000_000)
    assert spy.calls == [("select", 0), ("synchronize",)]
    assert begin_turn(spy, idle_ns=SETTLE_NS) == 0


def test_a_turn_ends_with_its_time_but_not_before_its_least_calls():
    for cost, expected in ((400_000_000, 2), (100_000_000, 5), (1_000_000_000, 2)):
        clock = FakeClock(cost // 2)
        assert len(time_turn(Spy(clock), Pass.GRADIENT, Turn(0.5, 2, 50), batches=1, clock=clock)) == expected


def test_an_epoch_needs_an_order_and_gets_it():
    clock = FakeClock(1)
    spy = Spy(clock)
    order = np.arange(4)
    time_turn(spy, Pass.EPOCH, Turn(1.0, 1, 1), 1, order, clock=clock)
    assert any(c[0] == "train_epoch" and c[1] is order for c in spy.calls)
    with pytest.raises(ValueError, match="needs an order"):
        time_turn(spy, Pass.EPOCH, Turn(1.0, 1, 1), 1, None, clock=clock)


def test_warmups_are_the_first_of_many_and_never_all():
    assert warmups([5]) == 0
    assert warmups([1000, 1000]) == 1
    assert warmups([1000] * 50) == 3
    assert warmups([20_000_000, 1, 1]) == 1
    assert warmups([6_000_000] * 10) == 2


def test_every_turn_starts_from_the_initial_parameters():
    problem = small_problem()
    session = NumpyBackend().prepare(problem, random_params(problem), random_data(problem))
    losses = []
    for _ in range(2):
        begin_turn(session)
        time_turn(session, Pass.TRAIN_STEP, Turn(1.0, 7, 7), batches=3)
        losses.append(session.fetch().loss)
    assert losses[0] == losses[1]


def test_no_call_takes_no_time():
    """A coarse clock may not move during a call; 0 would be read back as damage."""
    spy = Spy(FakeClock(0))
    device = DeviceTimes(Marks(spy))
    device.clock.nanoseconds = lambda: 0
    samples = time_turn(spy, Pass.FORWARD, Turn(0.0, 3, 3), 1, clock=lambda: 7, device=device)
    assert samples == [1, 1, 1]
    assert device.ns == [1, 1, 1]
