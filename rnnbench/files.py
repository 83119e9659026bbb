"""Opens what others hand in: a file, and nothing that blocks or never ends. Where a home is, and temporary files."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    import tempfile

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class NoTemporaryFolder(OSError):
    """There is no folder for temporary files. One sentence, with the way out."""


def temporary_place() -> str:
    """The folder in which temporary files are made. Raises NoTemporaryFolder."""
    import tempfile  # slow to import, and not needed for help

    try:
        return tempfile.gettempdir()
    except FileNotFoundError as error:
        said = "temporary files can be written nowhere, neither in TMPDIR nor in /tmp; set TMPDIR to a folder that can"
        raise NoTemporaryFolder(errno.ENOENT, said) from error


def temporary_folder(prefix: str = "rnnbench-") -> tempfile.TemporaryDirectory[str]:
    """A folder for temporary files, gone at the end of a `with`. Raises NoTemporaryFolder."""
    import tempfile

    return tempfile.TemporaryDirectory(prefix=prefix, dir=temporary_place())


def in_home(path: str | Path) -> Path | None:
    """A path whose ~ is the home that it stands for; None where that is not known: no folder is called ~."""
    found = os.path.expanduser(path)
    return None if str(found).startswith("~") else Path(found)


def open_file(path: Path, most: int | None = None) -> IO[bytes]:
    """A file for reading, links followed. OSError for what is no regular file or has more than `most` bytes.

    It is looked at before it is opened: opening a pipe waits for a writer, and opening a device may do something.
    """
    facts = path.stat()
    if not stat.S_ISREG(facts.st_mode):
        kind = _KINDS.get(stat.S_IFMT(facts.st_mode), "something else")
        raise OSError(errno.EINVAL, f"it is {kind} and not a file", str(path))
    if most is not None and facts.st_size > most:
        raise OSError(errno.EINVAL, f"it has {facts.st_size} bytes, more than {most}", str(path))
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")


def read_file(path: Path, most: int | None = None) -> bytes:
    """All of a file, as `open_file`; of one that grows meanwhile, no more than was there."""
    with open_file(path, most) as file:
        return file.read(os.fstat(file.fileno()).st_size)
