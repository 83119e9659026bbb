"""The tanh cell: what is done with the gates of a step, in a pair of functions that the layer calls on some rows of it.

    forward     gates a = x W_xh + b_h + h' W_hh      state h = tanh(a)
    backward    delta = dh (1 - h^2), delta the gradient of a

It needs no tape but its states: a is written where h will stand, and tanh' is 1 - h^2. Cells with several gates are in
`gated`.
"""

from __future__ import annotations

from rnnbench.kernels.cpu.compiling import inlined
from rnnbench.kernels.cpu.pointwise import tanh_rows
from rnnbench.kernels.cpu.products import add_through_tanh, through_tanh


@inlined
def cell_forward(c, after, b, j, n):
    """Turn columns j to j + n of the gates of b rows, which stand in h from row `after` on, into states, in place."""
    tanh_rows(c.h, after, b, j, n)


@inlined
def cell_backward(c, add, out, at, A, a, W, b, j, n, k, state):
    """Columns j to j + n of delta of b rows, to `out` from row `at` on, by the last product of dh and the cell in one.

    dh = A[a : a + b, :k] W, and what stands in `out` besides if `add`; `state` is the row of h after the step. The
    product's sums go through 1 - h^2 while they are in registers, so that dh is never in memory.
    """
    if add:
        add_through_tanh(out, at, A, a, W, b, j, n, k, c.h, state)
    else:
        through_tanh(out, at, c.zeros, A, a, W, b, j, n, k, c.h, state)
