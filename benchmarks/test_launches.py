"""What the launches of a train step cost the host, over the stub driver (`make test-compile`): with a limit, as a gate.

The call as the harness times it; the stub checks each launch inside the clock, and a driver would do work of its own.
"""

from __future__ import annotations

import pytest

from cases import session_of
from rnnbench.kernels.cuda import device

if device.simulated() or not device.probe().name.startswith("stub"):
    pytest.skip("over the stub driver alone: make test-compile", allow_module_level=True)

MICROSECONDS = {"parity": 40, "imdb-synthetic-200": 40}  # of the quickest of all rounds: noise only adds


@pytest.mark.parametrize("workload", MICROSECONDS)
def test_train_step(benchmark, workload):
    session = session_of(workload, "cuda")
    session.train_step()
    benchmark.pedantic(session.train_step, rounds=300, warmup_rounds=10)
    if benchmark.stats is not None:  # None where benchmarks are disabled
        assert benchmark.stats.stats.min < 1e-6 * MICROSECONDS[workload]
