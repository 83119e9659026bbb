"""Backward: (truncated) BPTT of one worker's rows, then the weight gradients as long products over its steps.

    delta_t = dh_t (1 - h_t^2)        dh_{t-1} = delta_t W_hh^T  (+ dz W_hy^T where step t - 1 emits)

Only this recurrence is serial. The gradients need the sum of delta over the reverse passes and nothing else, so
overlapping windows add their deltas, and dW_hh = sum over t of h_{t-1}^T delta_t is formed once.
"""

from __future__ import annotations

from rnnbench.kernels.cpu.compiling import kernel
from rnnbench.kernels.cpu.pointwise import add_rows, sum_rows, through_tanh, zero_rows
from rnnbench.kernels.cpu.products import add_product, add_transposed_product


@kernel()
def _reverse_pass(task, start, emit, end, seen, packed, trace, lo, hi, H, O):
    """One block: losses of steps [emit, end) flow back to `start`. Sets delta for steps >= seen, adds to it below.

    Restarts from the stored h: no second forward.
    """
    T, S, b, h, dh, delta, spare = task.T, task.S, hi - lo, trace.h, trace.dh, trace.delta, trace.spare
    zero_rows(dh, lo, b)
    for t in range(end - 1, start - 1, -1):
        here, state, s = lo * T + t * b, lo * (T + 1) + (t + 1) * b, t - (T - S)
        if s >= 0 and t >= emit:
            add_product(dh, lo, trace.dz, lo * S + s * b, packed.W_hy_T, b, O)
        if t >= seen:
            through_tanh(delta, here, dh, lo, h, state, b)
            zero_rows(dh, lo, b)
            add_product(dh, lo, delta, here, packed.W_hh_T, b, H)
        else:
            through_tanh(spare, lo, dh, lo, h, state, b)
            add_rows(delta, here, spare, lo, b)
            zero_rows(dh, lo, b)
            add_product(dh, lo, spare, lo, packed.W_hh_T, b, H)


@kernel()
def backward_rows(task, blocks, packed, trace, partial, worker, lo, hi):
    """Delta of rows [lo, hi) and this worker's share of all gradients but those of words.

    Needs h and dz of `trace`. blocks (n, 3): start, emit, end of each reverse pass in order of time. Sets W_hh, b_h,
    W_hy, b_y of `partial` for this worker, and W_xh for dense input; all zero where lo = hi.
    """
    T, S, b = task.T, task.S, hi - lo
    E, H, O = partial.W_xh.shape[1], packed.W_hh.shape[0], packed.W_hy_T.shape[0]
    first = blocks[0, 0]
    seen = first
    for n in range(blocks.shape[0]):
        _reverse_pass(task, blocks[n, 0], blocks[n, 1], blocks[n, 2], seen, packed, trace, lo, hi, H, O)
        seen = blocks[n, 2]
    steps, at = (T - first) * b, lo * T + first * b
    base = lo * (T + 1)
    dW_hh, dW_hy, dW_xh = partial.W_hh[worker], partial.W_hy[worker], partial.W_xh[worker]
    zero_rows(dW_hh, 0, H)
    add_transposed_product(dW_hh, trace.h, base + first * b, trace.delta, at, H, steps)
    partial.b_h[worker] = 0
    sum_rows(partial.b_h[worker], trace.delta, at, steps)
    zero_rows(dW_hy, 0, H)
    add_transposed_product(dW_hy, trace.h, base + (T + 1 - S) * b, trace.dz, lo * S, H, b * S)
    partial.b_y[worker] = 0
    sum_rows(partial.b_y[worker], trace.dz, lo * S, b * S)
    if not task.has_words:
        zero_rows(dW_xh, 0, E)
        add_transposed_product(dW_xh, trace.x, at, trace.delta, at, E, steps)


@kernel()
def _add_up(total, parts, workers):
    """total (m, n) = sum of parts[:workers, :m, :n], in the order of workers."""
    m, n = total.shape
    for i in range(m):
        for j in range(n):
            total[i, j] = parts[0, i, j]
        for worker in range(1, workers):
            for j in range(n):
                total[i, j] += parts[worker, i, j]


@kernel()
def add_up(grads, partial, row_workers, input_workers):
    """Write all of `grads` but embedding: `input_workers` had a share in W_xh, `row_workers` in the rest."""
    _add_up(grads.W_xh, partial.W_xh, input_workers)
    _add_up(grads.W_hh, partial.W_hh, row_workers)
    _add_up(grads.W_hy, partial.W_hy, row_workers)
    _add_up(grads.b_h.reshape(1, grads.b_h.size), partial.b_h.reshape(partial.b_h.shape[0], 1, -1), row_workers)
    _add_up(grads.b_y.reshape(1, grads.b_y.size), partial.b_y.reshape(partial.b_y.shape[0], 1, -1), row_workers)
