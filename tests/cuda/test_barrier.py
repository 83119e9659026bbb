"""Blocks that wait for each other, in the simulator of the tests, which runs them together; and that it would show
where they do not wait.
"""

from __future__ import annotations

import numpy as np
import pytest
from numba import cuda

from rnnbench.backends.cuda import CudaBackend
from rnnbench.kernels.cuda import device, gated_spread, spread
from rnnbench.kernels.cuda.plan import RegimeKind
from rnnbench.model import Head, Truncation
from tests.cuda.conftest import WIDE
from tests.cuda.test_passes import problem_of, run, sessions
from tests.helpers import assert_agrees, assert_same_bits

pytestmark = [
    pytest.mark.usefixtures("gpu"),
    pytest.mark.skipif(not device.simulated(), reason="what a missing barrier does on a device is not defined"),
]
KERNELS = (
    spread.forward_spread,
    spread.backward_spread,
    gated_spread.forward_gated_spread,
    gated_spread.backward_gated_spread,
)


@pytest.fixture(params=["rnn", "gru", "lstm"])
def both(request: pytest.FixtureRequest):
    """A session of the oracle and one whose recurrence has four blocks, two turns of rows and windows that overlap."""
    problem = problem_of(B=3, T=4, H=7, V=None, cell=request.param, head=Head.EVERY, truncation=Truncation(3, 2))
    ref, got = sessions(CudaBackend(WIDE[RegimeKind.SPREAD]), problem)
    assert got.runner.regime.grid == 4
    yield ref, got
    for factory in KERNELS:
        factory.cache_clear()


@pytest.fixture
def without(monkeypatch):
    """Kernels whose device function of this name does nothing."""

    def change(name: str) -> None:
        @cuda.jit(device=True)
        def nothing(arrived, number):
            pass

        for module in (spread, gated_spread):
            monkeypatch.setattr(module, name, lambda: nothing)
        for factory in KERNELS:
            factory.cache_clear()

    return change


def test_blocks_wait_for_each_other(both):
    ref, got = both
    first = run(got, "gradient")
    assert_agrees(run(ref, "gradient"), first, got.problem.dtype)
    assert got.arrays["arrived"].copy_to_host() == 0
    assert_same_bits(first, run(got, "gradient"))  # in another order of blocks


def test_without_the_barrier_the_answer_is_wrong(both, without):
    without("grid_barrier")
    ref, got = both
    with pytest.raises(AssertionError):
        assert_agrees(run(ref, "gradient"), run(got, "gradient"), got.problem.dtype)


def test_without_the_reset_the_next_launch_does_not_wait(both, without):
    """The way back begins where the way forward left the counter."""
    without("barrier_reset")
    ref, got = both
    with pytest.raises(AssertionError):
        assert_agrees(run(ref, "gradient"), run(got, "gradient"), got.problem.dtype)
    assert got.arrays["arrived"].copy_to_host() > 0


def test_blocks_that_no_other_comes_to_are_an_error():
    from tests.cuda.simulator import Deadlock

    wait = spread.grid_barrier()

    @cuda.jit
    def kernel(arrived):
        if cuda.blockIdx.x < 2:
            wait(arrived, 3)

    with pytest.raises(Deadlock, match="2 blocks wait for each other, and none can come"):
        kernel[3, 2](cuda.to_device(np.zeros(1, np.int32)))


def test_a_barrier_too_few_in_a_block_is_seen():
    """In one order of threads or in the other."""

    @cuda.jit
    def kernel(out):
        shared = cuda.shared.array(4, np.float32)
        x = cuda.threadIdx.x
        shared[x] = x
        out[x] = shared[(x + 1) % 4]

    out = cuda.to_device(np.zeros(4, np.float32))
    kernel[1, 4](out)
    assert np.isnan(out.copy_to_host()).any()
