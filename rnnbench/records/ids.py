"""Find the folder of a run by its id, or by as much of that as no other run's begins with."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from rnnbench.files import read_file
from rnnbench.records.store import RECORDS, RUN, StoreError, read_json

MAX_NAMED = 4  # of several that are meant
_RUN_ID = re.compile(rb'"run_id":\s*"([^"\\]+)"')


def folder_of_run(name: str, roots: Iterable[Path]) -> Path | None:
    """The folder under `roots` whose run has this id, or the only one whose id begins so; None where there is none.

    Raises StoreError where several are meant, and where the id is that of one of several runs in one folder.
    """
    folders = list(dict.fromkeys(folder for root in roots for folder in _folders(root)))
    for ids_in in (_own_id, _ids_in_records):
        found = [(run_id, folder) for folder in folders for run_id in ids_in(folder) if run_id.startswith(name)]
        exact = [each for each in found if each[0] == name]
        if found := exact or found:
            run_id, folder = _only(name, found)
            if ids_in is _ids_in_records and (others := len(_ids_in_records(folder)) - 1):
                raise StoreError(
                    f"run {run_id} lies in {folder} together with {others} "
                    f"{'other' if others == 1 else 'others'}; give that folder, which means all of them"
                )
            return folder
    return None


def _only(name: str, found: list[tuple[str, Path]]) -> tuple[str, Path]:
    if len(found) == 1:
        return found[0]
    more = f" and {len(found) - MAX_NAMED} more" if len(found) > MAX_NAMED else ""
    if len({run_id for run_id, _ in found}) == 1:
        places = ", ".join(str(folder) for _, folder in found[:MAX_NAMED])
        raise StoreError(f"run {found[0][0]} lies in {len(found)} folders, {places}{more}; give one of them")
    said = ", ".join(f"{run_id} in {folder}" for run_id, folder in found[:MAX_NAMED])
    raise StoreError(f"{len(found)} ids begin with {name}: {said}{more}; give more of the id, or the folder")


def _folders(root: Path) -> Iterator[Path]:
    """Every folder of a run at or below one, each once."""
    try:
        yield from sorted({path.parent for name in (RECORDS, RUN) for path in root.rglob(name)})
    except OSError:  # it went away meanwhile, or may not be read
        return


def _own_id(folder: Path) -> list[str]:
    """The id that the folder's `run.json` gives."""
    try:
        found = read_json(folder / RUN).get("run_id")
    except StoreError:
        return []
    return [found] if isinstance(found, str) else []


def _ids_in_records(folder: Path) -> list[str]:
    """Every id in the folder's records, without a look at what else they hold."""
    try:
        text = read_file(folder / RECORDS)
    except OSError:
        return []
    return [found.decode(errors="replace") for found in dict.fromkeys(_RUN_ID.findall(text))]
