"""The search for imdb.npz: its order, and every way in which a file or the network can be wrong."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from rnnbench.workloads import imdb_files, imdb_npz
from rnnbench.workloads.base import WorkloadUnavailable
from tests.workloads import fake_imdb
from tests.workloads.fake_imdb import check

ORDER = ["--data-dir", "$RNNBENCH_DATA", "$KERAS_HOME/datasets", "~/.keras/datasets"]


def test_places_are_searched_in_order(places):
    for name in reversed(ORDER):
        fake_imdb.put(places.folder(name), places.content)
        if name in ORDER[2:]:  # these come after the cache
            for cached in places.cache.glob("*"):
                cached.unlink()
        corpus, where = imdb_files.load_imdb(places.data_dir)
        assert where == name
        check(corpus)


def test_cache_stands_between_what_was_asked_for_and_keras_s_folders(places):
    file = fake_imdb.put(places.folder(ORDER[3]), places.content)
    assert imdb_files.load_imdb()[1] == ORDER[3]
    corpus, where = imdb_files.load_imdb()
    assert where == "the cache"
    check(corpus)
    file.unlink()
    assert imdb_files.load_imdb(places.data_dir)[1] == "the cache"
    fake_imdb.put(places.folder(ORDER[1]), places.content)
    assert imdb_files.load_imdb()[1] == ORDER[1]


def altered(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


DAMAGES = {
    "truncated": lambda content: content[:-100],
    "altered": altered,
    "empty": lambda content: b"",
    "longer": lambda content: content + b"\0",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_wrong_file_is_passed_over_aloud_or_named_in_the_error(places, damage, caplog):
    file = fake_imdb.put(places.data_dir, damage(places.content))
    with pytest.raises(WorkloadUnavailable) as caught:
        imdb_files.load_imdb(places.data_dir)
    message = str(caught.value)
    for part in (str(file.parent), f"not {imdb_files.SHA256[:8]}...", "sha256", "--data-dir or $RNNBENCH_DATA", *ORDER):
        assert part in message
    assert "\n" not in message
    paths = sum(len(str(place.folder)) for place in imdb_files.places(places.data_dir))
    assert len(message) - paths <= 3 * 120  # three lines, whatever the folders are called
    assert message.count(imdb_files.FILE) == 1
    assert not places.cache.exists()
    fake_imdb.put(places.folder(ORDER[3]), places.content)
    corpus, where = imdb_files.load_imdb(places.data_dir)
    assert where == ORDER[3]
    check(corpus)
    assert str(file.parent) in caplog.text
    assert "instead" in caplog.text


def test_nothing_is_unpickled_before_the_sum_is_right(places, monkeypatch):
    fake_imdb.put(places.data_dir, altered(places.content))
    monkeypatch.setattr(imdb_npz, "parse", lambda content: pytest.fail("parsed a file with a wrong sha256"))
    with pytest.raises(WorkloadUnavailable):
        imdb_files.load_imdb(places.data_dir)


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


OTHERS = {
    "a folder": (Path.mkdir, "it is a folder and not a file"),
    "a pipe": (os.mkfifo, "it is a pipe and not a file"),
    "a socket": (lambda path: socket.socket(socket.AF_UNIX).bind(str(path)), "it is a socket and not a file"),
    "an endless device": (lambda path: path.symlink_to("/dev/zero"), "it is a device and not a file"),
    "a terabyte": (sparse, f"it has {1 << 40} bytes, more than {imdb_files.MAX_BYTES}"),
    "a link to itself": (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
}


@pytest.mark.timeout(60)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize(("make", "words"), OTHERS.values(), ids=OTHERS)
def test_what_is_no_file_in_its_place_is_neither_read_nor_waited_for(places, monkeypatch, make, words, caplog):
    """In the folder that is asked for, and in one that is only looked in."""
    for folder in (places.data_dir, places.folder(ORDER[3])):
        folder.mkdir(parents=True)
        monkeypatch.chdir(folder)
        make(Path(imdb_files.FILE))
    with pytest.raises(WorkloadUnavailable, match="cannot be read") as caught:
        imdb_files.load_imdb(places.data_dir)
    message = str(caught.value)
    assert message.count(words) == 2
    assert "--data-dir or $RNNBENCH_DATA" in message
    assert "\n" not in message


@pytest.mark.timeout(60)
def test_a_pipe_for_a_folder_holds_nothing(places):
    os.mkfifo(places.data_dir)
    with pytest.raises(WorkloadUnavailable, match="has none"):
        imdb_files.load_imdb(places.data_dir)


@pytest.mark.parametrize("value", [None, "", "~"])
def test_places_without_the_variables(monkeypatch, value):
    for name in ("RNNBENCH_DATA", "KERAS_HOME"):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert [place.name for place in imdb_files.places(None)] == (ORDER[1:] if value else ORDER[3:])
    assert not any("~" in str(place.folder) for place in imdb_files.places(Path("~")))
