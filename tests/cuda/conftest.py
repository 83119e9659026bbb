"""Kernels run in Numba's simulator (`make test-sim`) or on a GPU; without either these tests are skipped."""

from __future__ import annotations

import os
import sys
import threading
from collections import Counter
from contextlib import contextmanager

import numpy as np
import pytest
from numba.np.numpy_support import as_dtype

from rnnbench.backends.cuda import CudaBackend
from rnnbench.kernels.cuda import device
from rnnbench.kernels.cuda.plan import LaunchPlan, RegimeKind

# Launch sizes so small that a batch of 5 rows and 7 steps crosses the edges of blocks in every kernel.
TINY = {"side": 2, "micros": (3,), "depth": 5, "rows": 2, "spread": 2, "pad": 4, "threads": 4, "tokens": 4,
        "token_columns": 2, "outputs": 3, "blocks": 4, "group": 2, "grouped": 8, "turns": 2,
        "beside_gates": 0}  # fmt: skip
# Two rows a block or a turn; H 6 in three blocks of two columns, or in one of eight: so the simulator, whose blocks run
# one after the other, meets the barrier.
SMALL = {**TINY, "block_registers": 4096, "beside": 0, "lanes": 8, "per": 2, "step_micro": 1, "wide": 1}
WIDE = {
    kind: LaunchPlan(**SMALL, columns=(2,), kinds=(kind,))
    for kind in (RegimeKind.SPLIT, RegimeKind.STEPS, RegimeKind.TILES)
}
WIDE[RegimeKind.SPREAD] = LaunchPlan(**SMALL, columns=(8,), kinds=(RegimeKind.SPREAD,))
REGIMES = {"registers": LaunchPlan(**TINY), "general": LaunchPlan(**TINY, kinds=(RegimeKind.GENERAL,))}

if not device.simulated():  # which has no time for blocks of hundreds of threads
    REGIMES["usual"] = LaunchPlan()


def _share_safely() -> None:
    """Let threads of the simulator that come to a shared array at the same time find the same one.

    Numba's own method looks whether the line has made one and, if not, makes it: between the two another thread may
    make its own, and both go on with an array that the other does not see.
    """
    from numba.cuda.simulator.kernelapi import FakeCUDAShared

    making, dynamic = threading.Lock(), FakeCUDAShared.array

    def array(self, shape, dtype):
        if shape == 0:  # of the launch's size, one for all
            return dynamic(self, shape, dtype)
        caller = sys._getframe(1)
        line = caller.f_code.co_filename, caller.f_lineno
        with making:
            if line not in self._allocations:
                self._allocations[line] = np.empty(shape, as_dtype(dtype))
            return self._allocations[line]

    FakeCUDAShared.array = array


def _swap_safely() -> None:
    """Let threads of the simulator call device functions of another file than their kernel's at the same time.

    Numba's own puts the simulator in the place of `cuda` in the globals of a function for the time of a call, and the
    first thread that returns takes it from the others. It also walks those globals, to which Python adds a register
    when something warns there.
    """
    from numba import cuda
    from numba.cuda.simulator import kernel

    changing, inside = threading.Lock(), Counter[int]()  # calls under way, by the globals of their functions

    @contextmanager
    def swapped(function, fake):
        names, key = function.__globals__, id(function.__globals__)
        with changing:
            inside[key] += 1
            for name, value in list(names.items()) if inside[key] == 1 else ():
                if value is cuda:
                    names[name] = fake
        try:
            yield
        finally:
            with changing:
                inside[key] -= 1
                for name, value in list(names.items()) if inside[key] == 0 else ():
                    if value is fake:
                        names[name] = cuda

    kernel.swapped_cuda_module = swapped


@pytest.fixture(scope="session")
def gpu():
    """Skip without a device; with the simulator, let its threads take turns often: each waits for all."""
    if not device.simulated() and (reason := device.unusable(device.probe())):
        if "RNNBENCH_NEEDS_GPU" in os.environ:
            pytest.fail(reason)
        pytest.skip(f"{reason}; or the simulator: make test-sim")
    if device.simulated():
        _share_safely()
        _swap_safely()
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.fixture(params=REGIMES)
def cuda_backend(request: pytest.FixtureRequest, gpu):
    """The backend with tiny launch sizes, in each of REGIMES."""
    return CudaBackend(REGIMES[request.param])


@pytest.fixture
def one_backend(gpu):
    """The same in one regime, for what does not depend on it."""
    return CudaBackend(REGIMES["registers"])
