"""The files of rows that machines get: those of the user's own workloads, and IMDB. Each is known by its sha256."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rnnbench import workloads
from rnnbench.data import ROWS
from rnnbench.harness.plan import Plan
from rnnbench.workloads import files, imdb_cache, imdb_files
from rnnbench.workloads.base import Workload, WorkloadUnavailable


@dataclass(frozen=True)
class SentFile:
    """A file to be on each machine. `lasting`: in the machine's cache, where later runs find it, not with the run."""

    path: Path
    lasting: bool = False


def sha256_of(path: Path) -> str:
    """Of a file, as hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def kept_rows(folder: Path, plan: Plan, given: Mapping[str, Workload]) -> dict[str, Path]:
    """The files of the user's own rows by name, in the folder of the run: those that are given are written there."""
    own = {spec.kept: given[spec.name] for spec in plan.workloads if not spec.origin and spec.name in given}
    for workload in own.values():
        files.keep_rows(folder, workload)
    return {path.stem: path for path in (folder / ROWS).glob("*.npz")}


def imdb_file(plan: Plan, say: Callable[[str], None]) -> Path | None:
    """IMDB as plain arrays, where the plan needs it and it is here: machines often reach no network."""
    origins = {spec.origin for spec in plan.workloads} & workloads.REGISTRY.keys()
    if not any(workloads.get(origin).stand_in for origin in origins):
        return None
    with suppress(WorkloadUnavailable):
        imdb_files.load_imdb(None if plan.data_dir is None else Path(plan.data_dir), say)
    path = imdb_cache.path(imdb_files.SHA256)
    return path if path is not None and path.exists() else None
