"""One training until an accuracy on the test rows, in a process started for it: each part by the parent's clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from rnnbench.harness import arrays
from rnnbench.harness.train import Training
from rnnbench.harness.worker_client import Limit, WorkerFailure
from rnnbench.harness.worker_pool import WorkerPool
from rnnbench.machine.interference import read_cpu_times, shares_between
from rnnbench.model import Case, Pass
from rnnbench.records.record import COLD, WARM, Seeds, Status, TrainedEpoch, TrainingRecord
from rnnbench.units import exact_duration


def case_of(training: Training) -> Case:
    """What is asked: epochs over all rows."""
    steps = -(-len(training.dataset.train.inputs) // training.problem.B)
    return Case(**vars(training.problem), pass_=Pass.EPOCH, steps=steps)


class ToAccuracy:
    """Trains until an accuracy, one process a training, each within `budget` seconds; `now` is the clock, in ns.

    `common` are fields of every record. No request takes longer than the pool allows by itself.
    """

    def __init__(
        self,
        pool: WorkerPool,
        until: float,
        budget: float | None,
        common: Mapping[str, Any],
        now: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.pool, self.until, self.budget, self.now = pool, until, budget, now
        self.common = {"threads": pool.threads, **common}
        self.begun = now()
        self.allowed, pool.limit = pool.limit, self._limit
        pool.times_imports = True  # with the garbage collector on, as a user's import has it

    def train(self, training: Training, backend: str, data_seed: int, cache: str = WARM) -> TrainingRecord:
        """The record of one training, also where it fails. With a cold cache it is of one epoch.

        Rows and parameters lie ready as arrays in a file. The process is gone when this returns, however it does.
        """
        epochs = 1 if cache == COLD else training.epochs
        record = TrainingRecord(
            **self.common,
            case=case_of(training),
            run_id=training.run_id,
            backend=backend,
            status=Status.OK,
            seeds=Seeds(training.seed, data_seed, training.seed),
            data_source=training.dataset.source,
            started=datetime.now(UTC).isoformat(timespec="milliseconds"),
            until=self.until,
            max_epochs=epochs,
            cache=cache,
        )
        path = self._stage(training)
        before = read_cpu_times()
        self.begun = self.now()
        tested: list[TrainedEpoch] = []
        parts: dict[str, Any] = {}
        try:
            self._train(training, backend, path, epochs, parts, tested)
        except WorkerFailure as failure:
            record = replace(record, status=failure.status, reason=failure.reason)
        finally:
            ended_ns = self._since() - sum(epoch.test_ns for epoch in tested)
            self.pool.dismiss(backend)
            path.unlink(missing_ok=True)
        shares = shares_between(before, read_cpu_times())
        others = None if shares is None or shares.others is None else round(min(1.0, shares.others), 4)
        return replace(record, **parts, epochs=tuple(tested), ended_ns=ended_ns, others_share=others)

    def _train(
        self,
        training: Training,
        backend: str,
        path: Path,
        epochs: int,
        parts: dict[str, Any],
        tested: list[TrainedEpoch],
    ) -> None:
        """All of it; `parts` and `tested` have what is known when it fails."""
        ask = self.pool.ask
        self.pool.worker(backend)
        imported_ns = self.pool.place(backend).import_ns or 0
        reply = ask(backend, "unsupported", case=msgspec.to_builtins(case_of(training)))
        if reply["reason"] is not None:
            status = Status.UNAVAILABLE if reply["unavailable"] else Status.UNSUPPORTED
            raise WorkerFailure(status, reply["reason"], alive=True)
        start_ns = self._since()
        parts |= {"start_ns": max(0, start_ns - imported_ns), "import_ns": imported_ns}
        ready = ask(backend, "prepare", problem=msgspec.to_builtins(training.problem), arrays=str(path))
        ready_ns = self._since()
        prepare_ns = min(ready["prepare_ns"], ready_ns - start_ns)
        parts |= {"read_ns": ready_ns - start_ns - prepare_ns, "prepare_ns": prepare_ns}
        orders = np.random.SeedSequence([training.seed, 1]).generate_state(epochs)
        tests_ns = 0
        for order in orders:
            began = self._since()
            done = ask(backend, "epoch", seed=int(order))
            trained = self._since()
            seen = ask(backend, "evaluate", split="test")
            test_ns = self._since() - trained
            tested.append(TrainedEpoch(trained - tests_ns, trained - began, test_ns, done["loss"], seen["accuracy"]))
            tests_ns += test_ns
            if seen["accuracy"] >= self.until:
                return

    def _limit(self) -> Limit:
        allowed = self.allowed()
        if self.budget is None:
            return allowed
        words = f"the budget of a training of {exact_duration(self.budget)} was spent; raise --case-budget"
        return min(allowed, Limit(self.budget - self._since() / 1e9, words), key=lambda limit: limit.seconds)

    def _since(self) -> int:
        return self.now() - self.begun

    def _stage(self, training: Training) -> Path:
        """The rows to train on and to test on, and the parameters, in a file that was just written."""
        path = self.pool.folder / "arrays" / "to-accuracy.npz"
        arrays.save_problem(path, training.params, training.dataset.train, test=training.dataset.test)
        return path
