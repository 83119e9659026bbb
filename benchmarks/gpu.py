"""All that takes an NVIDIA GPU, in one command: `python benchmarks/gpu.py`, or `make gpu`.

Each regime against the oracle, benchmarks against the rivals, tests on the device, the check of every backend and
compute-sanitizer, into `reports/NAME OF THE GPU/`. A step that fails or takes too long is told, and the next one goes
on. After each step all results are packed into one archive beside that folder.
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this tree's rnnbench, whichever is installed

from checkout import ROOT
from gpu_steps import FAULTY, Ending, Outcome, Step, backends_here, environment, last_lines, run_steps, steps
from rnnbench.cli.names import Name, Names
from rnnbench.records.folder import contents

OK, FAILED, USAGE, NO_GPU, FOLDER, INTERRUPTED = 0, 1, 2, 3, 4, 130
STEPS = [step.name for step in steps(Path("."), ())]
LOOKED_WITHIN = 120.0  # seconds: a driver that hangs is no device
NO_LIMIT = 24 * 3600.0
# In a process of its own: whoever asks holds memory of the device as long as it lives.
LOOK = """
import dataclasses, json
from rnnbench.kernels.cuda import device
facts = device.probe()
print(json.dumps({"refusal": device.unusable(facts), **dataclasses.asdict(facts)}))
"""


def look() -> dict[str, Any]:
    """Name and versions of the device; under "refusal" why there is none that can be used."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", LOOK], env=environment(), capture_output=True, text=True, timeout=LOOKED_WITHIN,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"refusal": f"the driver did not answer within {LOOKED_WITHIN:.0f} s; see nvidia-smi"}
    if done.returncode != 0:
        said = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        return {"refusal": f"the device cannot be asked: {said}"}
    for line in reversed(done.stdout.splitlines()):  # hooks of the interpreter may print around it
        with contextlib.suppress(ValueError):
            if isinstance(found := json.loads(line), dict):
                return found
    return {"refusal": f"the device cannot be asked: {done.stdout[-60:]!r} is no answer"}


def folder_of(name: str) -> Path:
    """Where the results of a device of this name go."""
    return ROOT / "reports" / (re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "gpu")


def print_plan(todo: Sequence[Step]) -> None:
    """The commands, as they would be run from the checkout."""
    for step in todo:
        click.echo(f"{step.name}, about {step.expected:.0f} s, at most {step.limit:.0f} s:\n  {' '.join(step.line)}")
    about, most = (sum(times) / 60 for times in ([s.expected for s in todo], [s.limit for s in todo]))
    click.echo(f"{len(todo)} steps, about {about:.0f} minutes (predicted), at most {most:.0f}; nothing was run.")


def tell(outcome: Outcome, logs: Path) -> None:
    """One line, and the end of the log of a step that did not pass."""
    said = f": {outcome.reason}" if outcome.reason else ""
    click.echo(f"{outcome.name:12} {outcome.ending} after {outcome.seconds:.0f} s{said}")
    if outcome.ending in (Ending.FAILED, Ending.STOPPED):
        for line in last_lines(logs / f"{outcome.name}.log"):
            click.echo(f"    {line}")


class Kept(msgspec.Struct):
    """What is read of steps.json."""

    steps: dict[str, Outcome]


class Results:
    """What came of the steps, in steps.json, written at once and after each; then the folder is packed.

    Raises OSError, and UsageError for a damaged file and for a folder that holds anything and no such file.
    """

    def __init__(self, folder: Path, found: dict[str, Any]) -> None:
        self.path, self.found = folder / "steps.json", found
        self.archive = folder.with_name(f"{folder.name}.tar.gz")
        self.before: dict[str, Any] = {}
        if self.path.exists():
            self.before = self._read()
        elif inside := contents(folder):
            raise click.UsageError(f"{folder} {inside}, and no {self.path.name}; choose another folder with -o")
        else:
            folder.mkdir(parents=True, exist_ok=True)
            self._write()

    def _read(self) -> dict[str, Any]:
        """Outcomes by step, with all that is kept of each. Raises UsageError for a damaged file."""
        try:
            read = msgspec.json.decode(self.path.read_bytes())
            msgspec.convert(read, Kept)
        except msgspec.MsgspecError as error:
            raise click.UsageError(
                f"{self.path} does not hold the outcomes of steps: {error}; "
                "move it away, or choose another folder with -o"
            ) from error
        steps: dict[str, Any] = read["steps"]
        return steps

    def passed(self) -> set[str]:
        """Names of the steps that have passed before."""
        return {name for name, outcome in self.before.items() if outcome["ending"] == Ending.PASSED}

    def add(self, outcome: Outcome) -> None:
        """Keep an outcome, in place of an earlier one of the same step."""
        from rnnbench.machine.fingerprint import git

        when = datetime.now(UTC).isoformat(timespec="seconds")
        self.before[outcome.name] = {**asdict(outcome), "when": when, "git": git()}
        self._write()
        self.pack()

    def pack(self) -> None:
        """All that is in the folder now, in place of what was packed before once that is complete."""
        part = self.archive.with_name(f"{self.archive.name}.part")
        with tarfile.open(part, "w:gz") as packed:
            packed.add(self.path.parent, arcname=self.path.parent.name)
        part.replace(self.archive)

    def _write(self) -> None:
        self.path.write_text(json.dumps({"schema": 1, "device": self.found, "steps": self.before}, indent=2) + "\n")


def run(todo: Sequence[Step], results: Results, logs: Path, minutes: float | None) -> int:
    """Run the steps and tell how each ended; the exit code."""

    def told(outcome: Outcome) -> None:
        tell(outcome, logs)
        results.add(outcome)

    try:
        outcomes = run_steps(todo, logs, NO_LIMIT if minutes is None else 60 * minutes, told)
    except KeyboardInterrupt:
        results.pack()  # what the step that was ended had written
        raise
    faulty = [outcome.name for outcome in outcomes if outcome.ending in FAULTY]
    click.echo(f"{len(outcomes) - len(faulty)} of {len(outcomes)} steps ended well; see {logs.parent}")
    click.echo(f"All of it in one file: {results.archive}")
    if faulty:
        click.echo(f"To go on with {', '.join(faulty)}: the same command with --continue")
    return FAILED if faulty else OK


EPILOG = f"""\b
Examples:
  python benchmarks/gpu.py --plan
  python benchmarks/gpu.py --only smoke,seeds
  python benchmarks/gpu.py --within 9 --continue

\b
Steps: {", ".join(STEPS)}

\b
Exit codes:
  {OK}  every step passed, or was left out for a reason that was told
  {FAILED}  a step failed, was stopped at its limit, or found no time; the others were run
  {USAGE}  an option is wrong
  {NO_GPU}  there is no GPU that can be used
  {FOLDER}  a folder cannot be read or written
  {INTERRUPTED}  interrupted; go on with --continue
"""


@click.command(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "--plan", "plan_only", is_flag=True, help="Print the commands and the time of each, and stop. Needs no GPU."
)
@click.option("--only", type=Names(Name("step", STEPS)), help="Comma-separated steps. Default: all.")
@click.option("--within", "minutes", type=click.FloatRange(1), metavar="MINUTES",
              help="Stop in this time; steps that find none are told. Default: each step's own limit.")  # fmt: skip
@click.option("--continue", "go_on", is_flag=True, help="Leave out steps that have passed, and resume runs.")
@click.option("-o", "--output", type=click.Path(path_type=Path, file_okay=False),
              help="Folder of the results. Default: reports/NAME OF THE GPU.")  # fmt: skip
def main(
    plan_only: bool, only: tuple[str, ...] | None, minutes: float | None, go_on: bool, output: Path | None
) -> None:
    """Test, check and time the CUDA kernels on this machine's GPU, beside the rivals that are installed."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if plan_only:
        every = steps(output or folder_of("NAME").relative_to(ROOT), backends_here(installed=False))
        print_plan([step for step in every if only is None or step.name in only])
        return
    found = look()
    if found["refusal"] is not None:
        click.echo(f"Error: {found['refusal']}", err=True)
        sys.exit(NO_GPU)
    folder = (output or folder_of(found["name"])).absolute()
    click.echo(f"{found['name']}: results in {folder}")
    try:
        results = Results(folder, found)
        todo = chosen(steps(folder, backends_here()), only, results, go_on)
        code = run(todo, results, folder / "logs", minutes)
    except OSError as error:
        click.echo(f"Error: {error.filename}: {error.strerror}; choose another folder, or make room", err=True)
        code = FOLDER
    except KeyboardInterrupt:
        click.echo("Error: interrupted; what was measured is kept, go on with --continue", err=True)
        code = INTERRUPTED
    sys.exit(code)


def chosen(every: Sequence[Step], only: Sequence[str] | None, results: Results, go_on: bool) -> list[Step]:
    """The steps to run. Raises UsageError where one would write over a run that is there."""
    wanted = [step for step in every if only is None or step.name in only]
    if go_on:
        return [step for step in wanted if step.name not in results.passed()]
    for step in wanted:
        if step.run is not None and (step.run / "run.json").exists():
            raise click.UsageError(f"{step.run} holds a run: --continue resumes it; or choose another folder with -o")
    return wanted


if __name__ == "__main__":
    main()
