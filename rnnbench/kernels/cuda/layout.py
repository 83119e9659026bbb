"""Where rows lie: the one file that knows how buffers with steps are laid out. All are time first, b rows a step.

h ((T + 1) b, H)      state_row(t, b, i): the state of row i *before* step t, so t + 1 is after it
tape ((T + 1) b, H)   as h: what a cell with gates leaves beside it, c of lstm, m of gru; `gated` says what they are
gates (T b, G H)      step_row(t, b, i): what the input gives to step t, and then its gates
delta, dx (T b, .)    step_row(t, b, i): the gradient of the gates of step t, and of its input
z, dz, dh (S b, .)    emitted_row(t, T, S, b, i): the output of step t, of the last S steps
spare (2 b, G H)      spare_row(t, b, i): the derivatives by h W_hh of step t, until step t - 2 takes its place
carried (b, H)        row i: what goes from step to step back beside the products, `gated`
"""

from __future__ import annotations

from typing import Any

import numba
from numba import cuda

from rnnbench.kernels.cuda.device import simulated
from rnnbench.kernels.cuda.plan import compiled_once

u32 = numba.uint32


def _inlined(function: Any) -> Any:
    """A function for kernels to call: for the simulator as it is, for it would wrap every call."""
    return function if simulated() else cuda.jit(device=True)(function)


@_inlined
def state_row(t, b, i):
    """Row of h and tape: the state of row i before step t."""
    return t * b + i


@_inlined
def step_row(t, b, i):
    """Row of gates, delta and dx: step t of row i."""
    return t * b + i


@compiled_once
def step_in_time(back: bool, ends: bool) -> Any:
    """of(lengths, row, T, t): the step in time of a direction's own step t, and the other way round.

    A direction `back` counts from the end of the T steps, or where rows have lengths (N,), of its own: steps past that
    come after all others in both, and stay where they are.
    """
    one = u32(1)

    def of(lengths, row, T, t):
        n = u32(lengths[row]) if ends else u32(T)
        return u32(n - one - t) if back and t < n else u32(t)

    return _inlined(of)


@_inlined
def emitted_row(t, T, S, b, i):
    """Row of z, dz and dh: the output of step t of row i, where the last S of T steps emit."""
    return (t - (T - S)) * b + i


@_inlined
def spare_row(t, b, i):
    """Row of `spare`: even steps in the first half, odd ones in the second."""
    return (t & 1) * b + i
