"""A slow-down planted in real processes, for `python validation/claims.py planted`; its backends are served from here.

In each run `numpy` takes turns with two backends of the same code, of which `planted` spins after each call for a share
of that call's own time and `unchanged` does not.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this tree's rnnbench, whichever is installed

import rnnbench
from rnnbench import backends
from rnnbench.analysis import compare
from rnnbench.analysis.stats import Interval, Metric, ratio_of, summaries
from rnnbench.backends.base import Session
from rnnbench.backends.numpy import NumpyBackend
from rnnbench.data import Data
from rnnbench.harness.clock import Turn
from rnnbench.harness.plan import EFFORTS, Effort
from rnnbench.model import Problem
from rnnbench.params import Params
from rnnbench.records.record import Mode

BASE, CASES = "numpy", ("planted", "unchanged")
TURN = Turn(seconds=0.03, min_calls=3, max_calls=30)


def slowed(call: Callable[[], None], share: float) -> Callable[[], None]:
    """The call, and after it a busy loop for that share of the time that it took."""

    def run() -> None:
        start = time.perf_counter_ns()
        call()
        end = time.perf_counter_ns()
        end += int(share * (end - start))
        while time.perf_counter_ns() < end:
            pass

    return run


class Unchanged(NumpyBackend):
    """As `numpy`, in a process of its own."""

    name = "unchanged"


class Planted(NumpyBackend):
    """As `numpy`, but for the loop, whose share is in RNNBENCH_PLANTED."""

    name = "planted"

    def _prepare(self, problem: Problem, params: Params, data: Data) -> Session:
        session = super()._prepare(problem, params, data)
        session.forward = slowed(session.forward, float(os.environ["RNNBENCH_PLANTED"]))  # type: ignore[method-assign]
        return session


def planted_run(
    seed: int, share: float, launches: int = 10, rounds: int = 20
) -> dict[str, tuple[Interval, compare.Ratio]]:
    """Case -> its ratio to `numpy` by rounds, and as `compare` would have it, given the launches as two runs.

    RuntimeError where a process failed.
    """
    for name in CASES:
        target = f"planted:{name.capitalize()}"
        backends.REGISTRY[name] = replace(backends.REGISTRY[BASE], target=target, summary="numpy, to be told from it")
    EFFORTS[Mode.QUICK] = Effort(launches, rounds, TURN, costs=False)
    paths = (str(Path(__file__).resolve().parent), os.environ.get("PYTHONPATH"))
    os.environ |= {"RNNBENCH_PLANTED": str(share), "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    with tempfile.TemporaryDirectory(prefix="rnnbench-", ignore_cleanup_errors=True) as folder:
        run = rnnbench.run("parity", [BASE, *CASES], passes=["forward"], mode="quick", training=False, seed=seed,
                           threads=1, output=Path(folder) / "run", progress=False)  # fmt: skip
    answers = {s.backend: s for s in summaries(run.loaded.records)}
    if failed := [f"{name}: {s.status}, {s.reason}" for name, s in answers.items() if not s.ranked]:
        raise RuntimeError("; ".join(failed))
    logs = {name: compare.launch_logs(s.records, Metric.MEDIAN) for name, s in answers.items()}
    found = {}
    for name in CASES:
        ratio, two = ratio_of(answers[name].turns, answers[BASE].turns), compare.ratio_of_runs(logs[BASE], logs[name])
        assert ratio is not None
        found[name] = ratio, replace(two, q=two.p)
    return found
