"""What a comparison found, on the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from verdict import CONFIDENCE, Finding, Verdict

STYLES = {
    Verdict.SLOWER: "bold red",
    Verdict.FASTER: "green",
    Verdict.INCONCLUSIVE: "yellow",
    Verdict.BROKEN: "red",
    Verdict.MISSING: "dim",
}


def console(*, stderr: bool = False) -> Console:
    """The terminal, or 120 columns where there is none."""
    made = Console(stderr=stderr)
    return made if made.is_terminal else Console(stderr=stderr, width=120)


def readable(seconds: float) -> str:
    """A duration in the unit that gives it one to three digits before the point."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def counted(found: Sequence[Finding]) -> str:
    """How many cases have each verdict."""
    counts = Counter(finding.verdict for finding in found)
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict if counts[verdict])


def show(found: Sequence[Finding], names: tuple[str, str], margin: float, to: Console) -> None:
    """The table of a comparison, and a line for each reason."""
    table = Table(box=box.SIMPLE_HEAD, title=Text(f"base {names[0]}, new {names[1]}"), title_justify="left")
    table.add_column("case")
    for name in ("base", "new", "new / base", "interval"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for f in found:
        cells = [""] * 4
        if f.base is not None and f.new is not None:
            cells = [readable(f.base), readable(f.new), f"{f.ratio:.3f}", f"{f.low:.3f} to {f.high:.3f}"]
        table.add_row(Text(f.case), *cells, Text(str(f.verdict), style=STYLES.get(f.verdict, "")))
    to.print(table)
    reasons: dict[str, list[str]] = {}
    for f in found:
        if f.reason:
            reasons.setdefault(f"{f.verdict}: {f.reason}", []).append(f.case)
    for reason, cases in reasons.items():
        to.print(Text(f"{reason} ({len(cases)} {'case' if len(cases) == 1 else 'cases'}, {cases[0]} first)"))
    to.print(Text(
        f"{counted(found)}. Margin {margin:.0%}; the intervals hold together at {CONFIDENCE:.0%}. "
        "Times are medians over turns of the best call of a turn."
    ))  # fmt: skip


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
