"""A small `imdb.npz` of the same make as the real one: pickled object arrays of lists, and labels."""

from __future__ import annotations

import hashlib
import io
import zipfile
from itertools import pairwise
from pathlib import Path

import numpy as np

from rnnbench.workloads import imdb_files
from rnnbench.workloads.reviews import Corpus

LENGTHS = (0, 1, 2, 3, 48, 49, 50, 51, 120, 199, 200, 201, 420)


def object_array(items: list) -> np.ndarray:
    array = np.empty(len(items), object)
    array[:] = items
    return array


def reviews(seed: int, n: int = 52) -> tuple[list[list[int]], np.ndarray]:
    """n lists of word ranks, some beyond the vocabulary, and their labels, sorted as in the real file."""
    rng = np.random.default_rng(seed)
    lists = [rng.integers(1, 12_000, LENGTHS[i % len(LENGTHS)]).tolist() for i in range(n)]
    lists[-1][:4] = [9996, 9997, 1, 88_584]  # the last id inside, the first outside, the ends
    return lists, np.repeat([1, 0], n // 2)


def content(**replaced: np.ndarray) -> bytes:
    """The bytes of a file; `replaced` members by name, such as x_train."""
    x_train, y_train = reviews(1)
    x_test, y_test = reviews(2)
    members = {"x_train": object_array(x_train), "y_train": y_train, "x_test": object_array(x_test), "y_test": y_test}
    stream = io.BytesIO()
    np.savez_compressed(stream, **(members | replaced))
    return stream.getvalue()


def raw(members: dict[str, bytes]) -> bytes:
    """A zip of these members, whatever is in them."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


def put(folder: Path, data: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / imdb_files.FILE
    path.write_bytes(data)
    return path


def expect(monkeypatch, data: bytes) -> None:
    """Let this content pass for the real file."""
    monkeypatch.setattr(imdb_files, "SHA256", hashlib.sha256(data).hexdigest())


def check(corpus: Corpus | None) -> None:
    """The corpus is the file's, in its order and ids."""
    assert corpus is not None
    for seed, part in ((1, corpus.train), (2, corpus.test)):
        lists, labels = reviews(seed)
        assert [part.tokens[a:b].tolist() for a, b in pairwise(part.offsets)] == lists
        assert part.labels.tolist() == labels.tolist()
