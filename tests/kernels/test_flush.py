"""Subnormals are zero inside the kernels, in every thread, and the caller's floating-point mode is as it was."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numba import njit, prange

from rnnbench.backends.numba import NumbaBackend
from rnnbench.kernels.cpu import flush
from rnnbench.model import DType
from tests.helpers import random_data, random_params, small_problem, threads

pytestmark = pytest.mark.skipif(not flush.CAN_FLUSH, reason="this processor has no flush mode that we know")

CONTROL = 0xFFC0 if flush.X86 else 0xFFFFFFFF  # without the x86 flags that record what has happened


@njit
def half_of(x, flushing):
    mode = flush.start_flushing(flushing)
    for i in range(x.size):
        x[i] = x[i] * x.dtype.type(0.5)
    flush.restore(mode)
    return mode


@njit
def mode_here():
    return flush.read_mode()


@njit
def start_flushing_here():
    return flush.start_flushing(True)


@njit
def restore_here(mode):
    flush.restore(mode)


@njit(parallel=True)
def modes(n):
    out = np.zeros(n, np.uint64)
    for i in prange(n):
        out[i] = flush.read_mode()
    return out


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_flushed_only_where_asked(dtype):
    tiny = np.finfo(dtype).tiny
    kept, flushed = np.full(40, tiny, dtype), np.full(40, tiny, dtype)
    half_of(kept, False)
    half_of(flushed, True)
    assert (kept == tiny / 2).all()
    assert (flushed == 0).all()


def test_caller_keeps_its_mode():
    before = mode_here() & CONTROL
    half_of(np.ones(3), True)
    assert mode_here() & CONTROL == before
    assert before & flush.FLUSH_BITS == 0


def test_no_thread_is_left_flushing_after_a_pass():
    problem = small_problem(B=64, T=40, H=64, dtype=DType.FLOAT32)
    session = NumbaBackend().prepare(problem, random_params(problem), random_data(problem))
    session.train_step()
    session.train_epoch(np.arange(100))
    assert (modes(64) & np.uint64(flush.FLUSH_BITS) == 0).all()
    assert np.float32(np.finfo(np.float32).tiny) * np.float32(0.5) > 0


def halves() -> np.ndarray:
    """Half of the least normal number, by NumPy in the calling thread: a subnormal, or 0 where it flushes."""
    return np.array([np.finfo(np.float32).tiny], np.float32) * np.float32(0.5)


def big_session(count: int = 2, T: int = 40):
    problem = small_problem(B=64, T=T, H=64, dtype=DType.FLOAT32)
    with threads(count):
        return NumbaBackend().prepare(problem, random_params(problem), random_data(problem))


PASSES = {
    "forward": lambda session: session.forward(),
    "gradient": lambda session: session.gradient(),
    "train_step": lambda session: session.train_step(),
    "train_epoch": lambda session: session.train_epoch(np.arange(100)),
    "predict": lambda session: session.predict(np.zeros((70, 40), np.int32)),
}


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("call", PASSES.values(), ids=PASSES.keys())
def test_a_caller_has_its_subnormals_before_and_after_a_pass(call, count):
    session, before = big_session(count), mode_here() & CONTROL
    assert halves() > 0
    call(session)
    assert halves() > 0
    assert mode_here() & CONTROL == before


def test_a_caller_in_another_thread_has_its_subnormals():
    def work() -> list[bool]:
        session, found = big_session(), [bool(halves() > 0)]
        for call in PASSES.values():
            call(session)
            found.append(bool(halves() > 0))
        return found

    with ThreadPoolExecutor(1) as pool:
        assert all(pool.submit(work).result())


@pytest.mark.parametrize("call", PASSES.values(), ids=PASSES.keys())
def test_a_caller_who_flushes_still_does(call):
    session = big_session()
    mode = start_flushing_here()
    try:
        call(session)
        after, half = mode_here(), halves()
    finally:
        restore_here(mode)
    assert after & flush.FLUSH_BITS == flush.FLUSH_BITS
    assert half == 0
    assert halves() > 0


class Stopped(Exception):
    """Raised by a signal in the middle of a pass."""


@pytest.mark.skipif(not hasattr(signal, "SIGVTALRM"), reason="this system has no timer of processor time")
def test_a_caller_has_its_subnormals_after_an_exception():
    """Of a refused problem, and of a signal that arrives while the kernels run, as Ctrl-C does."""
    problem = small_problem(dtype=DType.FLOAT32)
    data = random_data(problem)
    with pytest.raises(ValueError, match="outside the vocabulary"):
        NumbaBackend().prepare(problem, random_params(problem), type(data)(data.inputs + 11, data.targets))
    assert halves() > 0

    def stop(*_) -> None:
        raise Stopped

    session = big_session(T=200)
    order = np.arange(200).repeat(20)
    before = signal.signal(signal.SIGVTALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.05)
        with pytest.raises(Stopped):
            session.train_epoch(order)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
    assert session.record.fields["step"][0] == 1 + -(-order.size // 64)
    assert halves() > 0
    assert (modes(64) & np.uint64(flush.FLUSH_BITS) == 0).all()
