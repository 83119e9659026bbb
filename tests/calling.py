"""The command line called in this process, and runs for it to read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click
from click.testing import CliRunner, Result

from rnnbench.cli import main
from rnnbench.records import store
from rnnbench.records.record import Record

# At the start of a program: a run in it takes the kernels that are kept beside the sources, and compiles none.
KEPT_KERNELS = """
import dataclasses, rnnbench.backends as _backends
for _name, _entry in _backends.REGISTRY.items():
    if "NUMBA_CACHE_DIR" in _entry.caches:
        _caches = {**_entry.caches, "NUMBA_CACHE_DIR": ""}
        _backends.REGISTRY[_name] = dataclasses.replace(_entry, caches=_caches)
"""


def called(
    *arguments: object,
    command: click.Command = main,
    code: int | None = None,
    env: Mapping[str, str] | None = None,
) -> Result:
    """What a command answers, with this exit code if one is given. A fault of ours is told with its traceback."""
    result = CliRunner(env={"RNNBENCH_TRACEBACK": "1", **(env or {})}).invoke(
        command, [str(argument) for argument in arguments], catch_exceptions=False
    )
    assert code in (None, result.exit_code), result.output
    return result


def stored(folder: Path, records: Iterable[Record], machine: Mapping[str, Any] | None = None) -> Path:
    """The folder, with a run of these records."""
    journal = store.Journal(folder)
    journal.append(records)
    journal.close()
    if machine is not None:
        store.write_json(folder / store.MACHINE, dict(machine))
    return folder
