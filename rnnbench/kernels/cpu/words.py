"""Tokens repeat: each distinct word of a batch is projected once, and its deltas are summed before they are multiplied.

Forward, per distinct word: projected = embedding[word] W_xh + b_h. Backward, D the sum of the deltas of all its
tokens: d embedding[word] = D W_xh^T, and dW_xh = sum over words of embedding[word]^T D.
"""

from __future__ import annotations

from rnnbench.kernels.cpu.buffers import WORD_BLOCK
from rnnbench.kernels.cpu.compiling import kernel
from rnnbench.kernels.cpu.pointwise import fill_rows, zero_rows
from rnnbench.kernels.cpu.products import add_product, add_transposed_product
from rnnbench.kernels.cpu.share import TILE_ROWS, share


@kernel()
def forget_words(words, d_embedding):
    """Undo `find_words`: slot is -1 and d_embedding (V, E) is 0 everywhere again."""
    for u in range(words.found[0]):
        words.slot[words.words[u]] = -1
        for e in range(d_embedding.shape[1]):
            d_embedding[words.words[u], e] = 0
    words.found[0] = 0


@kernel()
def list_all_words(words):
    """Every word of the vocabulary, in the slot of its own number; `words` made with room for all V."""
    for word in range(words.slot.size):
        words.slot[word] = word
        words.words[word] = word
    words.found[0] = words.slot.size


@kernel()
def find_words(words, tokens, rows, first, workers):
    """List the distinct words of tokens[rows], and where in `Trace.delta` their tokens of steps t >= first stand.

    Writes slot, words, starts, places and found of `words`; slot must be -1 everywhere. tokens (N, T), rows (B,).
    `workers` is how many share the rows, which says where delta holds a token.
    """
    T, count = tokens.shape[1], 0
    slot, starts = words.slot, words.starts
    for i in range(rows.size):
        for t in range(T):
            word = tokens[rows[i], t]
            if slot[word] < 0:
                slot[word] = count
                words.words[count] = word
                starts[count] = 0
                count += 1
            if t >= first:
                starts[slot[word]] += 1
    words.found[0] = count
    _places_by_word(words, tokens, rows, first, workers)


@kernel()
def _places_by_word(words, tokens, rows, first, workers):
    """A counting sort: `starts` holds counts on entry, starts on return.

    Each word has its places in the order of batch row, then time: its sum is the same for any number of workers.
    """
    T, starts, count, end = tokens.shape[1], words.starts, words.found[0], 0
    for u in range(count):
        end += starts[u]
        starts[u] = end
    starts[count] = end
    for worker in range(workers - 1, -1, -1):
        lo, hi = share(rows.size, worker, workers, TILE_ROWS)
        for i in range(hi - 1, lo - 1, -1):
            for t in range(T - 1, first - 1, -1):
                u = words.slot[tokens[rows[i], t]]
                starts[u] -= 1
                words.places[starts[u]] = lo * T + t * (hi - lo) + i - lo


@kernel()
def project(words, embedding, packed, lo, hi):
    """Write rows and projected of `words` for words [lo, hi)."""
    E = embedding.shape[1]
    for u in range(lo, hi):
        to, of = words.rows[u], embedding[words.words[u]]
        for e in range(E):
            to[e] = of[e]
    fill_rows(words.projected, lo, hi - lo, packed.b_h)
    add_product(words.projected, lo, words.rows, lo, packed.W_xh, hi - lo, E)


@kernel()
def words_backward(words, packed, delta, d_embedding, partial, worker, lo, hi):
    """Gradients of words [lo, hi): their rows of d_embedding (V, E); sets W_xh of `partial` for this worker."""
    dW_xh, word_delta, word_grad = partial.W_xh[worker], partial.word_delta[worker], partial.word_grad[worker]
    E, H = d_embedding.shape[1], packed.W_xh_T.shape[0]
    zero_rows(dW_xh, 0, E)
    for u0 in range(lo, hi, WORD_BLOCK):
        n = min(WORD_BLOCK, hi - u0)
        zero_rows(word_grad, 0, n)
        _sum_by_word(word_delta, words, delta, u0, n)
        add_product(word_grad, 0, word_delta, 0, packed.W_xh_T, n, H)
        add_transposed_product(dW_xh, words.rows, u0, word_delta, 0, E, n)
        for i in range(n):
            to, of = d_embedding[words.words[u0 + i]], word_grad[i]
            for e in range(E):
                to[e] = of[e]


@kernel()
def _sum_by_word(word_delta, words, delta, u0, n):
    """word_delta[i] = the sum of the deltas of word u0 + i, i < n; word_delta and delta (., H padded)."""
    zero_rows(word_delta, 0, n)
    for i in range(n):
        to = word_delta[i]
        for p in range(words.starts[u0 + i], words.starts[u0 + i + 1]):
            of = delta[words.places[p]]
            for j in range(to.size):
                to[j] += of[j]
