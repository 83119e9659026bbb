"""Ceilings: the best of what a clock saw, measured in a process that may fail, near what NumPy reaches."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from rnnbench.kernels.cpu.simd import EXPLICIT
from rnnbench.machine import peak
from rnnbench.machine.peak_worker import Ceilings, NumpyLoops, best, ceilings
from rnnbench.model import DType


class Steps:
    """A clock that only work moves on, by the times that it is given."""

    def __init__(self, *nanoseconds):
        self.now, self.costs = 0, list(nanoseconds)

    def __call__(self):
        return self.now

    def work(self, _):
        self.now += self.costs.pop(0) if self.costs else 10**9
        return 100


def test_the_best_trial_counts():
    clock = Steps(50, 10, 40, 80)
    with ThreadPoolExecutor(1) as pool:
        assert best(clock.work, pool, 1, 0.0, clock) == 100 * 1e9 / 10
    assert clock.costs == [80]  # at least three trials, and no more where there is no time


def test_work_of_all_threads_is_over_the_time_from_first_start_to_last_end():
    def work(i):
        time.sleep(0.02)
        return 1000 * (i + 1)

    with ThreadPoolExecutor(3) as pool:
        assert 0.3 * 6000 / 0.02 < best(work, pool, 3, 0.0) < 6000 / 0.02


class Worse(NumpyLoops):
    """Two threads get in each other's way."""

    def read(self, x):
        time.sleep(0.001 if x.size > 5000 else 0.1)
        return x.nbytes


def test_more_threads_reach_no_less():
    one, two = ceilings(Worse(), "float32", (1, 2), np.empty(8000, np.float32), 0.0)
    assert (one.threads, two.threads) == (1, 2)
    assert two.read == one.read
    assert two.flops >= one.flops
    assert two.mixed >= one.mixed


def matmul_rate(dtype, size=512):
    a = np.ones((size, size), dtype)
    took = []
    for _ in range(9):
        start = time.perf_counter()
        a @ a
        took.append(time.perf_counter() - start)
    return 2 * size**3 / min(took)


@pytest.mark.parametrize("dtype", list(DType))
def test_the_peak_is_measured_and_numpy_is_not_far_above_it(dtype):
    """A busy machine may hide the peak from us, or half of it; a wrong count of operations would show all the same."""
    found = peak.measure([dtype], 2, quick=True)
    one, two = found.rates[dtype]
    assert (one.threads, two.threads) == (1, 2)
    assert found.roof(dtype) == two
    assert 0.2 * one.flops < matmul_rate(str(dtype)) < 2 * one.flops
    assert 1e8 < one.read < 1e12
    assert 1e8 < one.mixed < 1e12
    assert ("bit multiply-adds" in found.method) == EXPLICIT


def test_without_vectors_numpy_is_asked_and_named(monkeypatch):
    monkeypatch.setenv("RNNBENCH_PLAIN_KERNELS", "1")
    found = peak.measure([DType.FLOAT32], 1, quick=True)
    assert found.method.startswith("NumPy, for want of vectors")
    assert [r.threads for r in found.rates[DType.FLOAT32]] == [1]
    assert found.rates[DType.FLOAT32][0].flops > 1e8


def test_memory_is_measured_over_more_than_the_caches():
    cache = peak.last_level_cache()
    assert peak.array_bytes() >= peak.FEWEST_CACHES * cache
    assert peak.array_bytes() >= min(peak.CACHES * cache, peak.MANY_BYTES)


def test_a_process_that_fails_is_said(monkeypatch):
    with pytest.raises(peak.PeakUnknown, match="float16"):
        peak.measure(["float16"], 1, quick=True)
    monkeypatch.setattr(peak, "TIMEOUT", 0.01)
    with pytest.raises(peak.PeakUnknown, match=r"longer than 0\.01 s"):
        peak.measure([DType.FLOAT32], 1)


def test_the_answer_is_plain_json():
    found = json.loads(json.dumps(Ceilings().peak(["float32"], [1], 1 << 20, 0.0)))["peak"]
    assert "memory over 1 MiB" in found["method"]
    assert set(found["rates"]["float32"][0]) == {"threads", "flops", "read", "mixed"}
