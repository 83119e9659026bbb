"""A layer forward: one recurrence over all steps of one worker's rows, in one direction.

    a_t = x_t W_xh + b_h + h_{t-1} W_hh        h_t = cell(a_t)

In: the inputs, as rows of x or, of tokens, as slots of rows that are projected already, and the states before the first
step. Out: h, the states of all steps, which is all that backward needs of the tanh cell; of the others it needs besides
what `gated` leaves. No worker waits for another, unless they share the columns of a step (`WIDE_WEIGHTS` in `passes`).
Nothing here knows the model: not where inputs come from, nor what reads the states. Where rows lie is said in `layout`.
"""

from __future__ import annotations

from rnnbench.kernels.cpu.calls import symbol_kernel
from rnnbench.kernels.cpu.cell import cell_forward
from rnnbench.kernels.cpu.gated import LSTM_CODE, RNN_CODE, gated_step
from rnnbench.kernels.cpu.layout import FIRST, rows_before, rows_taking, slot_row, state_row, step_row
from rnnbench.kernels.cpu.pass_record import record_at
from rnnbench.kernels.cpu.pointwise import copy, flat_rows
from rnnbench.kernels.cpu.products import add_product, affine, gathered_product
from rnnbench.kernels.cpu.shares import STEP, stage


@symbol_kernel
def start_states(c, lo, b, r):
    """States before the first step of rows r to r + b, from where `initial` and `initial_cell` have them."""
    h, initial, seats, first = c.h, c.initial, c.seats, state_row(c, lo, b, FIRST, FIRST)
    for i in range(b):
        copy(h[first + i], initial[seats[r + i]])
        if c.recurrence == LSTM_CODE:
            copy(c.cell_state[first + i], c.initial_cell[seats[r + i]])


@symbol_kernel
def project_inputs(c, lo, b, begin, end, origin, j, n):
    """Columns j to j + n of the part of the gates that no state enters, x W_xh + b_h of steps [begin, end), in one.

    It reads x and writes h, where each step will find it and put its state in its place; with gates, it writes those.
    """
    x_at, gates_at = step_row(c, lo, b, begin, origin), state_row(c, lo, b, begin + 1, origin)
    rows = rows_before(c, lo, b, end) - rows_before(c, lo, b, begin)
    if c.recurrence != RNN_CODE:
        affine(c.gates, x_at, c.b_h_padded[0], c.x, x_at, c.W_xh_panels, rows, j, n, c.E)
        return
    affine(c.h, gates_at, c.b_h_padded[0], c.x, x_at, c.W_xh_panels, rows, j, n, c.E)


@symbol_kernel
def forward_step(c, lo, b, t, origin, j, n):
    """Columns j to j + n of the states after step t. Inputs must be projected."""
    if c.recurrence != RNN_CODE:
        gated_step(c, lo, b, t, origin, j, n)
        return
    h, before, after = c.h, state_row(c, lo, b, t, origin), state_row(c, lo, b, t + 1, origin)
    rows = rows_taking(c, lo, b, t)
    # The gates: h_{t-1} W_hh on top of the projected input, which is a row of the table of unique tokens, read on the
    # way into the registers, or stands in h already
    if c.gathers:
        slots = slot_row(c, lo, b, t)
        gathered_product(h, after, c.projected, c.slots, slots, h, before, c.W_hh_panels, rows, j, n, c.H)
    else:
        add_product(h, after, h, before, c.W_hh_panels, rows, j, n, c.H)
    cell_forward(c, after, rows, j, n)


@symbol_kernel
def forward_steps(c, lo, b, begin, end, origin):
    """States of steps [begin, end), one after the other. Inputs must be projected."""
    # Few rows and many weights: all rows are in this one share, and each step is a stage whose shares are columns
    if c.column_shares > 1:
        root = record_at(c, c.root)
        root.stage_layer, root.stage_lo, root.stage_b, root.stage_origin = c.layer, lo, b, origin
        for t in range(begin, end):
            root.stage_t = t
            stage(root, STEP, c.column_shares)
        return
    for t in range(begin, end):
        forward_step(c, lo, b, t, origin, 0, c.Hp)


@symbol_kernel
def keep_last_states(c, lo, b, begin, end, origin):
    """Of rows that end in steps [begin, end), or before the first, the states after their last step to `last`."""
    # Rows stand longest first: those that take step t - 1 and not t are the last of its rows
    for t in range(begin + 1 if begin > 0 else 0, end + 1):
        row = state_row(c, lo, b, t, origin)
        for i in range(rows_taking(c, lo, b, t), rows_taking(c, lo, b, t - 1) if t > 0 else b):
            copy(c.last[lo + i], c.h[row + i])
            if c.recurrence == LSTM_CODE:
                copy(c.last_cell[lo + i], c.cell_state[row + i])


@symbol_kernel
def write_state(c, lo, b, r, origin):
    """The states after the last step of rows r to r + b to their places in `state` and `state_cell`."""
    h, cell, row = c.h, c.cell_state, state_row(c, lo, b, c.T, origin)
    if c.has_lengths:
        h, cell, row = c.last, c.last_cell, lo
    for i in range(b):
        copy(c.state[c.seats[r + i]], h[row + i])
        if c.recurrence == LSTM_CODE:
            copy(c.state_cell[c.seats[r + i]], cell[row + i])


@symbol_kernel
def move_to_front(c, lo, b, first, end, origin):
    """Move what is kept of steps [first, end) to the front of the buffers; `first` is their origin from now on."""
    rows = rows_before(c, lo, b, end) - rows_before(c, lo, b, first)
    # Of states those before the first step besides
    states = state_row(c, lo, b, end + 1, first) - state_row(c, lo, b, first, first)
    to, of = state_row(c, lo, b, first, first), state_row(c, lo, b, first, origin)
    copy(flat_rows(c.h, to, states), flat_rows(c.h, of, states))
    if c.recurrence == LSTM_CODE:
        copy(flat_rows(c.cell_state, to, states), flat_rows(c.cell_state, of, states))
    to, of = step_row(c, lo, b, first, first), step_row(c, lo, b, first, origin)
    copy(flat_rows(c.recurrent, to, rows), flat_rows(c.recurrent, of, rows))
    if c.recurrence != RNN_CODE:
        copy(flat_rows(c.gates, to, rows), flat_rows(c.gates, of, rows))
        copy(flat_rows(c.tape, to, rows), flat_rows(c.tape, of, rows))
    if not c.has_tokens:
        copy(flat_rows(c.x, to, rows), flat_rows(c.x, of, rows))
