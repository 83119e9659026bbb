"""Do ratios hold beside other programs? `python validation/busy.py`: a run, quiet, and with busy loops beside it.

Busy loops are processes that do nothing but count, on the cores that the run may use. Compared are the ratios of each
case to those of the quiet run: with two loops for a third of the time, with one for all of it, and quiet once more,
which shows what chance does. A run of its own each; a default one takes minutes.
"""

from __future__ import annotations

import json
import math
import os
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

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this tree's rnnbench, whichever is installed

import rnnbench
from rnnbench.analysis.stats import Interval, Summary, by_case, ratio_of, summaries
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
    """Whether a ratio is shown as noisy, or one of its answers as disturbed."""
    return ratio.noisy or any(s.disturbed for s in answers)


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
    def near(self) -> int:
        return sum(self.off(key) <= NEAR for key in self.shared)

    @cached_property
    def far(self) -> list[tuple[str, str]]:
        return [key for key in self.shared if self.off(key) > FAR]

    @cached_property
    def silent(self) -> list[tuple[str, str]]:
        """Those far off of which the run does not say so."""
        return [key for key in self.far if not self.shared[key][1].says_so]

    def row(self) -> dict[str, str]:
        """Its line of a table."""
        turns = [r for r in turns_in(self.records) if r.samples_ns]
        worst = max(self.shared, key=self.off)
        moved = sum(quiet.threads != now.threads for quiet, now in self.shared.values())
        marked = sum(now.says_so for _, now in self.shared.values())
        return {
            "load": self.load.name,
            "seconds": f"{self.seconds:.0f}, {100 * self.loaded / self.seconds:.0f} % beside loops",
            "disturbed turns": f"{sum(r.disturbed > 0 for r in turns)} of {len(turns)}",
            "measured again": str(sum(r.attempt > 0 for r in turns)),
            f"within {100 * NEAR:.0f} %": f"{self.near} of {len(self.shared)}",
            "most": f"{100 * self.off(worst):.0f} % ({worst[1]}, {worst[0]})",
            f"over {100 * FAR:.0f} %": f"{len(self.far)}, {len(self.silent)} do not say so",
            "marked": str(marked),
            "other threads": str(moved),
        }

    def complaints(self) -> Iterator[str]:
        """What the project states and this run did not hold."""
        of = len(self.shared)
        if self.near < 0.9 * of:
            yield f"{self.load.name}: {self.near} of {of} ratios are within {100 * NEAR:.0f} %; 90 % are stated"
        for case, backend in self.silent:
            off = 100 * self.off((case, backend))
            yield f"{self.load.name}: {backend} in {case} is off by {off:.0f} % and does not say so"


def measured(load: Load, seconds: float, folder: Path, asked: Sequence[str]) -> tuple[list[Record], float, float]:
    """The records of a run under a load, its seconds, and those of the loops, which are no children of it.

    One that is in the folder already is not made again.
    """
    took = folder / "seconds.json"
    if not took.exists():
        begun, command = time.monotonic(), [sys.executable, "-m", "rnnbench", "run", "-o", str(folder), *asked]
        with load.beside(seconds) as lasted:
            ended = subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=False)
            whole = time.monotonic() - begun
        if ended.returncode:
            raise click.ClickException(f"{load.name}: the run ended with code {ended.returncode}")
        took.write_text(json.dumps([whole, sum(lasted)]))
    whole, loaded = json.loads(took.read_text())
    return rnnbench.load(folder).loaded.records, whole, loaded


EPILOG = f"""\b
Examples:
  python validation/busy.py
  python validation/busy.py -- -w parity -b numba,torch,numpy --pass forward,train_step --no-training

\b
Exit codes:
  {OK}  the ratios hold
  {BROKEN}  they do not
  {INTERRUPTED}  interrupted
"""


@click.command(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--over", "reference", default="numba", show_default=True, help="The backend that ratios are to.")
@click.option("--keep", "output", type=click.Path(path_type=Path), help="Folder of the runs; what is there is taken.")
@click.option("--load", "named", multiple=True, type=click.Choice([load.name for load in LOADS]),
              help="Only this load; may be given again.")  # fmt: skip
@click.argument("asked", nargs=-1, metavar="[-- OPTION OF RUN...]")
def main(reference: str, output: Path | None, named: tuple[str, ...], asked: tuple[str, ...]) -> None:
    """Print how far the ratios of a run move beside busy loops, as Markdown."""
    from tabulate import tabulate

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    found, complaints = [], list[str]()
    with tempfile.TemporaryDirectory(prefix="rnnbench-", ignore_cleanup_errors=True) as scratch:
        folder = output or Path(scratch)
        try:
            records, seconds, _ = measured(QUIET, 0.0, folder / "quiet", asked)
            quiet = answers_of(records, reference)
            for load in [load for load in LOADS if load.name in (named or [load.name])]:
                records, took, loaded = measured(load, seconds, folder / load.name.replace(" ", "-"), asked)
                now = answers_of(records, reference)
                shared = {key: (quiet[key], now[key]) for key in quiet if key in now}
                found.append(Comparison(load, took, loaded, records, shared))
        except KeyboardInterrupt:
            click.echo("Error: interrupted", err=True)
            sys.exit(INTERRUPTED)
    click.echo(f"{len(quiet)} ratios to {reference}; the quiet run took {seconds:.0f} s, on {os.cpu_count()} cores\n")
    click.echo(tabulate([one.row() for one in found], "keys", "pipe", disable_numparse=True))
    complaints += [text for one in found for text in one.complaints()]
    for text in complaints:
        click.echo(f"Error: {text}", err=True)
    sys.exit(BROKEN if complaints else OK)


if __name__ == "__main__":
    main()
