"""States of both directions of a layer side by side, in the order of time: what the next layer and the head read."""

from __future__ import annotations

from typing import Any

import numba
from numba import cuda

from rnnbench.kernels.cuda.layout import state_row
from rnnbench.kernels.cuda.plan import compiled_once

u32 = numba.uint32


@compiled_once
def join_directions() -> Any:
    """out (S b, 2 H): row s b + i has the states of row i after step T - S + s. ahead, back ((T + 1) b, H). A thread a
    number.

    A direction back counts its steps from the end: after real step t it has done T - t of them. With S = 1 both are at
    their last.
    """

    @cuda.jit
    def kernel(out, ahead, back, b, T, S, H):
        q = u32(cuda.grid(1))
        b, T, S, H = u32(b), u32(T), u32(S), u32(H)
        p = u32(q // (u32(2) * H))
        j, s = u32(q - p * u32(2) * H), u32(p // b)
        if s < S:
            i = u32(p - s * b)
            if j < H:
                out[p, j] = ahead[state_row(u32(T - S + s + u32(1)), b, i), j]
            else:
                out[p, j] = back[state_row(u32(T - s), b, i), u32(j - H)]

    return kernel
