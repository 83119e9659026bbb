"""Made-up reviews for machines without IMDB: Zipf words, review-like lengths, a label that can be learned.

A review's label is drawn first. Its words are then drawn one by one from Zipf's law, tilted towards the words of that
label, more so near the end. Last, a share of the labels is turned over: nobody can reach an accuracy of 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rnnbench.workloads.base import Dataset, Source
from rnnbench.workloads.imdb import N, reviews_of_50, reviews_of_200
from rnnbench.workloads.reviews import INDEX_FROM, VOCABULARY, Corpus, Padding, Reviews, dataset

# Fitted by maximum likelihood to all 50,000 reviews of the real file (Maas et al., 2011), with START not counted.
# Lengths: log-normal; mean, median, 5th and 95th percentile 234, 175, 63, 597 there and 232, 189, 65, 544 here.
# Words: frequency of rank r proportional to (r + 2.82)^-1.125 (Zipf and Mandelbrot); the first 10, 100 and 1000 are
# 23.8, 51.4 and 76.8 % of the text there and 23.8, 52.2 and 76.3 % here. The rest, 5.46 %, is outside the vocabulary.
LOG_LENGTH_MEAN, LOG_LENGTH_DEVIATION = 5.2405, 0.6444
SHORTEST, LONGEST = 6, 2_494
KNOWN = VOCABULARY - INDEX_FROM - 1  # ranks 1 to 9996 have ids 4 to 9999; rank 9997 stands for all other words
ZIPF_POWER, ZIPF_SHIFT, UNKNOWN_SHARE = 1.1255, 2.824, 0.0546

# Chosen, so that imdb-synthetic-50 is about as hard as the real one: naive Bayes reaches 0.83 here and 0.80 there.
# A review's last words are its verdict, and a network that at first remembers a few steps only can start from them. In
# real reviews too: by counting words, the last 15 tell the label with 0.73, the 15 before them with 0.69 (0.81, 0.61).
NEUTRAL = 50  # the most frequent words are grammar: 43 % of the real text, and they carry no feeling
LOADED_SHARE = 0.1  # of the others, how many carry feeling
BODY_SCALE, VERDICT_SCALE = 0.6, 1.5  # how strongly
VERDICT_WORDS = 15
TURNED_SHARE = 0.1

_GRID_BITS = 20


def word_feelings(rng: np.random.Generator) -> NDArray[np.float64]:
    """How strongly each known word leans to the positive, (KNOWN,): 0 for most, normal for the loaded ones."""
    feelings = rng.standard_normal(KNOWN) * (rng.random(KNOWN) < LOADED_SHARE)
    feelings[:NEUTRAL] = 0.0
    return feelings


def word_shares(feelings: NDArray[np.float64]) -> NDArray[np.float64]:
    """The distribution of ranks 1 to KNOWN + 1 in reviews of one label, (KNOWN + 1,)."""
    weights = (np.arange(1, KNOWN + 1) + ZIPF_SHIFT) ** -ZIPF_POWER * np.exp(feelings)
    return np.append(weights / weights.sum() * (1 - UNKNOWN_SHARE), UNKNOWN_SHARE)


def _quantiles(shares: NDArray[np.float64]) -> NDArray[np.uint16]:
    """The inverse of the distribution on an even grid, (2^20,) uint16: draw a cell, read a rank."""
    grid = (np.arange(1 << _GRID_BITS) + 0.5) / (1 << _GRID_BITS)
    return np.searchsorted(shares.cumsum()[:-1], grid).astype(np.uint16) + np.uint16(1)


def _reviews(rng: np.random.Generator, tables: NDArray[np.uint16]) -> Reviews:
    """N reviews, half of each label before some are turned over. `tables` (4, 2^20): see `make`."""
    lengths = rng.lognormal(LOG_LENGTH_MEAN, LOG_LENGTH_DEVIATION, N).round().clip(SHORTEST, LONGEST).astype(np.int64)
    offsets = np.concatenate([np.zeros(1, np.int64), lengths.cumsum()])
    labels = rng.permutation(np.arange(N, dtype=np.uint8) % 2)
    table = np.repeat(labels, lengths)
    verdict = offsets[1:, None] - 1 - np.arange(VERDICT_WORDS)
    table[verdict[verdict >= offsets[:-1, None]]] += 2
    cells = rng.integers(0, 1 << _GRID_BITS, len(table), dtype=np.uint32) + (table.astype(np.uint32) << _GRID_BITS)
    turned = (rng.random(N) < TURNED_SHARE).astype(np.uint8)
    return Reviews(tables.ravel()[cells].astype(np.int32), offsets, np.bitwise_xor(labels, turned))


def make(seed: int) -> Corpus:
    """The training and the test reviews of a seed. The same seed gives the same reviews at every T."""
    words, train, test = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(3))
    feelings = word_feelings(words)
    scales = (-BODY_SCALE, BODY_SCALE, -VERDICT_SCALE, VERDICT_SCALE)  # negative body, positive body, the verdicts
    tables = np.stack([_quantiles(word_shares(scale * feelings)) for scale in scales])
    return Corpus(_reviews(train, tables), _reviews(test, tables))


def _load(source: Source, *, padding: Padding, validation: float, lengths: bool = False) -> Dataset:
    said = f"synthetic stand-in for IMDB, seed {source.seed}"
    return dataset(make(source.seed), source.T, padding, validation, said, lengths=lengths)


_SHAPED = "made-up reviews shaped as {}, for machines without the data"
IMDB_SYNTHETIC_50 = reviews_of_50("imdb-synthetic-50", _load, summary=_SHAPED.format("imdb-50"))
IMDB_SYNTHETIC_200 = reviews_of_200("imdb-synthetic-200", _load, Padding.POST, summary=_SHAPED.format("imdb-200"))
IMDB_SYNTHETIC_200_PRE = reviews_of_200(
    "imdb-synthetic-200-pre", _load, Padding.PRE, summary=_SHAPED.format("imdb-200-pre")
)
IMDB_SYNTHETIC_200_LENGTHS = reviews_of_200(
    "imdb-synthetic-200-lengths", _load, Padding.POST, lengths=True, summary=_SHAPED.format("imdb-200-lengths")
)
