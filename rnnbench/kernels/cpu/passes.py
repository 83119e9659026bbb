"""The door: a pass, or a whole epoch of passes, in one compiled call.

A pass is a few stages. Each stage is cut into shares, which the calling thread and those of the pool take; a stage of
one share is done on the spot. Between stages the calling thread alone works: adding up, and the scale that clips.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numba
import numpy as np
from numba import types
from numpy.typing import DTypeLike

from rnnbench.kernels.cpu.calls import SYMBOL_KERNELS, call_whole, make_ready, symbol_kernel
from rnnbench.kernels.cpu.compiling import cpu_kernel, inlined, native
from rnnbench.kernels.cpu.flush import restore, start_flushing
from rnnbench.kernels.cpu.layer_backward import backward_step, sum_steps
from rnnbench.kernels.cpu.layer_forward import forward_step, project_inputs
from rnnbench.kernels.cpu.model import (
    PREDICT_ROWS,
    add_parts,
    batch_rows,
    layer_at,
    pack_weights,
    predict_rows,
)
from rnnbench.kernels.cpu.optimizer import clip_scale, update_range
from rnnbench.kernels.cpu.pass_record import (
    GRADIENT,
    PREDICT,
    TRAIN_STEP,
    WIDE_TABLE,
    Array,
    PassRecord,
    PassRecordType,
)
from rnnbench.kernels.cpu.row_order import count_rows_of_steps, count_steps, sort_rows
from rnnbench.kernels.cpu.shares import (
    BLOCKS,
    INPUTS,
    PARTS,
    PREPARE,
    PROJECT,
    ROWS,
    STEP,
    STEP_BACK,
    TOKENS,
    UPDATE,
    share_range,
    stage,
    workers_for,
)
from rnnbench.kernels.cpu.thread_pool import thread_pool
from rnnbench.kernels.cpu.unique_tokens import (
    ALL,
    add_own_gradients,
    embedding_gradients,
    find_unique_tokens,
    forget_unique_tokens,
    list_places,
    list_vocabulary,
    project_unique_tokens,
)

# What is worth a worker: multiply-adds (a tanh counts as TANH_WORK of them), parameters of the optimizer, tokens, and
# weights to pack. What is worth two workers is worth waking a thread that waits.
MIN_WORK, MIN_PARAMS, MIN_TOKENS = np.int64(400_000), np.int64(8_192), np.int64(1_024)
MIN_WEIGHTS = np.int64(50_000)
WAKING_WORK = 2 * int(MIN_WORK)
TANH_WORK, TABLE_WORK = np.int64(24), np.int64(8)
CACHE_LINE_NUMBERS = np.int64(64)
# Recurrent weights of so many numbers are read from afar at each step, from the second cache or from the third. Where
# each worker would have fewer rows than these to use them on, workers share the columns of a step and not the rows.
WIDE_WEIGHTS, WIDE_ROWS = np.int64(1 << 16), np.int64(6)
WIDEST_WEIGHTS, WIDEST_ROWS = np.int64(1 << 19), np.int64(36)


@inlined
def _columns(c, width, number):
    """First and number of the columns that a share has of `width`, which is padded: whole panels."""
    first, last = share_range(-(-width // c.panel), number, c.shares)
    return first * c.panel, min(width, last * c.panel) - first * c.panel


@symbol_kernel
def share_within_rows(c, number):
    """One share of a stage within the rows: some columns of the inputs' part of the gates, of a step or of the sums."""
    layer = layer_at(c, c.stage_layer)
    lo, b, t, origin = c.stage_lo, c.stage_b, c.stage_t, c.stage_origin
    begin, end = c.stage_begin, c.stage_end
    if c.stage == INPUTS:
        j, n = _columns(c, c.GHp, number)
        project_inputs(layer, lo, b, begin, end, origin, j, n)
    elif c.stage == STEP:
        j, n = _columns(c, c.Hp, number)
        forward_step(layer, lo, b, t, origin, j, n)
    elif c.stage == STEP_BACK:
        j, n = _columns(c, c.Hp, number)
        backward_step(layer, lo, b, t, c.stage_emit, end, c.stage_seen, begin, origin, j, n)
    else:
        j, n = _columns(c, c.GHp, number)
        sum_steps(layer, c.stage_worker, lo, b, begin, end, origin, c.stage_fresh, j, n)


def _do_share(c, thread, number):
    """One share of the stage at hand."""
    mode = start_flushing(c.flush != 0)
    if c.stage >= INPUTS:
        share_within_rows(c, number)
    elif c.stage == ROWS:
        batch_rows(c, number)
    elif c.stage == PREPARE:
        # Weights are packed in shares of panels; the first share finds the tokens, and packs none if there are others
        others = c.shares - c.pack_shares
        if c.has_tokens and not c.own_tokens and number == 0:
            forget_unique_tokens(c)
            find_unique_tokens(c, ALL)
        if number >= others:
            pack_weights(c, c.goal >= GRADIENT, number - others, c.pack_shares)
    elif c.stage == PARTS:
        add_parts(c, number, c.shares)
    elif c.stage == BLOCKS:
        predict_rows(c, thread, number)
    elif c.stage == UPDATE:
        # Whole cache lines, so that no two threads write the same one
        lo, hi = share_range(-(-c.P // CACHE_LINE_NUMBERS), number, c.shares)
        update_range(c, lo * CACHE_LINE_NUMBERS, min(c.P, hi * CACHE_LINE_NUMBERS))
    elif c.stage == TOKENS:
        for n in range(c.directions):
            embedding_gradients(c, n, n, number, *share_range(c.unique_n, number, c.shares))
    else:
        with_places = c.goal >= GRADIENT  # the first of several shares lists them, one alone does both
        if with_places and number == 0:
            for n in range(c.directions):
                list_places(c, n, ALL)
        if c.shares == 1 or not with_places:
            project_unique_tokens(c, *share_range(c.unique_n, number, c.shares))
        elif number > 0:
            project_unique_tokens(c, *share_range(c.unique_n, number - 1, c.shares - 1))
    restore(mode)


@symbol_kernel
def _predict(c):
    """Every row of `order`: the whole vocabulary is projected once."""
    pack_weights(c, False, 0, 1)
    c.rows, c.b, c.column_shares = c.order, c.order_n, 1
    for n in range(c.layers_n):
        layer = layer_at(c, n)
        layer.column_shares, layer.keeps_tape, layer.gathers = 1, 0, layer.has_tokens
    if c.has_lengths:
        sort_rows(c, 1)
    if c.has_tokens:
        list_vocabulary(c)
        stage(c, PROJECT, workers_for(c.V * (c.E + TANH_WORK) * c.GH, MIN_WORK, c.V, c.workers))
    stage(c, BLOCKS, -(-c.b // PREDICT_ROWS))


@cpu_kernel()
def rows_are_better(c, steps):
    """Whether to project the token of each row and step, and not each unique token once into a table.

    A table that no near cache holds is written, and read again by each row and step, which takes as long as
    TABLE_WORK multiply-adds for each number.
    """
    again, passes = steps - c.unique_n, steps + 2 * c.unique_n
    return c.unique_n * c.GHs > WIDE_TABLE and again * c.E < passes * TABLE_WORK


@cpu_kernel()
def cut_rows(c, work):
    """Into how many shares: of rows, or, where rows are few for weights that no near cache holds, of columns."""
    c.row_shares, c.column_shares = workers_for(work, MIN_WORK, c.b, c.workers), 1
    weights, rows = c.H * c.GH, c.b // c.workers
    if (weights >= WIDE_WEIGHTS and rows < WIDE_ROWS) or (weights >= WIDEST_WEIGHTS and rows < WIDEST_ROWS):
        c.row_shares, c.column_shares = 1, c.workers


@symbol_kernel
def _one_pass(c):
    """Forward, and from GRADIENT on backward and update, of the batch that `rows` and `b` name."""
    count_steps(c)
    learns, steps = c.goal >= GRADIENT, c.steps
    work = steps * c.GH * ((c.H if c.has_tokens else c.H + c.E) * (3 if learns else 1) + TANH_WORK) * c.layers_n
    cut_rows(c, work)
    c.token_shares = c.row_shares
    if c.has_lengths:
        sort_rows(c, c.row_shares)
        for worker in range(c.row_shares):
            lo, hi = share_range(c.b, worker, c.row_shares)
            count_rows_of_steps(c, lo, hi - lo, lo)
        if c.averages_steps:
            c.step_weight = c.b / max(1, steps)
    weight = c.step_weight if c.has_lengths else 1.0  # of batches that weigh their steps differently
    for n in range(c.layers_n):
        layer = layer_at(c, n)
        layer.column_shares, layer.keeps_tape, layer.gathers = c.column_shares, learns, layer.has_tokens
    # Where W_xh is small each of several workers sees to the tokens of its own rows, in ROWS: no stage but that
    c.own_tokens = c.can_own_tokens and c.row_shares > 1
    # Weights into panels, unless the pass before has left them there: without a way back, and with the same parameters.
    # Where they are worth a share of their own beside it, the unique tokens
    many = c.has_tokens and not c.own_tokens and steps >= MIN_TOKENS and c.workers > 1
    c.pack_shares = workers_for(c.GH * (c.E + c.H), MIN_WEIGHTS, c.GHp // c.panel, c.workers)
    if c.packed and not learns:
        c.pack_shares = 0
    stage(c, PREPARE, max(1, c.pack_shares + many))
    c.packed = c.goal != TRAIN_STEP  # which will change the parameters
    # The unique tokens' rows of the embedding through W_xh, and where each of them occurs
    if c.has_tokens and not c.own_tokens:
        if c.has_token_rows and rows_are_better(c, steps):
            for n in range(c.directions):
                layer_at(c, n).gathers = 0
        work = c.unique_n * (c.E + TANH_WORK) * c.GH
        stage(c, PROJECT, workers_for(work, MIN_WORK, c.unique_n, c.workers) + (learns and many))
        c.token_shares = workers_for(2 * work + steps * c.GH, MIN_WORK, c.unique_n, c.workers)
    # All steps forward, head, loss, and all steps back
    stage(c, ROWS, c.row_shares)
    for worker in range(c.row_shares):
        c.loss_sum += weight * c.part_loss[worker, 0]
        c.correct += c.part_correct[worker, 0]
    # Gradients: of the embedding by token, of all else from the parts of the workers
    if learns:
        if c.own_tokens:
            add_own_gradients(c)
        elif c.has_tokens:
            stage(c, TOKENS, c.token_shares)
            c.embedding_learnt = True
        stage(c, PARTS, workers_for(c.layers_n * c.GH * (c.E + c.H), MIN_WEIGHTS, c.H, c.workers))
    if c.goal == TRAIN_STEP:
        clip_scale(c)
        stage(c, UPDATE, workers_for(c.P, MIN_PARAMS, c.P, c.workers))
        c.step += 1


def _whole_call(c):
    """The whole call: a pass for each B rows of `order`."""
    mode = start_flushing(c.flush != 0)
    c.loss_sum, c.correct = 0.0, 0
    if c.goal == PREDICT:
        _predict(c)
    else:
        for start in range(0, c.order_n, c.B):
            c.rows, c.b = c.order[start:], min(c.B, c.order_n - start)
            _one_pass(c)
    restore(mode)


@cpu_kernel()
def enter(whole_call, record_at):
    """Call the function at address `whole_call`: the one call from Python, without the GIL."""
    call_whole(whole_call, record_at)


_ADDRESSES: dict[np.dtype, tuple[int, int]] = {}
COMPILING = threading.Lock()


def compile_all(dtype: DTypeLike) -> Iterator[tuple[int, int, str]]:
    """Compile all that passes of this type need, or load it from disk: parts done, of how many, and what is next."""
    kind = np.dtype(dtype)
    if kind in _ADDRESSES:
        return
    parts = len(SYMBOL_KERNELS) + 3
    for done, name in enumerate(make_ready(kind)):
        yield done, parts, name
    record = PassRecordType(numba.from_dtype(kind))
    yield parts - 3, parts, "share"
    do_share = native(types.void(record, types.int64, types.int64), _do_share)
    yield parts - 2, parts, "call"
    whole_call = native(types.void(record), _whole_call)
    yield parts - 1, parts, "enter"
    enter.compile((types.int64, types.int64))
    _ADDRESSES[kind] = whole_call, do_share


def addresses(dtype: DTypeLike) -> tuple[int, int]:
    """The addresses of `_whole_call` and `_do_share`, compiled."""
    with COMPILING:
        for _ in compile_all(dtype):
            pass
    return _ADDRESSES[np.dtype(dtype)]


class CpuRunner:
    """Calls of one record."""

    def __init__(self, record: PassRecord, dtype: DTypeLike) -> None:
        self.record = record
        self.whole_call, self.do_share = addresses(dtype)
        record.fields["do_share"][0] = self.do_share
        names = ("T", "H", "GH", "E", "has_tokens", "layers_n", "workers")
        T, H, GH, E, tokens, layers, self.size = (int(record.fields[name][0]) for name in names)
        # What a row is worth at most, forward and with the way back: as in `_one_pass`
        products = H if tokens else H + E
        self.row_work = [layers * T * GH * (products * times + int(TANH_WORK)) for times in (1, 3)]
        self.fields = {name: record.fields[name] for name in ("goal", "order", "order_n", "pool")}
        self.goal = self.pool = -1  # as they stand in the record; its fields are written where they change, for a
        self.order: Array | None = None  # write from Python takes as long as a small kernel

    def run(self, goal: int, order: Array) -> None:
        """One pass of kind `goal` for each B rows of `order` (n,) int64, rows of the data; the last may be shorter.

        From GRADIENT on it writes the gradients, from TRAIN_STEP on parameters and moments, and counts `step` up.
        `loss_sum` and `correct` are sums over the rows. PREDICT writes the logits of all rows, and nothing else.
        """
        if goal != self.goal:
            self.goal = self.fields["goal"][0] = goal
        if order is not self.order:
            self.order = order
            self.fields["order"][0], self.fields["order_n"][0] = order.ctypes.data, order.size
        pool = thread_pool()
        # One thread is enough, or another call has the pool: no stage is opened
        if self.size == 1 or not pool.in_use.acquire(blocking=False):
            self._enter(0)
            return
        work = order.size * self.row_work[goal >= GRADIENT]
        try:
            pool.begin_call(self.size, self.record.address, self.do_share, work >= WAKING_WORK)
            self._enter(pool.address)
        finally:
            pool.end_call()
            pool.in_use.release()

    def _enter(self, pool: int) -> None:
        if pool != self.pool:
            self.pool = self.fields["pool"][0] = pool
        enter(self.whole_call, self.record.address)
