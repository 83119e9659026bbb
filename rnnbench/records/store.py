"""A run's folder: `run.json` (what was asked), `machine.json`, and what was answered: `records.jsonl`, `curves.jsonl`,
`trainings.jsonl`.

The `.jsonl` files are journals: a line is appended and flushed as soon as it is known, so that whatever ends a run
costs at most the line being written. A line that was cut is left out when the file is read, and said.
"""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import MISSING, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Protocol, TypedDict, TypeVar

import msgspec

from rnnbench.files import read_file
from rnnbench.records.record import (
    SCHEMA,
    CheckRecord,
    Costs,
    Epoch,
    MemoryRecord,
    Record,
    Seeds,
    TrainingRecord,
    TrialRecord,
    TurnRecord,
)
from rnnbench.records.stops import Stop, StopRule
from rnnbench.sizes import Sweep

Line = TypeVar("Line", Record, Epoch, TrainingRecord)

RECORDS, CURVES, TRAININGS, RUN, MACHINE = (
    "records.jsonl", "curves.jsonl", "trainings.jsonl", "run.json", "machine.json",
)  # fmt: skip
ANSWERS = (RECORDS, CURVES, TRAININGS)  # a folder without one of them was not measured into
MACHINES = "machines.json"  # the mark of a run over a cluster, in whose folder each kind of machine has a run

MAX_NUMBER = 2**63 - 1  # in a file: sums and products of a few stay finite
MAX_DEPTH = 32  # levels of nesting in a file: a reader may recurse for each

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # how a system says that there is no room

CHECK, MEMORY, TRIAL = -1, -2, -3  # `round` of a line that is no turn that counts

_NEVER = object()
_DEFAULTS: dict[str, Any] = {
    **{
        each.name: each.default
        for kind in (CheckRecord, TrialRecord, TurnRecord, MemoryRecord, TrainingRecord)
        for each in fields(kind)
        if each.default is not MISSING
    },
    "samples_ns": (),
    "step_counts": (),
    "device_ns": (),
    "device_states": (),
    "disturbances": (),
    "tried": (),
    "errors": {},
    "costs": msgspec.to_builtins(Costs()),
    "seeds": msgspec.to_builtins(Seeds(0, 0, 0)),
}


# What is read from the two files of facts, where it is there; whatever else they hold is only shown.
class _Pool(TypedDict, total=False):
    internal_api: str | None
    version: str | None
    architecture: str | None


class _Worker(TypedDict, total=False):
    libraries: dict[str, str]
    threadpools: list[_Pool]
    built_for: dict[str, Any]


class _Git(TypedDict, total=False):
    commit: str | None
    dirty: bool | None


class _Machine(TypedDict, total=False):
    machine_id: str
    hashes: dict[str, str] | None
    libraries: dict[str, str]
    workers: dict[str, _Worker]
    git: _Git | None


class _Plan(TypedDict, total=False):
    rule: StopRule | None
    sweep: Sweep | None


class _Run(TypedDict, total=False):
    run_id: str
    command: str
    started: str | None
    finished: str | None
    resumed: list[str]
    beside: list[str]
    unlike: list[str]
    merged: dict[str, dict[str, Any]]
    reference: str | None
    stops: dict[str, dict[str, Stop]]
    plan: _Plan | None


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
    trainings: list[TrainingRecord] = field(default_factory=list)

    @property
    def answered(self) -> bool:
        """Whether anything was measured."""
        return bool(self.records or self.curves or self.trainings)


def encode(record: Record | Epoch | TrainingRecord) -> bytes:
    """One line of JSON, without the fields that have their default. `pass_` of a case is called `pass` there."""
    raw = msgspec.to_builtins(record)
    if isinstance(record, Record | TrainingRecord):
        raw = {name: value for name, value in raw.items() if value != _DEFAULTS.get(name, _NEVER)}
        if isinstance(record, CheckRecord):
            raw |= {"round": CHECK}
        elif isinstance(record, TrialRecord):
            raw |= {"round": TRIAL}
        elif isinstance(record, MemoryRecord):
            raw |= {"launch": MEMORY, "round": MEMORY}
        raw |= {"schema": record.schema}
        raw["case"] = {("pass" if key == "pass_" else key): value for key, value in raw["case"].items()}
    return msgspec.json.encode(raw) + b"\n"


def _decoded(data: bytes, decode: Callable[[bytes], Any] = msgspec.json.decode) -> Any:
    """JSON as Python. Raises ValueError: what cannot be calculated with, or is nested too deep, is damage."""
    try:
        value = decode(data)
    except RecursionError as error:
        raise msgspec.ValidationError(f"it is nested more than {MAX_DEPTH} levels deep") from error
    _check(value, MAX_DEPTH)
    return value


def _facts(data: bytes) -> Any:
    """JSON with NaN and infinity, which are no JSON and not known."""

    def known(text: str) -> float | None:
        return value if math.isfinite(value := float(text)) else None

    return json.loads(data, parse_float=known, parse_constant=lambda _: None)


def _check(value: Any, levels: int) -> None:
    if isinstance(value, dict | list):
        if not levels:
            raise msgspec.ValidationError(f"it is nested more than {MAX_DEPTH} levels deep")
        for inner in value.values() if isinstance(value, dict) else value:
            _check(inner, levels - 1)
    elif isinstance(value, int) and abs(value) > MAX_NUMBER:
        raise msgspec.ValidationError(
            f"a number has {len(f'{value:d}'.lstrip('-'))} digits; at most {MAX_NUMBER} is read"
        )


def _line(data: bytes) -> dict[str, Any]:
    """A line of this schema. Raises msgspec.DecodeError, and StoreError for another schema."""
    raw = _decoded(data)
    if not isinstance(raw, dict):
        raise msgspec.ValidationError(f"it holds {type(raw).__name__}; an object is needed")
    schema = raw.get("schema")
    if type(schema) is not int or schema < 1:
        raise msgspec.ValidationError(f"schema is {schema!r}; a whole number from 1 on is needed")
    if schema != SCHEMA:
        raise StoreError(f"a record has schema {schema}, this rnnbench reads {SCHEMA}; upgrade rnnbench")
    return raw


def _with_case(raw: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(raw.get("case"), dict):
        raise msgspec.ValidationError("it has no case")
    return raw | {"case": {("pass_" if key == "pass" else key): value for key, value in raw["case"].items()}}


def decode_record(line: bytes) -> Record:
    """A record from its line. Raises msgspec.DecodeError for a damaged one, and StoreError for another schema."""
    raw = _with_case(_line(line))
    round_ = raw.get("round")
    if round_ == CHECK:
        return msgspec.convert(raw, CheckRecord)
    if round_ == MEMORY:
        return msgspec.convert(raw, MemoryRecord)
    kind: type[TrialRecord | TurnRecord] = TrialRecord if round_ == TRIAL else TurnRecord
    record = msgspec.convert(raw, kind)
    samples = len(record.samples_ns)
    if samples and record.warmup >= samples:
        raise msgspec.ValidationError(f"{record.warmup} of {samples} samples are warm-ups; one at least must count")
    if isinstance(record, TurnRecord) and len(record.device_ns) not in (0, samples):
        raise msgspec.ValidationError(f"{samples} samples, but {len(record.device_ns)} by the device's clock")
    return record


def decode_epoch(line: bytes) -> Epoch:
    """An epoch from its line, as `decode_record`."""
    return msgspec.convert(_line(line), Epoch)


def decode_training(line: bytes) -> TrainingRecord:
    """A training to an accuracy from its line, as `decode_record`."""
    return msgspec.convert(_with_case(_line(line)), TrainingRecord)


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
        except msgspec.DecodeError as error:
            problems.append(f"{path.name} line {number} was left out: it is cut or damaged ({error})")
        except StoreError as error:
            raise StoreError(f"{path} line {number}: {error}{_or_its_writer(path.parent)}") from error
    return items


def _or_its_writer(folder: Path) -> str:
    """The version that wrote a run, as the end of a sentence; "" where its `machine.json` does not say."""
    machine = read_json(folder / MACHINE, _Machine)
    commit = (machine.get("git") or {}).get("commit")
    at = f" at commit {commit[:7]}" if commit else ""
    return (
        f", or read it with the one that wrote it, rnnbench {machine['rnnbench']}{at}" if "rnnbench" in machine else ""
    )


def read_json(path: Path, form: Any = dict[str, Any]) -> dict[str, Any]:
    """An object from a file, empty where there is no file. Raises StoreError for a damaged one.

    `form`: what of it must have which type, where it is there.
    """
    try:
        value = _decoded(read_file(path), _facts)
        msgspec.convert(value, form)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise StoreError(
            f"{path} cannot be read: it is cut or damaged ({error}); put back a copy, or remove it"
        ) from error
    found: dict[str, Any] = value
    return found


def read_run(folder: Path) -> dict[str, Any]:
    """What was asked of the run in a folder, as `read_json`."""
    return read_json(folder / RUN, _Run)


def is_run(folder: Path) -> bool:
    """Whether its `run.json` is that of a run of ours, of any age: an id, and a plan of workloads and backends."""
    try:
        run = read_json(folder / RUN)
    except StoreError:
        return False
    plan = run.get("plan")
    return isinstance(run.get("run_id"), str) and isinstance(plan, dict) and {"workloads", "backends"} <= plan.keys()


def load_run(folder: Path) -> Loaded:
    """Everything in a run's folder. Raises StoreError where there is no run, or one of another schema."""
    problems: list[str] = []
    try:
        if not any((folder / name).exists() for name in ANSWERS) and not is_run(folder):
            raise StoreError(f"{folder} holds no run: neither {RECORDS} nor {CURVES} is there")
        records = _read(folder / RECORDS, decode_record, problems)
        curves = _read(folder / CURVES, decode_epoch, problems)
        trainings = _read(folder / TRAININGS, decode_training, problems)
    except OSError as error:
        raise StoreError(f"{folder} cannot be read: {error.strerror}") from error
    return Loaded(records, curves, read_run(folder), read_json(folder / MACHINE, _Machine), problems, trainings)


def load_file(path: Path) -> Loaded:
    """Records from one file; the machine's facts where they lie beside it. Raises StoreError as `load_run`."""
    problems: list[str] = []
    try:
        records = _read(path, decode_record, problems)
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from error
    return Loaded(records, [], read_run(path.parent), read_json(path.parent / MACHINE, _Machine), problems)


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


class Sink(Protocol):
    """Where records and epochs go as soon as they are known."""

    def append(self, items: Iterable[Record | Epoch | TrainingRecord]) -> None:
        """Keep these. Raises StoreError where that is not possible."""


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

    def append(self, items: Iterable[Record | Epoch | TrainingRecord]) -> None:
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


def new_run_id() -> str:
    """Sortable by time, unique enough for two runs begun in one second."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
