"""Five epochs of imdb-50 from one seed teach every backend as much as the seed's notebook says: 0.77 to 0.82."""

from __future__ import annotations

import pytest
from rich.console import Console

from rnnbench import backends
from rnnbench.api.learning import make_training
from rnnbench.cli.progress import Display
from rnnbench.harness.plan import Plan
from rnnbench.harness.train import train_in_worker
from rnnbench.harness.worker_pool import WorkerPool
from rnnbench.model import DType, Pass
from rnnbench.records.record import Epoch, Mode
from tests.helpers import specs

pytestmark = [pytest.mark.realdata, pytest.mark.slow, pytest.mark.timeout(1200)]

LOW, HIGH = 0.77, 0.82
TIMEOUT = 600.0
IN_SECONDS = ("numba", "jax")  # the others take minutes: with --every-case


def plan_of(backend: str) -> Plan:
    """As `rnnbench train imdb-50 --threads 1` has it: on a busy machine a second thread is waited for."""
    return Plan(specs("imdb-50"), (backend,), (Pass.EPOCH,), (DType.FLOAT32,), Mode.DEFAULT, 1, 0, TIMEOUT)


@pytest.mark.parametrize("name", backends.REGISTRY)
def test_held_out_accuracy_after_five_epochs(name, request, tmp_path):
    chosen = request.config.getoption("--backend") or (
        backends.REGISTRY if request.config.getoption("--every-case") else IN_SECONDS
    )
    if name not in chosen:
        pytest.skip("takes long; run with --every-case")
    if reason := backends.missing(name):
        pytest.skip(reason)
    training = make_training(*specs("imdb-50"), plan_of(name), "test", Display(Console(stderr=True)))
    if training.problem.workload != "imdb-50":
        pytest.skip("the real imdb.npz is not here; set KERAS_HOME or RNNBENCH_DATA to the folder that has it")
    epochs: list[Epoch] = []
    pool = WorkerPool([name], tmp_path, plan_of(name).threads, TIMEOUT, cache=None)
    try:
        test = train_in_worker(training, name, pool, epochs.append)
    finally:
        pool.kill()
    print(f"{name}: test accuracy {test.accuracy}, {sum(epoch.seconds for epoch in epochs):.1f} s in epochs")
    assert [epoch.epoch for epoch in epochs] == list(range(6))
    losses = [epoch.loss for epoch in epochs[1:]]
    assert losses == sorted(losses, reverse=True)
    assert test.accuracy is not None
    assert LOW <= test.accuracy <= HIGH
    assert test.accuracy == epochs[-1].validation_accuracy  # imdb-50 validates on its test rows
