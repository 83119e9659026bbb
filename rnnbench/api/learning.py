"""The trainings that belong to a run, for its learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rnnbench.harness.observer import Observer
from rnnbench.harness.plan import Plan
from rnnbench.harness.stopping import Stopping
from rnnbench.harness.tasks import load_rows, refused_sizes, workload_of
from rnnbench.harness.timers import Ledger
from rnnbench.harness.train import Training, train_in_worker
from rnnbench.harness.worker_client import WorkerFailure
from rnnbench.harness.worker_pool import WorkerPool
from rnnbench.model import DType
from rnnbench.params import cast, init_params
from rnnbench.records import store
from rnnbench.records.account import TimeKind
from rnnbench.records.record import Epoch, Mode
from rnnbench.workloads.base import MADE_UP, Spec, Workload

SHORT_TRAINING = 100  # time steps: a training on longer rows takes more than seconds, and is done when asked for


def training_backend(names: Sequence[str]) -> str | None:
    """The backend that trains for the learning curves of a run: `numba` if it takes part, else the first; or None."""
    return "numba" if "numba" in names else next(iter(names), None)


def trainings(
    plan: Plan,
    able: Sequence[str],
    folder: Path,
    run_id: str,
    display: Observer,
    curves: store.Sink,
    before: list[Epoch],
    ledger: Ledger,
    stopping: Stopping,
    given: Mapping[str, Workload],
    run_folder: Path,
) -> None:
    """One for each workload of the plan, by one of the backends that are `able`, while there is a budget for it."""
    name = training_backend(able)
    if name is None:
        return
    cache, limit = folder / "cache", stopping.limit
    pool = WorkerPool([name], folder, plan.threads, plan.timeout, cache, ledger, limit, plan.env)
    try:
        refused = refused_sizes(plan)
        for spec in (spec for spec in plan.workloads if spec.name in plan.training):
            if reason := refused.get((spec.name, plan.dtypes[0])):
                display.say(f"{spec.name} was not trained: {reason}")
                continue
            if stopping.left <= 0:
                display.say(f"{spec.name} was not trained: {stopping.limit().budget}")
                continue
            with pool.ledger.spend(TimeKind.DATA):
                training = make_training(spec, plan, run_id, display, given=given, folder=run_folder)
            whole = {(e.workload, e.backend) for e in before if e.epoch == e.epochs}
            if (training.problem.workload, name) in whole:
                continue

            def emit(epoch: Epoch, training: Training = training) -> None:
                display.show(f"training {epoch.workload}: {name}", (epoch.epoch + 1) / (training.epochs + 1))
                curves.append([epoch])

            try:
                train_in_worker(training, name, pool, emit)
            except WorkerFailure as failure:
                display.say(f"{name} in training {spec.name}: {failure.status}. {failure.reason}")
    finally:
        pool.kill()


def make_training(
    spec: Spec,
    plan: Plan,
    run_id: str,
    display: Observer,
    epochs: int | None = None,
    given: Mapping[str, Workload] | None = None,
    folder: Path | None = None,
) -> Training:
    """A training of a plan's workload, in its first type. `given` and `folder` as of `workload_of`."""
    workload, dataset = load_rows(workload_of(spec, given or {}, folder), plan.seed, plan.data_dir, display.say)
    dtype: DType = plan.dtypes[0]
    return Training(
        problem=workload.spec.problem(dtype, plan.truncation, dataset.train),
        params=cast(init_params(workload.model, workload.init, plan.seed), dtype),
        dataset=dataset,
        epochs=workload.epochs if epochs is None else epochs,
        seed=plan.seed,
        run_id=run_id,
        expect=workload.expect,
    )


def with_trainings(plan: Plan, asked: bool | None) -> Plan:
    """The plan with its trainings: as `asked`, else those that take seconds and can learn."""
    if asked is False or (asked is None and (plan.filter or not plan.passes)):
        return plan
    longest, largest = (5, 1_000) if plan.mode is Mode.QUICK else (SHORT_TRAINING, 50_000)
    short = [s.name for s in plan.workloads if longest >= s.T and s.rows[0] <= largest and s.origin != MADE_UP]
    return replace(plan, training=tuple(s.name for s in plan.workloads) if asked else tuple(short))
