"""Where rows lie: the one file that knows how the buffers of a batch are cut among workers and steps.

A worker has b rows of the batch and, from `lo` on, room for them in every buffer. There rows are time first: the b
rows of a step lie together, and the steps follow one another. `origin` is the first step that is in memory: 0, but for
streams whose states are kept for a few steps only.

    buffer             begins at               what row `..._row(...) + i` is
    h                  lo (kept + 1)           state_row(t): the state of row i *before* step t, so t + 1 is after it
    x, delta           lo kept                 step_row(t): input of step t, gradient of its gates
    slots              lo T                    slot_row(t): where `projected` has the token of step t
    z, dz, above       lo kept_outputs         output_row(s): output s of the steps at hand
    gates, recurrent,
    tape               lo kept                 step_row(t), as x
    cell_state         lo (kept + 1)           state_row(t), as h
    dh, dc             lo                      the state of row i before the step at hand
    spare              2 lo                    spare_row(t): delta of step t, until step t - 2 takes its place
"""

from __future__ import annotations

from rnnbench.kernels.cpu.compiling import inlined


@inlined
def state_row(c, lo, b, t, origin):
    """Row of h where the states before step t begin: one more step than `step_row`, as the first has a state before."""
    return lo * (c.kept + 1) + (t - origin) * b


@inlined
def step_row(c, lo, b, t, origin):
    """Row of x and delta where step t begins."""
    return lo * c.kept + (t - origin) * b


@inlined
def slot_row(c, lo, b, t):
    """Index into slots where step t begins; all T steps are there."""
    return lo * c.T + t * b


@inlined
def output_row(c, lo, b, s):
    """Row of z and dz where output s begins, counted from the first of the steps at hand."""
    return lo * c.kept_outputs + s * b


@inlined
def spare_row(lo, b, t):
    """Row of `spare` where step t begins: even steps in the first half, odd ones in the second."""
    return 2 * lo + (t & 1) * b
