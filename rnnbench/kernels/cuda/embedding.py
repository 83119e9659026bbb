"""The gradient of the embedding, repeatable: each row is summed by its owner, in the order of time.

    d_embedding[token] = the sum of dx[p] over the places p where that token stands

A block owns a few tokens of the vocabulary and looks at every token of the batch, a tile of them at a time; a thread
owns columns of those. So nothing is added by two threads, there is nothing to sort and no atomics, at the price
of every block reading all tokens (4 bytes each, mostly from the second cache).
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import cuda

from rnnbench.kernels.cuda.plan import compiled_once


@compiled_once
def sum_by_token(dtype: str, threads: int, tokens_owned: int) -> Any:
    """Write all of d_embedding (V, E) from dx[first:end] (T b, E). A block of `threads` for `tokens_owned` tokens.

    tokens (N, T); row p of dx is step p // b of staged row order[offset + p % b].
    """
    zero = np.dtype(dtype).type(0)

    @cuda.jit
    def kernel(d_embedding, dx, tokens, order, offset, b, first, end, V, E):
        tile = cuda.shared.array(threads, numba.int32)
        tx, low = cuda.threadIdx.x, cuda.blockIdx.x * tokens_owned
        owned = min(tokens_owned, V - low)
        for e in range(tx, E, threads):
            for u in range(owned):
                d_embedding[low + u, e] = zero
        # All places of the batch, a tile of them at a time: which of the block's tokens stands there, if any
        for p0 in range(first, end, threads):
            p = p0 + tx
            if p < end:
                t = p // b
                tile[tx] = tokens[order[offset + p - t * b], t] - low
            cuda.syncthreads()
            # The places one after the other, in the order of time; a thread adds its columns
            for q in range(min(threads, end - p0)):
                u = tile[q]
                if 0 <= u < owned:
                    for e in range(tx, E, threads):
                        d_embedding[low + u, e] += dx[p0 + q, e]
            cuda.syncthreads()

    return kernel
