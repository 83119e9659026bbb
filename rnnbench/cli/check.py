"""`check`."""

from __future__ import annotations

from dataclasses import asdict

import click

from rnnbench.api.exit_codes import OK, WARNED, exit_code_help
from rnnbench.cli.options import JSON
from rnnbench.cli.shell import console_of, guarded, print_json, say

WORST = 5  # turns of a run that are named

EXAMPLES = """\b
Examples:
  python -m rnnbench check reports/mine
  python -m rnnbench check 20260102-030405-beef --json
"""


@click.command(epilog=EXAMPLES + exit_code_help("check"))
@click.argument("run")
@JSON
def check(run: str, as_json: bool) -> None:
    """List the warnings of a stored run, most severe first, each with its number, threshold and remedy.

    Below them is what other programs took from its turns.

    RUN is the folder of a run, its id or the beginning of it under reports and runs, or a file of records.
    """
    from rnnbench.analysis.contention import contention_of
    from rnnbench.analysis.warnings import warnings_of
    from rnnbench.api.runs import side_of
    from rnnbench.cli.tables import print_contention
    from rnnbench.report.section import print_sections
    from rnnbench.report.sections import warnings_section

    def work() -> int:
        side = side_of(run, lambda text: say(text, err=True))
        found = warnings_of(side.records, side.machine)
        contention = contention_of(side.records, WORST)
        counted = sum(w.counts for w in found)
        if as_json:
            print_json({"warnings": [asdict(w) for w in found], "contention": [asdict(c) for c in contention]})
        else:
            print_sections(console_of(), [warnings_section(found)], soft_wrap=True)
            print_contention(console_of(), contention)
            say(f"warnings: {counted}, notes: {len(found) - counted}")
        return WARNED if counted else OK

    guarded(work)
