"""A short comparison with where this branch left main, or the commit before: `make bench-gate`, for every push.

Only where our CPU kernels changed. It fails where a case is slower, twice over; whatever else happens is said and let
pass. The cases and the effort are small, so that a quiet machine of two cores needs less than a minute.
"""

from __future__ import annotations

import signal
import sys
from dataclasses import replace
from pathlib import Path

import click

from checkout import ROOT, CheckoutError, git, report_fault, resolve

if __name__ == "__main__":
    sys.excepthook = report_fault

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this tree's rnnbench, whichever is installed

from against import SLOWER, Question, compare, false_alarms, threads_of, two_trees, writable
from cases import Case, all_cases
from duel import Duel, Effort
from rnnbench.api.errors import STDOUT
from rnnbench.cli.shell import Command

OK, INTERRUPTED = 0, 130
WATCHED = ("rnnbench/kernels", "rnnbench/backends/numba.py", ":(exclude)rnnbench/kernels/cuda")
MAIN = ("origin/main", "main")
CASES = tuple(f"passes {w} train_step" for w in ("parity", "running-parity", "imdb-synthetic-50", "imdb-synthetic-200"))
EFFORT = Effort(launches=10, rounds=4, seconds=0.03, budget=50.0)
TIMEOUT = 50.0  # seconds for one answer, compiling included
MARGIN = 0.10


def base_of(root: Path) -> str:
    """Where this branch left origin/main, or main; there itself, the commit before. CheckoutError for none."""
    head = resolve("HEAD", root)
    for name in MAIN:
        found = git("merge-base", "HEAD", name, root=root)
        if found.returncode == 0 and found.stdout.strip() != head:
            return found.stdout.strip()
    return resolve("HEAD~1", root)


def unchanged(base: str, root: Path) -> bool:
    """Whether what is timed is the same in the working tree as at base."""
    same = git("diff", "--quiet", base, "--", *WATCHED, root=root).returncode == 0
    return same and not git("ls-files", "--others", "--exclude-standard", "--", *WATCHED, root=root).stdout.strip()


def why_not(root: Path) -> str | None:
    """Why there is nothing to compare, or None."""
    try:
        base = base_of(root)
    except CheckoutError as error:
        return str(error)
    return f"the CPU kernels are those of {base[:12]}" if unchanged(base, root) else None


def chosen() -> list[Case]:
    """The cases, by their names."""
    return [case for case in all_cases() if str(case) in CASES]


def measured(base: str, comparisons: int | None, seed: int, path: Path | None) -> int:
    """Compare with the commit, or the commit with itself; the exit code of `against`."""
    with two_trees(base, comparisons is not None) as (scratch, trees, commit):
        duel = Duel(trees, scratch, threads_of(None), TIMEOUT if comparisons is None else 300.0)
        effort = EFFORT if comparisons is None else replace(EFFORT, budget=None)
        question = Question(duel, chosen(), effort, MARGIN, seed, commit, confirm=True)
        return compare(question, path) if comparisons is None else false_alarms(question, path, comparisons)


@click.command(cls=Command, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Order of cases and sides.")
@click.option("--json", "path", type=click.Path(path_type=Path, dir_okay=False), help="Write all of it to this file.")
@click.option("--aa", "comparisons", type=click.IntRange(1), metavar="N",
              help="Compare HEAD with itself so many times, and count the false alarms.")  # fmt: skip
def main(seed: int, path: Path | None, comparisons: int | None) -> None:
    """Fail, with 1, where a train step of our kernels is slower than it was, and slower again.

    \b
    Examples:
      python benchmarks/gate.py
      python benchmarks/gate.py --aa 20 --json runs/alarms.json

    \b
    Exit codes:
      0  no case is slower twice over, or none could be compared
      1  a case is slower, and slower again
      2  an option is wrong
      70  a fault of this script, or its answer cannot be written; RNNBENCH_TRACEBACK=1 in the environment shows where
      130  interrupted
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if comparisons is None and (reason := why_not(ROOT)):
        click.echo(f"No comparison: {reason}.")
        return
    writable(path)
    try:
        code = measured(base_of(ROOT) if comparisons is None else "HEAD", comparisons, seed, path)
    except (CheckoutError, OSError) as error:
        if getattr(error, "filename", "") == STDOUT:  # what was found is not seen
            raise
        click.echo(f"No comparison: {error}.")
        return
    except KeyboardInterrupt:
        click.echo("Error: interrupted; nothing is kept", err=True)
        sys.exit(INTERRUPTED)
    if code not in (OK, SLOWER):
        click.echo("A case could not be compared; only what is slower fails here.")
    sys.exit(code if code == SLOWER else OK)


if __name__ == "__main__":
    main()
