"""A whole training in a worker: epochs, what was learnt after each, and the test at the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from rnnbench.harness import arrays
from rnnbench.harness.worker_client import WorkerFailure
from rnnbench.harness.worker_pool import WorkerPool
from rnnbench.model import Case, Pass, Problem
from rnnbench.params import Params
from rnnbench.records.record import Epoch, Status
from rnnbench.workloads.base import Dataset


@dataclass(frozen=True)
class Training:
    """What to train, on whose rows, for how many epochs. `seed` fixes the order of the rows."""

    problem: Problem
    params: Params
    dataset: Dataset
    epochs: int
    seed: int
    run_id: str
    expect: str = ""  # as of the workload


@dataclass(frozen=True)
class Test:
    """After the last epoch: loss and accuracy on the test rows, and the share of rows with a logit above 0."""

    loss: float
    accuracy: float | None
    positive: float
    seconds: float


def train_in_worker(training: Training, backend: str, pool: WorkerPool, emit: Callable[[Epoch], None]) -> Test:
    """Train in the backend's worker. `emit` gets epoch 0, the untrained network, and then each epoch as it ends.

    Raises WorkerFailure, also where the backend cannot train this problem.
    """
    case = Case(**vars(training.problem), pass_=Pass.EPOCH, steps=1)
    reply = pool.ask(backend, "unsupported", case=msgspec.to_builtins(case))
    if reply["reason"] is not None:
        status = Status.UNAVAILABLE if reply["unavailable"] else Status.UNSUPPORTED
        raise WorkerFailure(status, reply["reason"], alive=True)
    path = _stage(training, pool.folder)
    pool.ask(backend, "prepare", problem=msgspec.to_builtins(training.problem), arrays=str(path))
    validation = "test" if training.dataset.validation is None else "validation"
    orders = np.random.SeedSequence([training.seed, 1]).generate_state(training.epochs)
    for number in range(training.epochs + 1):
        done: dict[str, Any] = {"loss": None, "accuracy": None, "seconds": 0.0}
        if number:
            done = pool.ask(backend, "epoch", seed=int(orders[number - 1]))
        seen = pool.ask(backend, "evaluate", split=validation)
        emit(
            Epoch(
                run_id=training.run_id,
                workload=training.problem.workload,
                backend=backend,
                dtype=str(training.problem.dtype),
                seed=training.seed,
                epoch=number,
                epochs=training.epochs,
                loss=done["loss"],
                accuracy=done["accuracy"],
                validation_loss=seen["loss"],
                validation_accuracy=seen["accuracy"],
                seconds=done["seconds"],
                data_source=training.dataset.source,
                expect=training.expect,
            )
        )
    test = seen if validation == "test" else pool.ask(backend, "evaluate", split="test")
    pool.ask(backend, "close")
    return Test(**test)


def _stage(training: Training, folder: Path) -> Path:
    path = folder / "arrays" / f"train-{training.problem.workload}-{training.problem.dtype}-{training.seed}.npz"
    if not path.exists():
        arrays.save_problem(path, training.params, training.dataset.train, **arrays.splits_of(training.dataset))
    return path
