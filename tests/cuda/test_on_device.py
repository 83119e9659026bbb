"""Launch sizes and widths as they are used, against the oracle, on a device: the simulator has no time for them.

Over the stub driver their host side runs.
"""

from __future__ import annotations

import numpy as np
import pytest

from rnnbench.backends.cuda import CudaBackend
from rnnbench.kernels.cuda import device
from rnnbench.model import DType, Head, Problem, Train, Truncation
from tests.cuda.test_passes import check, run, sessions
from tests.helpers import assert_agrees, assert_same_bits, small_problem

pytestmark = [
    pytest.mark.usefixtures("gpu"),
    pytest.mark.skipif(device.simulated(), reason="the simulator has no time for blocks of hundreds of threads"),
]

# H at both edges of each width in registers and beyond; B at those of rows of a block and of the grid.
WIDTHS = [
    (1, 1), (31, 5), (32, 33), (33, 130), (96, 129), (97, 1), (128, 257), (129, 5), (256, 33), (512, 4), (1024, 2),
]  # fmt: skip


def used(H: int, B: int, **rest) -> Problem:
    """A problem of the sizes that people use."""
    return small_problem(**{"B": B, "T": 20, "E": H, "H": H, "O": 3, "V": 500, "dtype": DType.FLOAT32, **rest})


@pytest.mark.parametrize(("H", "B"), WIDTHS)
@pytest.mark.parametrize("dtype", list(DType))
def test_gradient(H, B, dtype):
    check(CudaBackend(), used(H, B, dtype=dtype))


# With gates: weights in registers, with rows two a block; in shared memory too; a launch a step.
GATED = [
    ("gru", 32, 130, {}),
    ("lstm", 128, 33, {"bidirectional": True, "mean_length": 9.0}),
    ("gru", 160, 5, {"head": Head.EVERY, "truncation": Truncation(8, 3)}),
    ("lstm", 256, 33, {"layers": 2}),
]


@pytest.mark.numbers
@pytest.mark.parametrize(("cell", "H", "B", "more"), GATED)
@pytest.mark.parametrize("dtype", [DType.FLOAT32])
def test_gradient_with_gates(cell, H, B, more, dtype):
    check(CudaBackend(), used(H, B, cell=cell, dtype=dtype, **more))


@pytest.mark.parametrize("H", [32, 128, 200])
def test_dense_inputs_every_step_and_truncation(H):
    check(CudaBackend(), used(H, 40, V=None, E=70, head=Head.EVERY, truncation=Truncation(8, 3)))


@pytest.mark.parametrize("H", [32, 128, 512])
def test_train_steps_and_an_epoch(H):
    problem = used(H, 32, train=Train(clip_norm=0.05))
    ref, got = sessions(CudaBackend(), problem)
    assert_agrees(run(ref, "train_step"), run(got, "train_step"), problem.dtype)
    for session in (ref, got):
        session.reset()
    order = np.random.default_rng(0).permutation(80)  # two batches of 32 and one of 16
    assert_agrees(run(ref, "train_epoch", order), run(got, "train_epoch", order), problem.dtype)


@pytest.mark.numbers
@pytest.mark.parametrize(("H", "B"), [(32, 257), (128, 257), (256, 33), (512, 33), (512, 257), (1024, 5)])
def test_the_same_numbers_give_the_same_bits(H, B):
    """A race would show here, some of the time: two batches take turns, so that nothing right is left from before."""
    problem = used(H, B, T=50)
    ref, got = sessions(CudaBackend(), problem, rows=2 * B)
    first = []
    for batch in (0, 1):
        for session in (ref, got):
            session.select(batch)
        first.append(run(got, "gradient"))
        assert_agrees(run(ref, "gradient"), first[-1], problem.dtype)
    for turn in range(50):
        got.select(turn % 2)
        assert_same_bits(first[turn % 2], run(got, "gradient"))
