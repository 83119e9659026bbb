"""Find and read the runs that a user names: folders, files of records, ids, or several as one."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from rnnbench.analysis.comparable import Side
from rnnbench.analysis.pooling import NamedRun, pool
from rnnbench.records import store
from rnnbench.records.ids import folder_of_run

ROOTS = (Path("reports"), Path("runs"))  # where runs lie: `run` puts its folders into the first
MAX_PROBLEMS = 3  # named one by one


def place_of(name: str, near: Sequence[str] = ()) -> Path:
    """The folder or file that is meant: a path, else a run under ROOTS, by the name of its folder or by its id.

    Of an id so much is enough as no other begins with. It is also looked for in and beside the folders `near`.
    Raises StoreError for neither, and where several runs are meant.
    """
    for path in (Path(name), *(root / name for root in ROOTS)):
        if path.exists():
            return path
    folders = [Path(other) for other in near if other and Path(other).is_dir()]
    beside = [path for folder in folders for path in folder.resolve().parent.glob("*") if path.is_dir()]
    roots = [*ROOTS, *folders, *(path for path in beside if (path / store.RUN).exists())]
    if name and (found := folder_of_run(name, roots)):
        return found
    raise store.StoreError(
        f"{name} is neither a folder, nor a file, nor a run under {' or '.join(map(str, ROOTS))}; give what `run -o` "
        f"was given, its {store.RECORDS}, or the run's id"
    )


def places_of(name: str, near: Sequence[str] = ()) -> list[Path]:
    """The place of a run, or those of several that are meant as one: commas between, or pluses as a report has it."""
    parts = [part.strip() for part in re.split(r",| \+ ", name) if part.strip()]
    if len(parts) < 2 or Path(name).exists():
        return [place_of(name, near)]
    return [place_of(part, near) for part in parts]


def read_runs(places: Sequence[Path], say: Callable[[str], None], *, force: bool = False) -> store.Loaded:
    """One run, or several as one with the launches of all, as `pool` has it; lines that were left out are said.

    Raises StoreError for what cannot be read or, of several, holds nothing, and ValueError for what cannot be pooled.
    """
    runs = []
    for path in places:
        if len(places) > 1 and sum(other.resolve() == path.resolve() for other in places) > 1:
            raise ValueError(f"{path} is given twice; give each run once")
        loaded = store.load_file(path) if path.is_file() else store.load_run(path)
        say_problems(path, loaded.problems, say)
        if len(places) > 1 and not loaded.answered:
            raise store.StoreError(f"{path} holds no record; nothing was measured there")
        runs.append(NamedRun(str(path), loaded))
    pooled = pool(runs, force=force)
    for line in pooled.run.get("unlike", ()) if len(runs) > 1 else ():
        say(f"unlike, by --force: {line}")
    return pooled


def side_of(name: str, say: Callable[[str], None], near: Sequence[str] = ()) -> Side:
    """A run's records and machine. Of a lone file the machine is known where `machine.json` lies beside it."""
    places = places_of(name, near)
    loaded = read_runs(places, say)
    if not loaded.records and loaded.trainings:
        raise store.StoreError(f"{places[0]} holds times to an accuracy and no pass; its report shows them")
    if not loaded.records:
        raise store.StoreError(f"{places[0]} holds no record; nothing was measured there")
    return Side(loaded.records, loaded.machine)


def say_problems(path: Path, problems: Sequence[str], say: Callable[[str], None]) -> None:
    """Say which lines were left out, the first few one by one."""
    for problem in problems[:MAX_PROBLEMS]:
        say(f"{path}: {problem}")
    if len(problems) > MAX_PROBLEMS:
        say(f"{path}: {len(problems) - MAX_PROBLEMS} more lines were left out")
