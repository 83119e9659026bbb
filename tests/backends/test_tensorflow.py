"""What is particular to Keras: gates, its Adam, repeated tokens, retracing, default float type, configuration file."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from rnnbench import backends
from rnnbench.backends.base import Outputs
from rnnbench.cells import CELLS
from rnnbench.data import Data
from rnnbench.model import Case, DType, Head, Loss, Optimizer, Pass, StepSum, Train, Truncation
from tests.helpers import assert_agrees, pair, random_data, random_params, relative_error, small_problem

NAMES = ("tensorflow", "tensorflow+xla")
pytestmark = pytest.mark.skipif(backends.missing("tensorflow") is not None, reason="tensorflow is not installed")


@pytest.fixture(params=NAMES)
def keras_backend(request):
    return backends.load(request.param)


def one_word(problem):
    """Rows in which the same token stands at every step."""
    data = random_data(problem)
    return Data(np.full_like(data.inputs, 3), data.targets)


@pytest.mark.parametrize("name", [*NAMES, "keras"])
def test_adam_adds_epsilon_after_the_bias_correction_and_sums_repeated_tokens_before_squaring(name):
    problem = small_problem(dtype=DType.FLOAT64, head=Head.EVERY, train=Train(epsilon=0.05, learning_rate=0.01))
    ref, got = pair(backends.load(name), problem)
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


def loops(traced) -> bool:
    return any(node.op in ("While", "StatelessWhile") for node in traced.concrete.graph.as_graph_def().node)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("truncation", [None, Truncation(5, 5), Truncation(4, 3)], ids=str)
@pytest.mark.parametrize("head", list(Head))
def test_steps_in_a_loop_give_what_steps_written_out_give(cell, truncation, head, monkeypatch):
    from rnnbench.backends import keras_parts

    backend = backends.load("tensorflow")
    problem = small_problem(cell=cell, T=9, head=head, dtype=DType.FLOAT64, truncation=truncation)
    ref, written_out = pair(backend, problem)
    for limit in ("WRITTEN_OUT", "WRITTEN_OUT_GATED"):
        monkeypatch.setattr(keras_parts, limit, 8)
    _, looped = pair(backend, problem)
    for session in (ref, written_out, looped):
        session.gradient()
    assert_agrees(ref.fetch(), written_out.fetch(), DType.FLOAT64)
    assert_agrees(ref.fetch(), looped.fetch(), DType.FLOAT64)
    assert loops(looped._gradient)


@pytest.mark.parametrize(("T", "cell", "name", "out"), [
    (256, "rnn", "tensorflow", True), (257, "rnn", "tensorflow", False), (101, "gru", "tensorflow", False),
    (10, "lstm", "tensorflow+xla", True), (11, "rnn", "tensorflow+xla", False),
])  # fmt: skip
def test_few_steps_are_written_out_as_the_contract_says(T, cell, name, out):
    backend, problem = backends.load(name), small_problem(cell=cell, T=T)
    _, session = pair(backend, problem)
    session.forward()
    assert loops(session._forward) is not out
    timed = backend.contract(problem).timed
    for call in ("forward", "gradient", "train_step"):
        assert ("written out step by step" in timed[call]) is out
        assert ("tf.while_loop" in timed[call]) is not out


@pytest.mark.parametrize(("head", "truncation"), [
    (Head.LAST, None), (Head.EVERY, Truncation(5, 5)), (Head.EVERY, Truncation(4, 3)), (Head.LAST, Truncation(4, 3)),
])  # fmt: skip
@pytest.mark.parametrize("structure", [{}, {"layers": 2}, {"layers": 2, "bidirectional": True}], ids=str)
def test_an_lstm_in_float32_is_one_kernel_as_the_contract_says(head, truncation, structure):
    if "bidirectional" in structure and truncation is not None:
        pytest.skip("a row that is read from its end is not cut")
    backend = backends.load("tensorflow")
    problem = small_problem(cell="lstm", T=9, head=head, dtype=DType.FLOAT32, truncation=truncation, **structure)
    ref, got = pair(backend, problem)
    for session in (ref, got):
        session.gradient()
    assert_agrees(ref.fetch(), got.fetch(), DType.FLOAT32)
    assert "BlockLSTMGrad" in {node.op for node in got._gradient.concrete.graph.as_graph_def().node}
    assert "tf.raw_ops.BlockLSTM" in backend.contract(problem).timed["gradient"]


KERAS_GATES = {"rnn": "h", "gru": "zrn", "lstm": "ifgo"}  # under our names: Keras calls n "h", and g "c"


class GateOrder:
    """Our gates in the order of Keras's own layer and back: (..., G H) arrays, H columns a gate."""

    def __init__(self, cell: str) -> None:
        self.ours, self.theirs = CELLS[cell].gates, tuple(KERAS_GATES[cell])

    def to_keras(self, array):
        return self._reordered(array, self.ours, self.theirs)

    def from_keras(self, array):
        return self._reordered(array, self.theirs, self.ours)

    @staticmethod
    def _reordered(array, before, after):
        gates = dict(zip(before, np.split(array, len(before), axis=-1), strict=True))
        return np.concatenate([gates[gate] for gate in after], axis=-1)


@pytest.mark.parametrize("cell", list(KERAS_GATES))
def test_a_cell_equals_the_layer_of_keras(keras_backend, cell):
    """Logits, states and all gradients in float64, from a first state; parameters go over and gradients come back."""
    from rnnbench.backends.keras_parts import keras, tf

    problem = small_problem(cell=cell, head=Head.EVERY, loss=Loss.SQUARED_ERROR, V=None, O=2, dtype=DType.FLOAT64)
    params, data, model, gates = random_params(problem), random_data(problem), problem.model, GateOrder(cell)
    rng = np.random.default_rng(3)
    first = {name: rng.uniform(-0.9, 0.9, (problem.B, model.H)) for name in model.recurrence.states}
    kind = {"rnn": keras.layers.SimpleRNN, "gru": keras.layers.GRU, "lstm": keras.layers.LSTM}[cell]
    layer = kind(model.H, return_sequences=True, return_state=True, dtype="float64")
    x, y = tf.constant(data.inputs[: problem.B]), tf.constant(data.targets[: problem.B])
    layer.build(x.shape)
    bias = gates.to_keras(params["b_h"])
    if cell == "gru":  # (2, 3 H): the second row is inside the recurrent product, where only n has a bias of its own
        bias = np.stack([bias, np.concatenate([np.zeros(2 * model.H), params["b_hn"]])])
    layer.set_weights([gates.to_keras(params["W_xh"]), gates.to_keras(params["W_hh"]), bias])
    W_hy, b_y = tf.Variable(params["W_hy"]), tf.Variable(params["b_y"])
    variables = [*(variable.value for variable in layer.trainable_variables), W_hy, b_y]
    with tf.GradientTape() as tape:
        h, *last = layer(x, initial_state=[tf.constant(state) for state in first.values()])
        logits = h @ W_hy + b_y
        loss = 0.5 * tf.reduce_sum((logits - y) ** 2) * model.loss_scale(problem.B, problem.T)
    dW_xh, dW_hh, db, dW_hy, db_y = (gradient.numpy() for gradient in tape.gradient(loss, variables))
    grads = {"W_xh": gates.from_keras(dW_xh), "W_hh": gates.from_keras(dW_hh), "W_hy": dW_hy, "b_y": db_y}
    if cell == "gru":
        grads |= {"b_h": gates.from_keras(db[0]), "b_hn": db[1, 2 * model.H :]}
    else:
        grads["b_h"] = gates.from_keras(db)
    states = {name: state.numpy() for name, state in zip(first, last, strict=True)}
    session = keras_backend.prepare(problem, params, data)
    session.start_from(first)
    session.gradient()
    assert_agrees(Outputs(loss.numpy().item(), logits.numpy(), states, grads), session.fetch(), DType.FLOAT64)


@pytest.mark.parametrize("cell", list(KERAS_GATES))
def test_the_order_of_gates_there_and_back_changes_nothing(cell):
    gates, array = GateOrder(cell), np.arange(12.0).reshape(1, 12)
    np.testing.assert_array_equal(gates.from_keras(gates.to_keras(array)), array)
    assert (gates.to_keras(array) == array).all() == (cell != "gru")


def test_windows_that_would_fill_the_memory_are_refused_with_size_limit_and_way_out():
    backend = backends.load("tensorflow")
    problem = small_problem(B=64, T=400, H=256, head=Head.EVERY, truncation=Truncation(399, 1))
    reason = backend.unsupported(Case(**vars(problem), pass_=Pass.GRADIENT))
    assert reason is not None
    assert "limit is 4 GiB" in reason
    assert "larger stride" in reason


def test_tracing_makes_no_code_of_the_code(keras_backend):
    """Autograph would write each function anew, into a module of its own, which takes longer than most traces."""
    problem, before = small_problem(), set(sys.modules)
    session = keras_backend.prepare(problem, random_params(problem), random_data(problem))
    for call in (session.forward, session.gradient, session.train_step):
        call()
    session.predict(random_data(problem).inputs)
    assert not [name for name in set(sys.modules) - before if "autograph_generated" in name]


@pytest.mark.slow
def test_import_ignores_the_configuration_of_keras_writes_none_and_takes_no_more_than_it_needs(tmp_path):
    home, keras_home = tmp_path / "home", tmp_path / "keras"
    home.mkdir()
    keras_home.mkdir()
    (keras_home / "keras.json").write_text('{"backend": "jax", "floatx": "float16"}')
    code = (
        "import os, sys, rnnbench.backends.tensorflow as b; "
        "print(b.keras.config.backend(), b.keras.config.floatx(), os.environ.get('KERAS_HOME'), "
        "len({'pandas', 'matplotlib', 'jax'} & set(sys.modules)))"
    )
    for extra, expected in (({}, "None"), ({"KERAS_HOME": str(keras_home)}, str(keras_home))):
        env = {k: v for k, v in os.environ.items() if not k.startswith("KERAS")} | {"HOME": str(home)} | extra
        out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        assert out.stdout.split() == ["tensorflow", "float32", expected, "0"]
    assert not (home / ".keras").exists()
    assert [p.name for p in keras_home.iterdir()] == ["keras.json"]
