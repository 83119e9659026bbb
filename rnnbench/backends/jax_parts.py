"""The parts of the JAX backends: pure functions of one problem over `lax.scan`, losses, optimizers.

Arrays are time first inside a function; the inputs of all steps are projected in one product before the scan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from rnnbench.model import Direction, Head, Loss, Model, Optimizer, Problem, Train, Truncation, blocks_of
from rnnbench.params import parts

Weights = dict[str, jax.Array]  # of one direction, under the cell's names
States = dict[str, jax.Array]  # by name, each (B, H)

_UNROLLED = 10  # scans of up to so many steps are written out: a third faster at 5 steps, no faster or slower from 50


class ForwardOutputs(NamedTuple):
    """What a pass returns besides its loss: logits (B, O) or (B, T, O), and the last states by name, each (B, H)."""

    logits: jax.Array
    states: States


def rnn_step(w: Weights, states: States, projected: jax.Array) -> States:
    """One step from states (B, H) and the projected input (B, H)."""
    return {"h": jnp.tanh(projected + states["h"] @ w["W_hh"])}


def gru_step(w: Weights, states: States, projected: jax.Array) -> States:
    """One step from states (B, H) and the projected input (B, 3 H): one product for all gates."""
    h = states["h"]
    (r, z, n), (r_h, z_h, n_h) = (jnp.split(gates, 3, axis=-1) for gates in (projected, h @ w["W_hh"]))
    r, z = jax.nn.sigmoid(r + r_h), jax.nn.sigmoid(z + z_h)
    n = jnp.tanh(n + r * (n_h + w["b_hn"]))
    return {"h": n + z * (h - n)}


def lstm_step(w: Weights, states: States, projected: jax.Array) -> States:
    """One step from states (B, H) and the projected input (B, 4 H): one product for all gates."""
    i, f, g, o = jnp.split(projected + states["h"] @ w["W_hh"], 4, axis=-1)
    c = jax.nn.sigmoid(f) * states["c"] + jax.nn.sigmoid(i) * jnp.tanh(g)
    return {"h": jax.nn.sigmoid(o) * jnp.tanh(c), "c": c}


_STEPS = {"rnn": rnn_step, "gru": gru_step, "lstm": lstm_step}


def gru_forward_step(w: Weights, states: States, projected: Any) -> States:
    """`gru_step` where nothing is differentiated: three products, of arrays that `for_forward` gave."""
    h, (r, z, n), (w_r, w_z, w_n) = states["h"], projected, w["W_hh"]
    r, z = _logistic_of_half(r + h @ w_r), _logistic_of_half(z + h @ w_z)
    n = jnp.tanh(n + r * (h @ w_n + w["b_hn"]))
    return {"h": n + z * (h - n)}


def lstm_forward_step(w: Weights, states: States, projected: jax.Array) -> States:
    """`lstm_step` where nothing is differentiated: one tanh over all gates, of arrays that `for_forward` gave."""
    i, f, g, o = jnp.split(jnp.tanh(projected + states["h"] @ w["W_hh"]), 4, axis=-1)
    c = (0.5 + 0.5 * f) * states["c"] + (0.5 + 0.5 * i) * g
    return {"h": (0.5 + 0.5 * o) * jnp.tanh(c), "c": c}


def _logistic_of_half(half: jax.Array) -> jax.Array:
    return 0.5 + 0.5 * jnp.tanh(half)


_FORWARD_STEPS = {"rnn": rnn_step, "gru": gru_forward_step, "lstm": lstm_forward_step}


def for_forward(direction: Direction, w: Weights, projected: jax.Array) -> Any:
    """Weights and projected inputs for the steps of a forward pass, once before its loop: half of what the logistic
    function takes, which is (1 + tanh(x / 2)) / 2, as XLA's tanh is the faster one; gates of the gru in arrays apart,
    as its loop is slow to slice what it reads. A gradient of either is no faster, or slower. Decision 0031.
    """
    cell = direction.cell
    if cell.name == "rnn":
        return w, projected
    half = np.full(cell.width(direction.H), 0.5, projected.dtype)
    half[cell.units_of({"gru": "n", "lstm": "g"}[cell.name], direction.H)] = 1
    W_hh, projected = w["W_hh"] * half, projected * half
    if cell.name == "lstm":
        return {**w, "W_hh": W_hh}, projected
    return {**w, "W_hh": jnp.split(W_hh, 3, axis=-1)}, tuple(jnp.split(projected, 3, axis=-1))


def unroll_of(steps: int) -> int:
    """How many steps of a scan make one turn of its loop: all of a short one, else one."""
    return steps if steps <= _UNROLLED else 1


def zero_states(model: Model, rows: int, dtype: Any) -> States:
    """What rows start from where no states are given."""
    return {name: jnp.zeros((rows, model.H), dtype) for name in model.states}


def scan_steps(
    direction: Direction,
    w: Weights,
    states: States,
    projected: jax.Array,
    active: jax.Array | None = None,
    kept: Iterable[str] = (),
    trained: bool = True,
) -> tuple[States, States]:
    """Run steps (T, B, G H) of one direction from `states`: the last ones, and those named in `kept` after each step,
    (T, B, H), by time. Where `active` (T, B) is False a row's states stay as they are. `trained`: to be differentiated.
    """
    one_step, T = (_STEPS if trained else _FORWARD_STEPS)[direction.cell.name], len(projected)
    w, steps = (w, projected) if trained else for_forward(direction, w, projected)

    def step(states: States, item: Any) -> tuple[States, States]:
        if active is None:
            after = one_step(w, states, item)
        else:
            p, real = item
            after = one_step(w, states, p)
            after = {name: jnp.where(real[:, None], after[name], states[name]) for name in states}
        return after, {name: after[name] for name in kept}

    items = steps if active is None else (steps, active)
    last, every = lax.scan(step, states, items, reverse=direction.back, unroll=unroll_of(T))
    return last, every


def one_step(model: Model, params: Any, embedding: Any, states: States, x: jax.Array) -> tuple[jax.Array, States]:
    """Logits (B, O) and states after one time step of x (B,) or (B, E), in layers forward in time."""
    h, after = x if model.V is None else embedding[x], dict(states)
    for direction in model.directions:
        own = direction.params_of(params)
        w, projected = for_forward(direction, own, h @ own["W_xh"] + own["b_h"])
        last = _FORWARD_STEPS[direction.cell.name](w, direction.states_of(states), projected)
        after |= direction.named(last)
        h = last["h"]
    return h @ params["W_hy"] + params["b_y"], after


def projected_inputs(model: Model, params: Any, x: jax.Array) -> list[jax.Array]:
    """x_t W_xh + b_h of all steps for each direction of the first layer, (T, B, G H), from rows (B, T) or (B, T, E)."""
    steps = jnp.swapaxes(x, 0, 1)
    steps = steps if model.V is None else params["embedding"][steps]
    return [_project(direction, params, steps) for direction in model.stack[0]]


def _project(direction: Direction, params: Any, steps: jax.Array) -> jax.Array:
    own = direction.params_of(params)
    projected: jax.Array = steps @ own["W_xh"] + own["b_h"]
    return projected


def scan_stack(
    model: Model,
    params: Any,
    states: States,
    projected: list[jax.Array],
    active: jax.Array | None = None,
    kept: Iterable[str] = (),
    trained: bool = True,
) -> tuple[States, States]:
    """Run all layers over the projected inputs of the first, each (T, B, G H), with `active` (T, B): the last states of
    the model, and of every step, (T, B, H), the states h that a layer above reads and those of the cell in `kept`, of
    the last layer these alone.
    """
    last, every = dict[str, jax.Array](), dict[str, jax.Array]()
    for layer in model.stack:
        above = layer[0].layer < model.layers - 1
        if layer[0].layer:
            h = read_by_next(model.stack[layer[0].layer - 1], every)
            projected = [_project(direction, params, h) for direction in layer]
        for direction, p in zip(layer, projected, strict=True):
            w, start = direction.params_of(params), direction.states_of(states)
            final, seen = scan_steps(direction, w, start, p, active, {*kept, "h"} if above else kept, trained)
            last |= direction.named(final)
            every |= direction.named(seen)
    return last, every


class Layers(NamedTuple):
    """Who computes the recurrence: as `projected_inputs` and `scan_stack`, which are those of `jax`.

    `read(model, params, x)` gives arrays (T, B, ...), whatever `run` takes in the place of projected inputs.
    """

    read: Callable[[Model, Any, jax.Array], list[jax.Array]]
    run: Callable[..., tuple[States, States]]


SCAN = Layers(projected_inputs, scan_stack)


def read_by_next(layer: tuple[Direction, ...], states: States) -> jax.Array:
    """The states h of a layer's directions side by side, (..., D H): what the next layer, or the head, reads."""
    each = [states[f"{direction.prefix}h"] for direction in layer]
    return each[0] if len(each) == 1 else jnp.concatenate(each, axis=-1)


def head_of(params: Any, h: jax.Array) -> jax.Array:
    """Logits of states, (..., H) to (..., O)."""
    return h @ params["W_hy"] + params["b_y"]


def emitted_losses(model: Model, z: jax.Array, y: jax.Array) -> jax.Array:
    """The loss of each emitted output: z without its last axis."""
    match model.loss:
        case Loss.BINARY_CROSS_ENTROPY:
            return optax.sigmoid_binary_cross_entropy(z, y).mean(axis=-1)
        case Loss.CATEGORICAL_CROSS_ENTROPY:
            return optax.softmax_cross_entropy_with_integer_labels(z, y)
        case Loss.SQUARED_ERROR:
            return optax.l2_loss(z, y).sum(axis=-1)
        case Loss.SIGMOID_SQUARED_ERROR:
            return optax.l2_loss(jax.nn.sigmoid(z), y).sum(axis=-1)


def are_correct(model: Model, z: jax.Array, y: jax.Array) -> jax.Array | None:
    """Which outputs are classified right; None for losses without classes."""
    match model.loss:
        case Loss.BINARY_CROSS_ENTROPY:
            return ((z > 0) == (y > 0.5)).all(axis=-1)
        case Loss.CATEGORICAL_CROSS_ENTROPY:
            return z.argmax(axis=-1) == y
        case _:
            return None


def real(model: Model, each: jax.Array, lengths: jax.Array | None) -> jax.Array:
    """Of losses, or which are right, (B,) or (B, T), 0 for what is not emitted."""
    if lengths is None or model.head is Head.LAST:
        return each
    return jnp.where(jnp.arange(each.shape[1]) < lengths[:, None], each, 0)


def optimizer_of(train: Train) -> optax.GradientTransformation:
    """Clipping and the update, chained."""
    update = (
        optax.sgd(train.learning_rate)
        if train.optimizer is Optimizer.SGD
        else optax.adam(train.learning_rate, b1=train.beta_1, b2=train.beta_2, eps=train.epsilon)
    )
    if train.clip_value is not None:
        return optax.chain(optax.clip(train.clip_value), update)
    if train.clip_norm is not None:
        return optax.chain(optax.clip_by_global_norm(train.clip_norm), update)
    return update


@dataclass(frozen=True)
class Functions:
    """The pure functions of one problem, to be jitted. `states` are by name, each (B, H), or None for zeros; `lengths`
    (B,), or None where rows have none. `trained`: the loss is there to be differentiated.

    Parameters and gradients go in and out as one vector: JAX hands over each array of its own for some microseconds.
    """

    problem: Problem
    trained: bool = True
    layers: Layers = SCAN

    def loss(
        self, params: Any, x: jax.Array, y: jax.Array, states: Any, lengths: jax.Array | None = None
    ) -> tuple[jax.Array, ForwardOutputs]:
        """The loss of rows x, its gradient cut as the truncation says; the value is that of the whole rows."""
        model, truncation, T = self.problem.model, self.problem.truncation, self.problem.T
        if states is None:
            states = zero_states(model, len(x), params["W_hy"].dtype)
        start = 0  # of what is differentiable: with one loss, at the last step, its window
        if truncation is not None and model.head is Head.LAST and lengths is None:
            start = blocks_of(model, truncation, T)[-1].start
        if start:
            fixed = lax.stop_gradient(params)
            read = self.layers.read(model, fixed, x[:, :start])
            states, _ = self.layers.run(model, fixed, lax.stop_gradient(states), read)
        projected = self.layers.read(model, params, x[:, start:])
        active = None if lengths is None else jnp.arange(T)[:, None] < lengths
        top = model.stack[-1]
        if truncation is None or (model.head is Head.LAST and lengths is None):
            kept = ("h",) if model.head is Head.EVERY else ()
            last, every = self.layers.run(model, params, states, projected, active, kept, self.trained)
            h = read_by_next(top, every if model.head is Head.EVERY else last)
        elif truncation.window == truncation.stride and T % truncation.stride == 0:
            last, h = chunks(self.layers, model, params, states, projected, active, truncation.stride)
            if model.head is Head.LAST:
                assert lengths is not None
                ends = jnp.take_along_axis(h, jnp.maximum(lengths - 1, 0)[None, :, None], axis=0)[0]
                h = jnp.where(lengths[:, None] > 0, ends, read_by_next(top, states))
        else:
            last, logits, total = overlapping(model, truncation, params, states, projected, y, lengths)
            return total * self._scale(len(x), lengths), ForwardOutputs(logits, last)
        logits = head_of(params, h)
        logits = logits if model.head is Head.LAST else jnp.swapaxes(logits, 0, 1)
        total = real(model, emitted_losses(model, logits, y), lengths).sum()
        return total * self._scale(len(x), lengths), ForwardOutputs(logits, last)

    def _scale(self, rows: int, lengths: jax.Array | None) -> Any:
        model = self.problem.model
        if lengths is None or not model.averages_steps:
            return model.loss_scale(rows, self.problem.T)
        return 1.0 / jnp.maximum(lengths.sum(), 1)

    def forward(self, vector: jax.Array, x: jax.Array, y: jax.Array, states: Any, lengths: Any = None) -> Any:
        """(loss, result)."""
        return self.loss(parts(vector, self.problem.model.shapes), x, y, states, lengths)

    def gradient(self, vector: jax.Array, x: jax.Array, y: jax.Array, states: Any, lengths: Any = None) -> Any:
        """((loss, result), gradient)."""
        shapes = self.problem.model.shapes
        value, grads = jax.value_and_grad(self.loss, has_aux=True)(parts(vector, shapes), x, y, states, lengths)
        return value, jnp.concatenate([grads[name].reshape(-1) for name in shapes])

    def train_step(
        self, vector: jax.Array, moments: Any, x: jax.Array, y: jax.Array, states: Any, lengths: Any = None
    ) -> Any:
        """(parameters, optimizer state, loss, result) after one step."""
        (loss, result), slope = self.gradient(vector, x, y, states, lengths)
        updates, moments = optimizer_of(self.problem.train).update(slope, moments, vector)
        return optax.apply_updates(vector, updates), moments, loss, result

    def epoch(
        self,
        vector: jax.Array,
        moments: Any,
        inputs: jax.Array,
        targets: jax.Array,
        batches: jax.Array,
        lengths: jax.Array | None = None,
    ) -> Any:
        """Steps over batches (n, B) of row numbers: (parameters, optimizer state, losses (n,), right (n,) or None)."""
        model = self.problem.model

        def step(carry: Any, rows: jax.Array) -> Any:
            x, y, own = inputs[rows], targets[rows], None if lengths is None else lengths[rows]
            vector, moments = carry
            vector, moments, loss, result = self.train_step(vector, moments, x, y, None, own)
            hits = are_correct(model, result.logits, y)
            return (vector, moments), (loss, None if hits is None else real(model, hits, own).sum())

        (vector, moments), (losses, right) = lax.scan(step, (vector, moments), batches)
        return vector, moments, losses, right


def chunks(
    layers: Layers,
    model: Model,
    params: Any,
    states: States,
    projected: list[jax.Array],
    active: jax.Array | None,
    stride: int,
) -> tuple[States, jax.Array]:
    """Chunk and detach, over projected inputs (T, B, G H) with `active` (T, B): the last states, and what the head
    reads after each step, (T, B, D H); `stride` divides T.
    """

    def chunk(states: States, steps: Any) -> Any:
        own, taken = steps
        last, every = layers.run(model, params, lax.stop_gradient(states), own, taken, kept=("h",))
        return last, read_by_next(model.stack[-1], every)

    def cut(steps: jax.Array) -> jax.Array:
        return steps.reshape(-1, stride, *steps.shape[1:])

    last, h = lax.scan(chunk, states, jax.tree.map(cut, (projected, active)))
    return last, h.reshape(-1, *h.shape[2:])


def overlapping(
    model: Model,
    truncation: Truncation,
    params: Any,
    states: States,
    projected: list[jax.Array],
    y: jax.Array,
    lengths: jax.Array | None,
) -> tuple[States, jax.Array, jax.Array]:
    """The last states, the logits and the sum of losses, where blocks reach back before their own losses; from
    projected inputs, each (T, B, G H), targets and lengths (B,).

    One scan over the blocks, all of them made `window` steps long: the steps before the row's first leave the states
    as they are, and losses that an earlier block has emitted weigh nothing.
    """
    T = len(projected[0])
    window, stride = min(truncation.window, T), min(truncation.stride, T)
    blocks = list(truncation.blocks(T))
    last_step = model.head is Head.LAST  # of rows with lengths: others have no loss but in the last block
    active = None if lengths is None else jnp.arange(T)[:, None] < lengths
    fixed, states, seen = lax.stop_gradient((params, states, projected))
    last, every = scan_stack(model, fixed, states, seen, active, kept=model.recurrence.states)
    known = {name: jnp.concatenate([states[name][None], every[name]]) for name in states}
    padded = [jnp.pad(p, ((window, 0), (0, 0), (0, 0))) for p in projected]
    targets = y if last_step else jnp.swapaxes(y, 0, 1)
    if not last_step:
        targets = jnp.pad(targets, ((stride, 0),) + ((0, 0),) * (targets.ndim - 1))

    def block(total: jax.Array, at: Any) -> Any:
        emit, end = at
        start = {name: value[jnp.maximum(end - window, 0)] for name, value in known.items()}
        times = end - window + jnp.arange(window)
        steps = [lax.dynamic_slice_in_dim(p, end, window) for p in padded]
        taken = times[:, None] >= 0
        if lengths is not None:
            taken &= times[:, None] < lengths
        _, reached = scan_stack(model, params, start, steps, taken, kept=("h",))
        z = head_of(params, read_by_next(model.stack[-1], reached)[window - stride :])
        own = (times[:, None] >= emit)[window - stride :]
        if last_step:
            assert lengths is not None
            losses = emitted_losses(model, z, jnp.broadcast_to(targets, (stride, *targets.shape)))
            own &= times[window - stride :, None] == lengths - 1
        else:
            losses = emitted_losses(model, z, lax.dynamic_slice_in_dim(targets, end, stride))
            own &= taken[window - stride :]
        return total + jnp.where(own, losses, 0).sum(), None

    ends = (jnp.array([b.emit for b in blocks]), jnp.array([b.end for b in blocks]))
    total, _ = lax.scan(block, jnp.zeros((), projected[0].dtype), ends)
    top = model.stack[-1]
    if last_step:  # a row without steps has its loss from the states that it starts from
        logits = head_of(params, read_by_next(top, last))
        total += jnp.where(lengths == 0, emitted_losses(model, logits, y), 0).sum()
    else:
        logits = jnp.swapaxes(head_of(params, read_by_next(top, {n: value[1:] for n, value in known.items()})), 0, 1)
    return last, logits, total


def logits_of(
    model: Model, layers: Layers, vector: jax.Array, x: jax.Array, lengths: jax.Array | None = None
) -> jax.Array:
    """Logits of rows x from zero states; the parameters as one vector."""
    params = parts(vector, model.shapes)
    kept = ("h",) if model.head is Head.EVERY else ()
    states, projected = zero_states(model, len(x), params["W_hy"].dtype), layers.read(model, params, x)
    active = None if lengths is None else jnp.arange(x.shape[1])[:, None] < lengths
    last, every = layers.run(model, params, states, projected, active, kept, trained=False)
    logits = head_of(params, read_by_next(model.stack[-1], every if kept else last))
    return jnp.swapaxes(logits, 0, 1) if kept else logits


def exact(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as it is traced with float32 products of float32 numbers, where a device would round them first."""

    def traced(*arguments: Any) -> Any:
        with jax.default_matmul_precision("highest"):
            return function(*arguments)

    return traced
