"""Keras's `imdb.npz` into flat arrays, unpickling NumPy arrays, lists and ints and nothing else.

The file holds object arrays of lists, which only pickle can read. Whoever calls this has checked the file's sha256;
the restriction is the second lock.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from itertools import chain
from typing import IO, Any

import numpy as np

from rnnbench.workloads.reviews import Corpus, Reviews

# What a pickled object array names. Files of NumPy 1 and 2 call one function by two modules.
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
}


class Unreadable(Exception):
    """The file is not what Keras ships. The message says where it departs."""


class _Unpickler(pickle.Unpickler):
    """Finds what `_ALLOWED` names, without an import, and refuses the rest."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        try:
            return _ALLOWED[module_name, global_name]
        except KeyError:
            raise Unreadable(
                f"it names {module_name}.{global_name}; only NumPy arrays, lists and ints are read"
            ) from None


def _lists(stream: IO[bytes]) -> list[list[int]]:
    """The rows of a pickled object array, all of them lists of ints."""
    version = np.lib.format.read_magic(stream)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(stream)
    if dtype.kind != "O" or len(shape) != 1:
        raise Unreadable(f"its rows are {dtype} {shape}; one axis of lists is needed")
    array = _Unpickler(stream).load()
    if not isinstance(array, np.ndarray) or array.shape != shape or array.dtype.kind != "O":
        raise Unreadable(f"its rows are a {type(array).__name__} that does not fit the header's shape {shape}")
    lists: list[list[int]] = array.tolist()
    for wanted, items in ((list, lists), (int, chain.from_iterable(lists))):
        if others := {*map(type, items)} - {wanted}:
            raise Unreadable(f"it holds {others.pop().__name__} where {wanted.__name__} is needed")
    return lists


def _reviews(archive: zipfile.ZipFile, split: str) -> Reviews:
    lists = _lists(io.BytesIO(archive.read(f"x_{split}.npy")))
    labels = np.lib.format.read_array(io.BytesIO(archive.read(f"y_{split}.npy")), allow_pickle=False)
    if labels.dtype.kind not in "iu" or not np.isin(labels, (0, 1)).all():
        raise Unreadable(f"its {split} labels are not all 0 or 1")
    lengths = np.fromiter(map(len, lists), np.int64, len(lists))
    offsets = np.concatenate([np.zeros(1, np.int64), lengths.cumsum()])
    tokens = np.fromiter(chain.from_iterable(lists), np.int32, int(offsets[-1]))
    return Reviews(tokens, offsets, labels.astype(np.uint8))


def parse(content: bytes) -> Corpus:
    """The reviews of a whole `imdb.npz`. Raises Unreadable, and nothing else, where it is not one."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return Corpus(_reviews(archive, "train"), _reviews(archive, "test"))
    except Unreadable:
        raise
    except Exception as error:  # a damaged zip or pickle may raise any of a dozen types
        raise Unreadable(f"it cannot be read ({type(error).__name__}: {error})") from error
