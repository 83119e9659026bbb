"""Subnormals are zero inside the kernels, in every thread, and the caller's floating-point mode is as it was."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit, prange

from rnnbench.backends.numba import NumbaBackend
from rnnbench.kernels.cpu import flush
from rnnbench.model import DType
from tests.helpers import random_data, random_params, small_problem

pytestmark = pytest.mark.skipif(not flush.CAN_FLUSH, reason="this processor has no flush mode that we know")

CONTROL = 0xFFC0 if flush._X86 else 0xFFFFFFFF  # without the x86 flags that record what has happened


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
