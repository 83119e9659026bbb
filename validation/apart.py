"""Is a run called slower than one of the same code before it? `python validation/apart.py`: run after run, compared.

Each run is held against the one before, as `compare` would for a commit: a `slower` or `faster` is false. On a shared
machine runs are best far apart: `--wait 3600`.
"""

from __future__ import annotations

import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this tree's rnnbench, whichever is installed

import rnnbench
from busy import Load, measured
from rnnbench.analysis.compare import Verdict

OK, BROKEN, INTERRUPTED = 0, 1, 130
SAID = (Verdict.SAME, Verdict.INCONCLUSIVE, Verdict.SLOWER, Verdict.FASTER)


def verdicts(folders: Sequence[Path], margin: float) -> list[Counter[Verdict]]:
    """How often each verdict is given to a case, for each run but the first."""
    return [
        Counter(f.verdict for f in rnnbench.compare(base, new, margin=margin, progress=False).findings)
        for base, new in pairwise(folders)
    ]


def table_of(found: Sequence[Counter[Verdict]]) -> str:
    """Markdown: a line for each run, and one for all."""
    from tabulate import tabulate

    rows = [[f"{i + 1} to {i + 2}", *(one[v] for v in SAID), sum(one.values())] for i, one in enumerate(found)]
    every = sum(found, Counter[Verdict]())
    rows.append(["all", *(every[v] for v in SAID), sum(every.values())])
    return tabulate(rows, ["runs", *map(str, SAID), "cases"], "pipe")


EPILOG = f"""\b
Examples:
  python validation/apart.py --keep apart --wait 3600
  python validation/apart.py --runs 5 -- -w parity -b numba,torch --no-training

\b
Exit codes:
  {OK}  no case is called slower or faster
  {BROKEN}  one is
  {INTERRUPTED}  interrupted
"""


@click.command(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--runs", type=click.IntRange(2), default=21, show_default=True, help="Runs of the same code.")
@click.option("--wait", type=click.FloatRange(0), default=0.0, show_default=True,
              help="Seconds from the end of one to the begin of the next.")  # fmt: skip
@click.option("--margin", default=0.05, show_default=True, help="What counts as a difference.")
@click.option("--keep", "output", type=click.Path(path_type=Path), help="Folder of the runs; whole ones are taken.")
@click.argument("asked", nargs=-1, metavar="[-- OPTION OF RUN...]")
def main(runs: int, wait: float, margin: float, output: Path | None, asked: tuple[str, ...]) -> None:
    """Print how many cases `compare` calls slower, faster and same, of runs of the same code, as Markdown."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    made, interrupted = list[Path](), False
    with tempfile.TemporaryDirectory(prefix="rnnbench-", ignore_cleanup_errors=True) as scratch:
        try:
            for number in range(runs):
                folder = (output or Path(scratch)) / f"run-{number + 1}"
                if made and not (folder / "seconds.json").exists():
                    time.sleep(wait)
                run = measured(Load(folder.name), 0.0, folder, asked)
                if run.code:
                    sys.exit(f"Error: {folder.name}: the run ended with code {run.code}")
                made.append(folder)
        except KeyboardInterrupt:
            interrupted = True
        found = verdicts(made, margin)
    click.echo(table_of(found))
    false = sum(one[v] for one in found for v in (Verdict.SLOWER, Verdict.FASTER))
    if false:
        tries = sum(bool(one[Verdict.SLOWER] or one[Verdict.FASTER]) for one in found)
        click.echo(
            f"Error: {false} cases are called slower or faster, in {tries} of {len(found)} comparisons", err=True
        )
    if interrupted:
        click.echo("Error: interrupted", err=True)
    sys.exit(INTERRUPTED if interrupted else BROKEN if false else OK)


if __name__ == "__main__":
    main()
