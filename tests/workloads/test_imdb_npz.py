"""The restricted unpickler: what it reads, and that nothing else gets through even where the sha256 is right."""

from __future__ import annotations

import functools
import io
import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest

from rnnbench.workloads import imdb_files, imdb_npz
from rnnbench.workloads.base import WorkloadUnavailable
from tests.workloads import fake_imdb
from tests.workloads.fake_imdb import check, object_array


class Evil:
    """Unpickled without care, this calls a function."""

    def __init__(self, call, *args) -> None:
        self.call, self.args = call, args

    def __reduce__(self):
        return self.call, self.args


EVIL = {
    "posix.system": lambda mark: Evil(os.system, f"mkdir {mark}"),
    "builtins.eval": lambda mark: Evil(eval, f"__import__('os').mkdir({mark!r})"),
    "builtins.getattr": lambda mark: Evil(getattr, "", "join"),
    "functools.partial": lambda mark: functools.partial(len, mark),
    "collections.OrderedDict": lambda mark: OrderedDict(a=1),
    "numpy.load": lambda mark: np.load,
}


def with_row(row: object) -> bytes:
    """A file whose last training review is this."""
    return fake_imdb.content(x_train=object_array([*fake_imdb.reviews(1)[0][:-1], row]))


@pytest.mark.parametrize("name", EVIL)
def test_a_malicious_file_is_refused_even_with_the_right_sum(places, tmp_path, monkeypatch, name):
    mark = tmp_path / "mark"
    content = with_row(EVIL[name](str(mark)))
    fake_imdb.put(places.data_dir, content)
    fake_imdb.expect(monkeypatch, content)
    with pytest.raises(WorkloadUnavailable, match=f"is refused: it names {name}; only NumPy arrays, lists and ints"):
        imdb_files.load_imdb(places.data_dir)
    assert not mark.exists()
    assert not places.cache.exists()


def test_the_malicious_file_would_have_worked(tmp_path):
    """Else the test above shows nothing."""
    mark = tmp_path / "mark"
    for name in ("posix.system", "builtins.eval"):
        content = with_row(EVIL[name](str(mark)))
        with np.load(io.BytesIO(content), allow_pickle=True) as arrays:
            assert len(arrays["x_train"]) == 52
        mark.rmdir()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "BadZipFile"),
        (b"not a zip", "BadZipFile"),
        (fake_imdb.raw({}), r"x_train\.npy"),
        (fake_imdb.raw({"x_train.npy": b"\x93NUMPY"}), "cannot be read"),
        (fake_imdb.content(x_train=np.zeros((4, 3), np.int64)), r"its rows are int64 \(4, 3\)"),
        (fake_imdb.content(x_train=object_array([[1]] * 4).reshape(2, 2)), r"its rows are object \(2, 2\)"),
        (with_row("text"), "holds str where list"),
        (with_row([1, 2.5]), "holds float where int"),
        (with_row([1, True]), "holds bool where int"),
        (with_row([1, [2]]), "holds list where int"),
        (with_row([1, 2**40]), "OverflowError"),
        (with_row([-1]), "outside"),
        (fake_imdb.content(y_train=np.full(52, 7)), "not all 0 or 1"),
        (fake_imdb.content(y_train=np.zeros(52)), "not all 0 or 1"),
        (fake_imdb.content(y_train=np.zeros(51, np.int64)), "53 offsets for 51 labels"),
        (fake_imdb.content(y_train=object_array([0] * 52)), "cannot be read"),
    ],
)
def test_a_file_of_another_shape_is_refused_even_with_the_right_sum(content, message):
    with pytest.raises(imdb_npz.Unreadable, match=message):
        imdb_npz.parse(content)


def npy(array: np.ndarray, protocol: int) -> bytes:
    """An object array as an .npy member, pickled in one of the protocols."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, np.lib.format.header_data_from_array_1_0(array))
    return stream.getvalue() + pickle.dumps(array, protocol)


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("module", [b"numpy._core.multiarray", b"numpy.core.multiarray"])
def test_files_of_both_numpys_and_of_every_protocol_are_read(protocol, module):
    members = {}
    for split, seed in (("train", 1), ("test", 2)):
        lists, labels = fake_imdb.reviews(seed)
        rows = npy(object_array(lists), protocol)
        if protocol == 3:  # names stand in the stream as lines, so that another may take the place
            rows = rows.replace(b"numpy._core.multiarray", module).replace(b"numpy.core.multiarray", module)
            assert module in rows
        stream = io.BytesIO()
        np.save(stream, labels)
        members |= {f"x_{split}.npy": rows, f"y_{split}.npy": stream.getvalue()}
    check(imdb_npz.parse(fake_imdb.raw(members)))
