"""Kernels run in Numba's simulator (`make test-sim`) or on a GPU; without either these tests are skipped."""

from __future__ import annotations

import os

import pytest

from rnnbench.backends.cuda import CudaBackend
from rnnbench.kernels.cuda import device
from rnnbench.kernels.cuda.plan import LaunchPlan, RegimeKind

# Launch sizes so small that a batch of 5 rows and 7 steps crosses the edges of blocks in every kernel.
TINY = {"side": 2, "micros": (3,), "depth": 5, "rows": 2, "spread": 2, "pad": 4, "threads": 4, "tokens": 4,
        "token_columns": 2, "outputs": 3, "blocks": 4, "group": 2, "grouped": 8, "turns": 2,
        "beside_gates": 0}  # fmt: skip
# Two rows a block or a turn; H 6 in three blocks of two columns, or units, which wait for each other in `spread`.
SMALL = {**TINY, "block_registers": 4096, "beside": 0, "lanes": 8, "per": 2, "step_micro": 1, "beside_spread": 0,
         "few_steps": 64}  # fmt: skip
WIDE = {
    kind: LaunchPlan(**SMALL, columns=(2,), kinds=(kind,))
    for kind in (RegimeKind.SPLIT, RegimeKind.STEPS, RegimeKind.TILES, RegimeKind.SPREAD)
}
REGIMES = {"registers": LaunchPlan(**TINY), "tiles": WIDE[RegimeKind.TILES]}

if not device.simulated():  # which has no time for blocks of hundreds of threads
    REGIMES["usual"] = LaunchPlan()


@pytest.fixture(scope="session")
def gpu():
    """Skip without a device."""
    if not device.simulated() and (reason := device.unusable(device.probe())):
        if "RNNBENCH_NEEDS_GPU" in os.environ:
            pytest.fail(reason)
        pytest.skip(f"{reason}; or the simulator: make test-sim")
    if device.simulated():
        from tests.cuda import simulator

        simulator.install()


@pytest.fixture(params=REGIMES)
def cuda_backend(request: pytest.FixtureRequest, gpu):
    """The backend with tiny launch sizes, in each of REGIMES."""
    return CudaBackend(REGIMES[request.param])


@pytest.fixture
def one_backend(gpu):
    """The same in one regime, for what does not depend on it."""
    return CudaBackend(REGIMES["registers"])
