"""Is a planted slow-down found? `python validation/planted.py`: many comparisons of real processes, the truth known.

At `new` one case of two spins after each call for a share of that call's own time; the other is the same on both sides.
Counted is how often each is called slower: by launch, as `against.py --by launch` judges, and by `rnnbench compare`,
which would be given the same launches as two runs and not as pairs.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this tree's rnnbench, whichever is installed
sys.path.insert(1, str(Path(__file__).resolve().parents[1] / "benchmarks"))  # what lets two sides take turns

from checkout import ROOT
from duel import Duel, Effort, Measured, Turns
from options import PERCENT, effort_of, writable, write

SERVE = (str(Path(__file__).resolve().with_name("planted_worker.py")),)
OK, MISSED, USAGE, BROKEN, INTERRUPTED = 0, 1, 2, 3, 130
FOUND, FALSE = 0.95, 0.05  # of all tries: planted called slower at least, unchanged at most
TIMEOUT = 120.0  # seconds for one answer


def one_try(effort: Effort, seed: int, share: float) -> Measured:
    """A comparison of this tree with itself, slowed."""
    from planted_worker import planted_cases

    os.environ["RNNBENCH_PLANTED"] = str(share)
    with tempfile.TemporaryDirectory(prefix="rnnbench-", ignore_cleanup_errors=True) as scratch:
        duel = Duel((ROOT, ROOT), Path(scratch), 1, TIMEOUT, SERVE)
        return duel.measure(planted_cases(0), effort, seed, lambda what, done: None)


def unpaired(turns: Turns, margin: float) -> str:
    """What `rnnbench compare` would say, were the launches of each side a run of its own."""
    import numpy as np

    from rnnbench.analysis.compare import judge, ratio_of_runs

    base, new = (
        [float(np.median([math.log(np.median(turn[side])) for turn in rounds])) for rounds in turns] for side in (0, 1)
    )
    ratio = ratio_of_runs(base, new)
    return str(judge(replace(ratio, q=ratio.p), margin))


def verdicts(measured: Measured, margin: float) -> dict[str, dict[str, Any]]:
    """Case -> its verdict, its ratio with interval, and what two runs would have given. RuntimeError for a failure."""
    from planted_worker import PLANTED, UNCHANGED
    from verdict import Unit, findings

    if measured.broken or measured.missing:
        raise RuntimeError("; ".join(f"{k}: {v}" for k, v in (measured.broken | measured.missing).items()))
    return {
        f.case.partition(" ")[0]: {
            "verdict": str(f.verdict), "ratio": f.ratio, "low": f.low, "high": f.high,
            "of_two_runs": unpaired(measured.turns[f.case], 0.05),
        }
        for f in findings((PLANTED, UNCHANGED), measured, margin, Unit.LAUNCH)
    }  # fmt: skip


def counted(done: Sequence[dict[str, Any]], case: str, key: str) -> int:
    """How many tries called a case slower."""
    return sum(one["findings"][case][key] == "slower" for one in done)


def summary(done: Sequence[dict[str, Any]]) -> str:
    """How often each case was called slower, with exact 95 % intervals (Clopper and Pearson, 1934)."""
    from scipy.stats import binomtest

    def told(case: str, key: str) -> str:
        count = counted(done, case, key)
        low, high = binomtest(count, len(done)).proportion_ci(0.95, method="exact")
        return f"{count} of {len(done)} ({100 * low:.0f} to {100 * high:.0f} %)"

    return (
        f"called slower: planted {told('planted', 'verdict')}, unchanged {told('unchanged', 'verdict')}; "
        f"the same launches as two runs, compare: planted {told('planted', 'of_two_runs')}, "
        f"unchanged {told('unchanged', 'of_two_runs')}"
    )


def code_of(done: Sequence[dict[str, Any]]) -> int:
    """Whether the planted ones were found and the unchanged ones let pass."""
    planted, unchanged = (counted(done, case, "verdict") / len(done) for case in ("planted", "unchanged"))
    return OK if planted >= FOUND and unchanged <= FALSE else MISSED


EPILOG = f"""\b
Examples:
  python validation/planted.py
  python validation/planted.py --tries 20 --share 5% --margin 1% --launches 12

\b
Exit codes:
  {OK}  planted was called slower in {FOUND:.0%} of the tries at least, unchanged in {FALSE:.0%} at most
  {MISSED}  it was not
  {USAGE}  an option is wrong
  {BROKEN}  a process failed
  {INTERRUPTED}  interrupted
"""


@click.command(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--tries", type=click.IntRange(1), default=100, show_default=True, help="Comparisons.")
@click.option("--share", type=PERCENT, default="10%", show_default=True, help="How much slower planted is.")
@click.option("--margin", type=PERCENT, default="3%", show_default=True, help="A slow-down up to this is let pass.")
@click.option("--launches", type=click.IntRange(1), default=10, show_default=True, help="Pairs of processes.")
@click.option("--rounds", type=click.IntRange(1), default=20, show_default=True, help="Rounds in each launch.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Order of cases and sides.")
@click.option("--json", "path", type=click.Path(path_type=Path, dir_okay=False), help="Write all of it to this file.")
def main(
    tries: int, share: float, margin: float, launches: int, rounds: int, seed: int, path: Path | None
) -> None:  # fmt: skip
    """Count how often a slow-down that is there is found, and one that is not is claimed."""
    from verdict import Unit

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    done: list[dict[str, Any]] = []
    asked = {"tries": tries, "share": share, "margin": margin, "launches": launches, "rounds": rounds}
    try:
        writable(path)
        effort = effort_of(launches, rounds, 2, Unit.LAUNCH)
        for number in range(tries):
            measured = one_try(effort, seed + number, share)
            found = verdicts(measured, margin)
            done.append({"seed": seed + number, "findings": found, "turns": measured.turns})
            told = ", ".join(f"{case} {f['verdict']} ({f['ratio']:.3f})" for case, f in found.items())
            click.echo(f"{number + 1} of {tries}: {told}")
            write(path, {"schema": 1, **asked, "tries_done": done})
    except OSError as error:
        raise click.UsageError(f"{error.filename}: {error.strerror}; choose another file, or make room") from error
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
