"""Parity, twice: of five integers at the end (the seed's), and of a stream of bits at every step."""

from __future__ import annotations

import numpy as np

from rnnbench.model import Head, Loss, Model, Train
from rnnbench.workloads.base import Dataset, Source, Split, Workload

_TRAIN, _TEST = 800, 200  # the seed's 1000 sequences, split 80 : 20


def _parity(source: Source) -> Dataset:
    rng = np.random.default_rng(source.seed)
    x = rng.integers(1, 11, size=(_TRAIN + _TEST, source.T), dtype=np.int32)
    y = x.sum(axis=1, dtype=np.int32) % np.int32(2)
    return Dataset(
        train=Split(x[:_TRAIN], y[:_TRAIN]),
        test=Split(x[_TRAIN:], y[_TRAIN:]),
        validation=None,
        source=f"generated, seed {source.seed}",
    )


def _running_parity(source: Source) -> Dataset:
    rng = np.random.default_rng(source.seed)
    bits = rng.integers(0, 2, size=(_TRAIN + _TEST, source.T), dtype=np.int32)
    y = (bits.cumsum(axis=1) % 2).astype(np.float32)
    x = bits[..., None].astype(np.float32)
    return Dataset(
        train=Split(x[:_TRAIN], y[:_TRAIN]),
        test=Split(x[_TRAIN:], y[_TRAIN:]),
        validation=None,
        source=f"generated, seed {source.seed}",
    )


PARITY = Workload(
    name="parity",
    origin="parity",
    summary="sum of 5 integers mod 2: T 5, E 8, H 32, two classes",
    model=Model(V=11, E=8, H=32, O=2, loss=Loss.CATEGORICAL_CROSS_ENTROPY),
    train=Train(),
    B=32,
    T=5,
    epochs=10,
    rows=(_TRAIN, _TRAIN + _TEST),
    data=_parity,
    expect="the accuracy to expect is chance, 0.5: 800 rows do not teach the parity of a sum in 10 epochs",
)

RUNNING_PARITY = Workload(
    name="running-parity",
    origin="running-parity",
    summary="parity of all bits so far, asked at every step: any T (100), dense input E 1, H 32",
    model=Model(E=1, H=32, O=1, head=Head.EVERY, loss=Loss.BINARY_CROSS_ENTROPY),
    train=Train(clip_norm=1.0),
    B=32,
    T=100,
    epochs=10,
    rows=(_TRAIN, _TRAIN + _TEST),
    data=_running_parity,
    expect="the accuracy to expect is chance, 0.5: only rows of a few steps are learned",
)
