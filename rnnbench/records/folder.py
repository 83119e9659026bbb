"""The folder of a run: a new or an empty one, locked, where a run deletes nothing but what it made.

The mark of a run is its `run.json`, the first file written. What it needs only while it measures lies in a sub-folder
that carries a CACHEDIR.TAG (https://bford.info/cachedir/): backups leave it out, and a resumed run knows it again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

from rnnbench.data import ROWS
from rnnbench.records import store

SCRATCH = "scratch"
ARRAYS, CACHE, LOGS = "arrays", "cache", "logs"  # of the workers, in the scratch folder
_TAG = "CACHEDIR.TAG"
_TAGGED = "Signature: 8a477f597d28d172789f06886806bc55\n# Made by rnnbench; it may be deleted once the run is over.\n"
_NAMED = 3  # entries of a folder, one by one


def contents(folder: Path) -> str:
    """What is in the way of a new run there, as the end of a sentence; "" where the folder is absent or empty."""
    if not os.path.lexists(folder):
        return ""
    if not folder.is_dir():
        return "is not a folder"
    names = sorted(name.encode(errors="replace").decode() for name in os.listdir(folder))
    if names and store.is_run(folder):
        return "holds a run"
    more = len(names) - _NAMED
    return f"holds {', '.join(names[:_NAMED])}{f' and {more} more' if more > 0 else ''}" if names else ""


def refuse_foreign(page: Path, title: str) -> None:
    """Raise FileExistsError where a page, or what is drawn and tabulated beside it, would replace what is not ours.

    A page of ours begins with its title. Where there is none yet, tables and figures are ours in the folder of a run,
    which was empty when the run began, and else it is unknown whose.
    """
    folder, foreign = page.parent, ""
    if os.path.lexists(page):
        with page.open("rb") as file:
            foreign = "" if file.read(len(title)) == title.encode() else page.name
    elif not store.is_run(folder):
        foreign = next((name for name in ("tables", "figures") if os.path.lexists(folder / name)), "")
    if foreign:
        raise FileExistsError(errno.EEXIST, f"{foreign} there was not made by rnnbench, move it away", str(folder))


def refuse_used(folder: Path) -> None:
    """Raise StoreError, with what is there and the way out, unless the folder is absent or empty."""
    found = contents(folder)
    if found == "holds a run" and "merged" not in store.read_json(folder / store.RUN):
        resume = f"python -m rnnbench run --resume {shlex.quote(str(folder))}"
        raise store.StoreError(f"{folder} {found}; continue it with {resume}, or choose another folder with -o")
    if found:
        raise store.StoreError(f"{folder} {found}; choose another folder with -o, a new or an empty one")


@contextlib.contextmanager
def held(folder: Path, *, new: bool) -> Iterator[None]:
    """Lock a folder: that of a run, or a `new` one, which is made where it is absent and else has to be empty.

    A new one that is left by an exception with nothing measured is left as it was. Raises StoreError.
    """
    made = new and _make(folder)
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise store.StoreError(f"{folder} cannot be read: {error.strerror}; choose another folder") from error
    try:
        _lock(handle, folder)
        if new:
            refuse_used(folder)
        try:
            yield
        except BaseException:
            if new and not _measured(folder):
                _leave(folder, made)
            raise
    finally:
        os.close(handle)


def _make(folder: Path) -> bool:
    """Whether it was not there before."""
    if os.path.lexists(folder) and not folder.is_dir():
        refuse_used(folder)
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        return False
    except OSError as error:
        raise store.StoreError(
            f"{folder} cannot be written: {error.strerror}; choose another folder with -o"
        ) from error
    return True


def _lock(handle: int, folder: Path) -> None:
    """A lock of the kernel's, which ends with the process. A file system that has none relies on the journals' own."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise store.StoreError(f"{folder} is in use by another run; wait for it or choose another folder") from error
    except OSError:
        return


def _measured(folder: Path) -> bool:
    files = [folder / name for name in store.ANSWERS]
    return any(file.exists() and file.stat().st_size for file in files)


def _leave(folder: Path, made: bool) -> None:
    """Take back what a run that came to nothing has written."""
    with contextlib.suppress(OSError):
        if _is_tagged(folder / SCRATCH):
            shutil.rmtree(folder / SCRATCH, ignore_errors=True)
        if not (folder / ROWS).is_symlink():
            shutil.rmtree(folder / ROWS, ignore_errors=True)
        for name in (*store.ANSWERS, store.MACHINE, store.RUN):
            (folder / name).unlink(missing_ok=True)
        if made:
            folder.rmdir()  # not where somebody else has put something there


def scratch_of(folder: Path) -> Path:
    """The sub-folder for arrays, compilers' caches and logs, made or found again; arrays left there are gone.

    Raises StoreError where one of its names is a link, or is there and was not made by a run.
    """
    scratch = folder / SCRATCH
    way_out = "move it away, and continue with --resume"
    if os.path.lexists(scratch) and not _is_tagged(scratch) and (scratch.is_symlink() or contents(scratch)):
        raise store.StoreError(f"{scratch} was not made by this run; {way_out}")
    for name in (ARRAYS, CACHE, LOGS):
        if (scratch / name).is_symlink():
            raise store.StoreError(f"{scratch / name} is a link, and this run made none; {way_out}")
    scratch.mkdir(exist_ok=True)
    (scratch / _TAG).write_text(_TAGGED)
    clear_scratch(scratch, ARRAYS)
    return scratch


def clear_scratch(scratch: Path, *names: str) -> None:
    """Delete some of what is in the scratch folder; a link is not followed, and none is there that a run has made."""
    for name in names:
        shutil.rmtree(scratch / name, ignore_errors=True)


def _is_tagged(scratch: Path) -> bool:
    tag = scratch / _TAG
    if scratch.is_symlink() or tag.is_symlink() or not tag.is_file():
        return False
    return tag.read_text(errors="replace") == _TAGGED
