"""What an exception means to whoever asked: a sentence with cause and way out, and an exit code. For all commands.

What is found here was caused by what was asked, or by the system; all else is a fault of ours.
"""

from __future__ import annotations

import errno
import os
import shlex
import traceback
from pathlib import Path
from typing import NamedTuple

import rnnbench
from rnnbench.api.exit_codes import FOLDER, NOTHING, SYSTEM, USAGE
from rnnbench.files import NoTemporaryFolder

PACKAGE = Path(rnnbench.__file__).resolve().parent
STDOUT = "standard output"  # as an error calls it

_MEMORY = "there is no memory left for it; take smaller sizes or fewer backends, or end other programs"
_THREADS = "the system starts no more processes or threads; end other programs, or raise the limit (ulimit -u)"
_REFUSED = {  # what a system has no more of, whichever file or process it was to be for
    errno.EMFILE: "this process may open no more files; raise the limit (ulimit -n)",
    errno.ENFILE: "the system opens no more files; end other programs",
    errno.EAGAIN: _THREADS,
    errno.ENOMEM: _MEMORY,
}
_WAYS = {  # out of what the system says of a path
    errno.ENOENT: "check the path, or choose another folder",
    errno.ENOTDIR: "check the path",
    errno.EISDIR: "give a file",
    errno.ENAMETOOLONG: "give a shorter name",
}


class Told(NamedTuple):
    """One sentence for the user, and the exit code of a command that ends by it."""

    text: str
    code: int


def told(error: BaseException) -> Told | None:
    """What the user is told of an exception; None where it is a fault of ours."""
    from rnnbench.records.store import StoreError  # not at the start of a command: its help is quick
    from rnnbench.workloads.base import WorkloadUnavailable

    if isinstance(error, MemoryError):
        return Told(_MEMORY, SYSTEM)
    if isinstance(error, OSError):
        return _of_system(error)
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):  # as Python says it
        return Told(_THREADS, SYSTEM)
    for kind, code in ((StoreError, FOLDER), (WorkloadUnavailable, NOTHING)):
        if isinstance(error, kind):
            return Told(str(error), code)
    return Told(str(error), USAGE) if isinstance(error, ValueError) and _meant(error) else None


def _of_system(error: OSError) -> Told | None:
    from rnnbench.records.store import FULL

    why = error.strerror or str(error)
    if isinstance(error, NoTemporaryFolder):
        return Told(why, FOLDER)
    if error.filename == STDOUT:
        return Told(f"{STDOUT} cannot be written: {why}", FOLDER)
    if error.errno in FULL:
        return Told(f"{error.filename or 'a file'}: {why}; make room", FOLDER)
    if error.errno in _REFUSED:
        return Told(_REFUSED[error.errno], SYSTEM)
    if error.filename is None:
        return None
    return Told(f"{os.fsdecode(error.filename)}: {why}; {_WAYS.get(error.errno or 0, 'choose another folder')}", FOLDER)


def _meant(error: ValueError) -> bool:
    """Whether a line of ours raised it, for the user to read, and not a library or a calculation."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return Path(last.filename).resolve().is_relative_to(PACKAGE) and (last.line or "raise").startswith("raise")


def command_line(*arguments: str | Path) -> str:
    """A command of ours, quoted so that it can be pasted."""
    return shlex.join(["python", "-m", "rnnbench", *map(str, arguments)])
