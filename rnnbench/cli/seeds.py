"""`seeds`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from rnnbench.api.exit_codes import FAULTS, OK, exit_code_help
from rnnbench.cli.names import Name
from rnnbench.cli.options import (
    DATA_DIR,
    JSON,
    ONE_BACKEND,
    SEED,
    THREADS,
    TIMEOUT,
    backend_or_default,
    options,
)
from rnnbench.cli.shell import (
    asked_plan,
    console_of,
    guarded,
    print_json,
    print_table,
)

if TYPE_CHECKING:
    from rnnbench.api.seeds import SeedFinding

SEEDS = (
    "forward-golden", "bptt-golden", "parity", "sentiment-toy", "imdb-50", "imdb-200", "imdb-200-cures",
    "imdb-200-torch",
)  # fmt: skip

SEEDS_EPILOG = f"""Experiments: {", ".join(SEEDS)}.

\b
Examples:
  python -m rnnbench seeds
  python -m rnnbench seeds forward-golden bptt-golden
  python -m rnnbench seeds imdb-200 --backend jax
{exit_code_help("seeds")}"""


@click.command(epilog=SEEDS_EPILOG)
@click.argument("experiments", nargs=-1, type=Name("experiment", SEEDS))
@options(ONE_BACKEND, THREADS, SEED, DATA_DIR, TIMEOUT, JSON)
def seeds(experiments: tuple[str, ...], backend: str | None, as_json: bool, **asked: Any) -> None:
    """Repeat the experiments of the two notebooks this project grew from, their figures beside ours."""
    from rnnbench.api.seeds import MISTAKES, run_experiments
    from rnnbench.cli.progress import Display
    from rnnbench.records.record import Mode

    def work() -> int:
        chosen = backend_or_default(backend)
        plan, _ = asked_plan(None, (chosen,), None, None, mode=Mode.DEFAULT, **asked)
        with Display(console_of(stderr=True)) as display:
            findings = run_experiments(tuple(dict.fromkeys(experiments)) or SEEDS, plan, display)
        if as_json:
            print_json({"findings": [asdict(finding) for finding in findings], "mistakes": MISTAKES})
        else:
            _print(findings, chosen, MISTAKES)
        return FAULTS if any(finding.agrees is False for finding in findings) else OK

    guarded(work)


def _print(findings: Sequence[SeedFinding], backend: str, mistakes: Mapping[int, str]) -> None:
    """The table, then the mistakes that concern what is in it."""
    console, signs = console_of(), {True: "agrees", False: "differs", None: ""}
    rows = [(f.experiment, f.quantity, f.theirs, f.ours, signs[f.agrees], f.note) for f in findings]
    print_table(("experiment", "quantity", "theirs", f"ours ({backend})", "", "note"), rows)
    notes = " ".join(f.note for f in findings)
    for number, text in mistakes.items():
        if f"mistake {number}" in notes:
            console.print(f"Mistake {number}. {text}", markup=False, highlight=False)
