"""What is particular to Keras: its Adam, repeated tokens, retracing, the default float type, its configuration file."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from rnnbench import backends
from rnnbench.data import Data
from rnnbench.model import Case, DType, Head, Loss, Optimizer, Pass, StepSum, Train, Truncation
from tests.helpers import assert_agrees, oracle, random_data, random_params, relative_error, small_problem

NAMES = ("tensorflow", "tensorflow+xla")
pytestmark = pytest.mark.skipif(backends.missing("tensorflow") is not None, reason="tensorflow is not installed")


@pytest.fixture(params=NAMES)
def keras_backend(request):
    return backends.load(request.param)


def pair(backend, problem, data=None):
    params, data = random_params(problem), data or random_data(problem)
    return oracle(problem, params, data), backend.prepare(problem, params, data)


def one_word(problem):
    """Rows in which the same token stands at every step."""
    data = random_data(problem)
    return Data(np.full_like(data.inputs, 3), data.targets)


def test_adam_adds_epsilon_after_the_bias_correction_and_sums_repeated_tokens_before_squaring(keras_backend):
    problem = small_problem(dtype=DType.FLOAT64, train=Train(epsilon=0.05, learning_rate=0.01))
    ref, got = pair(keras_backend, problem)
    for session in (ref, got):
        for step in range(20):
            session.select(step % 3)
            session.train_step()
    assert_agrees(ref.fetch(), got.fetch(), DType.FLOAT64)


@pytest.mark.parametrize("rule", list(Optimizer))
@pytest.mark.parametrize("clip", [{"clip_value": 0.02}, {"clip_norm": 0.05}], ids=str)
def test_repeated_tokens_are_summed_before_they_are_clipped(keras_backend, rule, clip):
    train = Train(rule, learning_rate=0.1, epsilon=1e-3, **clip)
    problem = small_problem(dtype=DType.FLOAT64, train=train, head=Head.EVERY, step_sum=StepSum.SUM)
    ref, got = pair(keras_backend, problem, one_word(problem))
    for session in (ref, got):
        session.train_step()
        session.train_step()
    assert_agrees(ref.fetch(), got.fetch(), DType.FLOAT64)


@pytest.mark.parametrize(
    ("loss", "head"),
    [(Loss.CATEGORICAL_CROSS_ENTROPY, Head.LAST), (Loss.SIGMOID_SQUARED_ERROR, Head.EVERY)],
    ids=str,
)
def test_an_epoch_reports_row_means_with_a_short_last_batch(keras_backend, loss, head):
    train = Train(learning_rate=0.05)
    problem = small_problem(loss=loss, head=head, O=3, dtype=DType.FLOAT64, train=train, step_sum=StepSum.SUM)
    ref, got = pair(keras_backend, problem)
    order = np.random.default_rng(0).permutation(13)
    for session in (ref, got):
        session.train_epoch(order)
    assert (got.fetch().accuracy is None) == (loss is Loss.SIGMOID_SQUARED_ERROR)
    assert_agrees(ref.fetch(), got.fetch(), DType.FLOAT64)


def test_repeated_calls_trace_nothing_anew(keras_backend):
    problem = small_problem(dtype=DType.FLOAT32, truncation=Truncation(3, 2), head=Head.EVERY)
    _, session = pair(keras_backend, problem)
    order = np.arange(14)
    traced = []
    run = session.network.run

    def counted(*args):
        traced.append(args)
        return run(*args)

    session.network.run = counted

    def all_passes():
        for batch, states in [(0, None), (1, {"h": np.zeros((4, 5), np.float32)}), (2, None)]:
            session.select(batch)
            session.start_from(states)
            session.forward()
            session.gradient()
            session.train_step()
        session.train_epoch(order)
        session.predict(random_data(problem, rows=9).inputs)
        session.reset()

    all_passes()
    first = len(traced)
    assert first >= 5, "nothing was counted"
    all_passes()
    session.predict(random_data(problem, rows=5).inputs)
    assert len(traced) == first


def test_each_session_has_its_own_float_type_and_leaves_the_default_alone(keras_backend):
    from rnnbench.backends.keras_parts import keras

    before = keras.config.floatx()
    for dtype in (DType.FLOAT32, DType.FLOAT64, DType.FLOAT32):
        _, session = pair(keras_backend, small_problem(dtype=dtype, train=Train(learning_rate=0.1)))
        rate = session.network.optimizer.learning_rate.numpy()
        assert rate.dtype == str(dtype)
        assert rate == np.dtype(str(dtype)).type(0.1)
        assert keras.config.floatx() == before


def test_stacked_and_chained_blocks_give_the_same_gradient(keras_backend, monkeypatch):
    from rnnbench.backends import keras_parts

    problem = small_problem(T=9, head=Head.EVERY, dtype=DType.FLOAT64, truncation=Truncation(4, 4))
    ref, chained = pair(keras_backend, problem)
    ref.gradient()
    chained.gradient()
    monkeypatch.setattr(keras_parts, "CHAIN_BLOCKS", 0)
    _, stacked = pair(keras_backend, problem)
    stacked.gradient()
    for session in (chained, stacked):
        assert_agrees(ref.fetch(), session.fetch(), DType.FLOAT64)
    assert relative_error(chained.fetch().grads["W_hh"], stacked.fetch().grads["W_hh"]) < 1e-12


def test_windows_that_would_fill_the_memory_are_refused_with_size_limit_and_way_out():
    backend = backends.load("tensorflow")
    problem = small_problem(B=64, T=400, H=256, head=Head.EVERY, truncation=Truncation(399, 1))
    reason = backend.unsupported(Case(**vars(problem), pass_=Pass.GRADIENT))
    assert reason is not None
    assert "limit is 4 GiB" in reason
    assert "larger stride" in reason


@pytest.mark.slow
def test_import_ignores_the_configuration_of_keras_and_writes_none(tmp_path):
    home, keras_home = tmp_path / "home", tmp_path / "keras"
    home.mkdir()
    keras_home.mkdir()
    (keras_home / "keras.json").write_text('{"backend": "jax", "floatx": "float16"}')
    code = (
        "import os, rnnbench.backends.tensorflow as b; "
        "print(b.keras.config.backend(), b.keras.config.floatx(), os.environ.get('KERAS_HOME'))"
    )
    for extra, expected in (({}, "None"), ({"KERAS_HOME": str(keras_home)}, str(keras_home))):
        env = {k: v for k, v in os.environ.items() if not k.startswith("KERAS")} | {"HOME": str(home)} | extra
        out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        assert out.stdout.split() == ["tensorflow", "float32", expected]
    assert not (home / ".keras").exists()
    assert [p.name for p in keras_home.iterdir()] == ["keras.json"]
