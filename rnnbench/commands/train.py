"""`rnnbench train`: one training, shown as it goes."""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from rnnbench.cli.progress import Display
from rnnbench.commands.learning import make_training
from rnnbench.harness.plan import Plan
from rnnbench.harness.tasks import check_sizes
from rnnbench.harness.train import train
from rnnbench.harness.worker_client import WorkerFailure
from rnnbench.harness.worker_pool import Crew
from rnnbench.machine.fingerprint import fingerprint
from rnnbench.records import store
from rnnbench.records.folder import held
from rnnbench.records.record import Epoch
from rnnbench.records.store import new_run_id


class TrainingFailed(ValueError):
    """The worker gave up; the message is its reason."""


def percent(value: float | None) -> str:
    """An accuracy for people."""
    return "   n/a" if value is None else f"{100 * value:5.2f} %"


def line(epoch: Epoch) -> str:
    """One epoch in one line."""
    seen = f"validation loss {epoch.validation_loss:.4f}, accuracy {percent(epoch.validation_accuracy)}"
    if epoch.loss is None:
        return f"epoch  0  untrained                                     {seen}"
    return (
        f"epoch {epoch.epoch:2d}  {epoch.seconds:7.2f} s  "
        f"loss {epoch.loss:.4f}, accuracy {percent(epoch.accuracy)}   {seen}"
    )


def run(plan: Plan, epochs: int | None, output: Path | None, console: Console, *, quiet: bool) -> dict[str, Any]:
    """Train the plan's one workload with its one backend. The result is for `--json`.

    Raises TrainingFailed where the worker fails, StoreError for `output`, and what `check_sizes` and `load_rows` raise.
    """
    check_sizes(plan, trained=True)
    backend = plan.backends[0]
    seen: list[Epoch] = []
    start = time.monotonic()
    with ExitStack() as stack:
        display = stack.enter_context(Display(Console(stderr=True)))
        if output is not None:
            stack.enter_context(held(output, new=True))
        journal = None if output is None else store.Journal(output, store.CURVES)
        if journal is not None:
            stack.callback(journal.close)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rnnbench-train-")))
        training = make_training(plan.workloads[0], plan, new_run_id(), display, epochs)
        problem = training.problem
        if not quiet:
            console.print(
                f"{problem.workload}, {backend}, {problem.dtype}, seed {plan.seed}, {plan.threads} threads; "
                f"{len(training.dataset.train.inputs)} rows; data: {training.dataset.source}",
                markup=False, highlight=False, soft_wrap=True,
            )  # fmt: skip
        crew = Crew([backend], folder, plan.threads, plan.timeout, cache=None)
        stack.callback(crew.kill)

        def emit(epoch: Epoch) -> None:
            seen.append(epoch)
            if journal is not None:
                journal.append([epoch])
            if not quiet:
                console.print(line(epoch), markup=False, highlight=False, soft_wrap=True)
            display.show(f"epoch {epoch.epoch + 1} of {epoch.epochs}", epoch.epoch / epoch.epochs)

        display.show(f"{backend}: starting", 0.0)
        try:
            test = train(training, backend, crew, emit)
        except WorkerFailure as failure:
            raise TrainingFailed(
                f"{backend} in training {problem.workload}: {failure.status}. {failure.reason}"
            ) from failure
    if output is not None:
        store.write_json(output / store.MACHINE, fingerprint())
    wall = time.monotonic() - start
    if not quiet:
        console.print(
            f"test loss {test.loss:.4f}, accuracy {percent(test.accuracy)}; "
            f"{sum(e.seconds for e in seen):.2f} s in epochs, {wall:.1f} s in all",
            markup=False, highlight=False,
        )  # fmt: skip
        if training.expect:
            console.print(f"Note: {training.expect}", markup=False, highlight=False, soft_wrap=True)
    return {
        "workload": problem.workload,
        "backend": backend,
        "dtype": problem.dtype,
        "seed": plan.seed,
        "data_source": training.dataset.source,
        "epochs": [asdict(epoch) for epoch in seen],
        "test": asdict(test),
        "expect": training.expect,
        "wall_seconds": wall,
    }
