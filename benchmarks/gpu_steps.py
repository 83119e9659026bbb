"""The steps that take a GPU, and how each is run: with a time limit, its output in a log, a failure survived."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path

from checkout import ROOT

GRACE = 30.0  # seconds from the request to stop until a step is killed: a run writes its report in them
KILLED_AFTER = 5.0  # seconds that a killed process may take to go
MIN_SECONDS = 5.0  # seconds below which no step is begun
WANTED = ("cuda", "cuda+graph", "torch-cuda", "torch-cuda+tf32", "jax-cuda")  # of them those that are here


class Ending(StrEnum):
    """How a step ended."""

    PASSED = "passed"
    FAILED = "failed"
    STOPPED = "stopped"  # at its time limit
    LEFT_OUT = "left out"
    NOT_BEGUN = "not begun"


FAULTY = (Ending.FAILED, Ending.STOPPED, Ending.NOT_BEGUN)


@dataclass(frozen=True)
class Step:
    """A command with the seconds that it may take. `program`: without it the step is left out.

    `expected`: seconds that it is predicted to take on an H200. `run`: the folder that the command measures into; one
    that has a run is resumed.
    """

    name: str
    command: tuple[str, ...]
    limit: float
    program: str | None = None
    run: Path | None = None
    expected: float = 0.0

    @property
    def line(self) -> tuple[str, ...]:
        """The command as it is run now."""
        if self.run is not None and (self.run / "run.json").exists():
            return (*self.command[:4], "--resume", str(self.run))  # python -m rnnbench COMMAND
        return self.command


@dataclass(frozen=True)
class Outcome:
    """What came of a step; `code` of its process, where it ended by itself."""

    name: str
    ending: Ending
    seconds: float = 0.0
    code: int | None = None
    reason: str = ""


def backends_here(installed: bool = True) -> list[str]:
    """Which of the wanted names are registered and, if asked, have their libraries installed, in this order."""
    from rnnbench import backends

    known = [name for name in WANTED if name in backends.REGISTRY]
    return [name for name in known if not installed or backends.missing(name) is None]


def steps(folder: Path, names: Sequence[str]) -> list[Step]:
    """All steps, as run in the root of the checkout: is it right at all, then times, then what else may be wrong.

    So a first run that is cut short has what only a device can tell. `names`: the backends to be measured.
    """
    python, those = sys.executable, ",".join(names)
    rnnbench = (python, "-m", "rnnbench")
    side_by_side = ("-n", "4", "--dist", "worksteal") if find_spec("xdist") else ()
    every_kernel = (python, "tests/cuda/every_kernel.py")

    def sanitized(tool: str, expected: float) -> Step:
        # Numba asks the driver for what older ones do not have: an answer of no is no error
        options = ("--tool", tool, "--report-api-errors", "no", "--error-exitcode", "9")
        return Step(tool, ("compute-sanitizer", *options, *every_kernel), 240, "compute-sanitizer", expected=expected)

    def measured(name: str, expected: float, *command: str) -> Step:
        path = folder / name
        return Step(name, (*rnnbench, *command, "-b", those, "-o", str(path)), 540, run=path, expected=expected)

    def sweep(T: int, expected: float) -> Step:
        sizes = ("--H", "32:1024", "--B", "1,8,32,128,512", "--T", str(T))
        return measured(f"sweep-T{T}", expected, "sweep", *sizes, "--grid", "--cell", "rnn")

    def seeds(name: str, cells: str, expected: float) -> Step:
        return measured(name, expected, "run", "-w", "parity,imdb-50,imdb-200", "--cell", cells, "--no-training")

    # H where a block has all of W_hh, and where many share it; a step has three or four times the work of a tanh step
    gates = ("--H", "32,128,512,1024", "--B", "1,32,512", "--T", "50", "--grid", "--cell", "gru,lstm")

    # Each regime in float32 at usual sizes, against the oracle
    smoke = ("tests/cuda/test_on_device.py", "-k", "test_gradient and float32", "-q", "--maxfail", "3")
    return [
        Step("smoke", (python, "-m", "pytest", *smoke), 120, expected=55),
        seeds("seeds", "rnn", 200),
        seeds("seeds-gates", "gru,lstm", 400),
        sweep(50, 300),
        measured("sweep-gates", 400, "sweep", *gates),
        Step("tests", (python, "-m", "pytest", "tests/cuda", "-q", *side_by_side), 420, expected=180),
        Step("verify", (*rnnbench, "verify", "-b", those), 420, expected=120),
        sanitized("memcheck", 90),
        sanitized("racecheck", 150),
        sweep(200, 450),
    ]


def environment() -> dict[str, str]:
    """This tree's rnnbench, no simulator, and output as it comes."""
    env = {name: value for name, value in os.environ.items() if name != "NUMBA_ENABLE_CUDASIM"}
    path = [str(ROOT), *filter(None, [env.get("PYTHONPATH")])]
    # JAX would else take most of the device's memory for itself, and leave none for those that it takes turns with
    return {
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "RNNBENCH_NEEDS_GPU": "1",  # a test that finds no device fails
        **env,
        "PYTHONPATH": os.pathsep.join(path),
        "PYTHONUNBUFFERED": "1",
    }


def run_step(step: Step, logs: Path, limit: float, grace: float = GRACE) -> Outcome:
    """Run one step; its output goes to logs/NAME.log. Raises OSError where that cannot be written."""
    if step.program is not None and shutil.which(step.program) is None:
        return Outcome(
            step.name, Ending.LEFT_OUT, reason=f"{step.program} is not on the PATH; it comes with the toolkit"
        )
    logs.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with (logs / f"{step.name}.log").open("w") as log:
        print("$", *step.line, file=log, flush=True)
        try:
            process = subprocess.Popen(
                step.line, cwd=ROOT, env=environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            return Outcome(step.name, Ending.FAILED, reason=f"{step.line[0]}: {error.strerror}")
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            stop(process, grace)
            reason = f"still busy after {limit:.0f} s"
            return Outcome(step.name, Ending.STOPPED, time.monotonic() - began, reason=reason)
        except BaseException:
            stop(process, grace)
            raise
        finally:
            _signal(process, signal.SIGKILL)  # what it left behind
    seconds = time.monotonic() - began
    if code == 0:
        return Outcome(step.name, Ending.PASSED, seconds, code)
    return Outcome(step.name, Ending.FAILED, seconds, code, f"exit code {code}")


def stop(process: subprocess.Popen[bytes], grace: float) -> None:
    """Ask a step to end in order, and kill it and all it started where it does not."""
    process.terminate()
    try:
        process.wait(grace)
    except subprocess.TimeoutExpired:
        _signal(process, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):  # it hangs in the driver: nobody can wait for that
            process.wait(KILLED_AFTER)


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    """To the process and all that it started, if some are left."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return


def run_steps(
    todo: Sequence[Step], logs: Path, seconds: float, told: Callable[[Outcome], None], grace: float = GRACE
) -> list[Outcome]:
    """Run one after the other, whatever came of those before, for `seconds` in all; each outcome is told at once."""
    end, outcomes = time.monotonic() + seconds, []
    for step in todo:
        left = end - time.monotonic() - grace
        if left < MIN_SECONDS:
            outcome = Outcome(step.name, Ending.NOT_BEGUN, reason="no time was left")
        else:
            outcome = run_step(step, logs, min(step.limit, left), grace)
        outcomes.append(outcome)
        told(outcome)
    return outcomes


def last_lines(path: Path, count: int = 8) -> list[str]:
    """The end of a log."""
    if not path.exists():
        return []
    return [line for line in path.read_text(errors="replace").splitlines() if line.strip()][-count:]
