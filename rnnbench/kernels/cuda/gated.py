"""The cells with gates as device functions: one unit of one row, forward and back. Every regime ends its products so.

    gru     r, z = sigmoid(x + h' U)   m = h' U_n + b_hn   n = tanh(x_n + r m)   h = n + z (h' - n)
    lstm    i, f, o = sigmoid(x + h' U)   g = tanh(x_g + h' U_g)   c = f c' + i g   h = o tanh(c)

What a step leaves for the way back is `gates`, as activated, and `tape`: c of lstm, which is also a state, m of gru.
Both need of the step before one number of the same unit, `own`: c' of lstm, h' of gru, whose thread so has it at hand.
A recurrent product's part of n has the factor r, so n has two derivatives: `delta` of gru is r z n and n r.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import cuda

from rnnbench.cells import cell_of
from rnnbench.kernels.cuda.activations import sigmoid_of, tanh_of
from rnnbench.kernels.cuda.plan import compiled_once

u32 = numba.uint32


def inner_gates(cell: str) -> int:
    """How many gates, the last ones, have a bias of their own inside h W_hh, and another derivative there."""
    return len(cell_of(cell).inner)


def tape_is_state(cell: str) -> bool:
    """Whether a step starts from the tape of the one before, `own` of it; else from its h alone."""
    return len(cell_of(cell).states) > 1


@compiled_once
def unit_forward(dtype: str, cell: str) -> Any:
    """of(sums, given, q, own, bias): h and tape, from h' W_hh in sums[q : q + G] and x W_xh + b_h in given[q : q + G],
    which becomes the gates. `bias`: b_hn of gru.
    """
    logistic, tanh, one, two, three = sigmoid_of(dtype), tanh_of(dtype), u32(1), u32(2), u32(3)

    def gru(sums, given, q, own, bias):
        r = logistic(given[q] + sums[q])
        z = logistic(given[q + one] + sums[q + one])
        m = sums[q + two] + bias
        n = tanh(given[q + two] + r * m)
        given[q], given[q + one], given[q + two] = r, z, n
        return n + z * (own - n), m

    def lstm(sums, given, q, own, bias):
        i = logistic(given[q] + sums[q])
        f = logistic(given[q + one] + sums[q + one])
        g = tanh(given[q + two] + sums[q + two])
        o = logistic(given[q + three] + sums[q + three])
        given[q], given[q + one], given[q + two], given[q + three] = i, f, g, o
        c = f * own + i * g
        return o * tanh(c), c

    return cuda.jit(device=True)({"gru": gru, "lstm": lstm}[cell])


@compiled_once
def unit_backward(dtype: str, cell: str) -> Any:
    """of(gates, q, own, tape, dh, carried, delta): the derivatives by the sums of each gate to delta (G + inner,).

    gates (q + G,) has the gates from q on, as activated; dh is the loss's by h; `carried` what reaches own by no
    product, of this step: dc of lstm, a part of dh of gru. It returns that of the step before.
    """
    one, tanh, zero_at = np.dtype(dtype).type(1), tanh_of(dtype), u32(0)
    one_at, two_at, three_at = u32(1), u32(2), u32(3)

    def gru(gates, q, own, tape, dh, carried, delta):
        r, z, n = gates[q], gates[q + one_at], gates[q + two_at]
        dh += carried
        dn = dh * (one - z) * (one - n * n)
        delta[zero_at] = dn * tape * r * (one - r)
        delta[one_at] = dh * (own - n) * z * (one - z)
        delta[two_at] = dn
        delta[three_at] = dn * r
        return dh * z

    def lstm(gates, q, own, tape, dh, carried, delta):
        i, f, g, o = gates[q], gates[q + one_at], gates[q + two_at], gates[q + three_at]
        tanh_c = tanh(tape)
        dc = carried + dh * o * (one - tanh_c * tanh_c)
        delta[zero_at] = dc * g * i * (one - i)
        delta[one_at] = dc * own * f * (one - f)
        delta[two_at] = dc * i * (one - g * g)
        delta[three_at] = dh * tanh_c * o * (one - o)
        return dc * f

    return cuda.jit(device=True)({"gru": gru, "lstm": lstm}[cell])


@compiled_once
def recurrent(cell: str) -> Any:
    """Which number of a unit's delta is the derivative of gate g by h W_hh."""
    own, first = u32(inner_gates(cell)), u32(len(cell_of(cell).gates) - inner_gates(cell))

    @cuda.jit(device=True)
    def of(g):
        return u32(g + own) if g >= first else u32(g)

    return of
