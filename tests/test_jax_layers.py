"""`rnnbench.jax` beside the equations of the cells and a `lax.scan`: numbers, gradients, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest

from rnnbench import backends

if reason := backends.missing("jax"):
    pytest.skip(reason, allow_module_level=True)

import jax
import jax.numpy as jnp

from rnnbench import jax as ours
from rnnbench.backends.jax import precision
from rnnbench.backends.jax_parts import scan_steps
from rnnbench.cells import CELLS
from rnnbench.model import DType, Model

LAYERS = {"rnn": ours.rnn, "gru": ours.gru, "lstm": ours.lstm}
LIMITS = {DType.FLOAT32: 2e-5, DType.FLOAT64: 1e-12}


@pytest.fixture(autouse=True)
def _float64():
    with precision(DType.FLOAT64):
        yield


def numbers(*shape, seed=0, dtype="float64"):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(dtype)


def params_of(cell, E, H, seed=1, dtype="float64"):
    shapes = CELLS[cell].shapes(E, H)
    return {name: (numbers(*shape, seed=seed) / np.sqrt(H)).astype(dtype) for name, shape in shapes.items()}


def states_of(cell, B, H, dtype="float64"):
    found = [numbers(B, H, seed=5 + i, dtype=dtype) for i in range(len(CELLS[cell].states))]
    return tuple(found) if len(found) == 2 else found[0]


def flat(states):
    return states if isinstance(states, tuple) else (states,)


def equations(cell, params, x, states, lengths, back=False):
    """The cell's own steps in NumPy over x (B, T, E): (states of all steps, last states)."""
    B, T, _ = x.shape
    names, now = CELLS[cell].states, list(flat(states))
    y = np.zeros((B, T, now[0].shape[1]))
    for step in range(T):
        at = (lengths - 1 - step) if back else np.full(B, step)
        rows = np.flatnonzero(step < lengths)
        before = {name: state[rows] for name, state in zip(names, now, strict=True)}
        after = CELLS[cell].forward(params, x[rows, at[rows]], before).after
        for i, name in enumerate(names):
            now[i] = now[i].copy()
            now[i][rows] = after[name]
        y[rows, at[rows]] = after["h"]
    return y, *now


def scan(cell, params, x, states, lengths, back=False):
    """As people write it in JAX, and as `jax` is measured: outputs past a row's length are 0."""
    _, T, E = x.shape
    direction = Model(E=E, H=params["W_hh"].shape[0], O=1, cell=cell, bidirectional=True).stack[0][int(back)]
    steps = jnp.swapaxes(x, 0, 1) @ params["W_xh"] + params["b_h"]
    active = jnp.arange(T)[:, None] < lengths
    start = dict(zip(CELLS[cell].states, flat(states), strict=True))
    last, every = scan_steps(direction, params, start, steps, active, ("h",))
    y = jnp.where(active[..., None], every["h"], 0)
    return jnp.swapaxes(y, 0, 1), *(last[name] for name in CELLS[cell].states)


def layer(cell, params, x, states, lengths=None, back=False):
    y, last = LAYERS[cell](
        {"back": params} if back else params, x, {"back": states} if back else states, lengths=lengths
    )
    return y, *flat(last["back"] if back else last)


def weighed(function, read=None):
    """A random sum of what comes out, or of some of it."""

    def loss(*arguments):
        found = function(*arguments)
        chosen = [out for i, out in enumerate(found) if read is None or i in read]
        return sum((out * numbers(*out.shape, seed=9, dtype=out.dtype)).sum() for out in chosen)

    return loss


def assert_near(found, expected, limit):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        assert np.abs(a - b).max(initial=0) <= limit * (1 + np.abs(b).max(initial=0))


SIZES = [(1, 1, 1, 1), (9, 20, 17, 33)]  # T beyond the steps that are kept without a gradient


def gradients_of(function, cell, lengths, back=False):
    return jax.jit(jax.grad(weighed(lambda *given: function(cell, *given, lengths, back)), argnums=(0, 1, 2)))


@pytest.mark.parametrize("dtype", DType)
@pytest.mark.parametrize("cell", CELLS)
def test_the_equations_forward_and_the_gradients_of_a_scan(cell, dtype):
    kind = str(dtype)
    for (B, T, E, H), back in zip(SIZES, (False, True), strict=True):
        x, params, states = numbers(B, T, E, dtype=kind), params_of(cell, E, H, dtype=kind), states_of(cell, B, H, kind)
        exact_x, exact, start = jax.tree.map(lambda array: array.astype(np.float64), (x, params, states))
        whole, ragged = np.full(B, T), np.array([T, *np.random.default_rng(2).integers(0, T + 1, B - 1)])
        for lengths in (whole, ragged):
            given = None if lengths is whole else lengths
            expected = equations(cell, exact, exact_x, start, lengths, back)
            found = layer(cell, params, x, states, given, back)
            assert_near([f.astype(np.float64) for f in found], expected, LIMITS[dtype])
        mine, theirs = gradients_of(layer, cell, ragged, back), gradients_of(scan, cell, ragged, back)
        assert_near(mine(params, x, states), theirs(params, x, states), 3 * LIMITS[dtype])


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("read", [(0,), (1,), (2,)], ids=["y", "h", "c"])
def test_gradients_of_some_of_what_comes_out_by_some_of_what_goes_in(cell, read):
    if read == (2,) and cell != "lstm":
        return
    x, params, states, lengths = numbers(3, 5, 4), params_of(cell, 4, 6), states_of(cell, 3, 6), np.array([2, 5, 0])
    theirs = jax.jit(jax.grad(weighed(lambda *a: scan(cell, *a, lengths), read), argnums=(0, 1, 2)))
    for by, expected in enumerate(theirs(params, x, states)):
        mine = jax.jit(jax.grad(weighed(lambda *a: layer(cell, *a, lengths), read), argnums=by))
        assert_near(mine(params, x, states), expected, 1e-12)


@pytest.mark.parametrize("cell", CELLS)
def test_stacks_both_directions_and_time_first_are_calls_of_one_layer(cell):
    B, T, E, H = 3, 7, 4, 5
    x, lengths = numbers(B, T, E), np.array([7, 0, 4])
    both = {"forward": params_of(cell, E, H, 1), "back": params_of(cell, E, H, 2)}
    above, state = params_of(cell, 2 * H, H, 3), states_of(cell, B, H)
    y, last = LAYERS[cell]([both, above], x, [{"forward": state, "back": state}, state], lengths=lengths)
    forth, back = (layer(cell, both[name], x, state, lengths, name == "back") for name in both)
    expected = layer(cell, above, jnp.concatenate([forth[0], back[0]], axis=-1), state, lengths)
    assert_near((y, *flat(last[1])), expected, 0)
    assert_near([*flat(last[0]["forward"]), *flat(last[0]["back"])], [*forth[1:], *back[1:]], 0)
    turned, again = LAYERS[cell]([both, above], x.swapaxes(0, 1), lengths=lengths, time_major=True)
    zeros = jax.tree.map(jnp.zeros_like, last)
    assert_near((turned.swapaxes(0, 1), again), LAYERS[cell]([both, above], x, zeros, lengths=lengths), 0)


def test_the_same_without_jit_and_the_same_bits_again_in_several_threads_at_once():
    params, states = params_of("lstm", 12, 24), states_of("lstm", 6, 24)
    inputs = [numbers(6, 30, 12, seed=i) for i in range(8)]
    plain = jax.value_and_grad(weighed(partial(layer, "lstm")), argnums=(0, 1, 2))
    jitted = jax.jit(plain)
    expected = [jax.tree.map(np.asarray, jitted(params, x, states)) for x in inputs]
    assert_near(plain(params, inputs[0], states), expected[0], 1e-14)

    def call(i):
        with precision(DType.FLOAT64):  # which a thread has for itself
            return jitted(params, inputs[i % 8], states)

    with ThreadPoolExecutor(4) as threads:
        for i, found in enumerate(threads.map(call, range(40))):
            assert_near(found, expected[i % 8], 0)


def test_two_calls_forward_then_two_back_and_one_back_twice():
    params, states, a, b = params_of("gru", 3, 5), states_of("gru", 2, 5), numbers(2, 9, 3), numbers(2, 9, 3, seed=1)
    first, back_first = jax.vjp(partial(layer, "gru"), params, a, states)
    second, back_second = jax.vjp(partial(layer, "gru"), params, b, states)
    back = jax.jit(lambda x, y: jax.vjp(lambda *given: scan("gru", *given, 9), params, x, states)[1](y))
    expected = back(a, first)
    assert_near(back_second(second), back(b, second), 1e-12)
    assert_near(back_first(first), expected, 1e-12)
    assert_near(back_first(first), expected, 1e-12)


def test_vmap_checkpoint_and_calls_in_a_loop():
    params, x, states = params_of("gru", 3, 5), numbers(4, 2, 6, 3), states_of("gru", 2, 5)
    loss = weighed(partial(layer, "gru"))
    one_by_one = [jax.grad(loss)(params, rows, states) for rows in x]
    mapped = jax.vmap(jax.grad(loss), in_axes=(None, 0, None))(params, x, states)
    assert_near(mapped, jax.tree.map(lambda *g: jnp.stack(g), *one_by_one), 1e-13)
    total = jax.grad(
        lambda p: jax.lax.scan(lambda s, rows: (s + jax.checkpoint(loss)(p, rows, states), None), 0.0, x)[0]
    )(params)
    assert_near(total, jax.tree.map(lambda *g: sum(g), *one_by_one), 1e-12)


@pytest.mark.skipif(not hasattr(jax.lax, "pcast"), reason="this JAX does not keep account of what varies")
def test_rows_mapped_over_devices():
    params, x, h = params_of("gru", 3, 4), numbers(2, 5, 3), numbers(2, 4)
    rows = jax.sharding.PartitionSpec("rows")
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("rows",))
    mapped = jax.shard_map(ours.gru, mesh=mesh, in_specs=(jax.sharding.PartitionSpec(), rows, rows), out_specs=rows)
    expected, found = (
        jax.grad(lambda *given, call=call: (call(*given)[0] ** 2).sum(), argnums=(0, 1, 2))(params, x, h)
        for call in (ours.gru, jax.jit(mapped))
    )
    assert_near(found, expected, 1e-12)


def test_no_rows_no_steps_and_lengths_that_are_out_of_range():
    params = params_of("gru", 3, 4)
    for B, T in ((0, 5), (2, 0)):
        h = np.ones((B, 4))
        y, last = ours.gru(params, np.zeros((B, T, 3)), h)
        assert y.shape == (B, T, 4)
        assert_near(last, h, 0)
    x = numbers(2, 6, 3)
    assert_near(ours.gru(params, x, lengths=np.array([-3, 99])), ours.gru(params, x, lengths=np.array([0, 6])), 0)
    x = numbers(2, 300, 3)
    of_bytes = ours.gru(params, x, lengths=np.array([0, 100], np.int8))
    assert_near(of_bytes, ours.gru(params, x, lengths=np.array([0, 100])), 0)


GRU = params_of("gru", 3, 4)


X = np.zeros((2, 5, 3))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: ours.gru(GRU, X[0]), ValueError, r"x has shape \(5, 3\); .* a single row as a batch of one"),
        (lambda: ours.gru(GRU, X[..., :2]), ValueError, r"inputs of width 2 are .*'W_xh': \(2, 12\).* these are"),
        (lambda: ours.rnn(GRU, X), ValueError, "parameters of rnn over inputs of width 3"),
        (lambda: ours.gru(GRU, X, np.zeros((3, 4))), ValueError, r"starts from 1 of \(2, 4\)"),
        (lambda: ours.gru(GRU, X.astype("float32")), TypeError, r"float32 and float64; .* convert them first"),
        (lambda: ours.gru(jax.tree.map(jnp.bfloat16, GRU), jnp.bfloat16(X)), TypeError, "are of bfloat16"),
        (lambda: ours.gru(GRU, X, lengths=np.ones(2)), ValueError, r"lengths are float64 \(2,\); give a whole"),
        (lambda: ours.gru([GRU], X, np.zeros((2, 4))), ValueError, "parameters of 1 layers; give as many"),
        (lambda: ours.gru({"forward": GRU, "left": GRU}, X), ValueError, "have left beside"),
        (lambda: ours.gru(3, X), TypeError, "parameters of a layer are a int; give a dict"),
    ],
    ids=["rank", "width", "cell", "state", "mixed", "bfloat16", "lengths", "stack", "direction", "no dict"],
)
def test_what_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_no_gradient_of_a_gradient_and_no_forward_mode():
    x, loss = numbers(2, 5, 3), lambda x: ours.gru(GRU, x)[0].sum()
    with pytest.raises(TypeError, match=r"the gradient of a gradient is not computed by rnnbench\.jax; use"):
        jax.grad(lambda x: jax.grad(loss)(x).sum())(x)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(loss, (x,), (x,))


def test_importing_rnnbench_imports_no_jax():
    code = "import rnnbench, sys; assert 'jax' not in sys.modules and 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
