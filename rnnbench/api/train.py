"""`rnnbench train`: one training, shown as it goes."""

from __future__ import annotations

import html
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnnbench.api.learning import make_training
from rnnbench.files import temporary_folder
from rnnbench.harness.observer import Observer
from rnnbench.harness.plan import Plan
from rnnbench.harness.tasks import check_sizes
from rnnbench.harness.train import Test, train_in_worker
from rnnbench.harness.worker_client import WorkerFailure
from rnnbench.harness.worker_pool import WorkerPool
from rnnbench.machine.fingerprint import fingerprint
from rnnbench.records import store
from rnnbench.records.folder import held
from rnnbench.records.record import Epoch
from rnnbench.records.store import new_run_id
from rnnbench.report.tables import curves_frame
from rnnbench.workloads.base import Workload

if TYPE_CHECKING:
    import pandas as pd


class TrainingFailed(ValueError):
    """The worker gave up; the message is its reason."""


@dataclass(frozen=True, repr=False)
class Trained:
    """How a training went: every epoch, the first one untrained, and the test after the last."""

    epochs: tuple[Epoch, ...]
    test: Test
    seed: int
    data_source: str
    expect: str
    wall_seconds: float

    @property
    def curve(self) -> pd.DataFrame:
        """One row for each epoch; the columns are those of `tables/curves.csv`."""
        return curves_frame(self.epochs)

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        first = self.epochs[0]
        return {
            "workload": first.workload, "backend": first.backend, "dtype": first.dtype, "seed": self.seed,
            "data_source": self.data_source, "epochs": [asdict(epoch) for epoch in self.epochs],
            "test": asdict(self.test), "expect": self.expect, "wall_seconds": self.wall_seconds,
        }  # fmt: skip

    def __str__(self) -> str:
        seconds = sum(epoch.seconds for epoch in self.epochs)
        return (
            f"test loss {self.test.loss:.4f}, accuracy {_accuracy(self.test.accuracy).strip()}; "
            f"{seconds:.2f} s in epochs, {self.wall_seconds:.1f} s in all"
        )

    def __repr__(self) -> str:
        return "\n".join([*map(line, self.epochs), str(self)])

    def _repr_html_(self) -> str:
        table = self.curve[["epoch", "loss", "accuracy", "validation_loss", "validation_accuracy", "seconds"]]
        return f"<p>{html.escape(str(self))}</p>{table.to_html(index=False)}"


def _accuracy(value: float | None) -> str:
    """An accuracy for people."""
    return "   n/a" if value is None else f"{100 * value:5.2f} %"


def line(epoch: Epoch) -> str:
    """One epoch in one line."""
    seen = f"validation loss {epoch.validation_loss:.4f}, accuracy {_accuracy(epoch.validation_accuracy)}"
    if epoch.loss is None:
        return f"epoch  0  untrained                                     {seen}"
    return (
        f"epoch {epoch.epoch:2d}  {epoch.seconds:7.2f} s  "
        f"loss {epoch.loss:.4f}, accuracy {_accuracy(epoch.accuracy)}   {seen}"
    )


def run_training(
    plan: Plan,
    given: Mapping[str, Workload],
    epochs: int | None,
    output: Path | None,
    observer: Observer,
    tell: Callable[[str], None],
) -> Trained:
    """Train the plan's one workload with its one backend. `tell` gets a line for each epoch.

    Raises TrainingFailed where the worker fails, StoreError for `output`, and what `check_sizes` and `load_rows` raise.
    """
    check_sizes(plan, trained=True)
    backend = plan.backends[0]
    seen: list[Epoch] = []
    start = time.monotonic()
    with ExitStack() as stack:
        if output is not None:
            stack.enter_context(held(output, new=True))
        journal = None if output is None else store.Journal(output, store.CURVES)
        if journal is not None:
            stack.callback(journal.close)
        folder = Path(stack.enter_context(temporary_folder("rnnbench-train-")))
        training = make_training(plan.workloads[0], plan, new_run_id(), observer, epochs, given)
        problem = training.problem
        tell(
            f"{problem.workload}, {backend}, {problem.dtype}, seed {plan.seed}, {plan.threads} threads; "
            f"{len(training.dataset.train.inputs)} rows; data: {training.dataset.source}"
        )
        pool = WorkerPool([backend], folder, plan.threads, plan.timeout, cache=None, env=plan.env)
        stack.callback(pool.kill)

        def emit(epoch: Epoch) -> None:
            seen.append(epoch)
            if journal is not None:
                journal.append([epoch])
            tell(line(epoch))
            observer.show(f"epoch {epoch.epoch + 1} of {epoch.epochs}", epoch.epoch / epoch.epochs)

        observer.show(f"{backend}: starting", 0.0)
        try:
            test = train_in_worker(training, backend, pool, emit)
        except WorkerFailure as failure:
            raise TrainingFailed(
                f"{backend} in training {problem.workload}: {failure.status}. {failure.reason}"
            ) from failure
    if output is not None:
        store.write_json(output / store.MACHINE, fingerprint(plan.env))
    return Trained(tuple(seen), test, plan.seed, training.dataset.source, training.expect, time.monotonic() - start)
