"""`env`."""

from __future__ import annotations

import sys
from dataclasses import asdict

import click

from rnnbench.api.exit_codes import exit_code_help
from rnnbench.cli.options import JSON, THREADS, options
from rnnbench.cli.shell import complain, print_json, print_table
from rnnbench.model import DType


@click.command(epilog=exit_code_help("env"))
@click.option("--peak", is_flag=True, help="Also measure multiply-adds and bytes a second, which takes seconds.")
@options(THREADS, JSON)
def env(peak: bool, threads: int | None, as_json: bool) -> None:
    """Show this machine as a run would record it.

    \b
    Examples:
      python -m rnnbench env
      python -m rnnbench env --json
      python -m rnnbench env --peak
    """
    from rnnbench.api.planning import allowed_threads
    from rnnbench.harness.worker_pool import computing_libraries
    from rnnbench.machine.fingerprint import fingerprint
    from rnnbench.machine.interference import Watch
    from rnnbench.machine.known import known
    from rnnbench.machine.peak import PeakUnknown, measure
    from rnnbench.report.devices import ceiling_rows
    from rnnbench.report.facts import machine_rows

    cores, start, found = allowed_threads(threads), Watch().start, None
    facts = {**fingerprint(), "start": start, "workers": known(computing_libraries, cores) or {}}
    if peak:
        try:
            found = measure(tuple(DType), cores)
        except PeakUnknown as error:
            sys.exit(complain(str(error), 3))
        facts["peak"] = asdict(found)
    if as_json:
        print_json(facts)
        return
    shown = [*machine_rows({key: value for key, value in facts.items() if key != "peak"})]
    if found:
        shown += [("peak", found.method), *((f"peak {name}", text) for name, text in ceiling_rows(found))]
    print_table(("fact", "value"), shown)
