"""The loss of one emitted output, its slope by the logits, and whether the class is right. Chosen by code."""

from __future__ import annotations

import math

from rnnbench.kernels.cpu.compiling import helper, kernel

NO_LOSS, BINARY_CROSS_ENTROPY, CATEGORICAL_CROSS_ENTROPY, SQUARED_ERROR, SIGMOID_SQUARED_ERROR = range(5)


@helper
def sigmoid(z):
    """1 / (1 + exp(-z)) without overflow."""
    e = math.exp(-abs(z))
    return (1 if z >= 0 else e) / (1 + e)


@helper
def _largest(z, O):
    """The first of the largest of z[:O], or of its NaN where it has any."""
    best = 0
    for o in range(1, O):
        if z[o] > z[best] or (math.isnan(z[o]) and not math.isnan(z[best])):
            best = o
    return best


@helper
def _binary(z, y, dz, scale):
    """Mean over O of log(1 + exp(z)) - y z."""
    O, loss, hit = y.size, 0.0, 1
    for o in range(O):
        above = z[o] if not z[o] < 0 else z[o] * 0
        loss += above + math.log1p(math.exp(-abs(z[o]))) - y[o] * z[o]
        dz[o] = (sigmoid(z[o]) - y[o]) * (scale / O)
        hit &= (z[o] > 0) == (y[o] > 0.5)
    return loss / O, hit


@helper
def _categorical(z, y, dz, scale, O):
    """log(sum(exp(z))) - z[y], by the largest logit so that nothing overflows."""
    best = _largest(z, O)
    total = 0.0
    for o in range(O):
        dz[o] = math.exp(z[o] - z[best])
        total += dz[o]
    for o in range(O):
        dz[o] = (dz[o] / total - (1 if o == y else 0)) * scale
    return math.log(total) + z[best] - z[y], int(best == y)


@helper
def _squared(z, y, dz, scale):
    """Sum over O of 0.5 (z - y)^2."""
    loss = 0.0
    for o in range(y.size):
        off = z[o] - y[o]
        loss += 0.5 * off * off
        dz[o] = off * scale
    return loss, 0


@helper
def _sigmoid_squared(z, y, dz, scale):
    """Sum over O of 0.5 (sigmoid(z) - y)^2."""
    loss = 0.0
    for o in range(y.size):
        p = sigmoid(z[o])
        loss += 0.5 * (p - y[o]) * (p - y[o])
        dz[o] = (p - y[o]) * p * (1 - p) * scale
    return loss, 0


@kernel()
def loss_and_slope(code, z, classes, targets, row, s, dz, scale, O):
    """(loss, hit) of logits z (>= O,) against output s of a row; writes dz[:O], the slope times `scale`.

    classes (S,), the row's, is read by the categorical loss; targets (., O) at `row` by the others.
    """
    if code == CATEGORICAL_CROSS_ENTROPY:
        return _categorical(z, classes[s], dz, scale, O)
    if code == BINARY_CROSS_ENTROPY:
        return _binary(z, targets[row], dz, scale)
    if code == SQUARED_ERROR:
        return _squared(z, targets[row], dz, scale)
    return _sigmoid_squared(z, targets[row], dz, scale)
