"""`merge`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from rnnbench.cli.names import FolderType
from rnnbench.cli.shell import console_of, guarded, say

MERGE_EPILOG = """\b
Examples:
  python -m rnnbench merge reports/all reports/monday reports/tuesday
  python -m rnnbench compare reports/all reports/today

\b
Exit codes:
  0  merged
  2  refused: a run is there twice, or the runs did unlike work or are of unlike machines
  4  a run cannot be read, or OUT cannot be written or is not empty
  70  a fault of rnnbench itself; RNNBENCH_TRACEBACK=1 in the environment shows where
"""


@click.command(epilog=MERGE_EPILOG)
@click.argument("out", type=FolderType())
@click.argument("runs", metavar="RUN RUN...", nargs=-1, required=True)
@click.option("--force", is_flag=True, help="Also unlike machines; what several of them measured gets no number.")
def merge(out: Path, runs: tuple[str, ...], force: bool) -> None:
    """Put several runs of one machine together into the new folder OUT, with more launches, and write its report.

    RUNs are folders, or ids of runs under reports. The same case must have meant the same work in all of them.
    """
    from rnnbench.api.merge import merge as put_together
    from rnnbench.records.store import StoreError
    from rnnbench.report.data import ReportData
    from rnnbench.report.page import write_report
    from rnnbench.report.terminal import render

    if len(runs) < 2:
        raise click.UsageError(f"one run is given, {runs[0]}; merging takes two or more after OUT")

    def work() -> int:
        command = " ".join(["python -m rnnbench", *sys.argv[1:]])
        made = put_together(out, runs, command, lambda text: say(text, err=True), force=force)
        context = ReportData(made.records, made.curves, made.machine, made.run, made.run["reference"])
        try:
            write_report(out, context)
        except OSError as error:
            raise StoreError(f"the report cannot be written to {out}: {error.strerror}; the runs are merged") from error
        render(console_of(), context)
        say(f"Report: {out / 'report.md'}")
        return 0

    guarded(work)
