"""The parts of the JAX backends: pure functions of one problem over `lax.scan`, losses, optimizers.

Arrays are time first inside a function; the inputs of all steps are projected in one product before the scan.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from rnnbench.model import Head, Loss, Model, Optimizer, Problem, Train, Truncation, blocks_of

_UNROLLED = 10  # scans of up to so many steps are written out: a third faster at 5 steps, no faster or slower from 50


class Result(NamedTuple):
    """What a pass returns besides its loss: logits (B, O) or (B, T, O), the last state (B, H)."""

    logits: jax.Array
    state: jax.Array


def unroll_of(steps: int) -> int:
    """How many steps of a scan make one turn of its loop: all of a short one, else one."""
    return steps if steps <= _UNROLLED else 1


def scan_steps(w: jax.Array, state: jax.Array, projected: jax.Array, every: bool) -> tuple[jax.Array, Any]:
    """Run steps (T, B, H) from `state` (B, H): the last state, and all states (T, B, H) where `every`."""

    def step(h: jax.Array, p: jax.Array) -> tuple[jax.Array, Any]:
        h = jnp.tanh(p + h @ w)
        return h, h if every else None

    return lax.scan(step, state, projected, unroll=unroll_of(len(projected)))


def project(model: Model, params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    """x_t W_xh + b_h of all steps, (T, B, H), from rows (B, T) or (B, T, E)."""
    steps = jnp.swapaxes(x, 0, 1)
    steps = steps if model.V is None else params["embedding"][steps]
    return steps @ params["W_xh"] + params["b_h"]


def read(params: dict[str, jax.Array], states: jax.Array) -> jax.Array:
    """Logits of states, (..., H) to (..., O)."""
    return states @ params["W_hy"] + params["b_y"]


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


def hits(model: Model, z: jax.Array, y: jax.Array) -> jax.Array | None:
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
    """The pure functions of one problem, to be jitted. `state` is (B, H) or None for zeros."""

    problem: Problem

    def loss(self, params: Any, x: jax.Array, y: jax.Array, state: Any) -> tuple[jax.Array, Result]:
        """The loss of rows x, its gradient cut as the truncation says; the value is that of the whole rows."""
        model, truncation = self.problem.model, self.problem.truncation
        if state is None:
            state = jnp.zeros((len(x), model.H), params["W_hh"].dtype)
        projected = project(model, params, x)
        if model.head is Head.LAST:
            state = self._last_state(params, projected, state)
            logits = read(params, state)
            total = emitted_losses(model, logits, y).sum()
        elif truncation is None:
            state, states = scan_steps(params["W_hh"], state, projected, every=True)
            logits = jnp.swapaxes(read(params, states), 0, 1)
            total = emitted_losses(model, logits, y).sum()
        elif truncation.window == truncation.stride and self.problem.T % truncation.stride == 0:
            state, states = chunks(params["W_hh"], state, projected, truncation.stride)
            logits = jnp.swapaxes(read(params, states), 0, 1)
            total = emitted_losses(model, logits, y).sum()
        else:
            state, logits, total = overlapping(model, truncation, params, projected, state, y)
        return total * model.loss_scale(len(x), self.problem.T), Result(logits, state)

    def _last_state(self, params: Any, projected: jax.Array, state: jax.Array) -> jax.Array:
        """The state after all steps, differentiable through the last window alone."""
        (block,) = blocks_of(self.problem.model, self.problem.truncation, self.problem.T)
        if block.start:
            w, state, before = lax.stop_gradient((params["W_hh"], state, projected[: block.start]))
            state, _ = scan_steps(w, state, before, every=False)
        return scan_steps(params["W_hh"], state, projected[block.start :], every=False)[0]

    def gradient(self, params: Any, x: jax.Array, y: jax.Array, state: Any) -> Any:
        """((loss, result), gradients by name)."""
        return jax.value_and_grad(self.loss, has_aux=True)(params, x, y, state)

    def train_step(self, params: Any, moments: Any, x: jax.Array, y: jax.Array, state: Any) -> Any:
        """(parameters, optimizer state, loss, result) after one step."""
        (loss, result), grads = self.gradient(params, x, y, state)
        updates, moments = optimizer_of(self.problem.train).update(grads, moments, params)
        return optax.apply_updates(params, updates), moments, loss, result

    def epoch(self, params: Any, moments: Any, inputs: jax.Array, targets: jax.Array, batches: jax.Array) -> Any:
        """Steps over batches (n, B) of row numbers: (parameters, optimizer state, losses (n,), hits (n,) or None)."""

        def step(carry: Any, rows: jax.Array) -> Any:
            x, y = inputs[rows], targets[rows]
            params, moments = carry
            params, moments, loss, result = self.train_step(params, moments, x, y, None)
            return (params, moments), (loss, hits(self.problem.model, result.logits, y))

        (params, moments), (losses, right) = lax.scan(step, (params, moments), batches)
        return params, moments, losses, right


def chunks(w: jax.Array, state: jax.Array, projected: jax.Array, stride: int) -> tuple[jax.Array, jax.Array]:
    """Chunk and detach: the last state, and all states (T, B, H); `stride` divides T."""

    def chunk(h: jax.Array, steps: jax.Array) -> Any:
        return scan_steps(w, lax.stop_gradient(h), steps, every=True)

    T, B, H = projected.shape
    state, states = lax.scan(chunk, state, projected.reshape(T // stride, stride, B, H))
    return state, states.reshape(T, B, H)


def overlapping(
    model: Model, truncation: Truncation, params: Any, projected: jax.Array, state: jax.Array, y: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The last state, the logits (B, T, O) and the sum of losses, where blocks reach back before their own losses.

    One scan over the blocks, all of them made `window` steps long: the steps before the row's first leave the state
    as it is, and losses that an earlier block has emitted weigh nothing.
    """
    T = len(projected)
    window, stride = min(truncation.window, T), min(truncation.stride, T)
    blocks = list(truncation.blocks(T))
    w, state, fixed = lax.stop_gradient((params["W_hh"], state, projected))
    last, states = scan_steps(w, state, fixed, every=True)
    known = jnp.concatenate([state[None], states])
    padded = jnp.pad(projected, ((window, 0), (0, 0), (0, 0)))
    targets = jnp.swapaxes(y, 0, 1)
    targets = jnp.pad(targets, ((stride, 0),) + ((0, 0),) * (targets.ndim - 1))

    def block(total: jax.Array, at: Any) -> Any:
        emit, end = at

        def step(h: jax.Array, item: Any) -> tuple[jax.Array, jax.Array]:
            p, t = item
            h = jnp.where(t >= 0, jnp.tanh(p + h @ params["W_hh"]), h)
            return h, h

        start = known[jnp.maximum(end - window, 0)]
        times = end - window + jnp.arange(window)
        _, reached = lax.scan(
            step, start, (lax.dynamic_slice_in_dim(padded, end, window), times), unroll=unroll_of(window)
        )
        z = read(params, reached[window - stride :])
        losses = emitted_losses(model, z, lax.dynamic_slice_in_dim(targets, end, stride))
        own = times[window - stride :] >= emit
        return total + jnp.where(own[:, None], losses, 0).sum(), None

    ends = (jnp.array([b.emit for b in blocks]), jnp.array([b.end for b in blocks]))
    total, _ = lax.scan(block, jnp.zeros((), projected.dtype), ends)
    logits = jnp.swapaxes(read(params, known[1:]), 0, 1)
    return last, logits, total


def logits_of(model: Model, params: Any, x: jax.Array) -> jax.Array:
    """Logits of rows x from a zero state."""
    every = model.head is Head.EVERY
    state = jnp.zeros((len(x), model.H), params["W_hh"].dtype)
    last, states = scan_steps(params["W_hh"], state, project(model, params, x), every)
    return jnp.swapaxes(read(params, states), 0, 1) if every else read(params, last)


def exact(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as it is traced with float32 products of float32 numbers, where a device would round them first."""

    def traced(*arguments: Any) -> Any:
        with jax.default_matmul_precision("highest"):
            return function(*arguments)

    return traced
