"""Our own kernels by pass and workload, compiled before they are timed. Run by `make bench`.

pytest-benchmark would calibrate by the first call, compiling included; hence `pedantic` after a call of our own.
"""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from rnnbench import backends, workloads
from rnnbench.backends.base import Data
from rnnbench.measure.schedule import problem_of
from rnnbench.model import DType, Pass
from rnnbench.params import init_params
from rnnbench.workloads.base import Source

WORKLOADS = ("parity", "running-parity", "imdb-synthetic-50", "imdb-synthetic-200")
BATCHES = 8


@pytest.fixture(scope="module")
def backend():
    return backends.load("numba")


@pytest.fixture(scope="module", params=WORKLOADS)
def session(request, backend):
    workload = workloads.get(request.param)
    train = workload.load(Source(T=workload.T)).train
    rows = BATCHES * workload.B
    problem = problem_of(workload, DType.FLOAT32, None)
    params = init_params(workload.model, workload.init, 0)
    made = backend.prepare(problem, params, Data(train.inputs[:rows], train.targets[:rows]))
    yield made
    made.close()


@pytest.mark.parametrize("pass_", list(Pass))
def test_pass(benchmark, backend, session, pass_):
    order = np.random.default_rng(0).permutation(BATCHES * session.problem.B)
    arguments = (order,) if pass_ is Pass.EPOCH else ()
    call = session.train_epoch if pass_ is Pass.EPOCH else getattr(session, pass_)
    call(*arguments)  # compile
    benchmark.extra_info |= {
        "threads": backend.contract(session.problem).threads,
        "libraries": backend.libraries(),
        "subnormals": backend.contract(session.problem).subnormals,
    }
    benchmark.pedantic(call, args=arguments, setup=session.reset, rounds=20, warmup_rounds=2)
    loss = session.fetch().loss
    assert loss is not None
    assert np.isfinite(loss)


def test_import_time(benchmark):
    """What every command pays before it does anything."""

    def start() -> None:
        subprocess.run([sys.executable, "-c", "import rnnbench.cli"], check=True)

    benchmark.pedantic(start, rounds=5, warmup_rounds=1)
