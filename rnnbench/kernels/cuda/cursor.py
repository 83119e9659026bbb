"""Where training is, in device memory, for steps that the host does not count.

cursor (2,) int64: the number of the next step, from 1, and the place in the order of rows where its batch begins.
"""

from __future__ import annotations

from typing import Any

from numba import cuda

from rnnbench.kernels.cuda.plan import compiled_once

STEP, PLACE = 0, 1


@compiled_once
def take_rows() -> Any:
    """now (b,) = the rows of the batch from order (n,). A thread a row."""

    @cuda.jit
    def kernel(now, order, cursor):
        i = cuda.grid(1)
        if i < now.shape[0]:
            now[i] = order[cursor[PLACE] + i]

    return kernel


@compiled_once
def keep_losses() -> Any:
    """Losses and correct (b, S) of a batch to its place in those of an epoch, (n, S). A thread a number."""

    @cuda.jit
    def kernel(all_losses, all_correct, losses, correct, cursor, S):
        q = cuda.grid(1)
        i = q // S
        if i < losses.shape[0]:
            all_losses[cursor[PLACE] + i, q - i * S] = losses[i, q - i * S]
            all_correct[cursor[PLACE] + i, q - i * S] = correct[i, q - i * S]

    return kernel


@compiled_once
def advance_cursor() -> Any:
    """One step further, and `rows` rows. One thread."""

    @cuda.jit
    def kernel(cursor, rows):
        cursor[STEP] += 1
        cursor[PLACE] += rows

    return kernel
