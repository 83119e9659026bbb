"""`compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rnnbench.api.exit_codes import exit_code_help
from rnnbench.cli.names import FolderType
from rnnbench.cli.options import GATE, JSON, WORDS, options
from rnnbench.cli.shell import console_of, guarded, print_json, say

COMPARE_EXAMPLES = """\b
Examples:
  python -m rnnbench compare reports/before reports/after
  python -m rnnbench compare reports/before reports/after --fail-on median:10% -k "numba train_step"
  python -m rnnbench compare base.jsonl new.jsonl --require-baseline
  python -m rnnbench compare 20260102-0304 20260103 -o reports/compared --markdown
  python -m rnnbench compare reports/before reports/after --fail-on median:10%,inconclusive
  python -m rnnbench compare reports/before reports/after --noise reports/aa
  python -m rnnbench compare reports/before1,reports/before2 reports/after1,reports/after2

\b
Verdicts, by the ratio NEW / BASE and its 95 % interval over process launches:
  slower          surely not equal (among all cases no more than 5 % of such calls are wrong), and the ratio is
                  above 1 + PERCENT
  faster          the same in the other direction
  same            the whole interval is within PERCENT
  inconclusive    neither: more launches or a quieter machine would decide
  not comparable  unlike work, threads asked for, dtype, machine or versions, each named; or one side failed
  missing         on one side
"""


@click.command(
    epilog=f"{COMPARE_EXAMPLES}{exit_code_help('compare')}Where several hold, the first of 1, 5, 6, 3 and 7.\n"
)
@click.argument("base")
@click.argument("new")
@click.option("--fail-on", type=GATE, multiple=True, metavar="METRIC:PERCENT|inconclusive",
              help="What counts as slower: by median, min or mean of the calls of a turn, and by how much. "
                   "Default: median, by the noise of this machine where an A/A run measured it, else by 5%. "
                   "inconclusive: also exit with 7 where a case is neither slower, faster nor the same.")  # fmt: skip
@click.option("--noise", metavar="RUN", help="The A/A run (run --aa) whose noise is the margin. Default: the newest "
              "of this machine beside NEW and BASE.")  # fmt: skip
@click.option("--require-baseline", is_flag=True, help="Exit with 6 where BASE lacks a case of NEW.")
@click.option("--output", "-o", type=FolderType(file_okay=False), metavar="DIR",
              help="Write compare.html, a page with filters and figures, and compare.md there.")  # fmt: skip
@click.option("--markdown", is_flag=True, help="Print compare.md: a comment for a pull request, below 60 lines.")
@options(WORDS, JSON)
def compare(
    base: str,
    new: str,
    fail_on: tuple[tuple[Any, ...], ...],
    noise: str | None,
    require_baseline: bool,
    output: Path | None,
    markdown: bool,
    filter_: str,
    as_json: bool,
) -> None:
    """Say for each case whether the run NEW is slower than the run BASE, and how sure that is.

    BASE and NEW are folders of runs, files of records, or ids of runs under reports and runs, or the beginning of one;
    several runs of one machine with commas between, such as monday,tuesday, are one side with the launches of all.
    """
    from rnnbench.analysis.compare import Gate
    from rnnbench.api.compare import compared
    from rnnbench.report.compare import comparison_json, comparison_sections
    from rnnbench.report.section import print_sections

    asked = [one for each in fail_on for one in each]
    gates = [one for one in asked if isinstance(one, Gate)]
    if len(gates) > 1:
        raise click.UsageError(f"--fail-on gives both {gates[0]} and {gates[1]}; choose one of them")
    gate = gates[0] if gates else None
    if noise is not None and gate is not None:
        raise click.UsageError("--noise and --fail-on both give the margin; choose one of them")
    if markdown and as_json:
        raise click.UsageError("--markdown and --json are two forms of one answer; choose one of them")

    def work() -> int:
        found = compared(base, new, gate, filter_, lambda text: say(text, err=True), noise)
        answer = found.findings, found.gate, found.notes
        if as_json:
            print_json(comparison_json(*answer))
        elif markdown:
            say(found.comment)
        else:
            print_sections(console_of(), comparison_sections(*answer))
        if output is not None:
            say(f"Comparison: {found.write(output)[0]} and compare.md", err=as_json or markdown)
        return found.code(require_baseline, len(asked) > len(gates))

    guarded(work)
