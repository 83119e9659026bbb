"""The arrays that kernels work in, by name, and their making. The contracts are in `kernels/README.md`.

N-padded means: rows filled up to whole vectors (`simd.padded`). W is the number of workers. S is T where every step
emits, else 1. U is the number of distinct words a batch can hold. All C-contiguous, all starting at a cache line.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from rnnbench.kernels.cpu.simd import padded

Array = NDArray[Any]

CACHE_LINE = 64
# Words whose deltas are summed and multiplied together: D and dX of one block stay in cache.
WORD_BLOCK = 64


class Task(NamedTuple):
    """What is fixed for all passes of a session, as numbers."""

    T: int
    S: int
    has_words: bool
    loss: int  # a code of `losses`
    step_weight: float  # 1 / T where losses are averaged over time, else 1
    flush: bool  # subnormals are zero while a kernel runs


class Update(NamedTuple):
    """One optimizer step. A limit that is not asked for is infinity."""

    adam: bool
    learning_rate: float
    beta_1: float
    beta_2: float
    epsilon: float
    clip_value: float
    clip_norm: float


class Params(NamedTuple):
    """Parameters or their gradients, exact shapes: views into one flat array, in this order."""

    embedding: Array  # (V, E); (0, E) for dense input
    W_xh: Array  # (E, H)
    W_hh: Array  # (H, H)
    b_h: Array  # (H,)
    W_hy: Array  # (H, O)
    b_y: Array  # (O,)


class Optimizer(NamedTuple):
    """Flat, all of one length P: parameters, gradients, Adam's moments (length 0 for SGD)."""

    params: Array
    grads: Array
    m: Array
    v: Array


class Batch(NamedTuple):
    """Staged rows; a batch is a list of row numbers. What a problem does not have, has length 0 in its last axes."""

    tokens: Array  # (N, T) int32; (N, 0) for dense input
    inputs: Array  # (N, T, E); (N, 0, E) for an embedding
    classes: Array  # (N, S) int32; (N, 0) for targets
    targets: Array  # (N, S, O); (N, 0, O) for classes


class Packed(NamedTuple):
    """Weights with padded rows, as they stand and transposed: what the products read."""

    W_xh: Array  # (E, H padded)
    W_xh_T: Array  # (H, E padded)
    W_hh: Array  # (H, H padded)
    W_hh_T: Array  # (H, H padded)
    b_h: Array  # (H padded,)
    W_hy: Array  # (H, O padded)
    W_hy_T: Array  # (O, H padded)
    b_y: Array  # (O padded,)


class Words(NamedTuple):
    """The distinct words of a batch."""

    slot: Array  # (V,) int32: place of a word in `words`, -1 where it does not occur
    words: Array  # (U,) int32
    starts: Array  # (U + 1,) int32: the tokens of word u are places[starts[u] : starts[u + 1]]
    places: Array  # (B T,) int32: rows of `Trace.delta`
    rows: Array  # (U, E): their rows of the embedding
    projected: Array  # (U, H padded): rows W_xh + b_h
    found: Array  # (1,) int64: how many distinct words the last batch had


class Trace(NamedTuple):
    """Forward to backward. A worker with rows [lo, hi) owns rows [lo T, hi T) of each, time first; see README.md."""

    x: Array  # (B T, E): dense input, time first
    h: Array  # (B (T + 1), H padded)
    delta: Array  # (B T, H padded)
    dh: Array  # (B, H padded)
    spare: Array  # (B, H padded)
    z: Array  # (B S, O padded)
    dz: Array  # (B S, O padded)


class Partial(NamedTuple):
    """Sums of one worker, added up in the order of workers."""

    W_xh: Array  # (W, E, H padded)
    W_hh: Array  # (W, H, H padded)
    b_h: Array  # (W, H padded)
    W_hy: Array  # (W, H, O padded)
    b_y: Array  # (W, O padded)
    loss: Array  # (W, 8) float64, the first of a cache line each
    hits: Array  # (W, 8) int64
    word_delta: Array  # (W, WORD_BLOCK, H padded)
    word_grad: Array  # (W, WORD_BLOCK, E padded)


class Answer(NamedTuple):
    """What is read after a pass."""

    logits: Array  # (B, S, O)
    state: Array  # (B, H)


class Buffers(NamedTuple):
    """All of the above that one session works in."""

    packed: Packed
    words: Words
    trace: Trace
    partial: Partial
    answer: Answer


class Sizes(NamedTuple):
    """What buffers are made for. V is 0 for dense input."""

    B: int
    T: int
    S: int
    V: int
    E: int
    H: int
    O: int
    workers: int


def aligned(shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """Zeros that start at a cache line: a vector that straddles two lines is read twice."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    raw = np.zeros(size + CACHE_LINE, np.uint8)
    start = -raw.ctypes.data % CACHE_LINE
    return raw[start : start + size].view(dtype).reshape(shape)


def views(flat: Array, shapes: dict[str, tuple[int, ...]], E: int) -> Params:
    """The named parts of a flat array, in the order of `shapes`."""
    parts: dict[str, Array] = {"embedding": flat[:0].reshape(0, E)}
    start = 0
    for name, shape in shapes.items():
        parts[name] = flat[start : start + math.prod(shape)].reshape(shape)
        start += math.prod(shape)
    return Params(**parts)


def make_buffers(sizes: Sizes, dtype: DTypeLike, whole_table: bool = False) -> Buffers:
    """Room for batches of up to B rows. With `whole_table`, room for all V words whatever the batch holds."""
    B, T, S, V, E, H, O, W = sizes
    Hp, Op, Ep = padded(H, dtype), padded(O, dtype), padded(E, dtype)
    U = V if whole_table else min(V, B * T)
    dense_rows = 0 if V else B * T

    def room(*shape: int, kind: DTypeLike = dtype) -> Array:
        return aligned(shape, kind)

    def index(*shape: int) -> Array:
        return aligned(shape, np.int32)

    places = index(B * T if V else 0)
    words = Words(index(V), index(U), index(U + 1), places, room(U, E), room(U, Hp), room(1, kind=np.int64))
    words.slot[:] = -1
    return Buffers(
        Packed(room(E, Hp), room(H, Ep), room(H, Hp), room(H, Hp), room(Hp), room(H, Op), room(O, Hp), room(Op)),
        words,
        Trace(
            room(dense_rows, E),
            room(B * (T + 1), Hp),
            room(B * T, Hp),
            room(B, Hp),
            room(B, Hp),
            room(B * S, Op),
            room(B * S, Op),
        ),
        Partial(
            room(W, E, Hp),
            room(W, H, Hp),
            room(W, Hp),
            room(W, H, Op),
            room(W, Op),
            room(W, 8, kind=np.float64),
            room(W, 8, kind=np.int64),
            room(W, WORD_BLOCK, Hp),
            room(W, WORD_BLOCK, Ep),
        ),
        Answer(room(B, S, O), room(B, H)),
    )
