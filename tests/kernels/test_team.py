"""Threads that help: they sleep when there is nothing to do, wake for what is worth it, and change no answer."""

from __future__ import annotations

import time

import numba
import numpy as np
import pytest

from rnnbench import backends
from rnnbench.kernels.cpu.team import Team, team
from rnnbench.model import DType
from tests.helpers import random_data, random_params, small_problem


@pytest.fixture
def session():
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("one thread is all there is")
    before = numba.get_num_threads()
    numba.set_num_threads(2)
    problem = small_problem(B=32, T=60, H=64, dtype=DType.FLOAT32)
    yield backends.load("numba").prepare(problem, random_params(problem), random_data(problem))
    numba.set_num_threads(before)


def until(true, seconds=5.0):
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.002)
    return true()


def test_helpers_sleep_and_are_woken_for_large_calls_only(session):
    (helper, *_) = team().helpers
    session.gradient()
    assert until(lambda: helper.asleep)
    members = team()
    members.call(2, session.context.address, session.runner.work, wake=False)
    assert helper.asleep
    members.call(2, session.context.address, session.runner.work, wake=True)
    assert not helper.asleep
    members.call(2, session.context.address, session.runner.work, wake=True)  # awake, or about to be: no second time
    time.sleep(0.1)
    assert not helper.asleep  # the call lasts
    members.rest()
    assert until(lambda: helper.asleep)


def test_a_call_without_helpers_does_all_shares_itself(session, monkeypatch):
    session.gradient()
    helped = session.fetch()
    monkeypatch.setattr(Team, "call", lambda *_: None)  # nobody is told, nobody wakes
    assert until(lambda: team().helpers[0].asleep)
    session.gradient()
    alone = session.fetch()
    assert alone.loss == helped.loss
    assert all(np.array_equal(alone.grads[name], helped.grads[name]) for name in helped.grads)


def test_who_comes_while_another_leads_computes_alone(session):
    session.gradient()
    helped = session.fetch()
    with team().leading:
        session.gradient()
        assert session.context.fields["team"][0] == 0
    alone = session.fetch()
    assert all(np.array_equal(alone.grads[name], helped.grads[name]) for name in helped.grads)
