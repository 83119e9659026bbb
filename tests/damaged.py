"""A stored run, and ways to damage its files: bytes that are cut or changed, and values that no field can hold."""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from rnnbench.analysis.noise import NOISE, noise_of
from rnnbench.analysis.stop_rule import stop_of
from rnnbench.harness.plan import Plan
from rnnbench.model import DType, Pass
from rnnbench.records import store
from rnnbench.records.record import Mode
from rnnbench.records.stops import StopRule, Why
from tests.calling import stored
from tests.helpers import specs
from tests.report.fake import make

MACHINE = Path(__file__).resolve().parents[1] / "reports/cpu-2-cores/machine.json"
FILES = (store.RECORDS, store.CURVES, store.RUN, store.MACHINE, NOISE)
BACKENDS = ("numpy", "numba", "numba#2")


def deep(levels: int) -> str:
    """JSON as text: `json.dumps` gives up long before a reader does."""
    return '{"a":' * levels + "0" + "}" * levels


WHOLE_OBJECTS = (b"{}", deep(20).encode(), b'{"schema": 1}', b'{"schema": 99}', b'{"a": "\\ud800"}')
WHOLE = (
    b"", b"\n", b"null", b"0", b"[]", b'"text"', b"[null]", b"\xff\xfe\x00", b"\x00" * 64, b"NaN", b"1e400", b"{",
    deep(100_000).encode(), b"[" * 100_000, b"1" + b"0" * 400, b"1" + b"0" * 5000, *WHOLE_OBJECTS,
)  # fmt: skip
BIG = 10**400
VALUES: tuple[Any, ...] = (
    None, 0, -5, 1, 2**63, 2**64, BIG, -BIG, 0.0, -1e-300, 5e-324, 1.7e308, math.nan, math.inf, True, "", "text",
    "\x00", "\ud800", [], [0], ["text"], [None], [[]], {}, {"text": 0}, {"": None}, json.loads(deep(60)), [BIG], [0.5],
    [-5],
)  # fmt: skip


def run_of(folder: Path, name: str, seed: int = 0) -> Path:
    """A folder with all that a run writes: records, curves, a plan, reasons to stop, the noise of twins."""
    made = make(("parity", "imdb-50"), BACKENDS, (Pass.FORWARD, Pass.TRAIN_STEP), seed=seed, rounds=2, samples=4)
    machine = json.loads(MACHINE.read_text())
    records = [replace(r, run_id=name, machine_id=machine["machine_id"], backend=r.backend) for r in made.records]
    path = stored(folder / name, records, machine)
    journal = store.Journal(path, store.CURVES)
    journal.append(replace(e, run_id=name) for e in made.epochs)
    journal.close()
    plan = Plan(specs("parity", "imdb-50"), BACKENDS, (Pass.FORWARD, Pass.TRAIN_STEP), (DType.FLOAT32,), Mode.DEFAULT,
                2, 0, 300.0, rule=StopRule.until(0.05))  # fmt: skip
    stop = msgspec.to_builtins(stop_of(Why.CAP, {}, "30 launches"))
    store.write_json(
        path / store.RUN,
        {
            "schema": 1, "run_id": name, "mode": "default", "command": "python -m rnnbench run",
            "started": "2026-01-02T03:04:05+00:00", "finished": "2026-01-02T03:14:05+00:00", "resumed": [],
            "beside": [], "seed": 0, "reference": None, "plan": msgspec.to_builtins(plan),
            "seconds": {"timed calls": 9.5, "report": 2.0},
            "stops": {records[0].case.key: {"numpy": stop, "numba": stop}},
        },
    )  # fmt: skip
    found = noise_of(records)
    assert found is not None
    store.write_json(path / NOISE, found.as_json(name, machine["machine_id"]))
    return path


def damage(path: Path, rng: random.Random) -> str:
    """Damage one file of a run; how, in words."""
    file = path / rng.choice(FILES)
    how = rng.choice(
        [_cut, _flipped, _holed, _replaced, _replaced, _folder, *[_value] * 3, *[_everywhere] * 3, _without]
    )
    return f"{file.name}: {how(file, rng)}"


def _cut(file: Path, rng: random.Random) -> str:
    data = file.read_bytes()
    at = rng.randrange(len(data))
    file.write_bytes(data[:at])
    return f"cut at byte {at}"


def _flipped(file: Path, rng: random.Random) -> str:
    data = bytearray(file.read_bytes())
    places = [rng.randrange(len(data)) for _ in range(rng.choice((1, 1, 5, 50)))]
    for at in places:
        data[at] = rng.randrange(256)
    file.write_bytes(data)
    return f"bytes {places} changed"


def _holed(file: Path, rng: random.Random) -> str:
    data = file.read_bytes()
    at, size = rng.randrange(len(data)), rng.choice((1, 10, 1000))
    file.write_bytes(data[:at] + data[at + size :])
    return f"{size} bytes left out at {at}"


def _replaced(file: Path, rng: random.Random) -> str:
    whole = rng.choice(WHOLE)
    file.write_bytes(whole)
    return f"replaced by {whole[:30]!r}"


def _folder(file: Path, rng: random.Random) -> str:
    file.unlink()
    file.mkdir()
    return "a folder in its place"


def _documents(file: Path) -> list[Any]:
    lines = file.read_bytes().splitlines() if file.suffix == ".jsonl" else [file.read_bytes()]
    return [json.loads(line) for line in lines]


def _write(file: Path, documents: list[Any]) -> None:
    file.write_text("".join(json.dumps(d) + "\n" for d in documents))


def _place(document: Any, rng: random.Random) -> tuple[Any, ...]:
    """Somewhere in a document; each level is as likely as the others."""
    levels: dict[int, list[tuple[Any, ...]]] = {}
    for place in _places(document):
        levels.setdefault(len(place), []).append(place)
    return rng.choice(levels[rng.choice(list(levels))])


def _places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if at:
        yield at
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from _places(inner, (*at, key))


def _change(document: Any, place: tuple[Any, ...], change: Callable[[Any, Any], None]) -> None:
    *outer, last = place
    for key in outer:
        document = document[key]
    change(document, last)


def _value(file: Path, rng: random.Random) -> str:
    documents, value = _documents(file), rng.choice(VALUES)
    document = rng.choice(documents)
    place = _place(document, rng)
    _change(document, place, lambda inside, key: inside.__setitem__(key, value))
    _write(file, documents)
    return f"{place} is {str(value)[:30]!r}" if value not in (BIG, -BIG, [BIG]) else f"{place} is 10^400"


def _everywhere(file: Path, rng: random.Random) -> str:
    documents, value = _documents(file), rng.choice(VALUES)
    place = _place(documents[0], rng)
    for document in documents:
        try:
            _change(document, place, lambda inside, key: inside.__setitem__(key, value))
        except (KeyError, IndexError, TypeError):
            continue
    _write(file, documents)
    said = "10^400" if value in (BIG, -BIG, [BIG]) else str(value)[:30]
    return f"{place} is {said!r} in every line"


def _without(file: Path, rng: random.Random) -> str:
    documents = _documents(file)
    document = rng.choice(documents)
    place = _place(document, rng)
    _change(document, place, lambda inside, key: inside.__delitem__(key))
    _write(file, documents)
    return f"{place} is missing"


def copy_of(run: Path, folder: Path) -> Path:
    """A copy to be damaged, in place of an earlier one."""
    shutil.rmtree(folder, ignore_errors=True)
    return Path(shutil.copytree(run, folder))
