"""Clipping, SGD and Adam over all parameters at once: one pass over memory.

Adam (Kingma and Ba, 2015, Algorithm 1), epsilon outside the corrected root. Every row of the embedding moves at every
step, those that the batch does not touch as well.
"""

from __future__ import annotations

import math

from rnnbench.kernels.cpu.compiling import kernel


@kernel()
def _sum_of_squares(x):
    """Of x (n,), in float64."""
    total = 0.0
    for i in range(x.size):
        total += float(x[i]) * float(x[i])
    return total


@kernel()
def clip_scale(update, optimizer, grads, words):
    """The factor that brings the norm of all gradients within `clip_norm`; NaN where the norm is NaN.

    Pascanu et al., 2013, Algorithm 1. Rows of the embedding that no word of the batch touches are zero: left out.
    """
    if math.isinf(update.clip_norm):
        return 1.0
    total = _sum_of_squares(optimizer.grads[grads.embedding.size :])
    for u in range(words.found[0]):
        total += _sum_of_squares(grads.embedding[words.words[u]])
    norm = math.sqrt(total)
    return 1.0 if norm <= update.clip_norm else update.clip_norm / norm


@kernel()
def _clipped(g, scale, limit):
    """g times scale, within [-limit, limit]; NaN stays NaN."""
    g = g * scale
    g = limit if g > limit else g
    return -limit if g < -limit else g


@kernel()
def _sgd(p, g, number, update, scale):
    """p -= learning rate * clipped g; p and g (n,)."""
    rate, factor, limit = number(update.learning_rate), number(scale), number(update.clip_value)
    for i in range(p.size):
        p[i] -= rate * _clipped(g[i], factor, limit)


@kernel()
def _adam(p, g, m, v, number, update, scale, step):
    """m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2; p -= rate m / (1 - b1^step) / (sqrt(v / (1 - b2^step)) + eps).

    p, g, m, v (n,). The constants are worked out in float64, where 1 - b2 keeps its digits.
    """
    keep_m, keep_v = number(update.beta_1), number(update.beta_2)
    take_m, take_v = number(1.0 - update.beta_1), number(1.0 - update.beta_2)
    rate = number(update.learning_rate / (1.0 - update.beta_1**step))
    root = number(1.0 / math.sqrt(1.0 - update.beta_2**step))
    epsilon, factor, limit = number(update.epsilon), number(scale), number(update.clip_value)
    for i in range(p.size):
        d = _clipped(g[i], factor, limit)
        m_i = keep_m * m[i] + take_m * d
        v_i = keep_v * v[i] + take_v * d * d
        m[i] = m_i
        v[i] = v_i
        p[i] -= rate * m_i / (math.sqrt(v_i) * root + epsilon)


@kernel()
def update_range(update, optimizer, scale, step, lo, hi):
    """One optimizer step on parameters [lo, hi); `step` counts from 1. Changes params, and m and v for Adam."""
    p, g, number = optimizer.params[lo:hi], optimizer.grads[lo:hi], optimizer.params.dtype.type
    if update.adam:
        _adam(p, g, optimizer.m[lo:hi], optimizer.v[lo:hi], number, update, scale, step)
    else:
        _sgd(p, g, number, update, scale)
