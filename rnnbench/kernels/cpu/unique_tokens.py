"""Tokens repeat: each unique one of a batch is projected once, and its deltas are summed before they are multiplied.

Forward, for each unique token: projected = embedding[token] W_xh + b_h, a row of a table; the slot of a token is its
row there, and the recurrent product adds it on its way into the registers. Backward, d the sum of the deltas of all
occurrences of a token: d embedding[token] = d W_xh^T, and dW_xh = sum over unique tokens of embedding[token]^T d.

Unique among which rows depends on sizes, and not on what the tokens are. Where W_xh is large, among those of the
batch: no row is projected twice, and finding tokens, projecting them and summing their deltas are stages of their own.
Where it is small (`OWN_TOKENS_WEIGHTS`) and rows are shared, each worker does all of that with the tokens of its own
rows, in its share of the rows: a token in the rows of two is projected by both, which costs less than the stages, and
than to read what another core has written. The caller then adds up d embedding, worker by worker.
"""

from __future__ import annotations

import numpy as np

from rnnbench.kernels.cpu.calls import symbol_kernel
from rnnbench.kernels.cpu.compiling import NONE, ONE, cpu_kernel, inlined
from rnnbench.kernels.cpu.layout import FIRST, rows_taking, slot_row
from rnnbench.kernels.cpu.pass_record import TOKEN_BLOCK, record_at
from rnnbench.kernels.cpu.pointwise import add_rows, copy, set_row, zero_row
from rnnbench.kernels.cpu.products import affine, outer_products
from rnnbench.kernels.cpu.shares import share_range

ALL = np.int64(-1)  # in place of a worker: the tokens of the whole batch


@symbol_kernel
def forget_unique_tokens(c):
    """Undo `find_unique_tokens`: slot_of_token is -1 and d_embedding 0 everywhere again."""
    slot_of_token, unique, d_embedding = c.slot_of_token, c.unique, c.d_embedding
    # Only where the batch before has written: V may be large
    for u in range(c.unique_n):
        slot_of_token[unique[u]] = -1
        if c.embedding_learnt:
            zero_row(d_embedding[unique[u]])
    c.unique_n = c.embedding_learnt = 0


@symbol_kernel
def list_vocabulary(c):
    """Every token of the vocabulary, in the slot of its own number; `unique` made with room for all V."""
    slot_of_token, unique = c.slot_of_token, c.unique
    for token in range(slot_of_token.size):
        slot_of_token[token] = token
        unique[token] = token
    c.unique_n = c.V


@symbol_kernel
def turn_slots(c, lo, b, r):
    """The slots of rows r to r + b in the order of the direction back, from those of the one forward in time."""
    slots, turned = c.slots, record_at(c, c.layers[1]).slots
    for i in range(b):
        length = c.lengths[c.rows[r + i]] if c.has_lengths else c.T
        for t in range(length):
            turned[slot_row(c, lo, b, length - 1 - t) + i] = slots[slot_row(c, lo, b, t) + i]


@inlined
def _workers(c, worker):
    """Which workers' rows, first and end: one's, or, of worker ALL, those of all."""
    return (worker, worker + 1) if worker >= 0 else (0, c.row_shares)


@cpu_kernel()
def first_slot(c, worker):
    """Where the slots of a worker begin, of ALL 0: room for as many as it has tokens, and for the end of `starts`."""
    return share_range(c.b, worker, c.row_shares)[0] * c.T + worker if worker >= 0 else 0


@symbol_kernel
def find_unique_tokens(c, worker):
    """List the unique tokens of a worker's rows, or those of ALL, and the slot of each token where `delta` has it.

    slot_of_token must be -1 everywhere; a worker's own is so again afterwards.
    """
    rows, tokens, slots, first = c.rows, c.tokens, c.slots, first_slot(c, worker)
    slot_of_token, unique = c.slot_of_token, c.unique
    if worker >= 0:
        slot_of_token, unique = c.own_slot_of_token[worker], c.own_unique
    count, have_lengths = first, c.has_lengths != 0
    begin, end = _workers(c, worker)
    for w in range(begin, end):
        lo, hi = share_range(c.b, w, c.row_shares)
        # Tokens are read row by row, as they lie, and slots written with a stride: they are time first, like delta
        for i in range(lo, hi):
            row, place = tokens[rows[i]], slot_row(c, lo, hi - lo, FIRST) + i - lo
            for t in range(c.lengths[rows[i]] if have_lengths else c.T):
                token = row[t]
                if slot_of_token[token] < 0:
                    slot_of_token[token] = count
                    unique[count] = token
                    count += 1
                slots[place] = slot_of_token[token]
                place += rows_taking(c, lo, hi - lo, t) if have_lengths else hi - lo
    if worker >= 0:
        c.own_end[worker, 0] = count
        for u in range(first, count):
            slot_of_token[unique[u]] = -1
    else:
        c.unique_n = count
    if c.directions == 2:
        for w in range(begin, end):
            lo, hi = share_range(c.b, w, c.row_shares)
            turn_slots(c, lo, hi - lo, lo)


@symbol_kernel
def list_places(c, n, worker):
    """The rows of layer n's `delta` that hold each token, of steps from the first that a loss reaches: a counting sort.

    Tokens of one worker's rows, or of ALL. Within a token they stand in their order in memory, so that a sum is the
    same each time. Needs the slots. With all T steps kept, row p of delta is that of slot p.
    """
    layer = record_at(c, c.layers[n])
    T, starts, slots, places = c.T, layer.starts, layer.slots, layer.places
    first, last = first_slot(c, worker), c.own_end[worker, 0] if worker >= 0 else c.unique_n
    begin, end = _workers(c, worker)
    # How often each slot occurs ...
    for u in range(first, last + 1):
        starts[u] = 0
    for w in range(begin, end):
        lo, hi = share_range(c.b, w, c.row_shares)
        for place in range(slot_row(c, lo, hi - lo, c.first), slot_row(c, lo, hi - lo, T)):
            starts[slots[place]] += 1
    # ... added up, so that starts[u] is where the places of slot u end ...
    place = share_range(c.b, begin, c.row_shares)[0] * T
    for u in range(first, last + 1):
        place += starts[u]
        starts[u] = place
    # ... and filled from there downwards, the last place first, until it is where they start
    for w in range(end - 1, begin - 1, -1):
        lo, hi = share_range(c.b, w, c.row_shares)
        for place in range(slot_row(c, lo, hi - lo, T) - 1, slot_row(c, lo, hi - lo, c.first) - 1, -1):
            u = slots[place]
            starts[u] -= 1
            places[starts[u]] = place


@symbol_kernel
def project_unique_tokens(c, lo, hi):
    """Write unique_embedding and, where steps gather it, projected, for slots [lo, hi)."""
    unique, unique_embedding, embedding = c.own_unique if c.own_tokens else c.unique, c.unique_embedding, c.embedding
    for u in range(lo, hi):
        copy(unique_embedding[u], embedding[unique[u]])
    for n in range(c.directions):
        layer = record_at(c, c.layers[n])
        if not layer.gathers:
            continue
        bias = layer.b_h_padded[0]
        affine(layer.projected, lo, bias, unique_embedding, lo, layer.W_xh_panels, hi - lo, 0, c.GHp, c.E)


@symbol_kernel
def _sum_by_token(c, first, u, n):
    """token_delta[first + i] = the sum of layer c's deltas of slot u + i, i < n."""
    starts, places, delta, sums = c.starts, c.places, c.delta, c.token_delta
    for i in range(n):
        begin, end = starts[u + i], starts[u + i + 1]
        if begin == end:  # it occurs in steps that no loss reaches
            zero_row(sums[first + i])
            continue
        set_row(sums, first + i, delta, np.int64(places[begin]), c.GHp)
        for p in range(begin + 1, end):
            add_rows(sums, first + i, delta, np.int64(places[p]), ONE, NONE, c.GHp)


@symbol_kernel
def embedding_gradients(c, layer_n, adds, worker, lo, hi):
    """Gradients of slots [lo, hi) by one direction: this worker's part of dW_xh, and where tokens learn their rows of
    d_embedding, or, of a worker's own, of own_gradient; if it `adds`, to those of the direction before.
    """
    layer = record_at(c, c.layers[layer_n])
    unique, d_embedding, sums, gradient, dW_xh = (
        c.unique,
        c.d_embedding,
        c.token_delta,
        c.token_gradient,
        layer.part_W_xh,
    )
    first = worker * TOKEN_BLOCK
    for e in range(worker * c.E, (worker + 1) * c.E):
        zero_row(dW_xh[e])
    # A block of tokens at a time, so that its sums are still in the cache when the two products read them
    for u in range(lo, hi, TOKEN_BLOCK):
        n = min(TOKEN_BLOCK, hi - u)
        _sum_by_token(layer, first, u, n)
        if c.first > 0:  # tokens that no loss reaches: not 0 times what may be NaN
            for i in range(n):
                if layer.starts[u + i] == layer.starts[u + i + 1]:
                    zero_row(c.unique_embedding[u + i])
        outer_products(dW_xh, worker * c.E, False, c.zeros, c.unique_embedding, u, sums, first, c.E, 0, c.GHp, n)
        if not c.learns_tokens:
            continue
        affine(gradient, first, c.zeros, sums, first, layer.W_xh_T_panels, n, 0, c.Ep, c.delta_width)
        for i in range(n):
            row, more = c.own_gradient[u + i] if c.own_tokens else d_embedding[unique[u + i]], gradient[first + i]
            if adds:
                for e in range(row.size):
                    row[e] += more[e]
            elif layer.starts[u + i] == layer.starts[u + i + 1]:
                zero_row(row)
            else:
                copy(row, more)


@symbol_kernel
def add_own_gradients(c):
    """d_embedding and the unique tokens of the batch from those of the workers, in the order of workers."""
    slot_of_token, unique, d_embedding = c.slot_of_token, c.unique, c.d_embedding
    forget_unique_tokens(c)
    count = 0
    for worker in range(c.row_shares):
        for u in range(first_slot(c, worker), c.own_end[worker, 0]):
            token, more = c.own_unique[u], c.own_gradient[u]
            unique[count] = token  # to stay if it is new
            count += slot_of_token[token] < 0
            slot_of_token[token] = 0
            row = d_embedding[token]
            for e in range(row.size):
                row[e] += more[e]
    c.unique_n, c.embedding_learnt = count, True
