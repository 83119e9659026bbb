"""Threads that help: they wait when there is nothing to do, are woken for what is worth it, and change no answer."""

from __future__ import annotations

import os
import threading
import time

import numba
import numpy as np
import pytest

from rnnbench import backends
from rnnbench.kernels.cpu import thread_pool as pool_module
from rnnbench.kernels.cpu.thread_pool import ThreadPool, open_stage, take_share, thread_pool
from rnnbench.model import DType, Head, Loss, Truncation
from tests.helpers import assert_agrees, oracle, random_data, random_params, small_problem, threads


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


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system pins no threads")
def test_helpers_have_other_cores_though_a_library_has_pinned_the_caller(session):
    cores = os.sched_getaffinity(0)
    if len(cores) < 2:
        pytest.skip("one core is all there is")
    (thread, *_) = thread_pool().threads
    number = thread.thread.native_id
    try:
        for pinned in (0, number):  # as OMP_PROC_BIND does, and a thread that is started by a pinned one
            os.sched_setaffinity(pinned, {min(cores)})
        assert until(lambda: thread.waiting)
        session.gradient()
        assert until(lambda: os.sched_getaffinity(number) == cores - {min(cores)})
    finally:
        os.sched_setaffinity(0, cores)


def test_threads_wait_and_are_woken_for_large_calls_only(session):
    (thread, *_) = thread_pool().threads
    session.gradient()
    assert until(lambda: thread.waiting)
    pool = thread_pool()
    pool.begin_call(2, session.record.address, session.runner.do_share, wake=False)
    assert thread.waiting
    pool.begin_call(2, session.record.address, session.runner.do_share, wake=True)
    assert not thread.waiting
    pool.begin_call(
        2, session.record.address, session.runner.do_share, wake=True
    )  # awake, or about to be: no second time
    time.sleep(0.1)
    assert not thread.waiting  # the call lasts
    pool.end_call()
    assert until(lambda: thread.waiting)


def test_the_caller_takes_the_first_shares_and_the_others_the_last():
    made = ThreadPool()
    pool = made.address
    for _ in range(3):
        open_stage(pool, 5, 3)
        assert [take_share(pool, thread) for thread in (0, 1, 2, 0, 1, 0, 2)] == [0, 4, 3, 1, 2, -1, -1]


def test_what_is_worth_two_workers_is_worth_waking_a_thread(monkeypatch):
    """The way back counts: a gradient of a batch that is worth one worker forward."""
    woken: list[bool] = []
    monkeypatch.setattr(ThreadPool, "begin_call", lambda *arguments: woken.append(arguments[-1]))
    for B, forward, gradient in [(5, 1, 1), (7, 1, 2), (16, 2, 2)]:
        problem = small_problem(B=B, T=40, H=32, dtype=DType.FLOAT32)
        with threads(2):
            session = backends.load("numba").prepare(problem, random_params(problem), random_data(problem))
        for name, workers in [("forward", forward), ("gradient", gradient)]:
            getattr(session, name)()
            assert session.record.fields["row_shares"][0] == workers
            assert woken.pop() == (workers == 2)


def test_a_call_without_other_threads_does_all_shares_itself(session, monkeypatch):
    session.gradient()
    helped = session.fetch()
    monkeypatch.setattr(ThreadPool, "begin_call", lambda *_: None)  # no thread is told of it or woken
    assert until(lambda: thread_pool().threads[0].waiting)
    session.gradient()
    alone = session.fetch()
    assert alone.loss == helped.loss
    assert all(np.array_equal(alone.grads[name], helped.grads[name]) for name in helped.grads)


WIDE = [
    small_problem(B=3, T=6, H=264, V=None, E=5, dtype=DType.FLOAT64),
    small_problem(B=1, T=9, H=257, V=11, dtype=DType.FLOAT64),
    small_problem(B=2, T=9, H=256, V=None, dtype=DType.FLOAT64, head=Head.EVERY, truncation=Truncation(4, 2)),
    small_problem(B=5, T=300, H=256, V=None, dtype=DType.FLOAT64, head=Head.EVERY, truncation=Truncation(20, 20)),
    small_problem(B=5, T=3, H=300, O=4, dtype=DType.FLOAT32, loss=Loss.CATEGORICAL_CROSS_ENTROPY),
]


@pytest.mark.parametrize("problem", WIDE, ids=lambda p: f"B{p.B} T{p.T} H{p.model.H} {p.truncation}")
def test_workers_share_the_columns_of_a_step_where_rows_are_few(session, problem):
    params, data = random_params(problem), random_data(problem)
    wide = backends.load("numba").prepare(problem, params, data)
    exact = oracle(problem, params, data)
    for name in ("forward", "gradient", "train_step"):
        getattr(wide, name)()
        getattr(exact, name)()
        assert_agrees(exact.fetch(), wide.fetch(), problem.dtype)
    assert wide.record.fields["column_shares"][0] == 2
    first = wide.fetch()
    wide.reset()
    with thread_pool().in_use:  # alone: the same shares, one after the other
        wide.train_step()
    alone = wide.fetch()
    assert alone.loss == first.loss
    assert all(np.array_equal(alone.params[name], first.params[name]) for name in first.params)


def test_a_call_beside_another_computes_alone(session):
    session.gradient()
    helped = session.fetch()
    with thread_pool().in_use:
        session.gradient()
        assert session.record.fields["pool"][0] == 0
    alone = session.fetch()
    assert all(np.array_equal(alone.grads[name], helped.grads[name]) for name in helped.grads)


def test_a_thread_that_was_taken_for_awake_does_not_sleep_through_the_call(monkeypatch):
    """It had stopped looking for shares when the call began, and was not waiting yet: nobody wakes it."""
    stops, looks = threading.Event(), []

    def look(pool, number):
        looks.append(number)
        stops.wait(10)

    monkeypatch.setattr(pool_module, "_take_shares", look)
    pool = pool_module.ThreadPool()
    pool.grow(2)
    assert until(lambda: pool.threads[0].waiting)
    pool.begin_call(2, 0, 0, wake=True)
    assert until(lambda: len(looks) == 1)
    pool.end_call()
    pool.begin_call(2, 0, 0, wake=True)
    stops.set()
    assert until(lambda: len(looks) > 1)
    pool.end_call()
    assert until(lambda: pool.threads[0].waiting)
