"""Clipping, SGD and Adam over all parameters at once: one pass over memory.

Adam (Kingma and Ba, 2015, Algorithm 1), epsilon outside the corrected root. Every row of the embedding moves at every
step, those that the batch does not touch as well.
"""

from __future__ import annotations

import math

import numpy as np

from rnnbench.kernels.cpu.calls import symbol_kernel
from rnnbench.kernels.cpu.compiling import inlined


@inlined
def _sum_of_squares(x):
    """Of x (n,), in float64."""
    total = 0.0
    for i in range(x.size):
        wide = np.float64(x[i])  # Numba's float() leaves a float32 as it is, whose square ends at 1e38
        total += wide * wide
    return total


@symbol_kernel
def clip_scale(c):
    """Set `scale`, the factor that brings the norm of all gradients within `clip_norm`; NaN where the norm is NaN.

    Pascanu et al., 2013, Algorithm 1. Rows of the embedding that no token of the batch touches are zero: left out.
    """
    c.scale = 1.0
    if math.isinf(c.clip_norm):
        return
    d_embedding, unique = c.d_embedding, c.unique
    # The embedding comes first in the flat gradients: all that is behind it, and of it the rows of the batch
    total = _sum_of_squares(c.grads[d_embedding.size :])
    for u in range(c.unique_n):
        total += _sum_of_squares(d_embedding[unique[u]])
    norm = math.sqrt(total)
    # Not `norm > limit`, which would let NaN pass as if it were small
    if not norm <= c.clip_norm:
        c.scale = c.clip_norm / norm


@inlined
def _clipped(g, scale, limit):
    """g times scale, within [-limit, limit]; NaN stays NaN."""
    g = g * scale
    g = limit if g > limit else g
    return -limit if g < -limit else g


@inlined
def _sgd(c, p, g):
    """p -= learning rate * clipped g; p and g (n,)."""
    # In the type of the parameters: float64 constants would make float64 arithmetic of the loop
    number = p.dtype.type
    rate, factor, limit = number(c.learning_rate), number(c.scale), number(c.clip_value)
    for i in range(p.size):
        p[i] -= rate * _clipped(g[i], factor, limit)


@inlined
def _adam(c, p, g, m, v):
    """m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2; p -= rate m / (1 - b1^step) / (sqrt(v / (1 - b2^step)) + eps).

    p, g, m, v (n,). The constants are worked out in float64, where 1 - b2 keeps its digits.
    """
    number = p.dtype.type
    keep_m, keep_v = number(c.beta_1), number(c.beta_2)
    take_m, take_v = number(1.0 - c.beta_1), number(1.0 - c.beta_2)
    rate = number(c.learning_rate / (1.0 - c.beta_1**c.step))
    root = number(1.0 / math.sqrt(1.0 - c.beta_2**c.step))
    epsilon, factor, limit = number(c.epsilon), number(c.scale), number(c.clip_value)
    for i in range(p.size):
        d = _clipped(g[i], factor, limit)
        m_i = keep_m * m[i] + take_m * d
        v_i = keep_v * v[i] + take_v * d * d
        m[i] = m_i
        v[i] = v_i
        p[i] -= rate * m_i / (math.sqrt(v_i) * root + epsilon)


@symbol_kernel
def update_range(c, lo, hi):
    """One optimizer step on parameters [lo, hi); `step` counts from 1. Changes params, and m and v for Adam."""
    p, g = c.params[lo:hi], c.grads[lo:hi]
    if c.adam:
        _adam(c, p, g, c.m[lo:hi], c.v[lo:hi])
    else:
        _sgd(c, p, g)
