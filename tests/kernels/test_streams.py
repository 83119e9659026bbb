"""A stream of 100,000 steps with a loss at each: memory that grows with the window, and the right gradients."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from rnnbench import workloads
from rnnbench.backends import numba as numba_backend
from rnnbench.backends.numba import NumbaBackend
from rnnbench.cells import CELLS
from rnnbench.data import Data
from rnnbench.model import DType, Problem, Train, Truncation
from rnnbench.params import Params, cast, init_params
from tests.helpers import assert_agrees, oracle, threads

STEPS = 100_000
WINDOW = Truncation(20, 5)
# Beyond the rows and the logits: the blocks, which are five numbers and some Python for each, and a few windows.
MAX_BYTES = 16 << 20


def stream(
    T: int, dtype: DType, truncation: Truncation | None = WINDOW, B: int = 32, cell: str = "rnn"
) -> tuple[Problem, Params, Data]:
    """`running-parity` of T steps, a batch of it."""
    workload = workloads.get("running-parity").resized(T=T)
    bits = np.random.default_rng(0).integers(0, 2, (B, T), dtype=np.int8)
    targets = (bits.cumsum(axis=1, dtype=np.int32) % 2).astype(np.float32)
    problem = replace(workload.spec.problem(dtype, truncation), B=B)
    problem = replace(problem, model=replace(problem.model, cell=cell))
    params = cast(init_params(problem.model, workload.init, 0), dtype)
    return problem, params, Data(bits[..., None].astype(str(dtype)), targets)


@pytest.mark.parametrize("dtype", list(DType))
@pytest.mark.parametrize("truncation", [WINDOW, Truncation(20, 20), Truncation(50, 50), Truncation(7, 1)], ids=str)
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("cell", CELLS)
def test_gradients_of_many_segments_agree(dtype, truncation, count, cell):
    problem, params, data = stream(500, dtype, truncation, cell=cell)
    if cell != "rnn":  # with less of it, Adam asks one gradient of the gru for the sign of a rounding error
        problem = replace(problem, train=Train(epsilon=1e-5))
    assert numba_backend.segment_of(problem) < 250
    with threads(count):
        ref, got = oracle(problem, params, data), NumbaBackend().prepare(problem, params, data)
    for name in ("gradient", "train_step"):
        for session in (ref, got):
            getattr(session, name)()
        assert_agrees(ref.fetch(), got.fetch(), dtype)


@pytest.mark.parametrize("steps", [1, 4, 64])
@pytest.mark.parametrize(
    "truncation", [Truncation(1, 1), Truncation(9, 2), Truncation(9, 9), Truncation(40, 7)], ids=str
)
@pytest.mark.parametrize("cell", CELLS)
def test_gradients_are_the_same_wherever_a_pass_is_cut(steps, truncation, cell):
    problem, params, data = stream(101, DType.FLOAT64, truncation, B=5, cell=cell)
    with mock.patch.object(numba_backend, "SEGMENT_STEPS", steps):
        got = NumbaBackend().prepare(problem, params, data)
    ref = oracle(problem, params, data)
    for session in (ref, got):
        session.gradient()
    assert_agrees(ref.fetch(), got.fetch(), DType.FLOAT64)


def resident(name: str) -> int:
    """Bytes of this process in memory: VmRSS now, VmHWM the most since the last write to `clear_refs`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


# Runs alone, once on a short stream, so that what is measured is the long one; then its logits against the equations.
SCRIPT = """
from tests.kernels.test_streams import *
from rnnbench.backends.numpy import forward_pass
from rnnbench.correctness.tolerances import relative_error

def work(problem, params, data):
    session = NumbaBackend().prepare(problem, params, data)
    for name in ("forward", "gradient", "train_step"):
        getattr(session, name)()
    return session

work(*stream(1000, DType.FLOAT32))
asked = stream(STEPS, DType.FLOAT32)
before = resident("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
session = work(*asked)
print(resident("VmHWM") - before - session.record.arrays["logits"].nbytes)
session.reset()
session.forward()
problem, params, data = asked
exact = forward_pass(problem.model, cast(params, DType.FLOAT64), data.inputs[:4], None)
print(relative_error(exact.logits, session.fetch().logits[:4]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is read from /proc")
def test_a_long_stream_needs_a_few_windows():
    # The C library gives freed arrays back at once: what it keeps would hide as much new memory.
    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    more, error = (float(word) for word in done.stdout.split())
    print(f"{more / 2**20:.1f} MiB beyond rows and logits; error of the logits {error:.1e}")
    states = 2 * 32 * STEPS * 32 * 4
    assert more < MAX_BYTES < states / 40
    assert error <= 1e-5
