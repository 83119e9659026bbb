"""The door: a pass, or a whole epoch of passes, in one compiled call.

A pass is a few stages. Each stage is cut into shares, which the threads of the `team` take; a stage of one share is
done on the spot. Between stages the leader alone works: adding up, and the scale that clips.
"""

from __future__ import annotations

from collections.abc import Iterator

import numba
import numpy as np
from numba import types
from numpy.typing import DTypeLike

from rnnbench.kernels.cpu.backward import (
    add_up,
    head_gradients,
    one_step_back,
    reverse_pass,
    step_gradients,
    sum_steps,
)
from rnnbench.kernels.cpu.calls import APART, apart, call_lead, make_ready
from rnnbench.kernels.cpu.compiling import helper, kernel, native
from rnnbench.kernels.cpu.context import Array, Context, ContextType
from rnnbench.kernels.cpu.flush import restore, start_flushing
from rnnbench.kernels.cpu.forward import (
    forward_steps,
    loss_rows,
    one_step,
    pack_weights,
    project_inputs,
    read_outputs,
    start_rows,
    write_state,
)
from rnnbench.kernels.cpu.optimizer import clip_scale, update_range
from rnnbench.kernels.cpu.pointwise import clear, copy, flat_rows
from rnnbench.kernels.cpu.share import share, workers_for
from rnnbench.kernels.cpu.stage import (
    BLOCKS,
    INPUTS,
    PREPARE,
    PROJECT,
    ROWS,
    STEP,
    STEP_BACK,
    UPDATE,
    WORDS,
    stage,
)
from rnnbench.kernels.cpu.team import team
from rnnbench.kernels.cpu.words import (
    find_words,
    forget_words,
    list_all_words,
    list_places,
    project_words,
    words_backward,
)

# What is asked of `Runner.run`.
PREDICT, FORWARD, GRADIENT, TRAIN_STEP = range(4)

# What is worth a worker: multiply-adds (a tanh counts as TANH_WORK of them), parameters of the optimizer, tokens, and
# weights to pack; and what is worth waking a helper that sleeps.
LEAST_WORK, LEAST_PARAMS, LEAST_TOKENS = np.int64(400_000), np.int64(8_192), np.int64(1_024)
LEAST_WEIGHTS = np.int64(50_000)
WAKING_WORK = 1_000_000
TANH_WORK = np.int64(24)
CACHE_LINE_NUMBERS = np.int64(64)
# Recurrent weights of so many numbers are read from afar at each step, from the second cache or from the third. Where
# each worker would have fewer rows than these to use them on, workers share the columns of a step and not the rows.
WIDE, WIDE_ROWS = np.int64(1 << 16), np.int64(6)
WIDEST, WIDEST_ROWS = np.int64(1 << 19), np.int64(36)
# Rows that are predicted together, and steps that are kept where nothing needs the states later.
PREDICT_ROWS, FORWARD_STEPS = np.int64(24), np.int64(16)


@apart
def _keep_rest(c, lo, b, first, end, origin):
    """Move what is kept of steps [first, end) to the front of the buffers; `first` is their origin from now on."""
    rows, before = (end - first) * b, (first - origin) * b
    h, delta, x, h_at, at = c.h, c.delta, c.x, lo * (c.L + 1), lo * c.L
    copy(flat_rows(h, h_at, rows + b), flat_rows(h, h_at + before, rows + b))
    copy(flat_rows(delta, at, rows), flat_rows(delta, at + before, rows))
    if not c.has_words:
        copy(flat_rows(x, at, rows), flat_rows(x, at + before, rows))


@apart
def _forward_rows(c, worker, lo, b, r):
    """Forward and loss of b rows of the batch from r on, in segments that stay in cache."""
    T, a, origin = c.T, 0, 0
    while a < T:
        e = min(T, a + min(c.L, FORWARD_STEPS))
        forward_steps(c, lo, b, r, a, e, origin)
        if c.emits or e == T:
            read_outputs(c, lo, b, r, a, e, origin)
            loss_rows(c, worker, lo, b, r, a, e)
        if e < T:
            _keep_rest(c, lo, b, e, e, origin)
            origin = e
        a = e
    if c.goal != PREDICT:
        write_state(c, lo, b, r, origin)


@apart
def _learn_rows(c, worker, lo, b):
    """Forward, loss and backward of one worker's rows, in segments: all T steps, or the blocks that there is room for.

    The deltas of a step are settled once no later block reaches it; then they enter the gradients and go.
    """
    T, blocks = c.T, c.blocks
    a, origin, block = 0, 0, 0
    settled = seen = blocks[0, 0]
    while a < T:
        last = block
        while last + 1 < c.blocks_n and blocks[last + 1, 2] <= origin + c.L:
            last += 1
        e = blocks[last, 2]
        forward_steps(c, lo, b, lo, a, e, origin)
        read_outputs(c, lo, b, lo, a, e, origin)
        loss_rows(c, worker, lo, b, lo, a, e)
        head_gradients(c, worker, lo, b, a, e, origin, a == 0)
        for n in range(block, last + 1):
            reverse_pass(c, lo, b, blocks[n, 0], blocks[n, 1], blocks[n, 2], seen, a, origin)
            seen = blocks[n, 2]
        block = last + 1
        rest = e if block == c.blocks_n else min(e, blocks[block, 0])
        step_gradients(c, worker, lo, b, settled, rest, origin, a == 0)
        settled, a = rest, e
        if e < T:
            _keep_rest(c, lo, b, rest, e, origin)
            origin = rest
    write_state(c, lo, b, lo, origin)


@apart
def _rows(c, worker):
    """One worker's rows of the batch."""
    lo, hi = share(c.b, worker, c.row_shares)
    c.part_loss[worker, 0], c.part_hits[worker, 0] = 0.0, 0
    start_rows(c, lo, hi - lo, lo)
    if c.goal >= GRADIENT:
        _learn_rows(c, worker, lo, hi - lo)
    else:
        _forward_rows(c, worker, lo, hi - lo, lo)


@apart
def _block(c, who, number):
    """Logits of PREDICT_ROWS rows, from zero states, in the room of whoever works; all words are projected."""
    r, lo, T = number * PREDICT_ROWS, who * PREDICT_ROWS, c.T
    b = min(PREDICT_ROWS, c.b - r)
    h, rows, tokens, slots = c.h, c.rows, c.tokens, c.slots
    for i in range(b):
        clear(h[lo * (c.L + 1) + i])
        if c.has_words:
            row = tokens[rows[r + i]]
            for t in range(T):
                slots[lo * T + t * b + i] = row[t]
    _forward_rows(c, who, lo, b, r)


@helper
def _columns(c, number):
    """First and number of the columns of h that a share has: whole panels."""
    first, last = share(-(-c.Hp // c.panel), number, c.shares)
    return first * c.panel, min(c.Hp, last * c.panel) - first * c.panel


@apart
def _wide_work(c, number):
    """One share of a stage within the rows."""
    g = c.given
    if c.stage == INPUTS:
        lo, b, r, a, e, origin = g[0], g[1], g[2], g[3], g[4], g[5]
        first, last = share(e - a, number, c.shares)
        project_inputs(c, lo, b, r, a + first, a + last, origin)
        return
    j, n = _columns(c, number)
    if c.stage == STEP:
        one_step(c, g[0], g[1], c.t, g[5], j, n)
    elif c.stage == STEP_BACK:
        one_step_back(c, g[0], g[1], c.t, g[2], g[3], g[4], g[5], g[6], j, n)
    else:
        sum_steps(c, g[6], g[0], g[1], g[2], g[3], g[4], g[5], j, n)


def _work(c, who, number):
    """One share of the stage at hand."""
    mode = start_flushing(c.flush != 0)
    if c.stage >= INPUTS:
        _wide_work(c, number)
    elif c.stage == ROWS:
        _rows(c, number)
    elif c.stage == PREPARE:
        others = c.shares - c.pack_shares  # 1 where words are found meanwhile
        if c.has_words and number == 0:
            forget_words(c)
            find_words(c)
        if number >= others:
            pack_weights(c, c.goal >= GRADIENT, number - others, c.pack_shares)
    elif c.stage == BLOCKS:
        _block(c, who, number)
    elif c.stage == UPDATE:
        lo, hi = share(-(-c.P // CACHE_LINE_NUMBERS), number, c.shares)
        update_range(c, lo * CACHE_LINE_NUMBERS, min(c.P, hi * CACHE_LINE_NUMBERS))
    elif c.stage == WORDS:
        words_backward(c, number, *share(c.found, number, c.shares))
    else:
        with_places = c.goal >= GRADIENT  # the first of several shares lists them, one alone does both
        if with_places and number == 0:
            list_places(c)
        if c.shares == 1 or not with_places:
            project_words(c, *share(c.found, number, c.shares))
        elif number > 0:
            project_words(c, *share(c.found, number - 1, c.shares - 1))
    restore(mode)


@apart
def _predict(c):
    """Every row of `order`: the whole vocabulary is projected once."""
    pack_weights(c, False, 0, 1)
    if c.has_words:
        list_all_words(c)
        stage(c, PROJECT, workers_for(c.V * (c.E + TANH_WORK) * c.H, LEAST_WORK, c.V, c.workers))
    c.rows, c.b, c.column_shares = c.order, c.order_n, 1
    stage(c, BLOCKS, -(-c.b // PREDICT_ROWS))


@apart
def _one_pass(c):
    """Forward, and from GRADIENT on backward and update, of the batch that `rows` and `b` name."""
    learns, steps = c.goal >= GRADIENT, c.b * c.T
    work = steps * c.H * ((c.H if c.has_words else c.H + c.E) * (3 if learns else 1) + TANH_WORK)
    c.row_shares = c.word_shares = workers_for(work, LEAST_WORK, c.b, c.workers)
    c.column_shares = 1
    weights, rows = c.H * c.H, c.b // c.workers
    if (weights >= WIDE and rows < WIDE_ROWS) or (weights >= WIDEST and rows < WIDEST_ROWS):
        c.row_shares, c.column_shares = 1, c.workers
    many = c.has_words and steps >= LEAST_TOKENS and c.workers > 1
    c.pack_shares = workers_for(c.H * (c.E + c.H), LEAST_WEIGHTS, c.Hp // c.panel, c.workers)
    stage(c, PREPARE, c.pack_shares + many)
    if c.has_words:
        work = c.found * (c.E + TANH_WORK) * c.H
        stage(c, PROJECT, workers_for(work, LEAST_WORK, c.found, c.workers) + (learns and many))
        c.word_shares = workers_for(2 * work + steps * c.H, LEAST_WORK, c.found, c.workers)
    stage(c, ROWS, c.row_shares)
    for worker in range(c.row_shares):
        c.loss_sum += c.part_loss[worker, 0]
        c.hits += c.part_hits[worker, 0]
    if learns:
        if c.has_words:
            stage(c, WORDS, c.word_shares)
        add_up(c)
    if c.goal == TRAIN_STEP:
        clip_scale(c)
        stage(c, UPDATE, workers_for(c.P, LEAST_PARAMS, c.P, c.workers))
        c.step += 1


def _lead(c):
    """The whole call: a pass for each B rows of `order`."""
    mode = start_flushing(c.flush != 0)
    c.loss_sum, c.hits = 0.0, 0
    if c.goal == PREDICT:
        _predict(c)
    else:
        for start in range(0, c.order_n, c.B):
            c.rows, c.b = c.order[start:], min(c.B, c.order_n - start)
            _one_pass(c)
    restore(mode)


@kernel()
def _enter(lead, context_at):
    """Call the function at address `lead`: the one call from Python, without the GIL."""
    call_lead(lead, context_at)


_ADDRESSES: dict[np.dtype, tuple[int, int]] = {}


def warm(dtype: DTypeLike) -> Iterator[tuple[int, int, str]]:
    """Compile all that passes of this type need, or load it from disk: parts done, of how many, and what is next."""
    kind = np.dtype(dtype)
    if kind in _ADDRESSES:
        return
    parts = len(APART) + 3
    for done, name in enumerate(make_ready(kind)):
        yield done, parts, name
    context = ContextType(numba.from_dtype(kind))
    yield parts - 3, parts, "work"
    work = native(types.void(context, types.int64, types.int64), _work)
    yield parts - 2, parts, "lead"
    lead = native(types.void(context), _lead)
    yield parts - 1, parts, "enter"
    _enter.compile((types.int64, types.int64))
    _ADDRESSES[kind] = lead, work


def ready(dtype: DTypeLike) -> tuple[int, int]:
    """The addresses of `_lead` and `_work`, compiled."""
    for _ in warm(dtype):
        pass
    return _ADDRESSES[np.dtype(dtype)]


class Runner:
    """Calls of one context."""

    def __init__(self, context: Context, dtype: DTypeLike) -> None:
        self.context = context
        self.lead, self.work = ready(dtype)
        context.fields["work"][0] = self.work
        T, H, E, words, self.size = (int(context.fields[f][0]) for f in ("T", "H", "E", "has_words", "workers"))
        self.row_work = T * H * (H + (0 if words else E) + int(TANH_WORK))
        self.goal, self.order, self.n, self.team = (context.fields[f] for f in ("goal", "order", "order_n", "team"))

    def run(self, goal: int, order: Array) -> None:
        """One pass of kind `goal` for each B rows of `order` (n,) int64, rows of the data; the last may be shorter.

        From GRADIENT on it writes the gradients, from TRAIN_STEP on parameters and moments, and counts `step` up.
        `loss_sum` and `hits` are sums over the rows. PREDICT writes the logits of all rows, and nothing else.
        """
        self.goal[0], self.order[0], self.n[0] = goal, order.ctypes.data, order.size
        members = team()
        if self.size == 1 or not members.leading.acquire(blocking=False):
            self.team[0] = 0
            _enter(self.lead, self.context.address)
            return
        try:
            members.call(self.size, self.context.address, self.work, order.size * self.row_work > WAKING_WORK)
            self.team[0] = members.address
            _enter(self.lead, self.context.address)
        finally:
            members.rest()
            members.leading.release()
