"""A layer backward: (truncated) BPTT of one worker's rows, then the weight gradients as long products over its steps.

    dh_t = above_t W_above^T + delta_{t+1} W_hh^T        delta_t = cell'(dh_t)
    dW_hh = sum of h_{t-1}^T delta_t        dW_xh = sum of x_t^T delta_t        db_h = sum of delta_t    over t

In: h of the pass forward, and above, the gradients of what reads the states (the head's dz). Out: delta, from which the
model takes the gradients of its inputs, and this worker's part of the weight gradients.

Only the recurrence of delta is serial. The gradients need the sum of delta over the reverse passes and nothing else, so
overlapping windows add their deltas, and each weight gradient is formed once. A reverse pass restarts from the stored
states: no second forward. Where rows lie is said in `layout`.
"""

from __future__ import annotations

from rnnbench.kernels.cpu.calls import symbol_kernel
from rnnbench.kernels.cpu.cell import cell_backward
from rnnbench.kernels.cpu.compiling import NONE
from rnnbench.kernels.cpu.gated import GRU_CODE, LSTM_CODE, RNN_CODE, gates_backward
from rnnbench.kernels.cpu.layout import (
    output_row,
    rows_before,
    rows_taking,
    spare_row,
    state_row,
    step_row,
)
from rnnbench.kernels.cpu.pass_record import record_at
from rnnbench.kernels.cpu.pointwise import add_rows, copy, zero_row
from rnnbench.kernels.cpu.products import add_product, affine, outer_products, sum_rows
from rnnbench.kernels.cpu.shares import STEP_BACK, SUMS, stage


@symbol_kernel
def backward_step(c, lo, b, t, emit, end, seen, begin, origin, j, n):
    """Columns j to j + n of delta of step t, in a pass that takes what came from above of steps [emit, end) back.

    A step below `seen` has a delta of an earlier pass already: its own goes to `spare`, to be added.
    """
    delta, spare, above, W_above_T = c.recurrent, c.spare, c.above, c.W_above_T_panels
    # Where this step's delta is written, and where that of the step after it, which came first, was
    here, rows, going = step_row(c, lo, b, t, origin), rows_taking(c, lo, b, t), rows_taking(c, lo, b, t + 1)
    to, at, after, after_at = delta, here, delta, here + rows
    if t < seen:
        to, at = spare, spare_row(lo, b, t)
    if t + 1 < seen:
        after, after_at = spare, spare_row(lo, b, t + 1)
    # Rows that take this step; of them the first `on` have a delta of the step after it, and those from `top` on get
    # something from above: all where each step emits, else those that end here
    on = going if t < end - 1 else 0
    top = (0 if c.emits else going) if t >= emit or c.under_rows else rows
    above_at = here if c.under_rows or c.under_layer else output_row(c, lo, b, t, begin)
    if c.under_layer and t < seen:  # which has just done this step, in this pass
        above, above_at = c.above_spare, spare_row(lo, b, t)
    # dh of the rows that go on: from step t + 1, and where a step emits from above too; of the others from above alone,
    # or nothing, where no loss is of this pass
    begins = max(on, top)
    above_begins = above_at + begins
    if c.recurrence == RNN_CODE:
        state, width = state_row(c, lo, b, t + 1, origin), c.above_width
        if c.under_rows:  # no product: the sums start at these rows, of all steps
            width = 0
            for i in range(top, rows):
                copy(to[at + i][j : j + n], above[above_at + i][j:])
        elif top < on:
            affine(to, at, c.zeros, above, above_at, W_above_T, on, j, n, width)
        for i in range(on, begins):
            zero_row(to[at + i][j : j + n])
        if on > 0:
            cell_backward(c, top < on, to, at, after, after_at, c.W_hh_T_panels, on, j, n, c.GH, state)
        if begins < rows:
            state, rest = state + begins, rows - begins
            cell_backward(c, c.under_rows, to, at + begins, above, above_begins, W_above_T, rest, j, n, width, state)
        return
    dh, k = c.dh, c.delta_width
    if on > 0:
        # of gru it stands upon what came by way of z; of lstm what goes around the product is in dc
        if c.recurrence == GRU_CODE:
            add_product(dh, lo, after, after_at, c.W_hh_T_panels, on, j, n, k)
        else:
            affine(dh, lo, c.zeros, after, after_at, c.W_hh_T_panels, on, j, n, k)
        if top < on and not c.under_rows:
            add_product(dh, lo, above, above_at, W_above_T, on, j, n, c.above_width)
    for i in range(on, begins):
        zero_row(dh[lo + i][j : j + n])
    if c.under_rows:
        if top < on:
            add_rows(dh, lo, above, above_at, on, j, n)
        for i in range(on, rows):
            copy(dh[lo + i][j : j + n], above[above_at + i][j:])
    elif begins < rows:
        affine(dh, lo + begins, c.zeros, above, above_begins, W_above_T, rows - begins, j, n, c.above_width)
    if c.recurrence == LSTM_CODE and not c.has_last_gradients:
        for i in range(on, rows):
            zero_row(c.dc[lo + i][j : j + n])
    gates_backward(c, lo, rows, here, state_row(c, lo, b, t, origin), to, at, j, n)


@symbol_kernel
def reverse_step(c, lo, b, t, emit, end, seen, begin, origin):
    """Step t of a pass back that takes gradients from above of steps [emit, end); steps from `begin` on are at hand.

    Sets delta if t >= seen, else adds to it.
    """
    if c.column_shares > 1:
        root = record_at(c, c.root)
        root.stage_layer, root.stage_lo, root.stage_b, root.stage_begin = c.layer, lo, b, begin
        root.stage_origin, root.stage_emit, root.stage_end, root.stage_seen = origin, emit, end, seen
        root.stage_t = t
        stage(root, STEP_BACK, c.column_shares)
    else:
        backward_step(c, lo, b, t, emit, end, seen, begin, origin, 0, c.Hp)
    if t < seen:
        at, rows = step_row(c, lo, b, t, origin), rows_taking(c, lo, b, t)
        add_rows(c.recurrent, at, c.spare, spare_row(lo, b, t), rows, NONE, c.Ds)


@symbol_kernel
def _sum_pairs(c, worker, lo, b, first, end, origin, fresh, j, n):
    """Columns j to j + n of dW_hh where rows have lengths: states before a step that rows did not take meet nothing."""
    begin = first
    while begin < end or fresh:
        # Rows lie alike in both up to a step before which a row has ended, whose states still lie there
        stop = min(begin + 1, end)
        while stop < end and rows_taking(c, lo, b, stop - 1) == (rows_taking(c, lo, b, stop - 2) if stop > 1 else b):
            stop += 1
        at, before = step_row(c, lo, b, begin, origin), state_row(c, lo, b, begin, origin)
        rows = rows_before(c, lo, b, stop) - rows_before(c, lo, b, begin)
        outer_products(c.part_W_hh, worker * c.H, fresh, c.zeros, c.h, before, c.recurrent, at, c.H, j, n, rows)
        fresh, begin = False, stop


@symbol_kernel
def sum_steps(c, worker, lo, b, first, end, origin, fresh, j, n):
    """Columns j to j + n of what `step_gradients` writes."""
    # Row p of the deltas meets row p of the states before their steps, and of the inputs: steps and rows in one sum
    steps = rows_before(c, lo, b, end) - rows_before(c, lo, b, first)
    at, before = step_row(c, lo, b, first, origin), state_row(c, lo, b, first, origin)
    if c.has_lengths:
        _sum_pairs(c, worker, lo, b, first, end, origin, fresh, j, n)
    else:
        outer_products(c.part_W_hh, worker * c.H, fresh, c.zeros, c.h, before, c.recurrent, at, c.H, j, n, steps)
    sum_rows(c.part_b_h, worker, fresh, c.zeros, c.unit, c.delta, at, j, n, steps)
    if c.recurrence == GRU_CODE and j < c.Hp:
        inner = min(n, c.Hp - j)
        sum_rows(c.part_b_hn, worker, fresh, c.zeros, c.unit, c.recurrent, at, j, inner, steps)
    if not c.has_tokens:  # of tokens, dW_xh is summed by token: `unique_tokens`
        outer_products(c.part_W_xh, worker * c.E, fresh, c.zeros, c.x, at, c.delta, at, c.E, j, n, steps)


@symbol_kernel
def step_gradients(c, worker, lo, b, first, end, origin, fresh):
    """This worker's part of dW_hh, db_h and, for dense input, dW_xh, from the deltas of steps [first, end).

    The parts are added to, or begun anew if `fresh`.
    """
    if c.column_shares > 1:
        root = record_at(c, c.root)
        root.stage_layer, root.stage_worker, root.stage_lo, root.stage_b = c.layer, worker, lo, b
        root.stage_begin, root.stage_end, root.stage_origin, root.stage_fresh = first, end, origin, fresh
        stage(root, SUMS, c.column_shares)
    else:
        sum_steps(c, worker, lo, b, first, end, origin, fresh, 0, c.GHp)
