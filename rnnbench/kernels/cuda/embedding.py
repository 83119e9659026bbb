"""The gradient of the embedding, repeatable: each row is summed by its owner, always in the same order.

    d_embedding[token] = the sum of dx[p] over the places p where that token stands

The few most frequent tokens stand in most places, so tokens go to blocks in turn: of `gridDim.x` blocks, a power of
two, block n owns n, n + gridDim.x, ... A block looks at every place, a chunk at a time, and lists those of its tokens:
an ordered prefix sum over threads says where each thread writes, so the list needs no atomics. Groups of threads then
share the list, a thread a column, and add rows in its order, in sums of their own that are added up at the end.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import cuda

from rnnbench.kernels.cuda.plan import compiled_once

u32 = numba.uint32
PLACES = 8  # of a row of the batch, one after the other: those that a thread looks at together
AHEAD = 8  # rows that are asked for before the first of them is added


@compiled_once
def sum_by_token(dtype: str, threads: int, columns: int, owned: int) -> Any:
    """Write all of d_embedding (V, E) from dx[first:end] (T b, E), of whole steps. `columns` divides `threads`.

    Grid: blocks by token, each with up to `owned` of them, times chunks of `columns` columns. tokens (N, T); row p of
    dx is step p // b of staged row order[offset + p % b].
    """
    kind, zero = getattr(numba, dtype), np.dtype(dtype).type(0)
    groups, chunk, rounds = threads // columns, threads * PLACES, (threads - 1).bit_length()
    lines, shape = (2, threads), (threads // columns, owned, columns)
    nobody = np.uint32(owned)

    @cuda.jit
    def kernel(d_embedding, dx, tokens, order, offset, b, first, end, V, E):
        places = cuda.shared.array(chunk, numba.uint32)
        slots = cuda.shared.array(chunk, numba.uint8)
        counts = cuda.shared.array(lines, numba.uint32)
        sums = cuda.shared.array(shape, kind)
        slot = cuda.local.array(PLACES, numba.uint32)
        ahead = cuda.local.array(AHEAD, kind)
        tx, block, blocks = u32(cuda.threadIdx.x), u32(cuda.blockIdx.x), u32(cuda.gridDim.x)
        group, lane, rows = u32(tx // u32(columns)), u32(tx % u32(columns)), u32(b)
        e, width = u32(u32(cuda.blockIdx.y) * u32(columns) + lane), u32(E)
        # Runs of PLACES steps of a row: how many a row has, and all rows
        start, steps = u32(first // b), u32((end - first) // b)
        runs = u32((steps + u32(PLACES - 1)) // u32(PLACES))
        items, last, mask = u32(rows * runs), u32(steps - u32(1)), u32(blocks - u32(1))
        shift = u32(0)  # slot of a token: how often its turn came before
        while (u32(1) << shift) < blocks:
            shift = u32(shift + u32(1))
        for u in range(owned):
            sums[group, u32(u), lane] = zero
        for low in range(0, rows * runs, threads):
            # The block's tokens among those of one run a thread. All are asked for, the last again where there are less
            item = u32(u32(low) + tx)
            near = min(item, u32(items - u32(1)))
            i = u32(near // runs)
            at, row, count = u32((near - i * runs) * u32(PLACES)), u32(order[offset + i]), u32(0)
            for k in range(PLACES):
                slot[k] = u32(tokens[row, u32(start + min(u32(at + u32(k)), last))])
            for k in range(PLACES):
                mine = (item < items) & (u32(at + u32(k)) < steps) & (u32(slot[k] & mask) == block)
                slot[k] = u32(slot[k] >> shift) if mine else nobody
                count = u32(count + (u32(1) if mine else u32(0)))
            # How many those before it have found: where its own begin in the list
            now = u32(0)
            counts[now, tx] = count
            cuda.syncthreads()
            for k in range(rounds):
                step = u32(1 << k)
                before = counts[now, tx - step] if tx >= step else u32(0)
                counts[u32(1) - now, tx] = u32(counts[now, tx] + before)
                now = u32(u32(1) - now)
                cuda.syncthreads()
            found, to = counts[now, u32(threads - 1)], u32(counts[now, tx] - count)
            for k in range(PLACES):
                if slot[k] != nobody:
                    places[to] = u32((start + at + u32(k)) * rows + i)
                    slots[to] = slot[k]
                    to = u32(to + u32(1))
            cuda.syncthreads()
            # Each group an equal part of the list, AHEAD rows asked for at a time. A run of one token is summed in a
            # register and then goes to the sums of the group
            share = u32((found + u32(groups - 1)) // u32(groups))
            h, stop = u32(group * share), u32(min(found, group * share + share))
            run, sum_of_run = nobody, zero
            while h < stop:
                for s in range(AHEAD):
                    near = u32(h + u32(s))
                    ahead[s] = dx[places[near], e] if near < stop and e < width else zero
                for s in range(AHEAD):
                    near = u32(h + u32(s))
                    if near < stop:
                        if slots[near] != run:
                            if run != nobody:
                                sums[group, run, lane] += sum_of_run
                            run, sum_of_run = u32(slots[near]), zero
                        sum_of_run += ahead[s]
                h = u32(h + u32(AHEAD))
            if run != nobody:
                sums[group, run, lane] += sum_of_run
            cuda.syncthreads()
        # The groups' sums in their order; a token that stands nowhere has zeros
        for u in range(group, owned, groups):
            token = u32((u32(u) << shift) + block)
            if token < u32(V) and e < width:
                total_of_token = zero
                for g in range(groups):
                    total_of_token += sums[u32(g), u32(u), lane]
                d_embedding[token, e] = total_of_token

    return kernel
