"""Sentiment of film reviews, as the seeds train it: IMDB's last 50 or 200 tokens, padded at the end or in front."""

from __future__ import annotations

from functools import partial

from rnnbench.model import Loss, Model, Train
from rnnbench.workloads import imdb_files
from rnnbench.workloads.base import Dataset, Source, Workload
from rnnbench.workloads.reviews import VOCABULARY, Padding, dataset

MODEL_50 = Model(V=VOCABULARY, E=2, H=32, O=1, loss=Loss.BINARY_CROSS_ENTROPY)
MODEL_200 = Model(V=VOCABULARY, E=128, H=128, O=1, loss=Loss.BINARY_CROSS_ENTROPY)


def _load(source: Source, *, padding: Padding, validation: float) -> Dataset:
    corpus, where = imdb_files.load_imdb(source.data_dir, source.say)
    return dataset(corpus, source.T, padding, validation, f"IMDB (Maas et al., 2011), from {where}")


IMDB_50 = Workload(
    name="imdb-50",
    origin="imdb-50",
    summary="IMDB reviews, last 50 tokens, padded at the end: V 10000, E 2, H 32",
    model=MODEL_50,
    train=Train(),
    B=32,
    T=50,
    epochs=5,
    rows=(25_000, 50_000),
    data=partial(_load, padding=Padding.POST, validation=0.0),
    stand_in="imdb-synthetic-50",
)

IMDB_200 = Workload(
    name="imdb-200",
    origin="imdb-200",
    summary="IMDB reviews, last 200 tokens, padded at the end: V 10000, E 128, H 128",
    model=MODEL_200,
    train=Train(),
    B=32,
    T=200,
    short_epoch=4,
    epochs=5,
    rows=(20_000, 50_000),
    data=partial(_load, padding=Padding.POST, validation=0.2),
    stand_in="imdb-synthetic-200",
)

IMDB_200_PRE = Workload(
    name="imdb-200-pre",
    origin="imdb-200-pre",
    summary="IMDB reviews, last 200 tokens, padded in front: V 10000, E 128, H 128",
    model=MODEL_200,
    train=Train(),
    B=32,
    T=200,
    short_epoch=4,
    epochs=5,
    rows=(20_000, 50_000),
    data=partial(_load, padding=Padding.PRE, validation=0.2),
    stand_in="imdb-synthetic-200-pre",
)
