"""The parts of the JAX backends: pure functions of one problem over `lax.scan`, losses, optimizers.

Arrays are time first inside a function; the inputs of all steps are projected in one product before the scan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from rnnbench.model import Head, Loss, Model, Optimizer, Problem, Train, Truncation, blocks_of

Weights = dict[str, jax.Array]  # W_hh, and what else of the parameters a step reads
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


def unroll_of(steps: int) -> int:
    """How many steps of a scan make one turn of its loop: all of a short one, else one."""
    return steps if steps <= _UNROLLED else 1


def recurrent_weights(model: Model, params: Any) -> Weights:
    """The parameters that every step reads."""
    return {name: params[name] for name in model.recurrence.shapes(model.E, model.H) if name not in ("W_xh", "b_h")}


def zero_states(model: Model, rows: int, dtype: Any) -> States:
    """What rows start from where no states are given."""
    return {name: jnp.zeros((rows, model.H), dtype) for name in model.recurrence.states}


def scan_steps(
    model: Model, w: Weights, states: States, projected: jax.Array, kept: Iterable[str] = ()
) -> tuple[States, States]:
    """Run steps (T, B, G H) from `states`: the last ones, and those named in `kept` after each step, (T, B, H)."""
    one_step = _STEPS[model.cell]

    def step(states: States, p: jax.Array) -> tuple[States, States]:
        states = one_step(w, states, p)
        return states, {name: states[name] for name in kept}

    last, every = lax.scan(step, states, projected, unroll=unroll_of(len(projected)))
    return last, every


def projected_inputs(model: Model, params: Any, x: jax.Array) -> jax.Array:
    """x_t W_xh + b_h of all steps, (T, B, G H), from rows (B, T) or (B, T, E)."""
    steps = jnp.swapaxes(x, 0, 1)
    steps = steps if model.V is None else params["embedding"][steps]
    return steps @ params["W_xh"] + params["b_h"]


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


def count_correct(model: Model, z: jax.Array, y: jax.Array) -> jax.Array | None:
    """How many outputs are classified right; None for losses without classes."""
    match model.loss:
        case Loss.BINARY_CROSS_ENTROPY:
            return ((z > 0) == (y > 0.5)).all(axis=-1).sum()
        case Loss.CATEGORICAL_CROSS_ENTROPY:
            return (z.argmax(axis=-1) == y).sum()
        case _:
            return None


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
    """The pure functions of one problem, to be jitted. `states` are by name, each (B, H), or None for zeros."""

    problem: Problem

    def loss(self, params: Any, x: jax.Array, y: jax.Array, states: Any) -> tuple[jax.Array, ForwardOutputs]:
        """The loss of rows x, its gradient cut as the truncation says; the value is that of the whole rows."""
        model, truncation = self.problem.model, self.problem.truncation
        w = recurrent_weights(model, params)
        if states is None:
            states = zero_states(model, len(x), params["W_hh"].dtype)
        projected = projected_inputs(model, params, x)
        if model.head is Head.LAST:
            last = self._last_states(w, projected, states)
            logits = head_of(params, last["h"])
            total = emitted_losses(model, logits, y).sum()
        elif truncation is None:
            last, every = scan_steps(model, w, states, projected, kept=("h",))
            logits = jnp.swapaxes(head_of(params, every["h"]), 0, 1)
            total = emitted_losses(model, logits, y).sum()
        elif truncation.window == truncation.stride and self.problem.T % truncation.stride == 0:
            last, h = chunks(model, w, states, projected, truncation.stride)
            logits = jnp.swapaxes(head_of(params, h), 0, 1)
            total = emitted_losses(model, logits, y).sum()
        else:
            last, logits, total = overlapping(model, truncation, params, projected, states, y)
        return total * model.loss_scale(len(x), self.problem.T), ForwardOutputs(logits, last)

    def _last_states(self, w: Weights, projected: jax.Array, states: States) -> States:
        """The states after all steps, differentiable through the last window alone."""
        model = self.problem.model
        (block,) = blocks_of(model, self.problem.truncation, self.problem.T)
        if block.start:
            states, _ = scan_steps(model, *lax.stop_gradient((w, states, projected[: block.start])))
        return scan_steps(model, w, states, projected[block.start :])[0]

    def gradient(self, params: Any, x: jax.Array, y: jax.Array, states: Any) -> Any:
        """((loss, result), gradients by name)."""
        return jax.value_and_grad(self.loss, has_aux=True)(params, x, y, states)

    def train_step(self, params: Any, moments: Any, x: jax.Array, y: jax.Array, states: Any) -> Any:
        """(parameters, optimizer state, loss, result) after one step."""
        (loss, result), grads = self.gradient(params, x, y, states)
        updates, moments = optimizer_of(self.problem.train).update(grads, moments, params)
        return optax.apply_updates(params, updates), moments, loss, result

    def epoch(self, params: Any, moments: Any, inputs: jax.Array, targets: jax.Array, batches: jax.Array) -> Any:
        """Steps over batches (n, B) of row numbers: (parameters, optimizer state, losses (n,), correct or None)."""

        def step(carry: Any, rows: jax.Array) -> Any:
            x, y = inputs[rows], targets[rows]
            params, moments = carry
            params, moments, loss, result = self.train_step(params, moments, x, y, None)
            return (params, moments), (loss, count_correct(self.problem.model, result.logits, y))

        (params, moments), (losses, right) = lax.scan(step, (params, moments), batches)
        return params, moments, losses, right


def chunks(model: Model, w: Weights, states: States, projected: jax.Array, stride: int) -> tuple[States, jax.Array]:
    """Chunk and detach: the last states, and h after each step (T, B, H); `stride` divides T."""

    def chunk(states: States, steps: jax.Array) -> Any:
        last, every = scan_steps(model, w, lax.stop_gradient(states), steps, kept=("h",))
        return last, every["h"]

    T, B, width = projected.shape
    last, h = lax.scan(chunk, states, projected.reshape(T // stride, stride, B, width))
    return last, h.reshape(T, B, model.H)


def overlapping(
    model: Model, truncation: Truncation, params: Any, projected: jax.Array, states: States, y: jax.Array
) -> tuple[States, jax.Array, jax.Array]:
    """The last states, the logits (B, T, O) and the sum of losses, where blocks reach back before their own losses.

    One scan over the blocks, all of them made `window` steps long: the steps before the row's first leave the states
    as they are, and losses that an earlier block has emitted weigh nothing.
    """
    T = len(projected)
    window, stride = min(truncation.window, T), min(truncation.stride, T)
    blocks = list(truncation.blocks(T))
    w, one_step = recurrent_weights(model, params), _STEPS[model.cell]
    fixed_w, states, fixed = lax.stop_gradient((w, states, projected))
    last, every = scan_steps(model, fixed_w, states, fixed, kept=model.recurrence.states)
    known = {name: jnp.concatenate([states[name][None], every[name]]) for name in states}
    padded = jnp.pad(projected, ((window, 0), (0, 0), (0, 0)))
    targets = jnp.swapaxes(y, 0, 1)
    targets = jnp.pad(targets, ((stride, 0),) + ((0, 0),) * (targets.ndim - 1))

    def block(total: jax.Array, at: Any) -> Any:
        emit, end = at

        def step(states: States, item: Any) -> tuple[States, jax.Array]:
            p, t = item
            after = one_step(w, states, p)
            after = {name: jnp.where(t >= 0, after[name], states[name]) for name in states}
            return after, after["h"]

        start = {name: value[jnp.maximum(end - window, 0)] for name, value in known.items()}
        times = end - window + jnp.arange(window)
        _, reached = lax.scan(
            step, start, (lax.dynamic_slice_in_dim(padded, end, window), times), unroll=unroll_of(window)
        )
        z = head_of(params, reached[window - stride :])
        losses = emitted_losses(model, z, lax.dynamic_slice_in_dim(targets, end, stride))
        own = times[window - stride :] >= emit
        return total + jnp.where(own[:, None], losses, 0).sum(), None

    ends = (jnp.array([b.emit for b in blocks]), jnp.array([b.end for b in blocks]))
    total, _ = lax.scan(block, jnp.zeros((), projected.dtype), ends)
    logits = jnp.swapaxes(head_of(params, known["h"][1:]), 0, 1)
    return last, logits, total


def logits_of(model: Model, params: Any, x: jax.Array) -> jax.Array:
    """Logits of rows x from zero states."""
    kept = ("h",) if model.head is Head.EVERY else ()
    states, w = zero_states(model, len(x), params["W_hh"].dtype), recurrent_weights(model, params)
    last, every = scan_steps(model, w, states, projected_inputs(model, params, x), kept)
    return jnp.swapaxes(head_of(params, every["h"]), 0, 1) if kept else head_of(params, last["h"])


def exact(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as it is traced with float32 products of float32 numbers, where a device would round them first."""

    def traced(*arguments: Any) -> Any:
        with jax.default_matmul_precision("highest"):
            return function(*arguments)

    return traced
