"""Forward: one worker takes its rows of the batch through all T steps, the head and the loss.

It waits for nobody, unless workers share the columns of a step (`WIDE` in `passes`).

    h_t = tanh(x_t W_xh + h_{t-1} W_hh + b_h)        z = h W_hy + b_y

A worker with b rows from `lo` on has h from row lo (L + 1) on, time first: the state before step t of its row i is at
row lo (L + 1) + (t - origin) b + i, `origin` being the first step that is kept. x, delta, z and dz are cut in the same
way. `r` is the number of its first row among those of the batch.
"""

from __future__ import annotations

from rnnbench.kernels.cpu.calls import apart
from rnnbench.kernels.cpu.losses import NO_LOSS, loss_and_slope
from rnnbench.kernels.cpu.pointwise import copy, tanh_rows
from rnnbench.kernels.cpu.products import add_product, affine, gathered_product, pack, pack_transposed
from rnnbench.kernels.cpu.stage import INPUTS, STEP, give, stage


@apart
def pack_weights(c, learns, part, parts):
    """A part of the weights as products read them; the transposed ones only if the backward pass will need them."""
    pack(c.W_xh_panels, c.W_xh, part, parts)
    pack(c.W_hh_panels, c.W_hh, part, parts)
    pack(c.W_hy_panels, c.W_hy, part, parts)
    if part == 0:
        copy(c.b_h_padded, c.b_h)
        copy(c.b_y_padded, c.b_y)
    if learns:
        pack_transposed(c.W_hh_T_panels, c.W_hh, part, parts)
        pack_transposed(c.W_hy_T_panels, c.W_hy, part, parts)
        if c.has_words:
            pack_transposed(c.W_xh_T_panels, c.W_xh, part, parts)


@apart
def start_rows(c, lo, b, r):
    """h before the first step."""
    h, initial = c.h, c.initial
    for i in range(b):
        copy(h[lo * (c.L + 1) + i], initial[r + i])


@apart
def project_inputs(c, lo, b, r, a, e, origin):
    """Dense input of steps [a, e), time first, to x; x W_xh + b_h to the states after them. One long product."""
    x, rows, inputs = c.x, c.rows, c.inputs
    x_at, h_at = lo * c.L + (a - origin) * b, lo * (c.L + 1) + (a - origin + 1) * b
    for t in range(a, e):
        for i in range(b):
            copy(x[x_at + (t - a) * b + i], inputs[rows[r + i] * c.T + t])
    affine(c.h, h_at, c.b_h_padded, x, x_at, c.W_xh_panels, (e - a) * b, 0, c.Hp, c.E)


@apart
def one_step(c, lo, b, t, origin, j, n):
    """Columns j to j + n of h after step t. Inputs must be projected."""
    h, before = c.h, lo * (c.L + 1) + (t - origin) * b
    after = before + b
    if c.has_words:
        slots = lo * c.T + t * b
        gathered_product(h, after, c.projected, c.slots, slots, h, before, c.W_hh_panels, b, j, n, c.H)
    else:
        add_product(h, after, h, before, c.W_hh_panels, b, j, n, c.H)
    tanh_rows(h, after, b, j, n)


@apart
def forward_steps(c, lo, b, r, a, e, origin):
    """Steps [a, e): writes h after each, and x for dense input. Words must be projected."""
    wide = c.column_shares > 1
    if wide:
        give(c, (lo, b, r, a, e, origin))
        if not c.has_words:
            stage(c, INPUTS, c.column_shares)
    elif not c.has_words:
        project_inputs(c, lo, b, r, a, e, origin)
    for t in range(a, e):
        if wide:
            c.t = t
            stage(c, STEP, c.column_shares)
        else:
            one_step(c, lo, b, t, origin, 0, c.Hp)


@apart
def read_outputs(c, lo, b, r, a, e, origin):
    """z of steps [a, e), or of the last if only that emits; the same to `logits`."""
    z, logits, S = c.z, c.logits, c.S
    first = a if c.emits else e - 1
    h_at = lo * (c.L + 1) + (first + 1 - origin) * b
    affine(z, lo * c.Z, c.b_y_padded, c.h, h_at, c.W_hy_panels, (e - first) * b, 0, c.Op, c.H)
    for s in range(e - first):
        for i in range(b):
            copy(logits[(r + i) * S + (first + s if c.emits else 0)], z[lo * c.Z + s * b + i])


@apart
def write_state(c, lo, b, r, origin):
    """The states after step T."""
    h, state = c.h, c.state
    for i in range(b):
        copy(state[r + i], h[lo * (c.L + 1) + (c.T - origin) * b + i])


@apart
def loss_rows(c, worker, lo, b, r, a, e):
    """Losses of the outputs that `read_outputs` left in z, added to this worker's loss and hits; writes dz.

    dz is the slope of the mean over the batch.
    """
    if c.loss == NO_LOSS:
        return
    z, dz, rows, classes, targets, code, O = c.z, c.dz, c.rows, c.classes, c.targets, c.loss, c.O
    total, hits, scale = 0.0, 0, c.step_weight / c.b
    for s in range(e - a if c.emits else 1):
        step = a + s if c.emits else 0
        for i in range(b):
            at, place = lo * c.Z + s * b + i, rows[r + i]
            loss, hit = loss_and_slope(code, z[at], classes[place], targets, place * c.S + step, step, dz[at], scale, O)
            total += loss
            hits += hit
    c.part_loss[worker, 0] += total
    c.part_hits[worker, 0] += hits
