"""One way to time a case: checked, compiled, then timed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from cases import Case, Work
from facts import facts

LIMIT = 3e-6  # relative error of a kernel in float32 that sums up to 6400 products, by norm


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """Stored with every result: machine, libraries, commit, threads, kernels."""
    machine_info["rnnbench"] = facts()


def check(work: Work) -> None:
    """Compare the answer of the last call with NumPy in float64; without one, all of it must be finite."""
    answer, expected = work.answer(), work.expected()
    for name, got in answer.items():
        assert np.isfinite(got).all(), name
        if name in expected:
            ref = expected[name]
            error = np.linalg.norm(got - ref) / np.linalg.norm(ref)
            assert error <= LIMIT, f"{name} is off by {error:.1e}; the limit is {LIMIT:.0e}"


@pytest.fixture
def measure(benchmark) -> Callable[..., Work]:
    """Time a case: `measure(case, rounds=30)`.

    pytest-benchmark would calibrate by the first call, compiling included; hence `pedantic` after a call of our own.
    """

    def run(case: Case, rounds: int = 30) -> Work:
        work = case.build()
        if not case.once:
            work.before(0)
            work.call()  # compile
            check(work)
        benchmark.extra_info |= {"times": work.times, **work.notes}
        benchmark.group = case.group
        setup = partial(work.before, 0)
        benchmark.pedantic(work.call, setup=setup, rounds=rounds, warmup_rounds=0 if case.once else 2)
        if benchmark.stats is not None:  # None where benchmarks are disabled
            seconds = benchmark.stats.stats.median / work.times
            benchmark.extra_info["seconds_a_time"] = seconds
            for name, count in (("GFLOP/s", work.flops), ("GB/s", work.bytes)):
                if count:
                    benchmark.extra_info[name] = round(count / seconds / 1e9, 2)
        return work

    return run
