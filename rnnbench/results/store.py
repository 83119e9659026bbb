"""A run's folder: `run.json` (what was asked), `machine.json`, `records.jsonl` and `curves.jsonl` (what was answered).

Both `.jsonl` files are journals: a line is appended and flushed as soon as it is known, so that whatever ends a run
costs at most the line being written. A line that was cut is left out when the file is read, and said.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import IO, Any, TypeVar

import msgspec

from rnnbench.files import read_file
from rnnbench.results.migrate import migrated
from rnnbench.results.record import SCHEMA, Costs, Epoch, Record, Seeds

Line = TypeVar("Line", Record, Epoch)

RECORDS, CURVES, RUN, MACHINE = "records.jsonl", "curves.jsonl", "run.json", "machine.json"

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # how a system says that there is no room

_NEVER = object()
_DEFAULTS: dict[str, Any] = {
    **{field.name: field.default for field in fields(Record) if field.default is not MISSING},
    "samples_ns": (),
    "device_ns": (),
    "device_states": (),
    "disturbances": (),
    "errors": {},
    "costs": msgspec.to_builtins(Costs()),
    "seeds": msgspec.to_builtins(Seeds(0, 0, 0)),
}


class StoreError(Exception):
    """A folder cannot be written or read. One sentence for the user, with the way out."""


@dataclass(frozen=True)
class Loaded:
    """A run's folder as read: `problems` has one sentence for each line that was left out."""

    records: list[Record]
    curves: list[Epoch]
    run: dict[str, Any]
    machine: dict[str, Any]
    problems: list[str]


def encode(record: Record | Epoch) -> bytes:
    """One line of JSON, without the fields that have their default. `pass_` of a case is called `pass` there."""
    raw = msgspec.to_builtins(record)
    if isinstance(record, Record):
        raw = {name: value for name, value in raw.items() if value != _DEFAULTS.get(name, _NEVER)}
        raw |= {"schema": record.schema}
        raw["case"] = {("pass" if key == "pass_" else key): value for key, value in raw["case"].items()}
    return msgspec.json.encode(raw) + b"\n"


def _checked_schema(raw: dict[str, Any]) -> dict[str, Any]:
    schema = raw.get("schema")
    if not isinstance(schema, int) or schema < 1:
        raise msgspec.ValidationError(f"schema is {schema!r}; a whole number from 1 to {SCHEMA} is needed")
    if schema > SCHEMA:
        raise StoreError(f"a record has schema {schema}, this rnnbench reads up to {SCHEMA}; upgrade rnnbench")
    return raw


def decode_record(line: bytes) -> Record:
    """A record from its line, in the newest schema.

    Raises msgspec.ValidationError or DecodeError, and StoreError for a newer schema.
    """
    raw = _checked_schema(msgspec.json.decode(line))
    raw["case"] = {("pass_" if key == "pass" else key): value for key, value in raw["case"].items()}
    return msgspec.convert(migrated(raw), Record)


def decode_epoch(line: bytes) -> Epoch:
    """An epoch from its line, as `decode_record`."""
    return msgspec.convert(migrated(_checked_schema(msgspec.json.decode(line))), Epoch)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    if path.exists():
        for number, line in enumerate(read_file(path).split(b"\n"), start=1):
            if line.strip():
                yield number, line


def _read(path: Path, decode: Callable[[bytes], Line], problems: list[str]) -> list[Line]:
    items = []
    for number, line in _lines(path):
        try:
            items.append(decode(line))
        except (msgspec.DecodeError, KeyError, AttributeError, TypeError) as error:
            problems.append(f"{path.name} line {number} was left out: it is cut or damaged ({error})")
    return items


def read_json(path: Path) -> dict[str, Any]:
    """An object from a file, empty where there is no file. Raises StoreError for a damaged one."""
    try:
        value = json.loads(read_file(path))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise StoreError(f"{path} holds {type(value).__name__}; an object is needed")
    return value


def is_run(folder: Path) -> bool:
    """Whether its `run.json` is that of a run of ours, of any age: an id, and a plan of workloads and backends."""
    try:
        run = read_json(folder / RUN)
    except StoreError:
        return False
    plan = run.get("plan")
    return isinstance(run.get("run_id"), str) and isinstance(plan, dict) and {"workloads", "backends"} <= plan.keys()


def load(folder: Path) -> Loaded:
    """Everything in a run's folder. Raises StoreError where there is no run, or a newer one than can be read."""
    if not (folder / RECORDS).exists() and not (folder / CURVES).exists() and not is_run(folder):
        raise StoreError(f"{folder} holds no run: neither {RECORDS} nor {CURVES} is there")
    problems: list[str] = []
    try:
        records = _read(folder / RECORDS, decode_record, problems)
        curves = _read(folder / CURVES, decode_epoch, problems)
    except OSError as error:
        raise StoreError(f"{folder} cannot be read: {error.strerror}") from error
    return Loaded(records, curves, read_json(folder / RUN), read_json(folder / MACHINE), problems)


def load_file(path: Path) -> Loaded:
    """Records from one file; the machine's facts where they lie beside it. Raises StoreError as `load`."""
    problems: list[str] = []
    try:
        records = _read(path, decode_record, problems)
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from error
    return Loaded(records, [], read_json(path.parent / RUN), read_json(path.parent / MACHINE), problems)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write an object so that a reader sees the old file or the new one, never half of one."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        scratch.write_text(json.dumps(value, indent=2, default=str) + "\n")
        os.replace(scratch, path)
    except OSError as error:
        with suppress(OSError):
            scratch.unlink()
        way_out = "make room, or choose" if error.errno in FULL else "choose"
        raise StoreError(f"{path} cannot be written: {error.strerror}; {way_out} another folder with -o") from error


class Journal:
    """Append-only lines, flushed one by one. One writer at a time: a second one is refused.

    Raises StoreError where the folder cannot be made, locked or written to.
    """

    def __init__(self, folder: Path, name: str = RECORDS) -> None:
        self.path = folder / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file: IO[bytes] = self.path.open("a+b", buffering=0)
        except OSError as error:
            raise StoreError(f"{folder} cannot be written: {error.strerror}; choose another folder with -o") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise StoreError(f"{self.path} is in use by another run; wait for it or choose another folder") from error
        except OSError:  # a file system that has no locks
            pass
        self.problems: list[str] = []
        self._cut_torn_end()

    def _cut_torn_end(self) -> None:
        """Drop a last line without its end, which a killed writer or a full disk leaves behind."""
        content = read_file(self.path)
        whole = content.rfind(b"\n") + 1
        if whole != len(content):
            self._file.truncate(whole)
            self.problems.append(f"{self.path.name} ended in the middle of a line; that line was dropped")

    def append(self, items: Iterable[Record | Epoch]) -> None:
        """Write the lines, or raise StoreError and leave no part of them."""
        data = b"".join(encode(item) for item in items)
        before = os.fstat(self._file.fileno()).st_size
        try:
            written = self._file.write(data)
            if written != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self._file.truncate(before)
            raise StoreError(f"{self.path} cannot be written: {error.strerror}; make room") from error

    def close(self) -> None:
        """Close the file and give the lock back."""
        self._file.close()
