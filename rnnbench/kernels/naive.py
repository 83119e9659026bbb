"""The recurrence as one writes it in Numba, with `np.dot` in an `@njit`: a control for the kernels beside it.

Arrays are batch first, as NumPy code has them; everything is allocated where it is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from rnnbench.kernels import code_cache

Array = NDArray[np.floating]

RNN, GRU, LSTM = range(3)
NO_LOSS, BINARY_CROSS_ENTROPY, CATEGORICAL_CROSS_ENTROPY, SQUARED_ERROR, SIGMOID_SQUARED_ERROR = range(5)


class Weights(NamedTuple):
    """Parameters, or what belongs to each; what the model does not have is empty."""

    embedding: Array  # (V, E)
    W_xh: Array  # (E, G H)
    W_hh: Array  # (H, G H)
    b_h: Array  # (G H,)
    b_hn: Array  # (H,)
    W_hy: Array  # (H, O)
    b_y: Array  # (O,)


class NaiveRows(NamedTuple):
    """A batch: tokens (B, T) or inputs (B, T, E); targets (B, S, O) or classes (B, S), S outputs a row."""

    tokens: NDArray[np.int32]
    inputs: Array
    targets: Array
    classes: NDArray[np.int32]


class NaiveTrace(NamedTuple):
    """What the forward pass leaves, time first: states (T + 1, B, H); gates (T, B, G H); the gru's n before r."""

    h: Array
    c: Array
    gates: Array
    inner: Array


class NaiveTask(NamedTuple):
    """What is computed, as numbers: codes of cell and loss, and what a loss of one output counts in that of a batch."""

    cell: int
    loss: int
    T: int
    S: int  # outputs a row
    step_weight: float
    blocks: NDArray[np.int64]  # (n, 3): start, emit, end


class Rule(NamedTuple):
    """How an update is made; no limit is infinity."""

    updates: bool
    adam: bool
    learning_rate: float
    beta_1: float
    beta_2: float
    epsilon: float
    clip_value: float
    clip_norm: float


_FOLDER = code_cache.code_folder("naive", Path(__file__))


def compiled(function: Callable[..., Any]) -> Any:
    """`@njit`, kept on disk."""
    return code_cache.keep(numba.njit(function), function, _FOLDER)


@compiled
def sigmoid(z, one):
    """1 / (1 + exp(-z)) of a number, in the type of `one`: 1 itself would make it float64."""
    return one / (one + np.exp(-z))


@compiled
def step_input(w, rows, t):
    """x (B, E) of a step."""
    if rows.tokens.size:
        return w.embedding[rows.tokens[:, t]]
    return np.ascontiguousarray(rows.inputs[:, t])


@compiled
def forward(task, w, rows, h0, c0):
    """All T steps from the states h0 and c0, each (B, H)."""
    dtype = w.W_hh.dtype
    one, H, B = dtype.type(1), w.W_hh.shape[0], h0.shape[0]
    h = np.zeros((task.T + 1, B, H), dtype)
    c = np.zeros((task.T + 1 if task.cell == LSTM else 0, B, H), dtype)
    gates = np.zeros((task.T, B, w.W_hh.shape[1]), dtype)
    inner = np.zeros((task.T if task.cell == GRU else 0, B, H), dtype)
    h[0] = h0
    if task.cell == LSTM:
        c[0] = c0
    for t in range(task.T):
        a = np.dot(step_input(w, rows, t), w.W_xh) + w.b_h
        u = np.dot(h[t], w.W_hh)
        if task.cell == RNN:
            h[t + 1] = np.tanh(a + u)
        elif task.cell == GRU:
            for b in range(B):
                for j in range(H):
                    r = sigmoid(a[b, j] + u[b, j], one)
                    z = sigmoid(a[b, H + j] + u[b, H + j], one)
                    m = u[b, 2 * H + j] + w.b_hn[j]
                    n = np.tanh(a[b, 2 * H + j] + r * m)
                    gates[t, b, j], gates[t, b, H + j], gates[t, b, 2 * H + j], inner[t, b, j] = r, z, n, m
                    h[t + 1, b, j] = (one - z) * n + z * h[t, b, j]
        else:
            for b in range(B):
                for j in range(H):
                    i = sigmoid(a[b, j] + u[b, j], one)
                    f = sigmoid(a[b, H + j] + u[b, H + j], one)
                    g = np.tanh(a[b, 2 * H + j] + u[b, 2 * H + j])
                    o = sigmoid(a[b, 3 * H + j] + u[b, 3 * H + j], one)
                    gates[t, b, j], gates[t, b, H + j], gates[t, b, 2 * H + j], gates[t, b, 3 * H + j] = i, f, g, o
                    c[t + 1, b, j] = f * c[t, b, j] + i * g
                    h[t + 1, b, j] = o * np.tanh(c[t + 1, b, j])
    return NaiveTrace(h, c, gates, inner)


@compiled
def head(task, w, h):
    """Logits (B, S, O)."""
    logits = np.zeros((h.shape[1], task.S, w.b_y.size), h.dtype)
    for s in range(task.S):
        logits[:, s] = np.dot(h[task.T - task.S + s + 1], w.W_hy) + w.b_y
    return logits


@compiled
def loss_and_slopes(task, rows, logits):
    """The batch's loss, its derivative by the logits (B, S, O), and how many outputs are right."""
    B, S, O = logits.shape
    dlogits, total, right = np.zeros_like(logits), 0.0, 0
    scale = task.step_weight / B
    for b in range(B):
        for s in range(S):
            z = logits[b, s]
            if task.loss == CATEGORICAL_CROSS_ENTROPY:
                k, top = rows.classes[b, s], z.max()
                e = np.exp(z - top)
                total += np.log(e.sum()) + (top - z[k])
                dlogits[b, s] = e / e.sum()
                dlogits[b, s, k] -= 1
                right += z.argmax() == k
                continue
            hits = 0
            for j in range(O):
                y = rows.targets[b, s, j]
                if task.loss == BINARY_CROSS_ENTROPY:
                    total += (max(z[j], 0.0) - y * z[j] + np.log1p(np.exp(-abs(z[j])))) / O
                    dlogits[b, s, j] = (1 / (1 + np.exp(-z[j])) - y) / O
                    hits += (z[j] > 0) == (y > 0.5)
                elif task.loss == SQUARED_ERROR:
                    total += 0.5 * (z[j] - y) ** 2
                    dlogits[b, s, j] = z[j] - y
                else:
                    p = 1 / (1 + np.exp(-z[j]))
                    total += 0.5 * (p - y) ** 2
                    dlogits[b, s, j] = (p - y) * p * (1 - p)
            right += hits == O
    return total * scale, dlogits * logits.dtype.type(scale), right


@compiled
def zeros_like(w):
    """A zero for each number of w."""
    return Weights(
        np.zeros_like(w.embedding), np.zeros_like(w.W_xh), np.zeros_like(w.W_hh), np.zeros_like(w.b_h),
        np.zeros_like(w.b_hn), np.zeros_like(w.W_hy), np.zeros_like(w.b_y),
    )  # fmt: skip


@compiled
def step_back(task, trace, grads, t, dh, dc):
    """delta (B, G H) of the projected input, and that of the recurrent product. dh and dc (B, H) become what goes to
    the step before, but for what comes through the product.
    """
    h, gates = trace.h, trace.gates[t]
    one, (B, H) = h.dtype.type(1), dh.shape
    delta = np.empty_like(gates)
    recurrent = delta
    if task.cell == RNN:
        for b in range(B):
            for j in range(H):
                delta[b, j] = dh[b, j] * (one - h[t + 1, b, j] * h[t + 1, b, j])
                dh[b, j] = 0
    elif task.cell == GRU:
        recurrent = np.empty_like(gates)
        for b in range(B):
            for j in range(H):
                r, z, n = gates[b, j], gates[b, H + j], gates[b, 2 * H + j]
                dn = dh[b, j] * (one - z) * (one - n * n)
                dr = dn * trace.inner[t, b, j] * r * (one - r)
                dz = dh[b, j] * (h[t, b, j] - n) * z * (one - z)
                delta[b, j], delta[b, H + j], delta[b, 2 * H + j] = dr, dz, dn
                recurrent[b, j], recurrent[b, H + j], recurrent[b, 2 * H + j] = dr, dz, dn * r
                grads.b_hn[j] += dn * r
                dh[b, j] *= z
    else:
        for b in range(B):
            for j in range(H):
                i, f, g, o = gates[b, j], gates[b, H + j], gates[b, 2 * H + j], gates[b, 3 * H + j]
                tanh_c = np.tanh(trace.c[t + 1, b, j])
                down = dc[b, j] + dh[b, j] * o * (one - tanh_c * tanh_c)
                delta[b, j] = down * g * i * (one - i)
                delta[b, H + j] = down * trace.c[t, b, j] * f * (one - f)
                delta[b, 2 * H + j] = down * i * (one - g * g)
                delta[b, 3 * H + j] = dh[b, j] * tanh_c * o * (one - o)
                dh[b, j], dc[b, j] = 0, down * f
    return delta, recurrent


@compiled
def backward(task, w, rows, trace, dlogits):
    """Gradients by back-propagation through time, block by block, from dlogits (B, S, O)."""
    h, grads, first = trace.h, zeros_like(w), task.T - task.S
    W_xh_T, W_hh_T, W_hy_T = w.W_xh.T.copy(), w.W_hh.T.copy(), w.W_hy.T.copy()
    for block in range(task.blocks.shape[0]):
        start, emit, end = task.blocks[block, 0], task.blocks[block, 1], task.blocks[block, 2]
        dh = np.zeros_like(h[0])
        dc = np.zeros_like(h[0])
        for t in range(end - 1, start - 1, -1):
            if t >= max(emit, first):
                dy = np.ascontiguousarray(dlogits[:, t - first])
                grads.W_hy[:] += np.dot(h[t + 1].T, dy)
                grads.b_y[:] += dy.sum(axis=0)
                dh = dh + np.dot(dy, W_hy_T)
            delta, recurrent = step_back(task, trace, grads, t, dh, dc)
            x = step_input(w, rows, t)
            grads.W_xh[:] += np.dot(x.T, delta)
            grads.W_hh[:] += np.dot(h[t].T, recurrent)
            grads.b_h[:] += delta.sum(axis=0)
            dh = dh + np.dot(recurrent, W_hh_T)
            if rows.tokens.size:
                dx = np.dot(delta, W_xh_T)
                for b in range(dx.shape[0]):
                    grads.embedding[rows.tokens[b, t]] += dx[b]
    return grads


@compiled
def flat_views(w):
    """Views with one axis."""
    return (
        w.embedding.ravel(), w.W_xh.ravel(), w.W_hh.ravel(), w.b_h, w.b_hn, w.W_hy.ravel(), w.b_y
    )  # fmt: skip


@compiled
def clip_grads(rule, grads):
    """In place: each number, or all by their common norm."""
    if rule.clip_value < np.inf:
        for g in flat_views(grads):
            for k in range(g.size):
                g[k] = min(max(g[k], -rule.clip_value), rule.clip_value)
    if rule.clip_norm < np.inf:
        total = 0.0
        for g in flat_views(grads):
            for k in range(g.size):
                total += g[k] * g[k]
        scale = rule.clip_norm / max(np.sqrt(total), rule.clip_norm)
        for g in flat_views(grads):
            for k in range(g.size):
                g[k] *= scale


@compiled
def update_array(rule, step, p, g, m, v):
    """SGD, or Algorithm 1 of Kingma and Ba, in place on flat arrays."""
    one = p.dtype.type(1)
    rate, beta_1, beta_2, epsilon = (
        one * rule.learning_rate, one * rule.beta_1, one * rule.beta_2, one * rule.epsilon,
    )  # fmt: skip
    correct_1, correct_2 = 1 - rule.beta_1**step, 1 - rule.beta_2**step
    for k in range(p.size):
        if rule.adam:
            m[k] = beta_1 * m[k] + (one - beta_1) * g[k]
            v[k] = beta_2 * v[k] + (one - beta_2) * g[k] * g[k]
            p[k] -= rate * (m[k] / correct_1) / (np.sqrt(v[k] / correct_2) + epsilon)
        else:
            p[k] -= rate * g[k]


@compiled
def update(rule, step, w, grads, m, v):
    """One step of all parameters, in place."""
    for p, g, a, b in zip(flat_views(w), flat_views(grads), flat_views(m), flat_views(v)):  # noqa: B905  Numba's zip has no strict
        update_array(rule, step, p, g, a, b)


@compiled
def forward_call(task, w, rows, h0, c0):
    """Loss, logits (B, S, O), trace, from states h0 and c0, each (B, H)."""
    trace = forward(task, w, rows, h0, c0)
    logits = head(task, w, trace.h)
    loss = loss_and_slopes(task, rows, logits)[0] if task.loss != NO_LOSS else 0.0
    return loss, logits, trace


@compiled
def training_call(task, rule, step, w, m, v, rows, order, h0, c0):
    """Gradients of the rows of `order` (n,), B at a time, each batch from states h0 and c0, each (B, H), and, where
    `rule` has an update, a step each, in place.

    The mean loss and the outputs that are right; logits (B, S, O), trace and gradients of the last batch.
    """
    B, total, right = h0.shape[0], 0.0, 0
    for i in range(0, order.size, B):
        some = order[i : i + B]
        batch = NaiveRows(rows.tokens[some], rows.inputs[some], rows.targets[some], rows.classes[some])
        trace = forward(task, w, batch, h0[: some.size], c0[: some.size])
        logits = head(task, w, trace.h)
        loss, dlogits, hits = loss_and_slopes(task, batch, logits)
        grads = backward(task, w, batch, trace, dlogits)
        if rule.updates:
            clip_grads(rule, grads)
            update(rule, step + i // B, w, grads, m, v)
        total += loss * some.size
        right += hits
    return total / order.size, right, logits, trace, grads
