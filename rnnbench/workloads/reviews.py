"""Reviews as flat arrays, and how they become rows of T tokens: Keras's order, ids and padding, without a loop."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from rnnbench.workloads.base import Dataset, Split

VOCABULARY = 10_000
PAD, START, OUT_OF_VOCABULARY, INDEX_FROM = 0, 1, 2, 3
SHUFFLE_SEED = 113


class Padding(StrEnum):
    """Which end of a short review is filled with `PAD`. A long one always keeps its last tokens."""

    POST = "post"
    PRE = "pre"


@dataclass(frozen=True)
class Reviews:
    """N reviews. Review i is `tokens[offsets[i]:offsets[i + 1]]`, word ranks from 1 (the most frequent).

    tokens (S,) int32, S the sum of the lengths; offsets (N + 1,) int64; labels (N,) uint8, 1 is positive.
    Raises ValueError where these do not fit together.
    """

    tokens: NDArray[np.int32]
    offsets: NDArray[np.int64]
    labels: NDArray[np.uint8]

    def __post_init__(self) -> None:
        for name, dtype in (("tokens", np.int32), ("offsets", np.int64), ("labels", np.uint8)):
            array = getattr(self, name)
            if array.dtype != dtype or array.ndim != 1:
                raise ValueError(f"{name} are {array.dtype} {array.shape}; one axis of {np.dtype(dtype)} is needed")
        if len(self.offsets) != len(self.labels) + 1:
            raise ValueError(f"{len(self.offsets)} offsets for {len(self.labels)} labels; one more is needed")
        if not len(self.tokens):
            raise ValueError("there are 0 tokens; at least 1 is needed")
        if self.offsets[0] != 0 or self.offsets[-1] != len(self.tokens) or (np.diff(self.offsets) < 0).any():
            raise ValueError(f"offsets must rise from 0 to {len(self.tokens)}, the number of tokens")
        if not 0 <= int(self.tokens.min()) <= int(self.tokens.max()) < 2**31 - INDEX_FROM:
            raise ValueError(f"a token is outside [0, 2^31 - {INDEX_FROM})")
        if int(self.labels.max()) > 1:
            raise ValueError(f"label {int(self.labels.max())} is neither 0 nor 1")


@dataclass(frozen=True)
class Corpus:
    """The training and the test reviews, in the order of the file."""

    train: Reviews
    test: Reviews


def pad(reviews: Reviews, T: int, padding: Padding, order: NDArray[np.intp]) -> NDArray[np.int32]:
    """The reviews in the given order as rows (N, T) int32.

    A review is `START`, then each word's rank + 3, as `OUT_OF_VOCABULARY` where that is `VOCABULARY` or more. Its last
    T are kept; what is missing is `PAD`, at the end or in front.
    """
    start, end = reviews.offsets[:-1][order, None], reviews.offsets[1:][order, None]
    first = end - T if padding is Padding.PRE else np.maximum(start - 1, end - T)
    at = first + np.arange(T)  # START stands at start - 1, padding outside [start - 1, end)
    ids = reviews.tokens.take(at, mode="clip") + np.int32(INDEX_FROM)
    ids[ids >= VOCABULARY] = OUT_OF_VOCABULARY
    ids[(at < start) | (at >= end)] = PAD
    ids[at == start - 1] = START
    return ids


def real_lengths(reviews: Reviews, T: int, order: NDArray[np.intp]) -> NDArray[np.int32]:
    """How many of the T tokens of each row of `pad` are no padding, (N,)."""
    return np.minimum(np.diff(reviews.offsets)[order] + 1, T).astype(np.int32)  # START and the words


def _shuffled(reviews: Reviews, T: int, padding: Padding, lengths: bool, rng: np.random.RandomState) -> Split:
    order = np.arange(len(reviews.labels))
    rng.shuffle(order)
    labels = reviews.labels[order].astype(np.float32)
    return Split(pad(reviews, T, padding, order), labels, real_lengths(reviews, T, order) if lengths else None)


def dataset(
    corpus: Corpus, T: int, padding: Padding, validation: float, source: str, *, lengths: bool = False
) -> Dataset:
    """Shuffle as Keras does, train first and test second from one generator; the last rows validate.

    `validation` is the share of the training rows, 0 for none; Keras rounds the rows that are left down. With
    `lengths`, which go with `Padding.POST`, rows end where their reviews do.
    """
    rng = np.random.RandomState(SHUFFLE_SEED)
    train, test = (_shuffled(reviews, T, padding, lengths, rng) for reviews in (corpus.train, corpus.test))
    n = len(train.inputs)
    kept = int(n * (1 - validation))
    return Dataset(
        train=train.part(0, kept),
        test=test,
        validation=train.part(kept, n) if validation else None,
        source=source,
    )
