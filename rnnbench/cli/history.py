"""`history`."""

from __future__ import annotations

from pathlib import Path

import click

from rnnbench.api.exit_codes import exit_code_help
from rnnbench.cli.names import FolderType, PercentType
from rnnbench.cli.options import JSON, WORDS, options
from rnnbench.cli.shell import console_of, guarded, print_json, say

EXAMPLES = """\b
Examples:
  python -m rnnbench history
  python -m rnnbench history reports/nightly -k "numba train_step" -o reports/history
  python -m rnnbench history runs --json --fail
  python -m rnnbench history reports/may1,reports/may2 reports/june1,reports/june2
"""


@click.command(epilog=EXAMPLES + exit_code_help("history"))
@click.argument("folders", nargs=-1, metavar="[FOLDER]...")
@click.option("--output", "-o", type=FolderType(file_okay=False), metavar="DIR",
              help="Write history.html, history.md, figures and a table there.")  # fmt: skip
@click.option("--margin", type=PercentType(), default="5", show_default=True,
              metavar="PERCENT", help="A change of up to this much is no step.")  # fmt: skip
@click.option("--fail", is_flag=True, help="Exit with 1 where the last step of a case made it slower.")
@options(WORDS, JSON)
def history(
    folders: tuple[str, ...], output: Path | None, margin: float, fail: bool, filter_: str, as_json: bool
) -> None:
    """Show how the time of each case went over many runs, and where it changed for good.

    FOLDER is a run, a folder of runs, a run's id, or several runs of one machine with commas between, taken as one with
    more launches; all under reports and runs by default. A line is one case by one backend on one kind of machine, with
    the same work and versions. A step is a lasting change: from ten runs on, it is looked for in the last 100, by
    ranks, and the commits that it came between are named.
    """
    from rnnbench.api.history import history_of
    from rnnbench.report.history import history_json, history_sections, write_history
    from rnnbench.report.section import print_sections

    def work() -> int:
        found = history_of(folders, filter_, margin, lambda text: say(text, err=True))
        answer = found.lines, found.origins, found.margin, found.notes
        if as_json:
            print_json(history_json(*answer))
        elif found.lines:
            tables, summary, _ = history_sections(*answer)
            print_sections(console_of(), [*tables, summary])
        else:
            say("Error: no run has a right time", err=True)
        if output is not None and found.lines:
            written = write_history(output, *answer)
            say(f"History: {written[0]} and history.md", err=as_json)
        return found.code(fail)

    guarded(work)
