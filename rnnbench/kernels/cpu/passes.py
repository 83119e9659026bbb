"""The door: a pass, or a whole epoch of passes, in one compiled call. Here the threads are entered.

A pass is a few stages. Each stage is cut into shares, one for each worker; one worker alone enters no thread pool.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
from numba import prange, types

from rnnbench.kernels.cpu.backward import add_up, backward_rows
from rnnbench.kernels.cpu.buffers import Array, Batch, Buffers, Optimizer, Params, Task, Update
from rnnbench.kernels.cpu.calls import on_stack, value_at, work_call
from rnnbench.kernels.cpu.compiling import kernel, native
from rnnbench.kernels.cpu.flush import restore, start_flushing
from rnnbench.kernels.cpu.forward import forward_rows, loss_rows, pack
from rnnbench.kernels.cpu.optimizer import clip_scale, update_range
from rnnbench.kernels.cpu.share import TILE_ROWS, share, workers_for
from rnnbench.kernels.cpu.words import find_words, forget_words, list_all_words, project, words_backward

# What is asked of `run`. TABLE projects every word of the vocabulary, for any number of PREDICT after it.
TABLE, PREDICT, FORWARD, GRADIENT, TRAIN_STEP = range(5)

# NumPy integers: Numba would compile a kernel again for each literal that it is called with.
_PROJECT, _ROWS, _WORDS, _UPDATE = (np.int64(stage) for stage in range(4))

# Parameters for each worker of the optimizer: below this its memory traffic is not worth a second thread.
LEAST_PARAMS = 65_536
CACHE_LINE_NUMBERS = np.int64(64)


class Call(NamedTuple):
    """What a worker is told: the stage, what differs from stage to stage, and the arguments of `run`."""

    stage: int
    step: int
    scale: float
    rows: Array
    goal: int
    task: Task
    update: Update
    batch: Batch
    initial: Array
    blocks: Array
    params: Params
    grads: Params
    optimizer: Optimizer
    buffers: Buffers


def _work(worker, workers, call_at):
    """One worker's share of one stage; `call_at` is the address of a `Call`."""
    call = value_at(call_at)
    task, (packed, words, trace, partial, answer) = call.task, call.buffers
    mode = start_flushing(task.flush)
    if call.stage == _ROWS:
        lo, hi = share(call.rows.size, worker, workers, TILE_ROWS)
        forward_rows(task, call.batch, call.rows, call.initial, packed, words, trace, answer, lo, hi)
        loss_rows(task, call.batch, call.rows, trace, partial, worker, answer.logits.shape[2], lo, hi)
        if call.goal >= GRADIENT:
            backward_rows(task, call.blocks, packed, trace, partial, worker, lo, hi)
    elif call.stage == _UPDATE:
        lo, hi = share(call.optimizer.params.size, worker, workers, CACHE_LINE_NUMBERS)
        update_range(call.update, call.optimizer, call.scale, call.step, lo, hi)
    else:
        lo, hi = share(words.found[0], worker, workers, TILE_ROWS)
        if call.stage == _PROJECT:
            project(words, call.params.embedding, packed, lo, hi)
        else:
            words_backward(words, packed, trace.delta, call.grads.embedding, partial, worker, lo, hi)
    restore(mode)


@kernel(parallel=True)
def _by_all(work, workers, call_at):
    """The function at address `work` by many workers; all are done when this returns."""
    for worker in prange(workers):
        work_call(work, np.int64(worker), workers, call_at)


@kernel()
def _share_out(work, mode, workers, stage, step, scale, rows, fixed):
    """One stage, on this thread where one worker is enough. `fixed` is the rest of `Call`.

    A pool may start its threads with the floating-point mode of whoever enters it: it is entered in the caller's own
    `mode`, so that no thread is left flushing.
    """
    call_at = on_stack(Call(stage, step, scale, rows, *fixed))
    if workers == 1:
        work_call(work, np.int64(0), workers, call_at)
    else:
        restore(mode)
        _by_all(work, workers, call_at)
        start_flushing(fixed[1].flush)


@kernel()
def _run(work, goal, step, order, task, update, batch, initial, blocks, params, grads, optimizer, buffers):
    """`run`, with the address of `_work` for these types."""
    mode = start_flushing(task.flush)
    packed, words, partial = buffers.packed, buffers.words, buffers.partial
    fixed = (goal, task, update, batch, initial, blocks, params, grads, optimizer, buffers)
    B, most, learns = initial.shape[0], np.int64(partial.loss.shape[0]), goal >= GRADIENT
    (E, H), P = params.W_xh.shape, optimizer.params.size
    step_work = H * H if task.has_words else H * (H + E)
    total, hits = 0.0, 0
    if goal == TABLE:
        pack(packed, params, learns)
        list_all_words(words)
        V = words.found[0]
        _share_out(work, mode, workers_for(V * E * H, V, most), _PROJECT, step, 1.0, order, fixed)
        order = order[:0]
    for start in range(0, order.size, B):
        rows = order[start : start + B]
        steps, U = rows.size * task.T, 0
        row_workers = workers_for(steps * step_work * (3 if learns else 1), rows.size, most)
        word_workers = row_workers
        if goal >= FORWARD:
            pack(packed, params, learns)
        if task.has_words and goal >= FORWARD:
            forget_words(words, grads.embedding)
            find_words(words, batch.tokens, rows, blocks[0, 0] if learns else task.T, row_workers)
            U = words.found[0]
            word_workers = workers_for(2 * U * E * H + steps * H, U, most)
            _share_out(work, mode, workers_for(U * E * H, U, most), _PROJECT, step, 1.0, rows, fixed)
        _share_out(work, mode, row_workers, _ROWS, step, 1.0, rows, fixed)
        if learns and task.has_words:
            _share_out(work, mode, word_workers, _WORDS, step, 1.0, rows, fixed)
        if learns:
            add_up(grads, partial, row_workers, word_workers)
        if goal == TRAIN_STEP:
            scale = clip_scale(update, optimizer, grads, words)
            _share_out(work, mode, min(most, 1 + P // LEAST_PARAMS), _UPDATE, step, scale, rows, fixed)
            step += 1
        for worker in range(row_workers):
            total += partial.loss[worker, 0]
            hits += partial.hits[worker, 0]
    restore(mode)
    return total * task.step_weight / max(1, order.size), hits


_ADDRESSES: dict[np.dtype, int] = {}


def _address_of_work(dtype: np.dtype, fixed: tuple[Any, ...]) -> int:
    """The address of `_work` for this dtype, compiled when first asked for."""
    if dtype not in _ADDRESSES:
        example = Call(0, 0, 1.0, np.zeros(0, np.int64), *fixed)
        signature = types.void(types.int64, types.int64, types.CPointer(numba.typeof(example)))
        _ADDRESSES[dtype] = native(signature, _work)
    return _ADDRESSES[dtype]


def run(
    goal: int,
    step: int,
    order: Array,
    task: Task,
    update: Update,
    batch: Batch,
    initial: Array,
    blocks: Array,
    params: Params,
    grads: Params,
    optimizer: Optimizer,
    buffers: Buffers,
) -> tuple[float, int]:
    """One pass of kind `goal` for each B rows of `order` (n,) int64, rows of `batch`; the last may be shorter.

    initial (B, H) is h_0 of each; blocks (n, 3) int64. `step` is the number of the first optimizer step, from 1.
    Writes `buffers`; from GRADIENT on `grads`; from TRAIN_STEP on the arrays of `optimizer`. Returns the loss, a mean
    over the n rows of what each was in its own pass, and the number of hits. TABLE works once and reads no row.
    """
    fixed = (task, update, batch, initial, blocks, params, grads, optimizer, buffers)
    work = _address_of_work(params.W_hh.dtype, (goal, *fixed))
    loss, hits = _run(work, goal, step, order, *fixed)
    return float(loss), int(hits)
