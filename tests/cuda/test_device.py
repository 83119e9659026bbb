"""What is said where there is no device, or one that cannot do: one sentence. That a run goes on: test_run."""

from __future__ import annotations

import importlib
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
from numba import cuda

from rnnbench import backends
from rnnbench.backends.cuda import CudaBackend, device_sizes, update_rule
from rnnbench.kernels.cuda import device
from rnnbench.kernels.cuda.buffers import device_bytes_kept, device_bytes_needed, work_shapes
from rnnbench.kernels.cuda.device import Facts, exceeds_memory, unusable
from rnnbench.kernels.cuda.plan import LaunchPlan
from rnnbench.model import Case, DType
from tests.helpers import random_data, random_params, small_problem

GOOD = Facts(True, None, "Some GPU", (9, 0), (13, 1), (13, 0), 1 << 30)


def test_a_device_that_can():
    assert unusable(GOOD) is None
    assert unusable(replace(GOOD, toolkit=(13, 5))) is None  # machine code, which a driver of the same major loads
    assert exceeds_memory(GOOD, GOOD.free_bytes) is None


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (Facts(False), r"numba-cuda is not installed.*pip install 'rnnbench\[cuda\]'"),
        (
            Facts(True, "CUDA driver library cannot be found"),
            "no CUDA device can be used: CUDA.*nvidia-smi",
        ),
        (replace(GOOD, capability=(6, 1)), "Some GPU has compute capability 6.1; 7.5 or newer is needed"),
        (replace(GOOD, driver=(12, 8)), r"the driver runs CUDA 12.8, older than the toolkit's 13.0; update the driver"),
        (replace(GOOD, toolkit=(13, 5), linked=False), "the driver runs CUDA 13.1, older than the toolkit's 13.5"),
    ],
    ids=["not installed", "no driver", "too old", "old driver", "old driver for PTX"],
)
def test_why_not(facts, said):
    reason = unusable(facts)
    assert reason is not None
    assert re.search(said, reason), reason
    assert "\n" not in reason


def test_too_little_memory():
    reason = exceeds_memory(GOOD, 3 << 30)
    assert reason is not None
    assert "needs 3,072 MiB on the device and 1,024 MiB are free" in reason


def test_bytes_are_those_of_the_arrays():
    problem = small_problem(B=4, T=3, E=2, H=5, O=1, V=7, dtype=DType.FLOAT32)
    sizes, plan = device_sizes(problem), LaunchPlan()
    shapes = work_shapes(sizes, plan, learns=True)
    assert shapes["h"] == (16, 5)
    assert shapes["delta"] == (12, 5)
    parameters = 7 * 2 + 2 * 5 + 5 * 5 + 5 + 5 + 1
    numbers = sum(a * (b[0] if b else 1) for a, *b in shapes.values())
    assert device_bytes_needed(sizes, plan, update_rule(problem).adam) == 4 * (numbers + 4 * parameters)
    assert device_bytes_kept(sizes, adam=True) == 4 * 4 * parameters
    assert device_bytes_kept(sizes, adam=False) == 2 * 4 * parameters


def test_the_backend_is_left_out_unless_it_is_named():
    assert "cuda" in backends.REGISTRY
    assert "cuda" not in backends.usual()


@pytest.mark.skipif(device.simulated(), reason="about a machine with neither simulator nor device")
def test_without_a_device_nothing_is_prepared():
    if device.unusable(device.probe()) is None:
        pytest.skip("there is a device")
    backend, problem = CudaBackend(), small_problem()
    reason = backend.unavailable()
    assert reason
    with pytest.raises(RuntimeError) as raised:
        backend.prepare(problem, random_params(problem), random_data(problem))
    assert str(raised.value) == reason


def test_too_large_a_problem_is_named(monkeypatch):
    monkeypatch.setattr(device, "simulated", lambda: False)
    monkeypatch.setattr(device, "probe", lambda: GOOD)
    backend = CudaBackend()
    assert backend.unsupported(Case(**vars(small_problem()))) is None
    reason = backend.unsupported(Case(**vars(small_problem(B=4096, T=1000, H=1024))))
    assert reason is not None
    assert "1,024 MiB are free; take a smaller batch" in reason


def test_too_many_hidden_units_are_named(monkeypatch):
    """No smaller batch would help."""
    monkeypatch.setattr(device, "simulated", lambda: False)
    monkeypatch.setattr(device, "probe", lambda: GOOD)
    reason = CudaBackend().unsupported(Case(**vars(small_problem(H=20_000, dtype=DType.FLOAT32))))
    assert reason is not None
    assert "alone take 6,105 MiB: take fewer hidden units" in reason


@pytest.mark.skipif(device.simulated(), reason="the simulator has no driver")
@pytest.mark.parametrize("error", ["CudaSupportError", "CudaDriverError"])
def test_a_device_that_is_there_but_cannot_be_used(monkeypatch, error):
    """Full, or another's alone: the driver says so where a context is made."""

    def context():
        raise getattr(importlib.import_module("numba.cuda.cudadrv.error"), error)(
            "[2] Call to cuDevicePrimaryCtxRetain results in CUDA_ERROR_OUT_OF_MEMORY"
        )

    found = SimpleNamespace(name=b"Some GPU", compute_capability=(9, 0))
    monkeypatch.setattr(cuda, "is_available", lambda: True)
    monkeypatch.setattr(cuda, "get_current_device", lambda: found, raising=False)
    monkeypatch.setattr(cuda, "current_context", context)
    facts = device.probe()
    assert facts.error is not None
    reason = unusable(replace(facts, packaged=True))
    assert reason is not None
    assert re.search("can be used: .*CUDA_ERROR_OUT_OF_MEMORY; an NVIDIA driver", reason)
