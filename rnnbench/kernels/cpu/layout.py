"""Where rows lie: the one file that knows how the buffers of a batch are cut among workers and steps.

A worker has b rows of the batch and, from `lo` on, room for them in every buffer. There rows are time first: the rows
that take a step lie together, and the steps follow one another. Those are all b rows, or, where rows have lengths, the
first `rows_taking`: a worker's rows stand longest first. So no buffer has room between steps, and a sum over steps runs
from one to the next. `origin` is the first step that is in memory: 0, but for streams whose states are kept for a few
steps only.

    buffer             begins at               what row `..._row(...) + i` is
    h                  lo (kept + 1)           state_row(t): the state of row i *before* step t, so t + 1 is after it
    x, delta           lo kept                 step_row(t): input of step t, gradient of its gates
    slots              lo T                    slot_row(t): where `projected` has the token of step t
    z, dz, read        lo kept_outputs         output_row(t): output of step t, of the steps from `begin` on
    above              lo kept_outputs         output_row(t), as dz, in the last layer; else it is delta or spare of the
                                               layer above, or, of two directions, lies as delta does
    gates, recurrent,
    tape, turned       lo kept                 step_row(t), as x
    cell_state         lo (kept + 1)           state_row(t), as h
    dh, dc, last_...   lo                      the state of row i before the step at hand; after its last step
    spare              2 lo                    spare_row(t): delta of step t, until step t - 2 takes its place
    rows_of_steps      lo (T + 2)              number t + 1 of them: what `rows_before` says of step t

What a step leaves is as many rows as took it, and is what the next step reads the first rows of: states before a step
begin where those after the step before it do.
"""

from __future__ import annotations

from rnnbench.kernels.cpu.compiling import NONE, cpu_kernel

FIRST = NONE  # the first step


@cpu_kernel()
def rows_before(c, lo, b, t):
    """How many rows the steps before t have, all together; of t = -1, the b states that no step leaves, less."""
    return c.rows_of_steps[lo * (c.T + 2) + t + 1] if c.has_lengths else t * b


@cpu_kernel()
def rows_taking(c, lo, b, t):
    """How many of b rows take step t: those that are long enough; after the last step none."""
    if t >= c.T:
        return 0
    return rows_before(c, lo, b, t + 1) - rows_before(c, lo, b, t) if c.has_lengths else b


@cpu_kernel()
def state_row(c, lo, b, t, origin):
    """Row of h where the states before step t begin: b more than `step_row`, as the first has states before it."""
    return lo * (c.kept + 1) + rows_before(c, lo, b, t - 1) - rows_before(c, lo, b, origin - 1)


@cpu_kernel()
def step_row(c, lo, b, t, origin):
    """Row of x and delta where step t begins."""
    return lo * c.kept + rows_before(c, lo, b, t) - rows_before(c, lo, b, origin)


@cpu_kernel()
def slot_row(c, lo, b, t):
    """Index into slots where step t begins; all T steps are there."""
    return lo * c.T + rows_before(c, lo, b, t)


@cpu_kernel()
def output_row(c, lo, b, t, begin):
    """Row of z and dz where the output of step t begins, of those from step `begin` on; the one output, of any t."""
    return lo * c.kept_outputs + (rows_before(c, lo, b, t) - rows_before(c, lo, b, begin) if c.emits else 0)


@cpu_kernel()
def spare_row(lo, b, t):
    """Row of `spare` where step t begins: even steps in the first half, odd ones in the second."""
    return 2 * lo + (t & 1) * b
