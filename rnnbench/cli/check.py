"""`check`."""

from __future__ import annotations

from dataclasses import asdict

import click

from rnnbench.api.exit_codes import exit_code_help
from rnnbench.cli.options import JSON
from rnnbench.cli.shell import console_of, guarded, print_json, say

EXAMPLES = """\b
Examples:
  python -m rnnbench check reports/mine
  python -m rnnbench check 20260102-030405-beef --json
"""


@click.command(epilog=EXAMPLES + exit_code_help("check"))
@click.argument("run")
@JSON
def check(run: str, as_json: bool) -> None:
    """List what to bear in mind of a stored run, most severe first: number, threshold and remedy.

    RUN is the folder of a run, its id under reports, or a file of records.
    """
    from rnnbench.api.check import checked, code_of
    from rnnbench.report.section import show
    from rnnbench.report.sections import warnings

    def work() -> int:
        found = checked(run, lambda text: say(text, err=True))
        if as_json:
            print_json([asdict(w) for w in found])
        else:
            show(console_of(), [warnings(found)], soft_wrap=True)
            counted = sum(w.counts for w in found)
            say(f"warnings: {counted}, notes: {len(found) - counted}")
        return code_of(found)

    guarded(work)
