"""The stand-ins: shaped as the real ones, the same for the same seed, and learnable but not too well."""

from __future__ import annotations

import time

import numpy as np
import pytest

from rnnbench import workloads
from rnnbench.backends.numpy import NumpyBackend
from rnnbench.data import Data
from rnnbench.model import DType, Problem
from rnnbench.params import init_params
from rnnbench.workloads import synthetic
from rnnbench.workloads.base import Source

PAIRS = {
    "imdb-50": "imdb-synthetic-50", "imdb-200": "imdb-synthetic-200", "imdb-200-pre": "imdb-synthetic-200-pre",
    "imdb-200-lengths": "imdb-synthetic-200-lengths",
}  # fmt: skip


@pytest.fixture(scope="module")
def data():
    """Each stand-in of seed 0, by name."""
    return {name: workloads.get(name).load(Source(workloads.get(name).T)) for name in PAIRS.values()}


@pytest.mark.parametrize(("real", "stand_in"), PAIRS.items())
def test_asks_the_same_of_a_backend_as_the_real_one(real, stand_in):
    a, b = workloads.get(real), workloads.get(stand_in)
    assert a.stand_in == b.name == stand_in
    assert b.stand_in is None
    for field in ("model", "train", "B", "T", "epochs", "init", "lengths"):
        assert getattr(a, field) == getattr(b, field), field
    assert a.data.keywords == b.data.keywords  # padding, validation, lengths


@pytest.mark.parametrize("name", PAIRS.values())
def test_rows_look_like_the_real_ones(data, name):
    got, T = data[name], workloads.get(name).T
    assert got.source == "synthetic stand-in for IMDB, seed 0"
    assert got.train.inputs.shape == ((25_000 if T == 50 else 20_000), T)
    assert got.test.inputs.shape == (25_000, T)
    assert (got.validation is None) == (T == 50)
    for part in (got.train, got.test):
        assert part.inputs.dtype == np.int32
        assert part.targets.dtype == np.float32
        assert set(np.unique(part.targets)) == {0.0, 1.0}
        assert 0.48 < part.targets.mean() < 0.52
    x = got.test.inputs
    assert (x.min(), x.max()) == (0, 9999)
    assert not (x == 3).any()
    full = (x != 0).all(axis=1)
    assert full.mean() == pytest.approx({50: 0.98, 200: 0.42}[T], abs=0.06)  # the real shares
    short_ends = x[~full][:, 0 if name.endswith("pre") else -1]
    assert not short_ends.any()
    assert workloads.get(name).lengths is name.endswith("lengths")
    for part in (got.train, got.test, got.validation or got.test):
        assert (part.lengths is not None) is name.endswith("lengths")
        if part.lengths is not None:  # no word of a review is the padding
            np.testing.assert_array_equal(part.lengths, (part.inputs != 0).sum(axis=1))


def test_words_and_lengths_keep_to_the_fit():
    reviews = synthetic.make(5).train
    lengths, counts = np.diff(reviews.offsets), np.bincount(reviews.tokens)
    assert counts[0] == 0
    assert len(counts) == synthetic.KNOWN + 2
    share = counts / counts.sum()
    assert share[-1] == pytest.approx(synthetic.UNKNOWN_SHARE, rel=0.02)
    assert share[1:11].sum() == pytest.approx(0.238, rel=0.05)  # feelings take a little from the words without
    assert lengths.mean() == pytest.approx(232, rel=0.02)
    assert np.median(lengths) == pytest.approx(189, rel=0.02)


def test_seed_decides_and_training_and_test_differ():
    a, b, c = synthetic.make(1), synthetic.make(1), synthetic.make(2)
    for part in ("tokens", "offsets", "labels"):
        assert np.array_equal(getattr(a.train, part), getattr(b.train, part))
        assert np.array_equal(getattr(a.test, part), getattr(b.test, part))
        assert not np.array_equal(getattr(a.train, part), getattr(c.train, part))
        assert not np.array_equal(getattr(a.train, part), getattr(a.test, part))


def test_is_made_in_under_two_seconds():
    times = []
    for _ in range(3):
        start = time.process_time()  # one thread: what other work on the machine takes does not count
        workloads.get("imdb-synthetic-200").load(Source(200, seed=3))
        times.append(time.process_time() - start)
    assert min(times) < 2.0


@pytest.mark.parametrize(
    ("name", "low", "high"), [("imdb-synthetic-50", 0.78, 0.86), ("imdb-synthetic-200-pre", 0.8, 0.9)]
)
def test_counting_words_tells_the_label_but_not_always(data, name, low, high):
    """Naive Bayes, learned from the training rows: about the best that any model can do."""
    train, test = data[name].train, data[name].test
    counts = [np.bincount(train.inputs[train.targets == y].ravel(), minlength=10_000) + 1.0 for y in (0, 1)]
    leaning = np.log(counts[1] / counts[1].sum()) - np.log(counts[0] / counts[0].sum())
    leaning[0] = 0.0  # padding
    accuracy = ((leaning[test.inputs].sum(axis=1) > 0) == (test.targets > 0.5)).mean()
    assert low < accuracy < high


@pytest.mark.slow
def test_the_network_learns_it(data):
    workload, rows = workloads.get("imdb-synthetic-50"), data["imdb-synthetic-50"]
    problem = Problem(workload.name, DType.FLOAT32, workload.model, workload.train, workload.B, workload.T)
    params = init_params(workload.model, workload.init, 0)
    session = NumpyBackend().prepare(problem, params, Data(rows.train.inputs, rows.train.targets))
    rng = np.random.default_rng(0)
    for _ in range(2):
        session.train_epoch(rng.permutation(len(rows.train.inputs)))
    accuracy = ((session.predict(rows.test.inputs)[:, 0] > 0) == (rows.test.targets > 0.5)).mean()
    assert 0.72 < accuracy < 0.9
