"""Where `imdb.npz` is: finding it, downloading it, and checking its sha256 before anything in it is read."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rnnbench.files import in_home, read_file
from rnnbench.workloads import imdb_cache, imdb_npz
from rnnbench.workloads.base import WorkloadUnavailable
from rnnbench.workloads.reviews import Corpus

FILE = "imdb.npz"
URL = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/imdb.npz"  # where Keras gets it
SHA256 = "69664113be75683a8fe16e3ed0ab59fda8886cb3cd7ada244f7d9544e4676b9f"
TIMEOUT_S = 10.0  # to connect, and between two pieces
DEADLINE_S = 600.0  # the whole download
BYTES, MAX_BYTES = 17_464_789, 64 << 20

_WAY_OUT = "put Keras's file into a folder and name it with --data-dir or $RNNBENCH_DATA"
_log = logging.getLogger("rnnbench")


@dataclass(frozen=True)
class Place:
    """A folder to look in. `asked`: the user named it for us, so that it comes before the cache."""

    name: str
    folder: Path
    asked: bool


@dataclass(frozen=True)
class Miss:
    """Why a place did not give the file. `telling`: worth a warning although another place gave it."""

    text: str
    telling: bool


def places(data_dir: Path | None) -> list[Place]:
    """Where to look, in order: --data-dir, $RNNBENCH_DATA, then Keras's own folders."""
    named = [("--data-dir", data_dir or "", True), ("$RNNBENCH_DATA", os.environ.get("RNNBENCH_DATA"), True)]
    if keras := os.environ.get("KERAS_HOME"):
        named.append(("$KERAS_HOME/datasets", os.path.join(keras, "datasets"), False))
    named.append(("~/.keras/datasets", "~/.keras/datasets", False))
    found = [(name, in_home(folder), asked) for name, folder, asked in named if folder]
    return [Place(name, folder, asked) for name, folder, asked in found if folder is not None]


def load_imdb(data_dir: Path | None = None, say: Callable[[str], None] = _log.info) -> tuple[Corpus, str]:
    """The reviews, and where they come from in words without a path.

    A wrong file is passed over and the search goes on. Raises WorkloadUnavailable, naming every place and what was
    wrong there, where none has it and the download fails.
    """
    misses: list[Miss] = []
    where = places(data_dir)
    found = (
        _first([place for place in where if place.asked], misses)
        or _from_cache()
        or _first([place for place in where if not place.asked], misses)
        or _from_download(misses, say)
    )
    if found is None:
        raise WorkloadUnavailable(_told(misses))
    for miss in misses:
        if miss.telling:
            _log.warning("%s; IMDB is read from %s instead", miss.text, found[1])
    return found


def _told(misses: list[Miss]) -> str:
    """What was wrong first, then where there was none, then the way out."""
    wrong = [miss.text for miss in misses if miss.telling]
    rest = [miss.text for miss in misses if not miss.telling]
    return f"{FILE} cannot be had: {'; '.join([*wrong, *rest])}. Way out: {_WAY_OUT}"


def _first(where: list[Place], misses: list[Miss]) -> tuple[Corpus, str] | None:
    """The reviews from the first of these places that has the right file; the others are added to `misses`."""
    for place in where:
        label = f"{place.name} ({place.folder})"
        try:
            content = read_file(place.folder / FILE, MAX_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            misses.append(Miss(f"{label} has none", place.asked))
            continue
        except OSError as error:
            misses.append(Miss(f"that of {label} cannot be read ({error.strerror or error})", telling=True))
            continue
        corpus = _checked(content, label, misses)
        if corpus is not None:
            return corpus, place.name
    return None


def _from_cache() -> tuple[Corpus, str] | None:
    corpus = imdb_cache.read(SHA256)
    return None if corpus is None else (corpus, "the cache")


def _checked(content: bytes, label: str, misses: list[Miss]) -> Corpus | None:
    """The reviews of a file whose sha256 is right: from the cache, or unpickled and then cached."""
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != SHA256:
        size = f"{len(content):,} bytes, " if len(content) != BYTES else ""
        misses.append(
            Miss(f"{label} is another file ({size}sha256 {sha256[:8]}..., not {SHA256[:8]}...)", telling=True)
        )
        return None
    corpus = imdb_cache.read(SHA256)
    if corpus is not None:
        return corpus
    try:
        corpus = imdb_npz.parse(content)
    except imdb_npz.Unreadable as error:
        misses.append(Miss(f"{label} is refused: {error}", telling=True))
        return None
    imdb_cache.write(SHA256, corpus)
    return corpus


class _Sink(io.BytesIO):
    """Memory that refuses more than `MAX_BYTES`, or anything after `DEADLINE_S`."""

    def __init__(self) -> None:
        super().__init__()
        self.end = time.monotonic() + DEADLINE_S

    def write(self, data: bytes, /) -> int:  # type: ignore[override]
        if self.tell() + len(data) > MAX_BYTES:
            raise OSError(f"more than {MAX_BYTES} bytes came")
        if time.monotonic() > self.end:
            raise OSError(f"not complete after {DEADLINE_S:.0f} s")
        return super().write(data)


def _from_download(misses: list[Miss], say: Callable[[str], None]) -> tuple[Corpus, str] | None:
    if os.environ.get("RNNBENCH_OFFLINE", "0") not in ("", "0"):
        misses.append(Miss("the download is switched off by $RNNBENCH_OFFLINE", telling=False))
        return None
    sink = _Sink()
    try:
        import pooch  # slow to import, and needed only here

        say(f"downloading IMDB ({FILE}, 17 MB) from {URL}")
        pooch.HTTPDownloader(chunk_size=1 << 18, timeout=TIMEOUT_S)(URL, sink, None)
    except (OSError, ValueError, ImportError) as error:
        misses.append(Miss(f"the download from {URL} failed ({_short(error)})", telling=True))
        return None
    corpus = _checked(sink.getvalue(), f"the download from {URL}", misses)
    return None if corpus is None else (corpus, "download")


def _short(error: Exception) -> str:
    """The error on one line; connection errors by their type alone, for their text is a page."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if 0 < len(text) <= 120 else type(error).__name__
