"""The loss of one emitted output, its gradient by the logits, and whether the class is right. Chosen by code."""

from __future__ import annotations

import math

from rnnbench.kernels.cpu.compiling import inlined

NO_LOSS, BINARY_CROSS_ENTROPY, CATEGORICAL_CROSS_ENTROPY, SQUARED_ERROR, SIGMOID_SQUARED_ERROR = range(5)


@inlined
def _sigmoid(z):
    """1 / (1 + exp(-z)) without overflow."""
    e = math.exp(-abs(z))
    return (1 if z >= 0 else e) / (1 + e)


@inlined
def _largest(z, O):
    """The first of the largest of z[:O], or of its NaN where it has any."""
    best = 0
    for o in range(1, O):
        if z[o] > z[best] or (math.isnan(z[o]) and not math.isnan(z[best])):
            best = o
    return best


# Each loss reads the logits z and what was to come out, writes dz, its gradient by z times `scale`, and returns the
# loss and 1 or 0 for right or wrong. `loss_and_gradient` chooses by code; what it calls is inlined there.


@inlined
def _binary(z, y, dz, scale):
    """Mean over O of log(1 + exp(z)) - y z."""
    O, loss, right = y.size, 0.0, 1
    for o in range(O):
        # max(z, 0), but NaN where z is NaN, plus what is left of log(1 + exp(z)): nothing overflows
        above = z[o] if not z[o] < 0 else z[o] * 0
        loss += above + math.log1p(math.exp(-abs(z[o]))) - y[o] * z[o]
        dz[o] = (_sigmoid(z[o]) - y[o]) * (scale / O)
        right &= (z[o] > 0) == (y[o] > 0.5)
    return loss / O, right


@inlined
def _categorical(z, y, dz, scale, O):
    """log(sum(exp(z))) - z[y], by the largest logit so that nothing overflows, and by the sum of the others so that
    confident rows do not cancel.
    """
    # dz holds exp(z - max) until their sum is known
    best = _largest(z, O)
    others = 0.0
    for o in range(best):
        dz[o] = math.exp(z[o] - z[best])
        others += dz[o]
    for o in range(best + 1, O):
        dz[o] = math.exp(z[o] - z[best])
        others += dz[o]
    dz[best] = math.exp(z[best] - z[best])
    total = others + dz[best]
    for o in range(O):
        dz[o] = (dz[o] / total - (1 if o == y else 0)) * scale
    return math.log1p(others) + (z[best] - z[y]), int(best == y)


@inlined
def _squared(z, y, dz, scale):
    """Sum over O of 0.5 (z - y)^2."""
    loss = 0.0
    for o in range(y.size):
        off = z[o] - y[o]
        loss += 0.5 * off * off
        dz[o] = off * scale
    return loss, 0


@inlined
def _sigmoid_squared(z, y, dz, scale):
    """Sum over O of 0.5 (_sigmoid(z) - y)^2."""
    loss = 0.0
    for o in range(y.size):
        p = _sigmoid(z[o])
        loss += 0.5 * (p - y[o]) * (p - y[o])
        dz[o] = (p - y[o]) * p * (1 - p) * scale
    return loss, 0


@inlined
def loss_and_gradient(code, z, classes, targets, row, s, dz, scale, O):
    """(loss, 1 or 0 for right or wrong) of logits z (>= O,) against output s of a row; writes dz[:O], times `scale`.

    classes (S,), the row's, is read by the categorical loss; targets (., O) at `row` by the others.
    """
    if code == CATEGORICAL_CROSS_ENTROPY:
        return _categorical(z, classes[s], dz, scale, O)
    if code == BINARY_CROSS_ENTROPY:
        return _binary(z, targets[row], dz, scale)
    if code == SQUARED_ERROR:
        return _squared(z, targets[row], dz, scale)
    return _sigmoid_squared(z, targets[row], dz, scale)
