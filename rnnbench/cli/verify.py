"""`verify`."""

from __future__ import annotations

from typing import Any

import click

from rnnbench import backends
from rnnbench.api.exit_codes import exit_code_help
from rnnbench.cli import cluster
from rnnbench.cli.options import (
    DATA_DIR,
    ENV,
    JSON,
    PROBLEM,
    PROBLEM_HELP,
    SEED,
    THREADS,
    TIMEOUT,
    TRUNCATION,
    options,
    which,
)
from rnnbench.cli.shell import (
    asked_plan,
    console_of,
    given,
    guarded,
    print_json,
    written,
)
from rnnbench.model import USUAL_PASSES, DType, Pass

AUDIT_OPTIONS = {"audit", "backend", "passes", "dtypes", "threads", "timeout", "as_json", "env"}


def _audit(
    as_json: bool,
    backend: tuple[str, ...] | None,
    passes: tuple[str, ...] | None,
    dtypes: tuple[str, ...] | None,
    threads: int | None,
    timeout: float,
    env: dict[str, str],
) -> int:
    """What `verify --audit` does."""
    from rnnbench.api import audit as auditing
    from rnnbench.api.planning import allowed_threads
    from rnnbench.cli.progress import Display
    from rnnbench.cli.tables import print_audit

    with Display(console_of(stderr=True)) as display:
        result = auditing.audit_backends(
            backend or tuple(backends.usual()),
            [DType(d) for d in dtypes or (DType.FLOAT32,)],
            [Pass(p) for p in passes or USUAL_PASSES],
            allowed_threads(threads),
            timeout,
            display,
            env,
        )
    if as_json:
        print_json(result.as_json())
    else:
        print_audit(console_of(), result)
    return result.code


VERIFY_EPILOG = (
    PROBLEM_HELP
    + """\b
Examples:
  python -m rnnbench verify
  python -m rnnbench verify -b numba,torch -w imdb-200 --dtype float64
  python -m rnnbench verify -w running-parity -T 200 --truncation 7:3
  python -m rnnbench verify -w rows.npz -H 256 -b numba,jax
  python -m rnnbench verify --audit -b numba,torch --pass gradient
  python -m rnnbench verify --scheduler tcp://10.0.0.1:8786 -b numba,torch
"""
    + exit_code_help("verify")
)


@click.command(epilog=VERIFY_EPILOG)
@which(
    "parity,running-parity,imdb-50,imdb-200",
    "Types that the backends compute in, comma-separated; each is judged by the limits of its type. "
    "Default: float32,float64; with --audit: float32.",
)
@click.option("--audit", is_flag=True, help="Instead check that all work is in the clock and done anew in each call.")
@options(PROBLEM, TRUNCATION, THREADS, SEED, DATA_DIR, TIMEOUT, ENV, cluster.CLUSTER, JSON)
@click.pass_context
def verify(
    ctx: click.Context,
    as_json: bool,
    filter_: str,
    audit: bool,
    scheduler: str | None,
    local_cluster: int | None,
    **asked: Any,
) -> None:
    """Compare every backend with the float64 oracle, array by array, and time nothing."""
    if audit:
        if extra := given(ctx, AUDIT_OPTIONS):
            names = ", ".join(written(option, ctx) for option in extra)
            raise click.UsageError(f"--audit has a problem of its own; leave out: {names}")
        guarded(lambda: _audit(as_json, **{name: asked[name] for name in asked.keys() & AUDIT_OPTIONS}))
    from rnnbench.api import verify as checking
    from rnnbench.cli.progress import Display
    from rnnbench.cli.tables import print_checks

    def work() -> int:
        asked["dtypes"] = asked["dtypes"] or tuple(DType)
        threads = asked.pop("threads")
        over, _, own_threads = cluster.where(scheduler, local_cluster, threads, lambda: 0)
        plan, given = asked_plan(filter=filter_, mode=checking.MODE, default=checking.WORKLOADS, **own_threads, **asked)
        if over:
            return cluster.check(plan, given, threads, as_json, scheduler, local_cluster)
        with Display(console_of(stderr=True)) as display:
            result = checking.verify_plan(plan, given, display)
        if as_json:
            print_json(result.as_json())
        else:
            print_checks(console_of(), result)
        return result.code

    guarded(work)
