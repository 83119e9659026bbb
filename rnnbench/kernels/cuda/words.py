"""The gradient of the embedding, repeatable: each row is summed by its owner, in the order of time.

    d_embedding[word] = the sum of dx[p] over the tokens p that are that word

A block owns a few words of the vocabulary and looks at every token of the batch, a tile of them at a time; a thread
owns columns of those words. So nothing is added by two threads, there is nothing to sort and no atomics, at the price
of every block reading all tokens (4 bytes each, mostly from the second cache).
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import cuda

from rnnbench.kernels.cuda.plan import compiled_once


@compiled_once
def sum_by_word(dtype: str, threads: int, words: int) -> Any:
    """Write all of d_embedding (V, E) from dx[first:end] (T b, E). A block of `threads` threads for `words` words.

    tokens (N, T); row p of dx is step p // b of staged row order[offset + p % b].
    """
    zero = np.dtype(dtype).type(0)

    @cuda.jit
    def kernel(d_embedding, dx, tokens, order, offset, b, first, end, V, E):
        tile = cuda.shared.array(threads, numba.int32)
        tx, low = cuda.threadIdx.x, cuda.blockIdx.x * words
        owned = min(words, V - low)
        for e in range(tx, E, threads):
            for u in range(owned):
                d_embedding[low + u, e] = zero
        for p0 in range(first, end, threads):
            p = p0 + tx
            if p < end:
                t = p // b
                tile[tx] = tokens[order[offset + p - t * b], t] - low
            cuda.syncthreads()
            for q in range(min(threads, end - p0)):
                u = tile[q]
                if 0 <= u < owned:
                    for e in range(tx, E, threads):
                        d_embedding[low + u, e] += dx[p0 + q, e]
            cuda.syncthreads()

    return kernel
