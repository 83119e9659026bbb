"""Head and loss in one launch: z = h W_hy + b_y, and of each output its loss, its gradient, and whether it is right."""

from __future__ import annotations

from typing import Any

from numba import cuda

from rnnbench.kernels.cuda.losses import loss_and_gradient
from rnnbench.kernels.cuda.plan import compiled_once


@compiled_once
def read_out(dtype: str, code: int, threads: int, rows: int) -> Any:
    """z (S b, O) from h[first:], and dz (S b, O), losses and correct (., S) from row `at` on. A block: `rows` outputs.

    Output p = s b + i is emitted by row i, which is order[offset + i] of the staged ones. h (., H), W (H, O),
    bias (O,). `scale` turns the gradient of one loss into that of the mean over the batch.
    """
    loss_of = loss_and_gradient(dtype, code)

    @cuda.jit
    def kernel(z, dz, losses, correct, at, h, first, W, bias, classes, targets, order, offset, b, S, H, O, scale):
        start, end = cuda.blockIdx.x * rows, S * b
        # Logits: a thread a number
        for q in range(cuda.threadIdx.x, rows * O, threads):
            p, o = start + q // O, q % O
            if p < end:
                total = bias[o]
                for k in range(H):
                    total += h[first + p, k] * W[k, o]
                z[p, o] = total
        cuda.syncthreads()
        # Losses: a thread an output, which needs all of its logits
        for p in range(start + cuda.threadIdx.x, min(start + rows, end), threads):
            s = p // b
            i = p - s * b
            loss, right = loss_of(z, dz, p, classes, targets, order[offset + i], s, O, scale)
            losses[at + i, s] = loss
            correct[at + i, s] = right

    return kernel
