"""What is particular to Keras's own lines: gates, the second bias, Adam, one framework a process."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from rnnbench import backends
from rnnbench.cells import CELLS
from rnnbench.model import Case, DType, Pass, Train, Truncation
from tests.helpers import assert_agrees, pair, random_data, random_params, small_problem

pytestmark = pytest.mark.skipif(backends.missing("keras") is not None, reason="tensorflow is not installed")


@pytest.fixture(scope="module")
def keras_backend():
    return backends.load("keras")


@pytest.mark.parametrize("cell", list(CELLS))
def test_gates_go_to_the_order_of_keras_and_back(keras_backend, cell):
    from rnnbench.backends.keras_lines import GATES, from_keras, to_keras

    gates = CELLS[cell].gates
    array = np.repeat(np.arange(float(len(gates))), 4)[None]
    theirs = to_keras(CELLS[cell], array)
    np.testing.assert_array_equal(theirs[0, ::4], [gates.index(gate) for gate in GATES[cell]])
    np.testing.assert_array_equal(from_keras(CELLS[cell], theirs), array)


def test_of_the_second_bias_of_gru_no_more_is_trained_than_the_model_has(keras_backend):
    """A common norm over what the model lacks would clip all else harder."""
    problem = small_problem(cell="gru", train=Train(epsilon=1e-5, clip_norm=1e-3))
    ref, got = pair(keras_backend, problem)
    for session in (ref, got):
        session.train_step()
        session.train_step()
    assert_agrees(ref.fetch(), got.fetch(), DType.FLOAT64)
    second = got.named["b_h"].numpy()[1]
    H = problem.model.H
    assert not second[: 2 * H].any()
    assert second[2 * H :].all()


def test_an_epoch_goes_on_where_train_steps_stopped(keras_backend):
    """`fit` and `train_on_batch` share parameters and moments."""
    problem = small_problem(train=Train(epsilon=1e-5))
    ref, got = pair(keras_backend, problem)
    for session in (ref, got):
        session.train_step()
        session.train_epoch(np.arange(8))
        session.train_step()
    assert_agrees(ref.fetch(), got.fetch(), DType.FLOAT64)


def test_what_it_lacks_has_a_reason_and_a_way_out(keras_backend):
    problem = small_problem(truncation=Truncation(3, 2))
    reasons = {pass_: keras_backend.unsupported(Case(**vars(problem), pass_=pass_)) for pass_ in Pass}
    assert (
        "gives no gradients: it trains by fit and train_on_batch; take tensorflow, jax or torch"
        in reasons[Pass.GRADIENT]
    )
    assert "take numba, jax or torch, or leave the truncation out" in reasons[Pass.TRAIN_STEP]
    assert reasons[Pass.FORWARD] is None
    ref, got = pair(keras_backend, problem)
    with pytest.raises(NotImplementedError, match="gives no gradients"):
        got.gradient()
    for train in (got.train_step, got.epoch_of(np.arange(4))):
        with pytest.raises(NotImplementedError, match="leave the truncation out"):
            train()
    for session in (ref, got):
        session.forward()
    assert_agrees(ref.fetch(), got.fetch(), DType.FLOAT64)


@pytest.mark.parametrize("name", ["keras+jax", "keras+torch"])
def test_a_process_with_keras_on_tensorflow_says_so(keras_backend, name):
    other = backends.load(name)
    assert "imported before with its tensorflow backend" in other.unavailable()
    assert "take a process for each" in other.unavailable()
    problem = small_problem(dtype=DType.FLOAT32)
    with pytest.raises(RuntimeError, match="imported before"):
        other.prepare(problem, random_params(problem), random_data(problem))
    assert "float64 in float32" in other.unsupported(Case(**vars(small_problem()), pass_=Pass.FORWARD))


def test_jax_with_a_gpu_is_not_taken_for_the_processor(keras_backend, monkeypatch):
    jax = pytest.importorskip("jax")
    backend = backends.load("keras+jax")
    backend.reason = None  # as in a process of its own
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert backend.unavailable() is None
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert "on its gpu, and this backend is for the processor; set JAX_PLATFORMS=cpu" in backend.unavailable()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "framework"), [("keras+jax", "jax"), ("keras+torch", "torch")])
def test_a_fresh_process_has_the_framework_of_the_name(name, framework):
    code = (
        f"from rnnbench import backends; b = backends.load({name!r}); import keras; "
        "assert b.unavailable() is None; print(keras.config.backend())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == [framework]
