"""The head and its loss in one launch: z = h W_hy + b_y, and of each output its loss, its gradient, and whether it is
right. A loss is a device function, chosen by code when the kernel is made.

Each is called as `of(z, dz, p, classes, targets, row, s, O, scale)`: logits z[p] (O,) against output s of a staged row,
classes (N, S) or targets (N, S, O); it writes dz[p], the gradient times `scale`, and returns the loss and 1 or 0.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from numba import cuda

from rnnbench.kernels.cuda.activations import sigmoid_of
from rnnbench.kernels.cuda.plan import compiled_once

u32 = numba.uint32
LANES = 8  # threads for a logit, where a block's threads can be shared out so
NO_LOSS, BINARY_CROSS_ENTROPY, CATEGORICAL_CROSS_ENTROPY, SQUARED_ERROR, SIGMOID_SQUARED_ERROR = range(5)


# A factory for each loss: the constants are of the kernel's type, or float64 would come in with them.


def _none(dtype: str) -> Any:
    """Nothing to compare with: dz is not written."""
    zero = np.dtype(dtype).type(0)

    def of(z, dz, p, classes, targets, row, s, O, scale):
        return zero, 0

    return of


def _binary(dtype: str) -> Any:
    """Mean over O of log(1 + exp(z)) - y z."""
    kind, number = getattr(numba, dtype), np.dtype(dtype).type
    zero, half = number(0), number(0.5)
    logistic = sigmoid_of(dtype)

    def of(z, dz, p, classes, targets, row, s, O, scale):
        loss, right = zero, 1
        for o in range(O):
            x, y = z[p, o], targets[row, s, o]
            # max(x, 0), but NaN where x is NaN, plus what is left of log(1 + exp(x)): nothing overflows
            above = x if not x < zero else x * zero
            loss += above + math.log1p(math.exp(-abs(x))) - y * x
            dz[p, o] = (logistic(x) - y) * (scale / kind(O))
            if (x > zero) != (y > half):
                right = 0
        return loss / kind(O), right

    return of


def _categorical(dtype: str) -> Any:
    """log(sum(exp(z))) - z[y], by the largest logit so that nothing overflows, and by the sum of the others so that
    confident rows do not cancel.
    """
    number = np.dtype(dtype).type
    zero, one = number(0), number(1)

    def of(z, dz, p, classes, targets, row, s, O, scale):
        best, y = 0, classes[row, s]
        for o in range(1, O):  # the first of the largest, or of the NaN where there are any
            if z[p, o] > z[p, best] or (math.isnan(z[p, o]) and not math.isnan(z[p, best])):
                best = o
        # dz holds exp(z - max) until their sum is known
        others = zero
        for o in range(O):
            e = math.exp(z[p, o] - z[p, best])
            dz[p, o] = e
            if o != best:
                others += e
        total = others + dz[p, best]
        for o in range(O):
            dz[p, o] = (dz[p, o] / total - (one if o == y else zero)) * scale
        return math.log1p(others) + (z[p, best] - z[p, y]), 1 if best == y else 0

    return of


def _squared(dtype: str) -> Any:
    """Sum over O of 0.5 (z - y)^2."""
    number = np.dtype(dtype).type
    zero, half = number(0), number(0.5)

    def of(z, dz, p, classes, targets, row, s, O, scale):
        loss = zero
        # No class, so nothing can be right
        for o in range(O):
            off = z[p, o] - targets[row, s, o]
            loss += half * off * off
            dz[p, o] = off * scale
        return loss, 0

    return of


def _sigmoid_squared(dtype: str) -> Any:
    """Sum over O of 0.5 (sigmoid(z) - y)^2."""
    number = np.dtype(dtype).type
    zero, half, one = number(0), number(0.5), number(1)
    logistic = sigmoid_of(dtype)

    def of(z, dz, p, classes, targets, row, s, O, scale):
        loss = zero
        for o in range(O):
            y = logistic(z[p, o])
            off = y - targets[row, s, o]
            loss += half * off * off
            dz[p, o] = off * y * (one - y) * scale
        return loss, 0

    return of


_MAKERS = {
    NO_LOSS: _none,
    BINARY_CROSS_ENTROPY: _binary,
    CATEGORICAL_CROSS_ENTROPY: _categorical,
    SQUARED_ERROR: _squared,
    SIGMOID_SQUARED_ERROR: _sigmoid_squared,
}


@compiled_once
def loss_and_gradient(dtype: str, code: int) -> Any:
    """The device function of a loss."""
    return cuda.jit(device=True)(_MAKERS[code](dtype))


@compiled_once
def read_out(dtype: str, code: int, threads: int, rows: int, ends: bool = False, averages: bool = False) -> Any:
    """z (S b, O) from h[first:], and dz (S b, O), losses and correct (., S) from row `at` on. A block: `rows` outputs.

    Output p = s b + i is emitted by row i, which is order[offset + i] of the staged ones. h (., H), W (H, O),
    bias (O,). `scale` turns the gradient of one loss into that of the mean over the batch.
    `ends`: at and past a row's length, lengths (N,), loss and dz are 0 and nothing is right; `averages`: `scale` is
    over emitted[0], of all in the batch.
    """
    loss_of = loss_and_gradient(dtype, code)
    kind, zero = getattr(numba, dtype), np.dtype(dtype).type(0)
    lanes = math.gcd(LANES, threads)

    @cuda.jit
    def kernel(
        z,
        dz,
        losses,
        correct,
        at,
        h,
        first,
        W,
        bias,
        classes,
        targets,
        order,
        offset,
        lengths,
        emitted,
        b,
        S,
        H,
        O,
        scale,
    ):
        parts = cuda.shared.array(threads, kind)
        start, end = cuda.blockIdx.x * rows, S * b
        x, width, outputs = u32(cuda.threadIdx.x), u32(H), u32(O)
        lane = u32(x % u32(lanes))
        # Logits: `lanes` threads a number, each with every so many of H; the first adds their parts, in their order
        for low in range(0, rows * O, threads // lanes):
            q = u32(u32(low) + x // u32(lanes))
            p, o = u32(u32(start) + q // outputs), u32(q % outputs)
            here = (q < u32(rows * O)) & (p < u32(end))
            total = zero
            if here:
                for k in range(lane, width, u32(lanes)):
                    total += h[u32(u32(first) + p), k] * W[k, o]
            parts[x] = total
            cuda.syncthreads()
            if here & (lane == u32(0)):
                total = bias[o]
                for s in range(u32(lanes)):
                    total += parts[x + s]
                z[p, o] = total
            cuda.syncthreads()
        # Losses: a thread an output, which needs all of its logits
        for p in range(start + cuda.threadIdx.x, min(start + rows, end), threads):
            s = p // b
            i = p - s * b
            row = order[offset + i]
            weight = scale / kind(emitted[0]) if averages else scale
            loss, right = loss_of(z, dz, p, classes, targets, row, s, O, weight)
            if ends and s >= lengths[row]:
                loss, right = zero, 0
                for o in range(O):
                    dz[p, o] = zero
            losses[at + i, s] = loss
            correct[at + i, s] = right

    return kernel
