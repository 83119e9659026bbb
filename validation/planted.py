"""Is a planted slow-down found? `python validation/planted.py`: many runs of real processes, the truth known.

In each run `numpy` takes turns with two backends of the same code, of which `planted` spins after each call for a share
of that call's own time and `unchanged` does not. Counted is how often each is called slower than `numpy`: by ratios
within rounds, as a run ranks and the gate judges, and by `rnnbench compare`, which would be given the launches as two
runs and not as pairs.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this tree's rnnbench, whichever is installed

import rnnbench
from rnnbench import backends
from rnnbench.analysis import compare
from rnnbench.analysis.stats import Metric, ratio_of, summaries
from rnnbench.backends.base import Session
from rnnbench.backends.numpy import NumpyBackend
from rnnbench.data import Data
from rnnbench.harness.clock import Turn
from rnnbench.harness.plan import EFFORTS, Effort
from rnnbench.model import Problem
from rnnbench.params import Params
from rnnbench.records.record import Mode

HERE = Path(__file__).resolve().parent
OK, MISSED, USAGE, BROKEN, INTERRUPTED = 0, 1, 2, 3, 130
FOUND, FALSE = 0.95, 0.05  # of all tries: planted called slower at least, unchanged at most
BASE, CASES = "numpy", ("planted", "unchanged")
SECONDS = 0.03  # of a turn


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
    """As `numpy`, but for the loop."""

    name = "planted"

    def _prepare(self, problem: Problem, params: Params, data: Data) -> Session:
        session = super()._prepare(problem, params, data)
        session.forward = slowed(session.forward, float(os.environ["RNNBENCH_PLANTED"]))  # type: ignore[method-assign]
        return session


def one_try(seed: int, share: float, margin: float, launches: int, rounds: int) -> dict[str, dict[str, Any]]:
    """Case -> its verdict, its ratio with interval, and what two runs would have given. RuntimeError for a failure."""
    for name in CASES:
        target = f"planted:{name.capitalize()}"
        backends.REGISTRY[name] = replace(backends.REGISTRY[BASE], target=target, summary="numpy, to be told from it")
    EFFORTS[Mode.QUICK] = Effort(launches, rounds, Turn(SECONDS, 3, 30), costs=False)
    paths = (str(HERE), os.environ.get("PYTHONPATH"))
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
        ratio = ratio_of(answers[name].turns, answers[BASE].turns)
        assert ratio is not None
        two = compare.ratio_of_runs(logs[BASE], logs[name])
        found[name] = {
            "verdict": "slower" if ratio.low > 1 + margin else "not slower",
            "ratio": ratio.value, "low": ratio.low, "high": ratio.high,
            "of_two_runs": str(compare.judge(replace(two, q=two.p), margin)),
        }  # fmt: skip
    return found


def counted(done: Sequence[dict[str, Any]], case: str, key: str) -> int:
    """How many tries called a case slower."""
    return sum(one[case][key] == "slower" for one in done)


def summary(done: Sequence[dict[str, Any]]) -> str:
    """How often each case was called slower, with exact 95 % intervals (Clopper and Pearson, 1934)."""
    from scipy.stats import binomtest

    def share_of(case: str, key: str) -> str:
        count = counted(done, case, key)
        low, high = binomtest(count, len(done)).proportion_ci(0.95, method="exact")
        return f"{case} {count} of {len(done)} ({100 * low:.0f} to {100 * high:.0f} %)"

    within, apart = (", ".join(share_of(case, key) for case in CASES) for key in ("verdict", "of_two_runs"))
    return f"called slower: {within}; the same launches as two runs, compare: {apart}"


def code_of(done: Sequence[dict[str, Any]]) -> int:
    """Whether the planted ones were found and the unchanged ones let pass."""
    planted, unchanged = (counted(done, case, "verdict") / len(done) for case in CASES)
    return OK if planted >= FOUND and unchanged <= FALSE else MISSED


EPILOG = f"""\b
Examples:
  python validation/planted.py
  python validation/planted.py --tries 20 --share 0.05 --margin 0.01 --launches 12

\b
Exit codes:
  {OK}  planted was called slower in {FOUND:.0%} of the tries at least, unchanged in {FALSE:.0%} at most
  {MISSED}  it was not
  {USAGE}  an option is wrong
  {BROKEN}  a process failed
  {INTERRUPTED}  interrupted
"""


@click.command(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--tries", type=click.IntRange(1), default=100, show_default=True, help="Runs.")
@click.option("--share", type=click.FloatRange(0, min_open=True), default=0.1, show_default=True,
              help="How much slower planted is.")  # fmt: skip
@click.option("--margin", type=click.FloatRange(0, min_open=True), default=0.03, show_default=True,
              help="A slow-down up to this is let pass.")  # fmt: skip
@click.option("--launches", type=click.IntRange(3), default=10, show_default=True, help="Processes of each backend.")
@click.option("--rounds", type=click.IntRange(1), default=20, show_default=True, help="Rounds in each launch.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the first run.")
def main(tries: int, share: float, margin: float, launches: int, rounds: int, seed: int) -> None:
    """Count how often a slow-down that is there is found, and one that is not is claimed."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    done: list[dict[str, Any]] = []
    try:
        for number in range(tries):
            found = one_try(seed + number, share, margin, launches, rounds)
            done.append(found)
            said = ", ".join(
                f"{case} {f['verdict']} ({f['ratio']:.3f}, {f['low']:.3f} to {f['high']:.3f})"
                for case, f in found.items()
            )
            click.echo(f"{number + 1} of {tries}: {said}")
    except RuntimeError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(BROKEN)
    except KeyboardInterrupt:
        click.echo("Error: interrupted", err=True)
        sys.exit(INTERRUPTED)
    click.echo(summary(done))
    sys.exit(code_of(done))


if __name__ == "__main__":
    main()
