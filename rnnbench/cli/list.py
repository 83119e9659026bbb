"""`list`."""

from __future__ import annotations

import click

from rnnbench import backends, workloads
from rnnbench.api.exit_codes import exit_code_help
from rnnbench.cli.names import Name
from rnnbench.cli.options import BACKENDS, DTYPE, JSON, TIMEOUT, options, several
from rnnbench.cli.seeds import SEEDS
from rnnbench.cli.shell import console_of, given, guarded, print_json, print_table
from rnnbench.model import DType, Pass


@click.command("list", epilog=exit_code_help("list"))
@click.option("--contract", is_flag=True, help="Show what each backend has inside the clock; imports all of them.")
@several("--backend", "-b", "names", type=BACKENDS, help="With --contract. Default: all that are not on request.")
@click.option(
    "--workload",
    "-w",
    type=Name("workload", list(workloads.REGISTRY)),
    help="With --contract: whose sizes. Default: imdb-50.",
)
@click.option("--dtype", type=DTYPE, help="With --contract. Default: float32.")
@options(TIMEOUT, JSON)
@click.pass_context
def list_(
    ctx: click.Context,
    contract: bool,
    names: tuple[str, ...] | None,
    workload: str | None,
    dtype: str | None,
    timeout: float,
    as_json: bool,
) -> None:
    """Show the workloads and backends, and how to get what is missing.

    \b
    Examples:
      python -m rnnbench list
      python -m rnnbench list --json
      python -m rnnbench list --contract -b numba,jax -w imdb-200
    """
    if contract:
        guarded(lambda: _contracts(names or tuple(backends.usual()), workload or "imdb-50", dtype, timeout, as_json))
    for option in given(ctx, {"contract", "as_json"}):
        flag = option.opts[0]
        raise click.UsageError(f"{flag} belongs to --contract; give that too, or leave {flag} out")
    tasks = {name: workloads.get(name) for name in workloads.REGISTRY}
    answers = {name: (entry.summary, backends.missing(name)) for name, entry in backends.REGISTRY.items()}
    if as_json:
        print_json(
            {
                "workloads": {
                    name: {"summary": w.summary, "B": w.B, "T": w.T, "epochs": w.epochs, "stand_in": w.stand_in,
                           "expect": w.expect, "shapes": w.model.shapes}
                    for name, w in tasks.items()
                },
                "backends": {name: {"summary": text, "missing": why, "usual": name in backends.usual()}
                             for name, (text, why) in answers.items()},
                "passes": list(Pass),
                "dtypes": list(DType),
                "seeds": SEEDS,
            }
        )  # fmt: skip
        return
    print_table(
        ("workload", "what it is"), [(n, "; ".join(filter(None, (w.summary, w.expect)))) for n, w in tasks.items()]
    )
    print_table(("backend", "what it is", "here"), [(n, text, why or _here(n)) for n, (text, why) in answers.items()])


def _here(name: str) -> str:
    """What is known of an installed backend without starting it."""
    if backends.REGISTRY[name].gpu:
        return "installed; needs an NVIDIA GPU"
    return "ready" if name in backends.usual() else "ready; measured if named"


def _contracts(names: tuple[str, ...], workload: str, dtype: str | None, timeout: float, as_json: bool) -> int:
    """What `list --contract` prints; 3 where no backend could be asked."""
    from rnnbench.api import contract as telling
    from rnnbench.api.planning import allowed_threads
    from rnnbench.cli.tables import print_contracts

    problem = workloads.get(workload).spec.problem(DType(dtype or DType.FLOAT32))
    with console_of(stderr=True).status(f"importing {', '.join(names)}"):
        answers = telling.ask(names, problem, allowed_threads(None), timeout)
    if as_json:
        print_json(telling.contracts_json(answers, problem))
    else:
        print_contracts(console_of(), answers, problem)
    return 0 if any(t.contract for t in answers.values()) else 3
