"""`report`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rnnbench.api.exit_codes import exit_code_help
from rnnbench.cli.names import FolderType
from rnnbench.cli.options import BACKEND
from rnnbench.cli.shell import complain, console_of, guarded, print_json, say


@click.command(epilog=exit_code_help("report"))
@click.argument("folders", metavar="FOLDER...", nargs=-1, required=True)
@click.option("--output", "-o", type=FolderType(file_okay=False), metavar="DIR",
              help="Write the report there. Default: into FOLDER; of several FOLDERs it is only printed.")  # fmt: skip
@click.option("--reference", type=BACKEND, help="The backend that speed-ups are relative to.")
@click.option("--svg", is_flag=True, help="The figures as SVG too, for print and slides.")
@click.option("--export", "form", type=click.Choice(["github", "bencher", "badge"]),
              help="Write nothing; print JSON: github-action-benchmark's customSmallerIsBetter, Bencher Metric Format, "
              "or an endpoint badge of shields.io.")  # fmt: skip
@click.option("--force", is_flag=True, help="Also take FOLDERs of unlike machines; a case that several of them "
              "measured gets no number.")  # fmt: skip
def report(
    folders: tuple[str, ...], output: Path | None, reference: str | None, svg: bool, form: str | None, force: bool
) -> None:
    """Write the report of a run's folder again: report.html, report.md, tables and figures.

    FOLDER is a run's folder, or its id or the beginning of it under reports and runs. Several of one machine are
    reported as one run with the launches of all; the same case must have meant the same work in all of them.

    \b
    Examples:
      python -m rnnbench report reports/mine
      python -m rnnbench report reports/mine --reference jax --svg
      python -m rnnbench report reports/monday reports/tuesday -o reports/both
      python -m rnnbench report reports/mine --export bencher > bencher.json
      python -m rnnbench report reports/mine --export badge > badge.json
    """
    from rnnbench.api.planning import allowed_threads
    from rnnbench.api.runs import places_of, read_runs
    from rnnbench.records import store

    if svg and form is not None:
        raise click.UsageError("--export writes no figures; leave out --svg")
    if output is not None and form is not None:
        raise click.UsageError("--export writes nothing; leave out --output")
    if svg and output is None and len(folders) > 1:
        raise click.UsageError("several runs are only printed; give --output, or leave out --svg")
    if "" in folders:
        raise click.UsageError("the name of the folder is empty; give one, or . for the current folder")

    def work() -> int:
        places = [place for name in folders for place in places_of(name, folders)]
        if any((place / store.MACHINES).is_file() for place in places):
            return _over_machines(places, reference, svg, plain=output is None and form is None)
        loaded = read_runs(places, lambda text: say(text, err=True), force=force)
        if loaded.problems and not loaded.answered:
            raise store.StoreError(f"{places[0]} holds no record that can be read; its report stays as it is")
        if form is not None:
            return _exported(form, loaded)
        if not (loaded.answered or store.is_run(places[0])):
            raise store.StoreError(f"{places[0]} holds no run: no record in it can be read; no report was written")
        from rnnbench.report.data import ReportData
        from rnnbench.report.page import write_report
        from rnnbench.report.terminal import render

        chosen = reference or loaded.run.get("reference")
        context = ReportData.of(loaded, chosen)
        written = output or (places[0] if len(places) == 1 and places[0].is_dir() else None)
        if written is not None:
            try:
                write_report(written, context, vector=svg, processes=allowed_threads(None))
            except OSError as error:
                raise store.StoreError(f"the report cannot be written to {written}: {error.strerror}") from error
        render(console_of(), context)
        if written is not None:
            say(f"Report: {written / 'report.html'} and report.md")
        return 0

    guarded(work)


def _over_machines(places: list[Path], reference: str | None, svg: bool, *, plain: bool) -> int:
    """The reports of a run over a cluster, in its own folder."""
    from rnnbench.cli.cluster import write_reports
    from rnnbench.cluster import need_dask

    if len(places) > 1 or not plain:
        raise ValueError(
            "a run over a cluster is reported alone, into its own folder and without --export; give the folder of one "
            "kind of machine in it for these"
        )
    need_dask()
    return write_reports(places[0], reference, svg=svg)


def _exported(form: str, loaded: Any) -> int:
    """Print for a tracker; what is left out is said beside it."""
    from rnnbench.report.trackers import export

    printed, left = export(form, loaded.records, loaded.machine)
    for text in left:
        say(f"left out: {text}", err=True)
    if not printed:
        return complain("no right time to print", 3)
    print_json(printed)
    return 0
