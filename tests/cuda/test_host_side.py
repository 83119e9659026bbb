"""What passes launch, over the stub driver: how often, in which regime, with what asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from rnnbench.backends.cuda import CudaBackend
from rnnbench.backends.cuda_graph import CudaGraphBackend
from rnnbench.kernels.cuda import device
from rnnbench.kernels.cuda.plan import RegimeKind
from rnnbench.model import DType, Head, Train, Truncation
from tests.cuda import every_kernel, stub
from tests.helpers import random_data, random_params, small_problem

if device.simulated() or stub.STUB is None:
    pytest.skip("over the stub driver alone: make test-compile", allow_module_level=True)
STUB = stub.STUB
assert STUB is not None
T = 6
REACHED = [(128, 32), (256, 33), (512, 33), (1024, 5), (512, 257)]  # H and B of each regime of an H200


def session_of(backend, H=20, B=5, rows=None, **rest):
    problem = small_problem(**{"B": B, "T": T, "E": 3, "H": H, "O": 2, "V": 11, "dtype": DType.FLOAT32, **rest})
    return backend.prepare(problem, random_params(problem), random_data(problem, rows))


@pytest.mark.parametrize(("H", "B"), REACHED)
def test_a_train_step_of_each_regime(H, B):
    """9 launches beside the recurrences, which are asked for what their regime needs of the driver."""
    session = session_of(CudaBackend(), H, B)
    regime = session.runner.regime
    session.train_step()
    begun, kept = STUB.count(), STUB.kept
    session.train_step()
    assert STUB.count() - begun == 9 + (2 * T if regime.kind is RegimeKind.TILES else 2)
    launches = STUB.launches(kept)
    assert [launch.together for launch in launches].count(1) == (2 if regime.kind is RegimeKind.SPREAD else 0)
    assert [launch.shared for launch in launches if launch.shared] == [regime.shared] * (2 if regime.shared else 0)
    session.close()


GATED = [("lstm", 20, 5, RegimeKind.REGISTERS), ("gru", 200, 5, RegimeKind.SPREAD), ("gru", 512, 257, RegimeKind.TILES)]


@pytest.mark.parametrize(("cell", "H", "B", "kind"), GATED)
def test_a_train_step_of_a_cell_with_gates_takes_as_many_launches(cell, H, B, kind):
    session = session_of(CudaBackend(), H, B, cell=cell)
    assert session.runner.regime.kind is kind
    session.train_step()
    begun = STUB.count()
    session.train_step()
    assert STUB.count() - begun == 9 + (2 * T if kind is RegimeKind.TILES else 2)
    session.close()


def test_later_steps_give_the_driver_the_same_but_for_rows_and_corrections():
    """Words of the arguments: of 11 launches those that read the batch's place differ, and Adam's."""
    session = session_of(CudaBackend(), rows=10)
    seen = []
    for batch in (0, 1, 1):
        session.select(batch)
        kept = STUB.kept
        session.train_step()
        seen.append([launch.words for launch in STUB.launches(kept)])
    assert [len(words) for words in seen] == [11, 11, 11]
    assert sum(a != b for a, b in zip(seen[1], seen[2], strict=True)) == 1
    assert 1 < sum(a != b for a, b in zip(seen[0], seen[1], strict=True)) < 8


def test_an_epoch_prepares_full_batches_and_the_last_short_one():
    session = session_of(CudaBackend(), rows=20)
    for n in (20, 13, 12, 13, 4):
        kept = STUB.kept
        session.train_epoch(np.arange(n))
        grids = Counter(launch.grid[0] for launch in STUB.launches(kept) if "forward" in launch.kernel.decode())
        assert grids == Counter([*[5] * (n // 5), *filter(None, [n % 5])])
    assert sorted(key[1] for key in session.prepared) == [4, 5]


def test_a_graph_is_one_call():
    plain, graph = session_of(CudaBackend()), session_of(CudaGraphBackend())
    plain.train_step()
    begun = STUB.count()
    graph.train_step()  # launch by launch, and captured
    assert STUB.count() - begun == 12
    begun, kept = STUB.count(), STUB.kept
    graph.train_step()
    assert STUB.count() - begun == 12
    assert STUB.kept == kept
    graph.train_epoch(np.arange(4))  # shorter than a batch
    for session in (plain, graph):
        session.close()


BLACKWELL = """
from rnnbench.kernels.cuda import device
from rnnbench.kernels.cuda.plan import LaunchPlan
from rnnbench.kernels.cuda.recurrence_launches import settle
from rnnbench.kernels.cuda.regimes import choose
plan, room = LaunchPlan(), device.room()
found = settle(plan, 128, 32, "float32", room, cell="lstm")
print(found.regime == choose(plan, 128, 32, "float32", room, "lstm"), found.local_bytes)
"""


def test_the_best_regime_keeps_its_weights_in_registers_on_blackwell_too():
    """As compiled for sm_120 by CUDA 13.0, which unrolls no loop over all of them; test_compile.py has other cells."""
    env = os.environ | {"STUB_CAPABILITY": "120"}
    said = subprocess.run([sys.executable, "-c", BLACKWELL], env=env, capture_output=True, text=True, check=True).stdout
    assert said == "True 0\n"


@pytest.mark.parametrize(("version", "said"), [("13000", "None"), ("12080", "the driver runs CUDA 12.8, older than")])
def test_a_driver_of_the_same_major_version_will_do(version, said):
    code = "from rnnbench.kernels.cuda.device import probe, unusable; print(probe().linked, unusable(probe()))"
    env = os.environ | {"STUB_VERSION": version}
    found = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    assert found.startswith(f"True {said}")


def test_what_is_closed_is_freed():
    from numba import cuda

    session = session_of(CudaBackend(), H=256, B=33, head=Head.EVERY, truncation=Truncation(3, 2))
    session.gradient()
    before = cuda.current_context().get_memory_info().free
    session.close()
    del session
    cuda.current_context().deallocations.clear()
    assert cuda.current_context().get_memory_info().free > before


def test_every_kernel_at_the_usual_sizes():
    """As compute-sanitizer runs them on a device; small plans reach the others."""
    left = every_kernel.run_all([every_kernel.LaunchPlan()], every_kernel.WIDTHS)
    assert all("_step" in name for name in left), left


def test_a_clipped_norm_takes_two_more_launches():
    session = session_of(CudaBackend(), train=Train(clip_norm=0.05))
    session.train_step()
    begun = STUB.count()
    session.train_step()
    assert STUB.count() - begun == 13
