"""Forward: one worker takes its rows of the batch through all T steps, the head and the loss, and waits for nobody.

    h_t = tanh(x_t W_xh + h_{t-1} W_hh + b_h)        z = h W_hy + b_y

A worker with b = hi - lo rows owns rows [lo (T + 1), hi (T + 1)) of h, time first: h_t of its row i is row
lo (T + 1) + t b + i - lo, t from 0, the initial state. x, delta, z and dz are cut in the same way.
"""

from __future__ import annotations

from rnnbench.kernels.cpu.compiling import kernel
from rnnbench.kernels.cpu.losses import NO_LOSS, loss_and_slope
from rnnbench.kernels.cpu.pointwise import fill_rows, pad, pad_transposed, tanh_rows
from rnnbench.kernels.cpu.products import add_product


@kernel()
def pack(packed, params, with_transposed):
    """Write all of `packed` from the parameters; the transposed ones only if the backward pass will need them."""
    pad(packed.W_xh, params.W_xh)
    pad(packed.W_hh, params.W_hh)
    pad(packed.W_hy, params.W_hy)
    for j in range(params.b_h.size):
        packed.b_h[j] = params.b_h[j]
    for o in range(params.b_y.size):
        packed.b_y[o] = params.b_y[o]
    if with_transposed:
        pad_transposed(packed.W_xh_T, params.W_xh)
        pad_transposed(packed.W_hh_T, params.W_hh)
        pad_transposed(packed.W_hy_T, params.W_hy)


@kernel()
def _project_inputs(inputs, rows, packed, trace, lo, hi):
    """Dense input of rows [lo, hi), time first, to x; x W_xh + b_h to h[1:]. One product over all steps."""
    T, E, b = inputs.shape[1], inputs.shape[2], hi - lo
    for t in range(T):
        for i in range(b):
            for e in range(E):
                trace.x[lo * T + t * b + i, e] = inputs[rows[lo + i], t, e]
    after_first = lo * (T + 1) + b
    fill_rows(trace.h, after_first, T * b, packed.b_h)
    add_product(trace.h, after_first, trace.x, lo * T, packed.W_xh, T * b, E)


@kernel()
def _gather_words(tokens, rows, words, h, start, t, lo, hi):
    """h[start + i] = the projection of token t of row lo + i."""
    for i in range(hi - lo):
        to, of = h[start + i], words.projected[words.slot[tokens[rows[lo + i], t]]]
        for j in range(to.size):
            to[j] = of[j]


@kernel()
def forward_rows(task, batch, rows, initial, packed, words, trace, answer, lo, hi):
    """All T steps and the head for batch rows [lo, hi). Writes x, h, z of `trace`; logits and state of `answer`.

    rows (B,) are row numbers of `batch`, initial (B, H) is h_0. With words, `words` has been found and projected.
    """
    T, S, b, h, H = task.T, task.S, hi - lo, trace.h, initial.shape[1]
    base = lo * (T + 1)
    for i in range(b):
        for j in range(H):
            h[base + i, j] = initial[lo + i, j]
    if not task.has_words:
        _project_inputs(batch.inputs, rows, packed, trace, lo, hi)
    for t in range(T):
        before, after = base + t * b, base + (t + 1) * b
        if task.has_words:
            _gather_words(batch.tokens, rows, words, h, after, t, lo, hi)
        add_product(h, after, h, before, packed.W_hh, b, H)
        tanh_rows(h, after, b)
    fill_rows(trace.z, lo * S, b * S, packed.b_y)
    add_product(trace.z, lo * S, h, base + (T + 1 - S) * b, packed.W_hy, b * S, H)
    _write_answer(answer, trace, S, base + T * b, lo, hi)


@kernel()
def _write_answer(answer, trace, S, last, lo, hi):
    """logits and state of rows [lo, hi), row first; `last` is the row of h where the last states begin."""
    b, O, H = hi - lo, answer.logits.shape[2], answer.state.shape[1]
    for i in range(b):
        for s in range(S):
            for o in range(O):
                answer.logits[lo + i, s, o] = trace.z[lo * S + s * b + i, o]
        for j in range(H):
            answer.state[lo + i, j] = trace.h[last + i, j]


@kernel()
def loss_rows(task, batch, rows, trace, partial, worker, O, lo, hi):
    """Losses of the outputs of rows [lo, hi): sets loss and hits of `partial` for this worker, and dz of `trace`.

    dz is the slope of the mean over the batch. Needs z.
    """
    S, b, total, hits = task.S, hi - lo, 0.0, 0
    scale = task.step_weight / rows.size
    if task.loss != NO_LOSS:
        for s in range(S):
            for i in range(b):
                r = lo * S + s * b + i
                loss, hit = loss_and_slope(
                    task.loss, trace.z[r], batch.classes, batch.targets, rows[lo + i], s, trace.dz[r], scale, O
                )
                total += loss
                hits += hit
    partial.loss[worker, 0] = total
    partial.hits[worker, 0] = hits
