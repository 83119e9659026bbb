"""Order, ids and padding of rows, against the rule written out one token at a time."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest

from rnnbench.workloads.reviews import Corpus, Padding, Reviews, dataset, pad, real_lengths


def ragged(lists: list[list[int]], labels: list[int]) -> Reviews:
    offsets = np.cumsum([0, *map(len, lists)], dtype=np.int64)
    return Reviews(np.array([*chain.from_iterable(lists)], np.int32), offsets, np.array(labels, np.uint8))


def plain(words: list[int], T: int, padding: Padding) -> list[int]:
    """One row by the words of the rule."""
    ids = [1] + [w + 3 if w + 3 < 10_000 else 2 for w in words]
    kept = ids[-T:]
    fill = [0] * (T - len(kept))
    return fill + kept if padding is Padding.PRE else kept + fill


@pytest.mark.parametrize("padding", list(Padding))
@pytest.mark.parametrize("T", [1, 2, 5, 8])
def test_rows_follow_the_rule_at_every_length(T, padding):
    rng = np.random.default_rng(0)
    lengths = [0, T - 2, T - 1, T, T + 1, 3 * T, 0]
    lists = [rng.choice([1, 2, 9_996, 9_997, 50_000], max(0, n)).tolist() for n in lengths]
    order = np.array([3, 0, 6, 1, 2, 5, 4])
    got = pad(ragged(lists, [0] * 7), T, padding, order)
    assert got.dtype == np.int32
    assert got.tolist() == [plain(lists[i], T, padding) for i in order]
    assert real_lengths(ragged(lists, [0] * 7), T, order).tolist() == (got != 0).sum(axis=1).tolist()


def test_shuffle_is_keras_s_and_the_last_rows_validate():
    corpus = Corpus(*(ragged([[i + 1] for i in range(n)], [i % 2 for i in range(n)]) for n in (10, 7)))
    got = dataset(corpus, 2, Padding.POST, 0.2, "here")
    rng = np.random.RandomState(113)
    orders = [np.arange(10), np.arange(7)]
    for order in orders:
        rng.shuffle(order)
    assert (got.train.inputs[:, 1] - 4).tolist() == orders[0][:8].tolist()
    assert got.validation is not None
    assert (got.validation.inputs[:, 1] - 4).tolist() == orders[0][8:].tolist()
    assert (got.test.inputs[:, 1] - 4).tolist() == orders[1].tolist()
    assert got.test.targets.tolist() == (orders[1] % 2).tolist()
    assert got.test.targets.dtype == np.float32
    assert dataset(corpus, 2, Padding.POST, 0.0, "here").validation is None


GOOD = {"tokens": np.ones(3, np.int32), "offsets": np.array([0, 1, 3]), "labels": np.array([0, 1], np.uint8)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": np.ones(3)}, "tokens are float64"),
        ({"labels": np.array([0, 1])}, "labels are int64"),
        ({"labels": np.array([0, 2], np.uint8)}, "label 2"),
        ({"labels": np.array([0], np.uint8)}, "3 offsets for 1 labels"),
        ({"offsets": np.array([0, 4, 3])}, "must rise from 0 to 3"),
        ({"offsets": np.array([1, 2, 3])}, "must rise from 0 to 3"),
        ({"offsets": np.array([0, 1, 2])}, "must rise from 0 to 3"),
        ({"tokens": np.array([1, -1, 1], np.int32)}, "outside"),
        ({"tokens": np.array([1, 2**31 - 2, 1], np.int32)}, "outside"),
        ({"tokens": np.empty(0, np.int32), "offsets": np.zeros(3, np.int64)}, "0 tokens"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change, message):
    Reviews(**GOOD)
    with pytest.raises(ValueError, match=message):
        Reviews(**(GOOD | change))
