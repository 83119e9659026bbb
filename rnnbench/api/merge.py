"""`rnnbench merge`: read the runs, put them together, and write the folder whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from rnnbench.analysis.merge import Parent, check, merged
from rnnbench.api.compare import place_of
from rnnbench.records import store
from rnnbench.records.folder import contents
from rnnbench.records.store import new_run_id


def merge(
    output: Path, names: Sequence[str], command: str, say: Callable[[str], None], *, force: bool = False
) -> store.Loaded:
    """Merge runs, by folder or by id under `reports`, into a new folder.

    Raises StoreError for what cannot be read or written and for an `output` that is there, and ValueError as `check`.
    """
    if found := contents(output):
        raise store.StoreError(f"{output} {found}; give a new folder for the merged run")
    parents = [_parent(name, say) for name in names]
    for path, name in zip((place_of(name).resolve() for name in names), names, strict=True):
        if sum(place_of(other).resolve() == path for other in names) > 1:
            raise ValueError(f"{name} is given twice; give each run once")
    unlike = check(parents, force=force)
    for line in unlike:
        say(f"unlike, by --force: {line}")
    made = merged(parents, new_run_id(), command, unlike)
    _write(output, made)
    return made


def _parent(name: str, say: Callable[[str], None]) -> Parent:
    path = place_of(name)
    if path.is_file():
        raise store.StoreError(f"{path} is a file; give the folder of a run, as its machine and its plan are needed")
    loaded = store.load(path)
    for problem in loaded.problems:
        say(f"{path}: {problem}")
    if not (loaded.records or loaded.curves):
        raise store.StoreError(f"{path} holds no record; nothing was measured there")
    return Parent(name, loaded)


def _write(output: Path, made: store.Loaded) -> None:
    """The folder appears when all is in it."""
    scratch: Path | None = None
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
        store.write_json(scratch / store.RUN, made.run)
        store.write_json(scratch / store.MACHINE, made.machine)
        for name, lines in ((store.RECORDS, made.records), (store.CURVES, made.curves)):
            journal = store.Journal(scratch, name)
            try:
                journal.append(lines)
            finally:
                journal.close()
        scratch.chmod(0o777 & ~_umask())
        os.replace(scratch, output)
    except (OSError, store.StoreError) as error:
        cause = error.__cause__ if isinstance(error, store.StoreError) else error
        told = (cause.strerror if isinstance(cause, OSError) else None) or str(error)
        raise store.StoreError(f"{output} was not written: {told}; make room, or give another folder") from error
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)  # it is not there any more where it became the output


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
