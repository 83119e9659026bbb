"""Who else measures on this machine: each run holds a locked file in a folder of the user, and looks at the others'.

The lock is the kernel's and ends with the process, however that ends: a file that nobody has locked is a dead run's.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from pathlib import Path
from typing import Self

from rnnbench.files import open_file

ENDING = ".run"


def usual_place() -> Path:
    """The folder of this user: under XDG_RUNTIME_DIR, else in the folder for temporary files."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime) / "rnnbench" if runtime else Path(tempfile.gettempdir()) / f"rnnbench-{os.getuid()}"


class Neighbours:
    """Announces this run as `name` while it is entered, and knows the other runs.

    Where the folder cannot be used there is nobody: a run is not lost for want of it.
    """

    def __init__(self, name: str, place: Path | None = None) -> None:
        self.name, self.place = name, place or usual_place()
        self.mine: Path | None = None
        self.last: list[str] = []

    def __enter__(self) -> Self:
        with contextlib.suppress(OSError):
            self.place.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self.place.stat().st_uid == os.getuid():
                self._announce()
        self.last = self._others()
        return self

    def _announce(self) -> None:
        """A file under its last name is locked already, so that nobody takes it for a dead run's."""
        self.handle, scratch = tempfile.mkstemp(dir=self.place)
        try:
            os.write(self.handle, f"{self.name} (process {os.getpid()})\n".encode())
            fcntl.flock(self.handle, fcntl.LOCK_EX)
            os.rename(scratch, f"{scratch}{ENDING}")
        except OSError:
            os.close(self.handle)
            os.unlink(scratch)
            raise
        self.mine = Path(f"{scratch}{ENDING}")

    def __exit__(self, *_: object) -> None:
        if self.mine is not None:
            with contextlib.suppress(OSError):
                self.mine.unlink()
            os.close(self.handle)

    def seen(self) -> list[str]:
        """The other runs that measure now, or did when this was asked before."""
        now, before = self._others(), self.last
        self.last = now
        return list(dict.fromkeys([*before, *now]))

    def _others(self) -> list[str]:
        if self.mine is None:
            return []
        try:
            files = [file for file in os.listdir(self.place) if file.endswith(ENDING) and file != self.mine.name]
        except OSError:
            return []
        return sorted(name for file in files if (name := _running(self.place / file)))


def _running(path: Path) -> str | None:
    """The run that has locked this file; None of a dead one, whose file is removed, and of one that just ended."""
    with contextlib.suppress(OSError), open_file(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return file.read().decode(errors="replace").strip() or path.name
        path.unlink(missing_ok=True)
    return None
