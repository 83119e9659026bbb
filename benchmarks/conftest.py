"""One way to time a case: checked, compiled, then timed."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from cases import Case, Work, check, facts
from rnnbench.machine.fingerprint import git

STATE = ("git", "load", "clock")  # facts of the moment, not of the machine
RATES: dict[str, str] = {}  # case -> what it reached, by the median


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How much a second, where somebody counts it."""
    if RATES:
        terminalreporter.section("arithmetic and memory", sep="-")
        for name, rate in RATES.items():
            terminalreporter.write_line(f"{name:<60} {rate}")


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """Stored with every result: machine, libraries, threads, kernels. pytest-benchmark warns where it differs."""
    machine_info["rnnbench"] = {name: fact for name, fact in facts().items() if name not in STATE}
    machine_info["rnnbench"]["cpu"].pop("mhz")


def pytest_benchmark_update_commit_info(config: pytest.Config, commit_info: dict[str, Any]) -> None:
    """The commit of this checkout, wherever pytest was started."""
    commit_info |= {f"rnnbench_{name}": fact for name, fact in (git() or {}).items()}


def pytest_benchmark_update_json(config: pytest.Config, benchmarks: Any, output_json: dict[str, Any]) -> None:
    """How busy the machine was, which is not the same twice."""
    output_json["load"] = list(os.getloadavg())


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
                    RATES[str(case)] = f"{benchmark.extra_info[name]:8.2f} {name}"
        return work

    return run
