"""The cache: equal to the file, whole or absent, never trusted when damaged, never needed."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import numpy as np
import pytest

from rnnbench.workloads import imdb_cache, imdb_files
from tests.workloads import fake_imdb
from tests.workloads.fake_imdb import check


@pytest.fixture
def cached(places):
    """The cache file, made by loading the fake file once; the file itself is gone again."""
    file = fake_imdb.put(places.folder("~/.keras/datasets"), places.content)
    imdb_files.load_imdb()
    file.unlink()
    (cache,) = places.cache.iterdir()
    return cache


def test_the_name_carries_the_sum_and_the_version(cached):
    assert cached.name == f"imdb-{imdb_files.SHA256[:16]}-v{imdb_cache.FORMAT}.npz"
    check(imdb_cache.read(imdb_files.SHA256))
    assert imdb_cache.read("0" * 64) is None


DAMAGES = {
    "empty": lambda content: b"",
    "one byte short": lambda content: content[:-1],
    "half": lambda content: content[: len(content) // 2],
    "another file": lambda content: b"x" * 99,
    "zeros in the middle": lambda content: content[:5000] + bytes(500) + content[5500:],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_cache_is_made_anew_with_a_warning(places, cached, caplog, damage):
    good = cached.read_bytes()
    cached.write_bytes(damage(good))
    fake_imdb.put(places.folder("~/.keras/datasets"), places.content)
    corpus, where = imdb_files.load_imdb()
    assert where == "~/.keras/datasets"
    check(corpus)
    assert "is damaged" in caplog.text
    check(imdb_cache.read(imdb_files.SHA256))


def test_a_second_user_may_read_it(places):
    before = os.umask(0o022)
    try:
        fake_imdb.put(places.folder("~/.keras/datasets"), places.content)
        imdb_files.load_imdb()
    finally:
        os.umask(before)
    (cache,) = places.cache.iterdir()
    assert cache.stat().st_mode & 0o777 == 0o644
    assert places.cache.stat().st_mode & 0o777 == 0o755


def test_one_that_may_not_be_read_is_not_called_damaged(places, cached, caplog, monkeypatch):
    def refuse(path, most=None):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(imdb_cache, "open_file", refuse)
    assert imdb_cache.read(imdb_files.SHA256) is None
    assert "cannot be read" in caplog.text
    assert "damaged" not in caplog.text


def test_without_a_home_there_is_no_cache_and_no_folder_called_tilde(places, caplog, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("RNNBENCH_CACHE", "XDG_CACHE_HOME", "KERAS_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", str)
    assert imdb_cache.folder() is None
    assert [place.name for place in imdb_files.places(None)] == ["$RNNBENCH_DATA"]
    fake_imdb.put(places.rnnbench_data, places.content)
    corpus, _ = imdb_files.load_imdb()
    check(corpus)
    assert "there is no home" in caplog.text
    monkeypatch.setenv("RNNBENCH_CACHE", "~/cache")
    assert imdb_cache.folder() is None
    assert not any(path.name == "~" for path in tmp_path.iterdir())


@pytest.mark.timeout(60)
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_file_in_the_cache_s_place_is_not_waited_for(places, cached, caplog, make):
    cached.unlink()
    make(cached)
    fake_imdb.put(places.folder("~/.keras/datasets"), places.content)
    check(imdb_files.load_imdb()[0])
    assert "and not a file" in caplog.text


def test_no_altered_byte_ever_changes_the_reviews(cached):
    good = cached.read_bytes()
    rng = np.random.default_rng(0)
    found = 0
    for at in rng.integers(0, len(good), 200):
        bad = bytearray(good)
        bad[at] ^= 1 << int(rng.integers(8))
        cached.write_bytes(bad)
        corpus = imdb_cache.read(imdb_files.SHA256)
        found += corpus is None
        if corpus is not None:  # the byte was one that carries nothing, such as a time stamp
            check(corpus)
    assert found > 150


def test_a_cache_of_arrays_that_do_not_fit_is_damaged(cached, caplog):
    with np.load(cached) as arrays:
        parts = dict(arrays)
    parts["train_offsets"][1] = 10**9
    np.savez(cached, **parts)
    assert imdb_cache.read(imdb_files.SHA256) is None
    assert "offsets must rise" in caplog.text


def test_objects_in_the_cache_are_never_unpickled(cached, caplog):
    np.savez(cached, train_tokens=fake_imdb.object_array([[1]]))
    assert imdb_cache.read(imdb_files.SHA256) is None
    assert "allow_pickle=False" in caplog.text


def test_an_unwritable_cache_costs_a_warning_and_no_more(places, caplog, monkeypatch):
    fake_imdb.put(places.data_dir, places.content)
    places.cache.write_text("a file where the folder should be")
    check(imdb_files.load_imdb(places.data_dir)[0])
    (warning,) = caplog.records
    assert "set $RNNBENCH_CACHE" in warning.getMessage()
    assert "\n" not in warning.getMessage()


def test_a_full_disk_leaves_nothing_behind(places, caplog, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    fake_imdb.put(places.data_dir, places.content)
    monkeypatch.setattr(os, "replace", full)
    check(imdb_files.load_imdb(places.data_dir)[0])
    assert "No space left on device" in caplog.text
    assert list(places.cache.iterdir()) == []


def test_folder_follows_the_variables(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    for name in ("RNNBENCH_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert imdb_cache.folder() == tmp_path / ".cache" / "rnnbench"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert imdb_cache.folder() == tmp_path / "x" / "rnnbench"
    monkeypatch.setenv("RNNBENCH_CACHE", str(tmp_path / "r"))
    assert imdb_cache.folder() == tmp_path / "r"


def test_loading_from_the_cache_imports_neither_a_framework_nor_pooch(cached):
    code = (
        "import sys\n"
        "from rnnbench.workloads import get, imdb_files\n"
        "from rnnbench.workloads.base import Source\n"
        f"imdb_files.SHA256 = {imdb_files.SHA256!r}\n"
        "w = get('imdb-200')\n"
        "print(w.load(Source(w.T)).source)\n"
        "get('imdb-synthetic-50')\n"
        "heavy = {'torch', 'tensorflow', 'keras', 'jax', 'numba', 'pooch', 'requests', 'pandas', 'scipy'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines() == ["IMDB (Maas et al., 2011), from the cache", "[]"]
