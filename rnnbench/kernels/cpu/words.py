"""Tokens repeat: each distinct word of a batch is projected once, and its deltas are summed before they are multiplied.

Forward, per distinct word: projected = embedding[word] W_xh + b_h. Backward, D the sum of the deltas of all its
tokens: d embedding[word] = D W_xh^T, and dW_xh = sum over words of embedding[word]^T D.
"""

from __future__ import annotations

from rnnbench.kernels.cpu.calls import apart
from rnnbench.kernels.cpu.context import WORD_BLOCK
from rnnbench.kernels.cpu.pointwise import add_rows, clear, copy, set_rows
from rnnbench.kernels.cpu.products import affine, outer_products
from rnnbench.kernels.cpu.share import share


@apart
def forget_words(c):
    """Undo `find_words`: slot is -1 and d_embedding 0 everywhere again."""
    slot, words, d_embedding = c.slot, c.words, c.d_embedding
    for u in range(c.found):
        slot[words[u]] = -1
        clear(d_embedding[words[u]])
    c.found = 0


@apart
def list_all_words(c):
    """Every word of the vocabulary, in the slot of its own number; `words` made with room for all V."""
    slot, words = c.slot, c.words
    for word in range(slot.size):
        slot[word] = word
        words[word] = word
    c.found = c.V


@apart
def find_words(c):
    """List the distinct words of the batch, and the slot of each token where `delta` has it. `slot` must be -1."""
    T, rows, tokens, slot, words, slots = c.T, c.rows, c.tokens, c.slot, c.words, c.slots
    count = 0
    for worker in range(c.row_shares):
        lo, hi = share(c.b, worker, c.row_shares)
        for i in range(lo, hi):
            row, place = tokens[rows[i]], lo * T + i - lo
            for t in range(T):
                word = row[t]
                if slot[word] < 0:
                    slot[word] = count
                    words[count] = word
                    count += 1
                slots[place] = slot[word]
                place += hi - lo
    c.found = count


@apart
def list_places(c):
    """The rows of `delta` that hold each word, of steps from the first that a loss reaches: a counting sort.

    Within a word they stand in their order in memory, so that a sum is the same each time. Needs `find_words`.
    """
    T, starts, slots, places = c.T, c.starts, c.slots, c.places
    for u in range(c.found + 1):
        starts[u] = 0
    for worker in range(c.row_shares):
        lo, hi = share(c.b, worker, c.row_shares)
        for place in range(lo * T + c.first * (hi - lo), hi * T):
            starts[slots[place]] += 1
    end = 0
    for u in range(c.found + 1):
        end += starts[u]
        starts[u] = end
    for worker in range(c.row_shares - 1, -1, -1):
        lo, hi = share(c.b, worker, c.row_shares)
        for place in range(hi * T - 1, lo * T + c.first * (hi - lo) - 1, -1):
            u = slots[place]
            starts[u] -= 1
            places[starts[u]] = place


@apart
def project_words(c, lo, hi):
    """Write word_rows and projected for words [lo, hi)."""
    words, word_rows, embedding = c.words, c.word_rows, c.embedding
    for u in range(lo, hi):
        copy(word_rows[u], embedding[words[u]])
    affine(c.projected, lo, c.b_h_padded, word_rows, lo, c.W_xh_panels, hi - lo, 0, c.Hp, c.E)


@apart
def _sum_by_word(c, first, u, n):
    """word_delta[first + i] = the sum of the deltas of word u + i, i < n."""
    starts, places, delta, sums = c.starts, c.places, c.delta, c.word_delta
    for i in range(n):
        begin, end = starts[u + i], starts[u + i + 1]
        if begin == end:
            clear(sums[first + i])
            continue
        set_rows(sums, first + i, delta, places[begin], 1)
        for p in range(begin + 1, end):
            add_rows(sums, first + i, delta, places[p], 1)


@apart
def words_backward(c, worker, lo, hi):
    """Gradients of words [lo, hi): their rows of d_embedding, and this worker's part of dW_xh."""
    words, d_embedding, sums, grads, dW_xh = c.words, c.d_embedding, c.word_delta, c.word_grad, c.part_W_xh
    first = worker * WORD_BLOCK
    for e in range(worker * c.E, (worker + 1) * c.E):
        clear(dW_xh[e])
    for u in range(lo, hi, WORD_BLOCK):
        n = min(WORD_BLOCK, hi - u)
        _sum_by_word(c, first, u, n)
        affine(grads, first, c.zeros, sums, first, c.W_xh_T_panels, n, 0, c.Ep, c.H)
        outer_products(dW_xh, worker * c.E, False, c.zeros, c.word_rows, u, sums, first, c.E, 0, c.Hp, n)
        for i in range(n):
            copy(d_embedding[words[u + i]], grads[first + i])
