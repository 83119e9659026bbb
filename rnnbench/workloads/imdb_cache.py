"""The reviews of `imdb.npz` kept as plain arrays: unpickling takes seconds, this a tenth of one.

The file is an uncompressed .npz in the file's own order and ids, whose zip checksums find every altered byte of an
array. Its name carries the sha256 of the file that it was made from and the format's version.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import zipfile
from pathlib import Path

import numpy as np

from rnnbench.files import in_home, open_file
from rnnbench.workloads.reviews import Corpus, Reviews

FORMAT = 1

_NAMES = ("tokens", "offsets", "labels")
_WAY_OUT = "set $RNNBENCH_CACHE to a folder that can be written"
_log = logging.getLogger("rnnbench")


def folder() -> Path | None:
    """`$RNNBENCH_CACHE`, else `$XDG_CACHE_HOME/rnnbench`, else `~/.cache/rnnbench`. It need not exist.

    None where the home is not known.
    """
    named = os.environ.get("RNNBENCH_CACHE")
    base = named or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    found = in_home(base)
    return found if named or found is None else found / "rnnbench"


def path(sha256: str) -> Path | None:
    """Where the arrays made from the file of that sha256 are kept, or None."""
    place = folder()
    return None if place is None else place / f"imdb-{sha256[:16]}-v{FORMAT}.npz"


def read(sha256: str) -> Corpus | None:
    """The cached reviews, or None where there are none or, with a warning, where they cannot be read."""
    file = path(sha256)
    if file is None:
        return None
    try:
        with open_file(file) as stream, zipfile.ZipFile(stream) as archive:
            return Corpus(*(_part(archive, split) for split in ("train", "test")))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        _log.warning("the cache %s cannot be read and is not used (%s)", file, error.strerror or error)
        return None
    except Exception as error:  # a damaged zip may raise any of a dozen types
        _log.warning("the cache %s is damaged and not used (%s: %s)", file, type(error).__name__, error)
        return None


def _part(archive: zipfile.ZipFile, split: str) -> Reviews:
    arrays = []
    for name in _NAMES:
        with archive.open(f"{split}_{name}.npy") as stream:
            arrays.append(np.lib.format.read_array(stream, allow_pickle=False))
    return Reviews(*arrays)


def write(sha256: str, corpus: Corpus) -> None:
    """Keep the reviews, whole or not at all. Where the folder cannot be written, a warning and nothing else."""
    file = path(sha256)
    if file is None:
        _log.warning("IMDB is not cached, as there is no home (%s)", _WAY_OUT)
        return
    arrays = {
        f"{split}_{name}": getattr(getattr(corpus, split), name) for split in ("train", "test") for name in _NAMES
    }
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        _replace(file, arrays)
    except OSError as error:
        _log.warning(
            "IMDB is not cached in %s (%s), so each run unpickles it again, some seconds; %s",
            file.parent,
            error.strerror or error,
            _WAY_OUT,
        )


def _replace(file: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write beside the file, then rename: a reader sees the old one or the new one. By the umask others may."""
    name = file.with_name(f"{file.stem}-{secrets.token_hex(4)}.part")
    handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(handle, "wb") as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type]
        os.replace(name, file)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
