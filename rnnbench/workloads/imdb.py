"""Sentiment of film reviews, as the seeds train it: IMDB's last 50 or 200 tokens, padded at the end or in front; and
with the lengths of the reviews, at whose ends rows stop.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from rnnbench.model import Model
from rnnbench.workloads import imdb_files
from rnnbench.workloads.base import Dataset, Source, Workload
from rnnbench.workloads.reviews import VOCABULARY, Padding, dataset

N = 25_000  # reviews to train on, and as many to test on


def reviews_of_50(name: str, load: Callable[..., Dataset], **rest: Any) -> Workload:
    """The small network of the seeds, on all training rows."""
    data, model = partial(load, padding=Padding.POST, validation=0.0), Model(V=VOCABULARY, E=2, H=32, O=1)
    return Workload(name, model, data, B=32, T=50, rows=(N, 2 * N), origin=name, **rest)


def reviews_of_200(
    name: str, load: Callable[..., Dataset], padding: Padding, lengths: bool = False, **rest: Any
) -> Workload:
    """The large network of the seeds; a fifth of the training rows validates."""
    data = partial(load, padding=padding, validation=0.2, lengths=lengths)
    model, rows = Model(V=VOCABULARY, E=128, H=128, O=1), (N * 4 // 5, 2 * N)
    return Workload(
        name, model, data, B=32, T=200, rows=rows, short_epoch=4, origin=name, lengths=lengths, **rest
    )  # fmt: skip


def _load(source: Source, *, padding: Padding, validation: float, lengths: bool = False) -> Dataset:
    corpus, where = imdb_files.load_imdb(source.data_dir, source.say)
    said = f"IMDB (Maas et al., 2011), from {where}"
    return dataset(corpus, source.T, padding, validation, said, lengths=lengths)


IMDB_50 = reviews_of_50(
    "imdb-50",
    _load,
    summary="IMDB reviews, last 50 tokens, padded at the end: V 10000, E 2, H 32",
    stand_in="imdb-synthetic-50",
)
IMDB_200 = reviews_of_200(
    "imdb-200",
    _load,
    Padding.POST,
    summary="IMDB reviews, last 200 tokens, padded at the end: V 10000, E 128, H 128",
    stand_in="imdb-synthetic-200",
)
IMDB_200_PRE = reviews_of_200(
    "imdb-200-pre",
    _load,
    Padding.PRE,
    summary="IMDB reviews, last 200 tokens, padded in front: V 10000, E 128, H 128",
    stand_in="imdb-synthetic-200-pre",
)
IMDB_200_LENGTHS = reviews_of_200(
    "imdb-200-lengths",
    _load,
    Padding.POST,
    lengths=True,
    summary="IMDB reviews, last 200 tokens, each row as long as its review: V 10000, E 128, H 128",
    stand_in="imdb-synthetic-200-lengths",
)
