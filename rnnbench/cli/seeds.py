"""`seeds`."""

from __future__ import annotations

from typing import Any

import click

from rnnbench import backends
from rnnbench.cli.names import Name
from rnnbench.cli.options import (
    BACKEND,
    DATA_DIR,
    JSON,
    SEED,
    THREADS,
    TIMEOUT,
    options,
)
from rnnbench.cli.shell import (
    complain,
    console_of,
    guarded,
    plan_of,
    print_json,
)

SEEDS = (
    "forward-golden",
    "bptt-golden",
    "parity",
    "sentiment-toy",
    "imdb-50",
    "imdb-200",
    "imdb-200-torch",
)


SEEDS_EPILOG = f"""Experiments: {", ".join(SEEDS)}.

\b
Examples:
  python -m rnnbench seeds
  python -m rnnbench seeds forward-golden bptt-golden
  python -m rnnbench seeds imdb-200 --backend jax
"""


@click.command(epilog=SEEDS_EPILOG)
@click.argument("experiments", nargs=-1, type=Name("experiment", SEEDS))
@click.option("--backend", "-b", type=BACKEND, default="numba", show_default=True)
@options(THREADS, SEED, DATA_DIR, TIMEOUT, JSON)
def seeds(experiments: tuple[str, ...], backend: str, as_json: bool, **asked: Any) -> None:
    """Repeat the experiments of the two notebooks this project grew from, their figures beside ours."""
    from rnnbench.commands import seeds as experiments_of_seeds
    from rnnbench.records.record import Mode

    def work() -> int:
        if reason := backends.missing(backend):
            return complain(reason, 3)
        plan, _ = plan_of(None, (backend,), None, None, mode=Mode.DEFAULT, **asked)
        findings, code = experiments_of_seeds.run(tuple(dict.fromkeys(experiments)) or SEEDS, plan)
        if as_json:
            print_json(experiments_of_seeds.as_json(findings))
        else:
            experiments_of_seeds.show(findings, backend, console_of())
        return code

    guarded(work)
