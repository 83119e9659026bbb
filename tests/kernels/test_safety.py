"""Whatever a caller does, kernels read and write what is theirs: what could crash runs in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import tracemalloc

import numpy as np
import pytest

from rnnbench.backends import numba as numba_backend
from rnnbench.backends.numba import NumbaBackend
from rnnbench.kernels.cpu.thread_pool import ThreadPool, open_stage, take_share
from rnnbench.model import DType, Head, Loss
from tests.helpers import STRUCTURES, assert_same_bits, oracle, random_data, random_params, small_problem, threads


def runs(code: str) -> str:
    """What a program prints that ends well, faults of memory included."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", code], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


# Many small predictions right after a call of four threads, of which two are then still awake.
FEWER_THREADS = """
import numpy as np
from rnnbench.backends.numba import NumbaBackend
from tests.helpers import random_data, random_params, small_problem, threads

problem = small_problem(B=32, T=20, H=33, E=9, V=50)
many, few = [], []
for count, found in ((4, many), (2, few)):
    with threads(count):
        found.append(NumbaBackend().prepare(problem, random_params(problem), random_data(problem)))
rows = random_data(problem, rows=24 * 7).inputs
with threads(2):
    first = few[0].predict(rows)
    for _ in range(20):
        many[0].gradient()
        np.testing.assert_array_equal(few[0].predict(rows), first)
print("whole")
"""

# Every method of one session from two threads at once; a gradient of the same batch is the same bits each time.
TWO_THREADS = """
import threading, time
import numpy as np
from rnnbench.backends.numba import NumbaBackend
from rnnbench.model import Optimizer, Train
from tests.helpers import random_data, random_params, small_problem, threads

problem = small_problem(B=32, T=12, H=33, E=9, V=50, train=Train(Optimizer.SGD, learning_rate=1e-300))
with threads(2):
    session = NumbaBackend().prepare(problem, random_params(problem), random_data(problem))
session.gradient()
first, rows = session.fetch(), random_data(problem, rows=60).inputs
logits, failed = session.predict(rows), []
state = np.full((32, 33), 0.25)

def work(number):
    end = time.monotonic() + 1.5
    try:
        while time.monotonic() < end:
            session.start_from({"h": state} if number else None)
            session.start_from(None)
            session.train_epoch(np.arange(5 + number))
            session.poison()
            session.gradient()
            session.fetch()
            np.testing.assert_array_equal(session.predict(rows), logits)
            session.reset()
    except BaseException as error:
        failed.append(error)

pair = [threading.Thread(target=work, args=(number,)) for number in range(2)]
for thread in pair:
    thread.start()
for thread in pair:
    thread.join()
assert not failed, failed
session.start_from(None)
session.gradient()
again = session.fetch()
assert again.loss == first.loss
assert all(np.array_equal(again.grads[name], first.grads[name]) for name in first.grads)
print("whole")
"""


@pytest.mark.parametrize("code", [FEWER_THREADS, TWO_THREADS], ids=["fewer threads", "two Python threads"])
def test_no_call_overruns_another(code):
    assert runs(code) == "whole\n"


def test_the_whole_protocol_at_random_between_pages_that_may_not_be_touched():
    """Seeded; `python -m tests.kernels.fuzz` goes on for as long as one likes."""
    given = ["--problems", "40", "--seconds", "8"]
    told = runs(f"import sys; sys.argv[1:] = {given}; from tests.kernels import fuzz; fuzz.main()")
    assert told.endswith("problems: nothing outside, nothing wrong\n")


@pytest.mark.parametrize("index", [-1, 24])
def test_a_number_read_outside_of_a_guarded_array_ends_the_process(index):
    code = """
import random
from numpy.lib.stride_tricks import as_strided
from tests.kernels import fuzz
for side in range(8):
    array = fuzz.guarded(24)
    as_strided(array[0 if index < 0 else 23 :], (2,), (8 * (-1 if index < 0 else 1),))[1]
"""
    with pytest.raises(AssertionError, match="Segmentation fault"):
        runs(code.replace("index", str(index)))


def test_a_thread_that_a_call_has_no_room_for_takes_no_share():
    made = ThreadPool()
    open_stage(made.address, 5, 2)
    assert [take_share(made.address, thread) for thread in (2, 3, 1, 0, 2, 1)] == [-1, -1, 4, 0, -1, 3]


def test_two_sessions_prepared_at_once_make_each_thread_once():
    for _ in range(20):
        made, start = ThreadPool(), threading.Barrier(4)

        def prepared(made=made, start=start):
            start.wait()
            made.grow(4)

        each = [threading.Thread(target=prepared) for _ in range(4)]
        for thread in each:
            thread.start()
        for thread in each:
            thread.join()
        assert [thread.number for thread in made.threads] == [1, 2, 3]


@pytest.mark.parametrize("loss", list(Loss))
def test_what_was_checked_is_what_is_read(loss):
    """Rows, targets, lengths and orders are copied where they say where to read: the caller may use its arrays anew."""
    problem = small_problem(loss=loss, O=3, mean_length=3.5)
    data = random_data(problem)
    data = type(data)(data.inputs, data.targets, data.lengths.astype(np.int32))
    ours, exact = (of(problem, random_params(problem), data) for of in (NumbaBackend().prepare, oracle))
    order = np.arange(14)
    done = ours.epoch_of(order)
    exact.gradient()
    expected = exact.fetch()
    exact.epoch_of(order.copy())()
    epoch = exact.fetch()
    for array in (data.inputs, data.lengths, order, *([data.targets] if data.targets.dtype.kind == "i" else [])):
        array.fill(1 << 30)
    ours.gradient()
    assert abs(ours.fetch().loss - expected.loss) < 1e-12
    done()
    assert abs(ours.fetch().loss - epoch.loss) < 1e-9


@pytest.mark.parametrize("structure", [{}, *STRUCTURES.values()], ids=["plain", *STRUCTURES])
@pytest.mark.parametrize("cell", ["rnn", "lstm"])
def test_a_prediction_of_few_rows_projects_their_tokens_alone(structure, cell):
    problem = small_problem(cell=cell, V=200_000, E=2, H=40, dtype=DType.FLOAT32, head=Head.EVERY, **structure)
    params, data = random_params(problem), random_data(problem)
    ours, exact = (of(problem, params, data) for of in (NumbaBackend().prepare, oracle))
    rows = random_data(problem, rows=4, seed=3)
    tracemalloc.start()
    try:
        found = ours.predict(rows.inputs, rows.lengths)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * 200_000 * 40 / 4, "a quarter of the table"
    np.testing.assert_allclose(found, exact.predict(rows.inputs, rows.lengths), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("V", [3, 40, None], ids=["every token", "tokens of the rows", "dense"])
def test_more_rows_than_a_stage_has_shares_are_predicted_in_parts(V, monkeypatch):
    problem = small_problem(V=V, T=2, mean_length=1.0)
    session = NumbaBackend().prepare(problem, random_params(problem), random_data(problem))
    rows = random_data(problem, rows=24 * 5 + 7)
    whole = session.predict(rows.inputs, rows.lengths)
    monkeypatch.setattr(numba_backend, "MAX_SHARES", 2)
    np.testing.assert_allclose(session.predict(rows.inputs, rows.lengths), whole, rtol=1e-13)


def test_as_many_shares_as_a_ticket_holds_are_each_taken_once():
    """1.58 million rows would be one share more."""
    pool = ThreadPool().address
    open_stage(pool, numba_backend.MAX_SHARES, 3)
    taken = [take_share(pool, n % 3) for n in range(numba_backend.MAX_SHARES)]
    assert sorted(taken) == list(range(numba_backend.MAX_SHARES))
    assert [take_share(pool, n) for n in range(3)] == [-1] * 3


def test_an_interrupted_epoch_leaves_the_states_that_were_given(monkeypatch):
    problem = small_problem()
    session = NumbaBackend().prepare(problem, random_params(problem), random_data(problem))
    session.start_from({"h": np.full((4, 5), 0.5)})
    session.forward()
    before = session.fetch()

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(session.runner, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            session.train_epoch(np.arange(4))
    session.forward()
    assert_same_bits(before, session.fetch())
    with threads(1):
        assert np.isfinite(session.predict(random_data(problem).inputs)).all()
