"""`train`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from rnnbench.api.exit_codes import exit_code_help
from rnnbench.cli.names import MAX_SIZE, Count, FolderType
from rnnbench.cli.options import (
    DATA_DIR,
    DTYPE,
    ENV,
    JSON,
    ONE_BACKEND,
    PROBLEM,
    PROBLEM_HELP,
    SEED,
    THREADS,
    TIMEOUT,
    TRUNCATION,
    WORKLOAD,
    backend_or_default,
    options,
)
from rnnbench.cli.shell import (
    asked_plan,
    console_of,
    each_cell,
    guarded,
    print_json,
)

TRAIN_EPILOG = (
    PROBLEM_HELP.replace("-w ", "   ")
    + """\b
Examples:
  python -m rnnbench train imdb-50
  python -m rnnbench train imdb-50 --backend jax --epochs 5
  python -m rnnbench train running-parity -T 1000 --truncation 50:25 --json
  python -m rnnbench train rows.npz -H 64 --epochs 10
  python -m rnnbench train imdb-200 --cell rnn,gru,lstm -o reports/cells
  python -m rnnbench train made-up -E 8 -H 64 -T 50
"""
    + exit_code_help("train")
)


@click.command(epilog=TRAIN_EPILOG)
@click.argument("workload", type=WORKLOAD)
@click.option("--epochs", type=Count(1, MAX_SIZE), help="Default: the workload's.")
@click.option("--dtype", type=DTYPE, default="float32", show_default=True)
@click.option("-o", "--output", type=FolderType(), help="Folder for the learning curve, a new or empty one.")
@options(ONE_BACKEND, PROBLEM, TRUNCATION, THREADS, SEED, DATA_DIR, TIMEOUT, ENV, JSON)
def train(
    workload: str, backend: str | None, epochs: int | None, dtype: str, output: Path | None, as_json: bool, **asked: Any
) -> None:
    """Train one workload with one backend; loss and accuracy after each epoch, and on the test rows at the end."""
    from rnnbench.api import train as training
    from rnnbench.cli.progress import Display
    from rnnbench.records.record import Mode

    def work() -> int:
        chosen = backend_or_default(backend, asked["env"])
        show = partial(console_of().print, markup=False, highlight=False, soft_wrap=True)
        found, cells = [], each_cell(asked.pop("cell") or (), output)
        try:
            for cell, folder in cells:
                plan, given = asked_plan((workload,), (chosen,), None, (dtype,), mode=Mode.DEFAULT, cell=cell, **asked)
                tell = (lambda _: None) if as_json else show
                with Display(console_of(stderr=True)) as display:
                    found.append(result := training.run_training(plan, given, epochs, folder, display, tell))
                if not as_json:
                    show(str(result))
                    if result.expect:
                        show(f"Note: {result.expect}")
        finally:  # what was trained before a cell that fails is told
            if as_json and found:
                every = [result.as_json() for result in found]
                print_json(every if len(cells) > 1 else every[0])
        return 0

    guarded(work)
