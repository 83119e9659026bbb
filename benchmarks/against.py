"""Compare the benchmarks at two commits: `python benchmarks/against.py REF`, or `make bench-against REF=REF`.

The working tree is `new`, a temporary git worktree of REF is `base`. The cases are those of the working tree.
"""

from __future__ import annotations

import json
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from checkout import FAULT, ROOT, CheckoutError, checked_out, report_fault, resolve

if __name__ == "__main__":
    sys.excepthook = report_fault

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this tree's rnnbench, whichever is installed

from cases import Case, all_cases, facts
from duel import MIN_LAUNCHES, Duel, Effort, Finding, Measured, confirmed, findings
from rnnbench.analysis.compare import Verdict
from rnnbench.api.errors import STDOUT
from rnnbench.cli.names import PercentType
from rnnbench.cli.shell import Command, console_of, print_table

OK, SLOWER, USAGE, BROKEN, INTERRUPTED = 0, 1, 2, 3, 130
CONFIDENCE = 0.95  # of the upper bound of false alarms
AGAIN = 10_000  # added to the seed of a confirmation
UNITS = (("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9))


def chosen(words: str) -> list[Case]:
    """The cases that a filter leaves. Raises UsageError for none."""
    from rnnbench.harness.plan import matches

    every = all_cases()
    kept = [case for case in every if matches(words, str(case))]
    if not kept:
        groups = ", ".join(dict.fromkeys(case.group for case in every))
        raise click.UsageError(f"-k {words!r} leaves none of {len(every)} cases; their groups are {groups}")
    return kept


def threads_of(asked: int | None) -> int:
    """Threads of each side. Raises UsageError for more than there are cores."""
    from rnnbench.machine.cores import allowed_cores

    cores = len(allowed_cores())
    if asked is not None and asked > cores:
        raise click.UsageError(f"--threads {asked} is more than the {cores} cores allowed here; choose 1 to {cores}")
    return asked or cores


@contextmanager
def two_trees(ref: str, itself: bool) -> Iterator[tuple[Path, tuple[Path, Path], str]]:
    """A scratch folder, the trees of base and new, and the commit of base. `itself`: base against base."""
    commit = resolve(ref)
    with (
        tempfile.TemporaryDirectory(prefix="rnnbench-", ignore_cleanup_errors=True) as scratch,
        checked_out(commit, Path(scratch) / "base") as base,
    ):
        yield Path(scratch), (base, base if itself else ROOT), commit


@dataclass(frozen=True)
class Question:
    """What is asked of a comparison. `confirm`: what is called slower must be so again in a second measurement."""

    duel: Duel
    cases: Sequence[Case]
    effort: Effort
    margin: float
    seed: int
    commit: str
    confirm: bool

    def answer(self, seed: int, label: str = "") -> tuple[list[Finding], list[Measured]]:
        """Measure and judge, with the progress shown on a terminal; the measurements, the confirmation last."""
        found, measured = self._once(self.cases, seed, label)
        slower = [case for case, f in zip(self.cases, found, strict=True) if f.verdict is Verdict.SLOWER]
        if not (self.confirm and slower):
            return found, [measured]
        again, repeated = self._once(slower, seed + AGAIN, f"{label}again, ")
        return confirmed(found, again), [measured, repeated]

    def _once(self, cases: Sequence[Case], seed: int, label: str) -> tuple[list[Finding], Measured]:
        from rnnbench.cli.progress import Display

        with Display(console_of(stderr=True)) as display:
            measured = self.duel.measure(
                cases, self.effort, seed, lambda what, done: display.show(f"{label}{what}", done)
            )
        return findings([str(case) for case in cases], measured, self.margin), measured

    def described(self) -> dict[str, Any]:
        """The question and the machine, for a file."""
        return {
            "schema": 1,
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
            "base": self.commit,
            "margin": self.margin,
            "effort": asdict(self.effort),
            "confirm": self.confirm,
            "threads": self.duel.threads,
            "machine": facts(),
        }


def code_of(found: Sequence[Finding]) -> int:
    """The exit code that findings stand for."""
    verdicts = {finding.verdict for finding in found}
    if Verdict.SLOWER in verdicts:
        return SLOWER
    return BROKEN if Verdict.NOT_COMPARABLE in verdicts or all(finding.ratio is None for finding in found) else OK


def compare(question: Question, path: Path | None) -> int:
    """One comparison, shown and written; the exit code."""
    from rnnbench.machine.fingerprint import git

    found, measured = question.answer(question.seed)
    new = git() or {}
    name = f"{str(new.get('commit'))[:12]}{' with changes' if new.get('dirty') else ''}"
    show(found, (question.commit[:12], name), question.margin)
    code = code_of(found)
    write(path, question.described() | {"new": new, "exit_code": code, **as_json(found, measured, question.seed)})
    return code


def false_alarms(question: Question, path: Path | None, comparisons: int) -> int:
    """Compare base with base so many times and tell how often a case was called slower."""
    done: list[dict[str, Any]] = []
    every: list[list[Finding]] = []
    for number in range(comparisons):
        found, measured = question.answer(question.seed + number, f"{number + 1} of {comparisons}, ")
        every.append(found)
        done.append(as_json(found, measured, question.seed + number))
        click.echo(f"{number + 1} of {comparisons}: {counted(found)}")
        write(path, question.described() | {"comparisons": done})
    click.echo(alarms(every, question.margin))
    return BROKEN if any(code_of(found) == BROKEN for found in every) else OK


def as_json(found: Sequence[Finding], measured: Sequence[Measured], seed: int) -> dict[str, Any]:
    """One comparison with its raw samples: turns[case][launch][round] is (base, new), nanoseconds; `again` likewise."""
    first, *repeated = (m.turns for m in measured)
    again = {"again": repeated[0]} if repeated else {}
    return {"seed": seed, "findings": [asdict(finding) for finding in found], "turns": first, **again}


def writable(path: Path | None) -> None:
    """Make the folder of a file and open it, to know before minutes of measuring. Raises UsageError."""
    try:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.open("a").close()
    except OSError as error:
        raise click.UsageError(f"{error.filename}: {error.strerror}; choose another file, or make room") from error


def write(path: Path | None, content: dict[str, Any]) -> None:
    """Write a file of JSON, or nothing."""
    if path is not None:
        path.write_text(json.dumps(content) + "\n")


def readable(seconds: float) -> str:
    """A duration in the unit that gives it one to three digits before the point."""
    unit, size = next((one for one in UNITS if seconds >= one[1]), UNITS[-1])
    return f"{seconds / size:.3g} {unit}"


def counted(found: Sequence[Finding]) -> str:
    """How many cases have each verdict."""
    counts = Counter(finding.verdict for finding in found)
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict if counts[verdict])


def show(found: Sequence[Finding], names: tuple[str, str], margin: float) -> None:
    """The table of a comparison, and a line for each reason."""
    rows = []
    for f in found:
        cells = [""] * 4
        if f.base is not None and f.new is not None:
            cells = [readable(f.base), readable(f.new), f"{f.ratio:.3f}", f"{f.low:.3f} to {f.high:.3f}"]
        rows.append((f.case, *cells, str(f.verdict)))
    click.echo(f"base {names[0]}, new {names[1]}")
    print_table(("case", "base", "new", "new / base", "interval", "verdict"), rows)
    reasons: dict[str, list[str]] = {}
    for f in found:
        if f.reason:
            reasons.setdefault(f"{f.verdict}: {f.reason}", []).append(f.case)
    for reason, cases in reasons.items():
        click.echo(f"{reason} ({len(cases)} {'case' if len(cases) == 1 else 'cases'}, {cases[0]} first)")
    click.echo(
        f"{counted(found)}. Margin {margin:.0%}; intervals at 95 % over launches, each for itself. "
        "Times are medians over turns of the best call of a turn."
    )


def alarms(every: Sequence[Sequence[Finding]], margin: float) -> str:
    """How often a commit was called slower than itself: the false-alarm rate, with its upper bound."""
    from scipy.stats import binomtest

    verdicts = [[f.verdict for f in found if f.ratio is not None] for found in every]
    cases, slower = sum(map(len, verdicts)), sum(v.count(Verdict.SLOWER) for v in verdicts)
    raised = sum(Verdict.SLOWER in v for v in verdicts)
    most = binomtest(raised, len(every), alternative="less").proportion_ci(CONFIDENCE, method="exact").high
    return (
        f"False alarms at a margin of {margin:.0%}: {slower} of {cases} compared cases called slower, in {raised} of "
        f"{len(every)} comparisons; at {CONFIDENCE:.0%} confidence fewer than {most:.0%} of comparisons."
    )


EPILOG = f"""\b
Examples:
  python benchmarks/against.py HEAD~1
  python benchmarks/against.py main --margin 5% -k "passes imdb !epoch" --json runs/against.json
  python benchmarks/against.py HEAD~1 -k "parity train_step" --launches 10 --rounds 20 --margin 3%
  python benchmarks/against.py --aa 20 -k "passes parity"

\b
Exit codes:
  {OK}  no case is slower
  {SLOWER}  a case is slower: the whole interval of its ratio lies above 1 + margin; with --confirm in both measurements
  {USAGE}  an option or the commit is wrong
  {BROKEN}  a case failed or did other work, or nothing could be compared
  {FAULT}  a fault of this script, or its answer cannot be written; RNNBENCH_TRACEBACK=1 in the environment
     shows where
  {INTERRUPTED}  interrupted
"""


@click.command(
    cls=Command, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.argument("ref", default="HEAD")
@click.option(
    "--margin", type=PercentType(), default="10%", show_default=True, help="A slow-down up to this is let pass."
)
@click.option("--launches", type=click.IntRange(MIN_LAUNCHES), default=5, show_default=True, help="Pairs of processes.")
@click.option("--rounds", type=click.IntRange(1), default=6, show_default=True, help="Rounds in each launch.")
@click.option("--confirm", is_flag=True, help="Measure again what is called slower; both must agree.")
@click.option("--budget", type=click.FloatRange(0, min_open=True), metavar="SECONDS",
              help="Begin no round after that; a confirmation has as long again.")  # fmt: skip
@click.option(
    "-k", "words", default="", metavar="WORDS", help="Keep cases whose name holds every word; !WORD leaves out."
)
@click.option("--threads", type=click.IntRange(1), help="Threads of each side. Default: all allowed cores.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Order of cases and sides.")
@click.option("--timeout", type=click.FloatRange(0, min_open=True), default=300.0, show_default=True, metavar="SECONDS",
              help="The longest that one answer may take, compiling included.")  # fmt: skip
@click.option("--json", "path", type=click.Path(path_type=Path, dir_okay=False), help="Write all of it to this file.")
@click.option("--aa", "comparisons", type=click.IntRange(1), metavar="N",
              help="Compare REF with itself so many times, and say how often a case was called slower.")  # fmt: skip
def main(
    ref: str, margin: float, launches: int, rounds: int, confirm: bool, budget: float | None, words: str,
    threads: int | None, seed: int, timeout: float, path: Path | None, comparisons: int | None,
) -> None:  # fmt: skip
    """Time the benchmarks of the working tree (new) against those of the commit REF (base), taking turns."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        writable(path)
        cases, wanted = chosen(words), threads_of(threads)
        effort = Effort(launches, rounds, budget=budget)
        with two_trees(ref, comparisons is not None) as (scratch, trees, commit):
            question = Question(Duel(trees, scratch, wanted, timeout), cases, effort, margin, seed, commit, confirm)
            code = compare(question, path) if comparisons is None else false_alarms(question, path, comparisons)
    except CheckoutError as error:
        raise click.BadParameter(str(error), param_hint="REF") from error
    except OSError as error:
        if error.filename in (None, STDOUT):
            raise
        raise click.UsageError(f"{error.filename}: {error.strerror}; choose another file, or make room") from error
    except KeyboardInterrupt:
        click.echo("Error: interrupted; nothing is kept", err=True)
        code = INTERRUPTED
    sys.exit(code)


if __name__ == "__main__":
    main()
