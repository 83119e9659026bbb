"""Kernels run in Numba's simulator (`make test-sim`) or on a GPU; without either these tests are skipped."""

from __future__ import annotations

import sys

import pytest

from rnnbench.backends.cuda import CudaBackend
from rnnbench.kernels.cuda import device
from rnnbench.kernels.cuda.plan import Plan

# Launch sizes so small that a batch of 5 rows and 7 steps crosses the edges of blocks in every kernel.
TINY = {"side": 2, "micro": 3, "depth": 5, "rows": 2, "spread": 2, "pad": 4, "threads": 4, "words": 4, "outputs": 3,
        "blocks": 4}  # fmt: skip
REGIMES = {"registers": Plan(**TINY), "general": Plan(**TINY, kept_bytes=0)}


@pytest.fixture(scope="session")
def gpu():
    """Skip without a device; with the simulator, let its threads take turns often: each waits for all."""
    if not device.simulated() and (reason := device.refusal(device.look())):
        pytest.skip(f"{reason}; or the simulator: make test-sim")
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.fixture(params=REGIMES)
def cuda_backend(request: pytest.FixtureRequest, gpu):
    """The backend with tiny launch sizes, in both regimes of the recurrence."""
    return CudaBackend(REGIMES[request.param])


@pytest.fixture
def one_backend(gpu):
    """The same in one regime, for what does not depend on it."""
    return CudaBackend(REGIMES["registers"])
