"""Between layers, directions and the head: which states one reads of another, and where its gradient goes.

A direction back counts its steps from a row's end (`layout.step_in_time`), and a row's last state is that after as many
steps as it has. So of rows with lengths what is past the end comes after all else in both directions: nothing reads it,
no gradient comes from there, and a recurrence may compute it or not.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import cuda

from rnnbench.kernels.cuda.layout import state_row, step_in_time, step_row
from rnnbench.kernels.cuda.plan import compiled_once

u32 = numba.uint32


@compiled_once
def join_states(both: bool, ends: bool) -> Any:
    """out (S b, D H), in the order of time: row s b + i has the states of row i after step T - S + s, or with S = 1
    after its last, of one direction or both side by side. A thread a number.

    ahead, back ((T + 1) b, H), order (.,), lengths (N,).
    """
    step_of = step_in_time(True, ends)

    @cuda.jit
    def kernel(out, ahead, back, order, offset, lengths, b, T, S, H):
        q = u32(cuda.grid(1))
        b, T, S, H = u32(b), u32(T), u32(S), u32(H)
        width = u32(u32(2) * H) if both else H
        p = u32(q // width)
        j, s = u32(q - p * width), u32(p // b)
        if s < S:
            i, t = u32(p - s * b), u32(T - S + s)
            row = u32(order[offset + i]) if ends else u32(0)
            steps = u32(lengths[row]) if ends else T
            if j < H:
                out[p, j] = ahead[state_row(steps if S == 1 else u32(t + u32(1)), b, i), j]
            else:
                own = u32(step_of(lengths, row, T, t) + u32(1))
                out[p, j] = back[state_row(steps if S == 1 else own, b, i), u32(j - H)]

    return kernel


@compiled_once
def place_at_ends(dtype: str) -> Any:
    """dh (T b, H) = columns [first, first + H) of d (b, .) at each row's last step, 0 elsewhere. order (.,),
    lengths (N,). A thread a number.
    """
    zero = np.dtype(dtype).type(0)

    @cuda.jit
    def kernel(dh, d, first, order, offset, lengths, b, T, H):
        q = u32(cuda.grid(1))
        b, T, H = u32(b), u32(T), u32(H)
        p = u32(q // H)
        j, t = u32(q - p * H), u32(p // b)
        if t < T:
            i = u32(p - t * b)
            last = u32(t + u32(1)) == u32(lengths[u32(order[offset + i])])
            dh[step_row(t, b, i), j] = d[i, u32(first + j)] if last else zero

    return kernel


@compiled_once
def count_emitted() -> Any:
    """emitted (1,) = the sum of the batch's lengths, or 1 where that is 0; order (.,), lengths (N,). One block."""

    @cuda.jit
    def kernel(emitted, order, offset, lengths, b):
        total = cuda.shared.array(1, numba.int32)
        if cuda.threadIdx.x == 0:
            total[0] = 0
        cuda.syncthreads()
        for i in range(cuda.threadIdx.x, b, cuda.blockDim.x):
            cuda.atomic.add(total, 0, lengths[order[offset + i]])  # of integers: the same in any order
        cuda.syncthreads()
        if cuda.threadIdx.x == 0:
            emitted[0] = max(1, total[0])

    return kernel
