"""Backward: (truncated) BPTT of one worker's rows, then the weight gradients as long products over its steps.

    delta_t = dh_t (1 - h_t^2)        dh_{t-1} = delta_t W_hh^T  (+ dz W_hy^T where step t - 1 emits)

Only this recurrence is serial. The gradients need the sum of delta over the reverse passes and nothing else, so
overlapping windows add their deltas, and dW_hh = sum over t of h_{t-1}^T delta_t is formed once. A reverse pass
restarts from the stored states: no second forward. Rows are placed as `forward` says.
"""

from __future__ import annotations

from rnnbench.kernels.cpu.calls import apart
from rnnbench.kernels.cpu.compiling import kernel
from rnnbench.kernels.cpu.pointwise import add_rows, copy
from rnnbench.kernels.cpu.products import add_through_tanh, affine, outer_products, sum_rows, through_tanh
from rnnbench.kernels.cpu.stage import STEP_BACK, SUMS, give, stage


@apart
def one_step_back(c, lo, b, t, emit, end, seen, a, origin, j, n):
    """Columns j to j + n of delta of step t, in a pass that takes losses of steps [emit, end) back."""
    h, delta, spare, dz, zeros, H, O = c.h, c.delta, c.spare, c.dz, c.zeros, c.H, c.O
    W_hh_T, W_hy_T = c.W_hh_T_panels, c.W_hy_T_panels
    here, state = lo * c.L + (t - origin) * b, lo * (c.L + 1) + (t + 1 - origin) * b
    z_at = lo * c.Z + (t - a if c.emits else 0) * b
    to, at, after, after_at = delta, here, delta, here + b
    if t < seen:
        to, at = spare, 2 * lo + (t & 1) * b
    if t + 1 < seen:
        after, after_at = spare, 2 * lo + (t + 1 & 1) * b
    if t == end - 1:
        through_tanh(to, at, zeros, dz, z_at, W_hy_T, b, j, n, O, h, state)
    elif c.emits and t >= emit:
        affine(to, at, zeros, dz, z_at, W_hy_T, b, j, n, O)
        add_through_tanh(to, at, after, after_at, W_hh_T, b, j, n, H, h, state)
    else:
        through_tanh(to, at, zeros, after, after_at, W_hh_T, b, j, n, H, h, state)


@apart
def reverse_pass(c, lo, b, start, emit, end, seen, a, origin):
    """One block: losses of steps [emit, end) flow back to `start`. Sets delta for steps >= seen, adds to it below."""
    wide = c.column_shares > 1
    if wide:
        give(c, (lo, b, emit, end, seen, a, origin))
    for t in range(end - 1, start - 1, -1):
        if wide:
            c.t = t
            stage(c, STEP_BACK, c.column_shares)
        else:
            one_step_back(c, lo, b, t, emit, end, seen, a, origin, 0, c.Hp)
        if t < seen:
            add_rows(c.delta, lo * c.L + (t - origin) * b, c.spare, 2 * lo + (t & 1) * b, b)


@apart
def head_gradients(c, worker, lo, b, a, e, origin, fresh):
    """This worker's part of dW_hy and db_y, from the outputs of steps [a, e), or of the last."""
    first = a if c.emits else e - 1
    h_at, steps = lo * (c.L + 1) + (first + 1 - origin) * b, (e - first) * b
    outer_products(c.part_W_hy, worker * c.H, fresh, c.zeros, c.h, h_at, c.dz, lo * c.Z, c.H, 0, c.Op, steps)
    sum_rows(c.part_b_y, worker, fresh, c.zeros, c.unit, c.dz, lo * c.Z, 0, c.Op, steps)


@apart
def sum_steps(c, worker, lo, b, first, end, origin, fresh, j, n):
    """Columns j to j + n of what `step_gradients` writes."""
    at, h_at, steps = lo * c.L + (first - origin) * b, lo * (c.L + 1) + (first - origin) * b, (end - first) * b
    outer_products(c.part_W_hh, worker * c.H, fresh, c.zeros, c.h, h_at, c.delta, at, c.H, j, n, steps)
    sum_rows(c.part_b_h, worker, fresh, c.zeros, c.unit, c.delta, at, j, n, steps)
    if not c.has_words:
        outer_products(c.part_W_xh, worker * c.E, fresh, c.zeros, c.x, at, c.delta, at, c.E, j, n, steps)


@apart
def step_gradients(c, worker, lo, b, first, end, origin, fresh):
    """This worker's part of dW_hh, db_h and, for dense input, dW_xh, from the deltas of steps [first, end)."""
    if c.column_shares > 1:
        give(c, (lo, b, first, end, origin, fresh, worker))
        stage(c, SUMS, c.column_shares)
    else:
        sum_steps(c, worker, lo, b, first, end, origin, fresh, 0, c.Hp)


@kernel()
def _add_up(total, parts, workers):
    """total (m, n) = the sum of parts (workers m, >= n), m rows of each worker, in their order."""
    m = total.shape[0]
    for i in range(m):
        sums = total[i]
        copy(sums, parts[i])
        for worker in range(1, workers):
            part = parts[worker * m + i]
            for j in range(sums.size):
                sums[j] += part[j]


@apart
def add_up(c):
    """Write all gradients but that of the embedding."""
    _add_up(c.d_W_xh, c.part_W_xh, c.word_shares)
    _add_up(c.d_W_hh, c.part_W_hh, c.row_shares)
    _add_up(c.d_W_hy, c.part_W_hy, c.row_shares)
    _add_up(c.d_b_h.reshape(1, -1), c.part_b_h, c.row_shares)
    _add_up(c.d_b_y.reshape(1, -1), c.part_b_y, c.row_shares)
