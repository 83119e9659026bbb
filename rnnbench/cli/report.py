"""`report`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rnnbench.api.exit_codes import exit_code_help
from rnnbench.cli.names import FolderType
from rnnbench.cli.options import (
    BACKEND,
)
from rnnbench.cli.shell import (
    complain,
    console_of,
    guarded,
    print_json,
    say,
)


@click.command(epilog=exit_code_help("report"))
@click.argument("folder", type=FolderType())
@click.option("--reference", type=BACKEND, help="The baseline of speed-ups.")
@click.option("--svg", is_flag=True, help="The figures as SVG too, for print and slides.")
@click.option("--export", "form", type=click.Choice(["github", "bencher"]),
              help="Write nothing; print JSON for a tracker: github-action-benchmark's customSmallerIsBetter, or "
              "Bencher Metric Format.")  # fmt: skip
def report(folder: Path, reference: str | None, svg: bool, form: str | None) -> None:
    """Write the report of a run's folder again: report.md, tables and figures.

    \b
    Examples:
      python -m rnnbench report reports/mine
      python -m rnnbench report reports/mine --reference jax --svg
      python -m rnnbench report reports/mine --export bencher > bencher.json
    """
    from rnnbench.api.planning import allowed_threads
    from rnnbench.records import store

    if svg and form is not None:
        raise click.UsageError("--export writes no figures; leave out --svg")

    def work() -> int:
        loaded = store.load(folder)
        for problem in loaded.problems:
            say(problem, err=True)
        if loaded.problems and not (loaded.records or loaded.curves):
            raise store.StoreError(f"{folder} holds no record that can be read; its report stays as it is")
        if form is not None:
            return _exported(form, loaded)
        if not (loaded.records or loaded.curves or store.is_run(folder)):
            raise store.StoreError(f"{folder} holds no run: no record in it can be read; no report was written")
        from rnnbench.report.data import ReportData
        from rnnbench.report.page import write_report
        from rnnbench.report.terminal import render

        chosen = reference or loaded.run.get("reference")
        context = ReportData(loaded.records, loaded.curves, loaded.machine, loaded.run, chosen)
        try:
            write_report(folder, context, vector=svg, processes=allowed_threads(None))
        except OSError as error:
            raise store.StoreError(f"the report cannot be written to {folder}: {error.strerror}") from error
        render(console_of(), context)
        say(f"Report: {folder / 'report.md'}")
        return 0

    guarded(work)


def _exported(form: str, loaded: Any) -> int:
    """Print for a tracker; what is left out is said beside it."""
    from rnnbench.report.export import export

    printed, left = export(form, loaded.records, loaded.machine)
    for text in left:
        say(f"left out: {text}", err=True)
    if not printed:
        return complain("no right time to print", 3)
    print_json(printed)
    return 0
