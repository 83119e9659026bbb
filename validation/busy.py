"""Do ratios hold beside other programs? `python validation/busy.py`: a run, quiet, and with busy loops beside it.

Busy loops are processes that do nothing but count, on the cores that the run may use. Compared are the ratios of each
case to those of the quiet run: with two loops for a third of the time, with one for all of it, and quiet once more,
which is the yardstick: what chance does. A run of its own each; a default one takes minutes. The table is printed, and
written to the folder of `--keep`, with as many lines as there are so far.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this tree's rnnbench, whichever is installed

import rnnbench
from rnnbench.analysis.stats import Interval, Summary, by_case, ratio_of, summaries
from rnnbench.analysis.trial import trial_of
from rnnbench.records.record import Record, turns_in

OK, BROKEN, INTERRUPTED = 0, 1, 130
ROOT = Path(__file__).resolve().parents[1]
NEAR, FAR = 0.10, 0.25  # of the quiet ratio, to either side
LOOP = """
import os
while os.getppid() == {parent}:
    for _ in range(1_000_000):
        pass
"""  # until its parent is gone


@contextmanager
def loops(count: int) -> Iterator[None]:
    """So many busy loops meanwhile, on the cores of this process."""
    running = [subprocess.Popen([sys.executable, "-c", LOOP.format(parent=os.getpid())]) for _ in range(count)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


@dataclass(frozen=True)
class Load:
    """Busy loops from one moment of a run to another, as parts of what a quiet run takes."""

    name: str
    loops: int = 0
    begin: float = 0.0
    end: float = math.inf

    @contextmanager
    def beside(self, seconds: float) -> Iterator[list[float]]:
        """The loops run meanwhile, in a run of about so many seconds; a list to which their seconds are added."""
        over, lasted = threading.Event(), list[float]()

        def load() -> None:
            if not self.loops or over.wait(self.begin * seconds):
                return
            begun = time.monotonic()
            with loops(self.loops):
                over.wait(None if math.isinf(self.end) else (self.end - self.begin) * seconds)
            lasted.append(time.monotonic() - begun)

        thread = threading.Thread(target=load)
        thread.start()
        try:
            yield lasted
        finally:
            over.set()
            thread.join()


QUIET = Load("quiet")
LOADS = (
    Load("quiet again"),
    Load("two loops for a third", 2, 1 / 3, 2 / 3),
    Load("one loop for all of it", 1),
)


@dataclass(frozen=True)
class Answer:
    """The ratio of a backend to the reference in one case, and whether the run says that it is not to be trusted."""

    ratio: Interval
    threads: tuple[int, ...]  # of both
    says_so: bool


def answers_of(records: Sequence[Record], reference: str) -> dict[tuple[str, str], Answer]:
    """(case, backend) -> its ratio, of those that were timed in rounds with the reference."""
    found = {}
    for case, answers in by_case(summaries(records)).items():
        base = next((s for s in answers if s.backend == reference and s.ranked), None)
        for s in answers:
            if base and s.ranked and s is not base and (ratio := ratio_of(s.turns, base.turns)):
                found[case, s.backend] = Answer(ratio, (*s.threads, *base.threads), says_so(ratio, s, base))
    return found


def says_so(ratio: Interval, *answers: Summary) -> bool:
    """Whether a ratio is shown as noisy, or one of its answers as disturbed, its turns or its trial of threads."""
    trials = (trial_of(s) for s in answers)
    return ratio.noisy or any(s.disturbed for s in answers) or any(trial and trial.disturbed for trial in trials)


@dataclass(frozen=True)
class Comparison:
    """Ratios under a load, over those of the quiet run."""

    load: Load
    seconds: float
    loaded: float  # seconds of the loops
    records: Sequence[Record]
    shared: dict[tuple[str, str], tuple[Answer, Answer]]  # (case, backend) -> quiet, under the load

    def off(self, key: tuple[str, str]) -> float:
        """By how much the ratio differs, as a part of the quiet one, to either side alike."""
        quiet, now = self.shared[key]
        return math.expm1(abs(math.log(now.ratio.value / quiet.ratio.value)))

    @cached_property
    def near(self) -> list[tuple[str, str]]:
        return [key for key in self.shared if self.off(key) <= NEAR]

    @cached_property
    def far(self) -> list[tuple[str, str]]:
        return [key for key in self.shared if self.off(key) > FAR]

    @cached_property
    def said(self) -> list[tuple[str, str]]:
        """Those that the run says not to trust."""
        return [key for key in self.shared if self.shared[key][1].says_so]

    def row(self) -> dict[str, str]:
        """Its line of a table."""
        turns = [r for r in turns_in(self.records) if r.samples_ns]
        worst = max(self.shared, key=self.off)
        moved = sum(quiet.threads != now.threads for quiet, now in self.shared.values())
        apart = sum(a.ratio.low > b.ratio.high or b.ratio.low > a.ratio.high for a, b in self.shared.values())
        stand = len(self.shared) - len(self.said)
        return {
            "beside": self.load.name,
            "seconds": f"{self.seconds:.0f}, {100 * self.loaded / self.seconds:.0f} % beside loops",
            "disturbed turns": f"{sum(r.disturbed > 0 for r in turns)} of {len(turns)}",
            "measured again": str(sum(r.attempt > 0 for r in turns)),
            f"within {100 * NEAR:.0f} %": f"{len(self.near)} of {len(self.shared)}",
            "of those not said to be disturbed or noisy": f"{len(set(self.near) - set(self.said))} of {stand}",
            "intervals apart": str(apart),
            "median": f"{100 * median(map(self.off, self.shared)):.0f} %",
            "most": f"{100 * self.off(worst):.0f} % ({worst[1]}, {worst[0]})",
            f"over {100 * FAR:.0f} %": f"{len(self.far)}, {len(set(self.far) - set(self.said))} do not say so",
            "other threads": str(moved),
        }

    def complaints(self) -> Iterator[str]:
        """What the project states and this run did not hold."""
        of = len(self.shared)
        if len(self.near) < 0.9 * of:
            yield f"{self.load.name}: {len(self.near)} of {of} ratios are within {100 * NEAR:.0f} %; 90 % are stated"
        for case, backend in self.far:
            if (case, backend) not in self.said:
                off = 100 * self.off((case, backend))
                yield f"{self.load.name}: {backend} in {case} is off by {off:.0f} % and does not say so"


@dataclass(frozen=True)
class Measured:
    """A run: its records, its seconds, and those of the loops beside it; the code that it ended with."""

    records: Sequence[Record]
    seconds: float
    loaded: float = 0.0
    code: int = 0


def measured(load: Load, seconds: float, folder: Path, asked: Sequence[str]) -> Measured:
    """A run under a load; the loops are no children of it. One that is whole in the folder already is taken."""
    took = folder / "seconds.json"
    if not took.exists():
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was interrupted
        begun, command = time.monotonic(), [sys.executable, "-m", "rnnbench", "run", "-o", str(folder), *asked]
        with load.beside(seconds) as lasted:
            ended = subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=False)
            whole = time.monotonic() - begun
        if not (folder / "run.json").exists():
            raise click.ClickException(f"{load.name}: the run ended with code {ended.returncode}, and measured nothing")
        took.write_text(json.dumps([whole, sum(lasted), ended.returncode]))
    return Measured(rnnbench.load(folder).loaded.records, *json.loads(took.read_text()))


def made_before(folder: Path) -> Measured:
    """A quiet run that was made by itself."""
    loaded = rnnbench.load(folder).loaded
    return Measured(loaded.records, sum(json.loads((folder / "run.json").read_text())["seconds"].values()))


EPILOG = f"""\b
Examples:
  python validation/busy.py
  python validation/busy.py --keep busy --quiet last-night
  python validation/busy.py -- -w parity -b numba,torch,numpy --pass forward,train_step --no-training

\b
Exit codes:
  {OK}  the ratios hold
  {BROKEN}  they do not
  {INTERRUPTED}  interrupted
"""


@click.command(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--over", "reference", default="numba", show_default=True, help="The backend that ratios are to.")
@click.option("--keep", "output", type=click.Path(path_type=Path),
              help="Folder of the runs and the table; whole runs that are there are taken.")  # fmt: skip
@click.option("--quiet", "before", type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="Folder of a quiet run of the same options, in place of a new one.")  # fmt: skip
@click.option("--load", "named", multiple=True, type=click.Choice([load.name for load in LOADS]),
              help="Only this load; may be given again.")  # fmt: skip
@click.argument("asked", nargs=-1, metavar="[-- OPTION OF RUN...]")
def main(
    reference: str, output: Path | None, before: Path | None, named: tuple[str, ...], asked: tuple[str, ...]
) -> None:
    """Print how far the ratios of a run move beside busy loops, as Markdown."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    found, complaints, quiet, text = list[Comparison](), list[str](), dict[tuple[str, str], Answer](), ""
    with tempfile.TemporaryDirectory(prefix="rnnbench-", ignore_cleanup_errors=True) as scratch:
        folder, interrupted = output or Path(scratch), False
        try:
            base = made_before(before) if before else measured(QUIET, 0.0, folder / "quiet", asked)
            quiet = answers_of(base.records, reference)
            if not quiet:
                raise click.ClickException(f"the quiet run has no ratio to {reference}; choose another one by --over")
            for load in [load for load in LOADS if load.name in (named or [load.name])]:
                run = measured(load, base.seconds, folder / load.name.replace(" ", "-"), asked)
                now = answers_of(run.records, reference)
                shared = {key: (quiet[key], now[key]) for key in quiet if key in now}
                complaints += [f"{load.name}: the run ended with code {run.code}"] if run.code else []
                if lost := len(quiet) - len(shared):
                    complaints.append(f"{load.name}: {lost} of {len(quiet)} ratios are missing")
                if shared:
                    found.append(Comparison(load, run.seconds, run.loaded, run.records, shared))
                    text = table_of(found, len(quiet), reference, base.seconds)
                    if output:
                        (output / "busy.md").write_text(text)
        except KeyboardInterrupt:
            interrupted = True
    click.echo(text, nl=False)
    complaints += [text for one in found for text in one.complaints()]
    for text in complaints:
        click.echo(f"Error: {text}", err=True)
    if interrupted:
        click.echo("Error: interrupted", err=True)
    sys.exit(INTERRUPTED if interrupted else BROKEN if complaints else OK)


def table_of(found: Sequence[Comparison], ratios: int, reference: str, seconds: float) -> str:
    """Markdown of what is known so far."""
    from tabulate import tabulate

    title = f"{ratios} ratios to {reference}; the quiet run took {seconds:.0f} s, on {os.cpu_count()} cores"
    return f"{title}\n\n{tabulate([one.row() for one in found], 'keys', 'pipe', disable_numparse=True)}\n"


if __name__ == "__main__":
    main()
