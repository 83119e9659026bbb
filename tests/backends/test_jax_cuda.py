"""JAX on a GPU, as far as it can be told without one: the device of every array, precision, refusals."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from rnnbench import backends
from rnnbench.model import DType
from tests.helpers import random_data, random_params, small_problem

if reason := backends.missing("jax"):
    pytest.skip(reason, allow_module_level=True)

import jax
import jax.numpy as jnp

from rnnbench.backends import jax_cuda
from rnnbench.backends.jax import JaxSession

# A process of its own, whose processor is two devices to JAX: the second one stands for a GPU.
SECOND = """
import sys, jax, numpy as np
from rnnbench.backends.jax import JaxSession
from rnnbench.model import DType, Pass
from tests.helpers import assert_agrees, oracle, random_data, random_params, small_problem
structure = dict(cell=sys.argv[1], layers=2, bidirectional=True, mean_length=1.5) if len(sys.argv) > 1 else {}
problem = small_problem(dtype=DType.FLOAT32, T=3, **structure)
params, data = random_params(problem), random_data(problem)
second = jax.devices("cpu")[1]
session, ref = JaxSession(problem, params, data, second), oracle(problem, params, data)
for states in (None, dict.fromkeys(problem.model.states, np.full((4, 5), 0.5, np.float32))):
    for s in (ref, session):
        s.start_from(states)
        s.select(1)
        s.reset()
        s.train_step()
    session.synchronize()
    assert_agrees(ref.fetch(), session.fetch(), DType.FLOAT32)
session.forward(), session.gradient(), session.train_epoch(np.arange(8)), session.predict(data.inputs, data.lengths)
session.reset()
held = jax.tree.leaves([list(vars(session).values()), session.done.losses, session.done.params])
arrays = [x for x in [*held, *jax.live_arrays()] if isinstance(x, jax.Array)]
where = {device for x in arrays for device in x.devices()}
print(len(arrays) > 10, where == {second}, [f._cache_size() for f in (session._train_step, session._epoch)])
"""


@pytest.mark.parametrize("structure", [[], ["lstm"]], ids=["rnn", "lstm, all"])
def test_every_array_is_on_the_sessions_device(structure):
    env = {**os.environ, "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"}
    done = subprocess.run(
        [sys.executable, "-c", SECOND, *structure], capture_output=True, text=True, timeout=240, env=env
    )
    assert done.returncode == 0, done.stderr
    # A train step without and one with a state: each compiled once.
    assert done.stdout.split(maxsplit=2) == ["True", "True", "[2, 1]\n"]


@pytest.mark.parametrize(("platform", "products"), [("cpu", 3), ("gpu", 1)])
def test_a_step_of_the_gru_forward_is_one_product_where_each_is_a_launch(monkeypatch, platform, products):
    """Beside that of the inputs and that of the head."""

    class Device:
        """The processor, under another name."""

    device = Device()
    device.platform = platform
    problem = small_problem(cell="gru", dtype=DType.FLOAT32, T=20)
    processor = jax.devices("cpu")[0]
    monkeypatch.setattr(JaxSession, "_put", lambda self, value: jnp.array(value, device=processor))
    monkeypatch.setattr(jax, "device_put", lambda value, to: value)
    session = JaxSession(problem, random_params(problem), random_data(problem), device)
    text = session._forward.lower(session.params, session.x, session.y, None, None).as_text()
    assert text.count("stablehlo.dot_general") == 2 + products


def test_products_are_asked_for_in_full_float32():
    problem = small_problem(dtype=DType.FLOAT32)
    session = backends.load("jax").prepare(problem, random_params(problem), random_data(problem))
    for function in (session._gradient, session._train_step):
        arguments = (session.params, session.moments) if function is session._train_step else (session.params,)
        text = function.lower(*arguments, session.x, session.y, None).as_text()
        products = [line for line in text.splitlines() if "dot_general" in line]
        assert len(products) >= 5
        assert all("HIGHEST, HIGHEST" in line for line in products)


def test_without_a_cuda_build_or_a_gpu_it_says_what_to_do(monkeypatch):
    assert "jax-cuda" not in backends.usual()
    backend = backends.load("jax-cuda")

    def none(platform):
        assert platform == "cuda"
        raise RuntimeError("Unknown backend cuda.\nAvailable backends are ['cpu']")

    monkeypatch.setattr(jax, "devices", none)
    monkeypatch.setattr(jax_cuda, "plugin", lambda: None)
    assert "is built without CUDA; pip install -U 'jax[cuda13]'" in backend.unavailable()
    monkeypatch.setattr(jax_cuda, "plugin", lambda: ("jax-cuda13-plugin", "0.10.2"))
    reason = backend.unavailable()
    assert "finds no NVIDIA GPU: Unknown backend cuda.; see nvidia-smi and JAX_PLATFORMS" in reason
    assert "\n" not in reason
    with pytest.raises(RuntimeError, match="finds no NVIDIA GPU"):
        backend.prepare(small_problem(), random_params(small_problem()), random_data(small_problem()))
    monkeypatch.setattr(jax, "devices", lambda platform: [object()])
    assert backend.unavailable() is None
    assert backend.libraries()["jax-cuda13-plugin"] == "0.10.2"


def test_peak_memory_is_the_devices_and_none_where_it_is_not_counted():
    class Device:
        def __init__(self, stats):
            self.memory_stats = lambda: stats

    session = object.__new__(jax_cuda.JaxCudaSession)
    for stats, expected in (({"peak_bytes_in_use": 3 << 20}, 3 << 20), (None, None), ({}, None)):
        session.device = Device(stats)
        assert session.peak_device_bytes() == expected
    assert session.device_clock() is None


def test_the_contract_says_whose_peak_it_is_and_what_an_epoch_copies(monkeypatch):
    asked, put, processor = [], jax.device_put, jax.devices("cpu")[0]
    monkeypatch.setattr(jax, "device_put", lambda x, device: asked.append(x.nbytes) or put(x, processor))

    class Gpu:
        platform = "gpu"

    monkeypatch.setattr(jax, "devices", lambda platform: [Gpu()])
    contract = jax_cuda.JaxCudaBackend().contract(small_problem(dtype=DType.FLOAT32))
    assert contract.subnormals in ("kept", "flushed by XLA")
    assert contract.timed["epoch"].startswith("the order to the device; one jitted lax.scan of train steps")
    assert "the peak of the device's memory is the process's" in contract.notes
    assert asked == [4 << 10]  # bytes


def test_a_worker_leaves_jax_no_more_of_the_gpu_than_it_uses(monkeypatch):
    from rnnbench.machine.environment import environment

    monkeypatch.delenv("XLA_PYTHON_CLIENT_PREALLOCATE", raising=False)
    assert environment(1, None)["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "true")
    assert environment(1, None)["XLA_PYTHON_CLIENT_PREALLOCATE"] == "true"
