"""Whether two sides measured the same work in the same way on the same kind of machine; if not, what differs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from rnnbench.results.devices import on_gpu
from rnnbench.results.record import Record

# Facts of a machine that say how busy it was or what was measured, not what it is; libraries are looked at by backend.
_NOT_THE_MACHINE = {"machine_id", "rnnbench", "libraries", "git", "load", "peak", "workers"}
_DRIFTING = {"cpu mhz"}


@dataclass(frozen=True)
class Side:
    """What was measured of one version: its records, and the facts of its machine, empty where they are not known."""

    records: Sequence[Record]
    machine: Mapping[str, Any] = field(default_factory=dict)


def differences(backend: str, base: Side, new: Side) -> list[str]:
    """What makes the two unlike, `name base / new` each; nothing where they may stand in one ratio.

    The records are those of one case and backend. Work (sizes, dtype, model, seeds), contract (threads, subnormals,
    TF32), machine, and the versions of what the backend computes with.
    """
    records = [(r.case, r.seeds, r.contract) for side in (base, new) for r in side.records]
    cases = [_flat(msgspec.to_builtins(case)) for case in _different(case for case, _, _ in records)]
    seeds = [_flat(msgspec.to_builtins(s), "seed of ") for s in _different(seeds for _, seeds, _ in records)]
    contracts = [_promised(c) for c in _contracts(base, new)]
    found = {**_unlike(cases), **_unlike(seeds), **_unlike(contracts)}
    return [*(f"{name} {a} / {b}" for name, (a, b) in found.items()), *_machines(backend, base, new)]


def _different(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))


def _contracts(base: Side, new: Side) -> list[Any]:
    return [r.contract for side in (base, new) for r in side.records if r.contract is not None]


def _promised(contract: Any) -> dict[str, Any]:
    return {"threads": contract.threads, "subnormals": contract.subnormals, "TF32": contract.tf32}


def _flat(facts: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested facts by name: `{"model": {"H": 32}}` as `{"model H": 32}`."""
    found: dict[str, Any] = {}
    for key, value in facts.items():
        name = f"{prefix}{key.rstrip('_')}"
        found |= _flat(value, f"{name} ") if isinstance(value, Mapping) else {name: value}
    return found


def _unlike(answers: Sequence[Mapping[str, Any]]) -> dict[str, tuple[Any, Any]]:
    """Name -> the first value and the first other one, of facts in which not all agree."""
    found: dict[str, tuple[Any, Any]] = {}
    for other in answers[1:]:
        for name in (*answers[0], *(name for name in other if name not in answers[0])):
            a, b = answers[0].get(name), other.get(name)
            if a != b:
                found.setdefault(name, _told(a, b))
    return found


def _told(a: Any, b: Any) -> tuple[Any, Any]:
    """Two values as they are named; of long lists what only one has."""
    if isinstance(a, list) and isinstance(b, list):
        a, b = [x for x in a if x not in b], [x for x in b if x not in a]
        return " ".join(map(str, a)) or "-", " ".join(map(str, b)) or "-"
    return ("none" if a is None else a), ("none" if b is None else b)


def _machines(backend: str, base: Side, new: Side) -> Iterator[str]:
    ids = [sorted({r.machine_id for r in side.records}) for side in (base, new)]
    if ids[0] == ids[1] and len(ids[0]) == 1:
        return
    if not (base.machine and new.machine) or max(map(len, ids)) > 1:
        yield f"machine {' and '.join(ids[0])} / {' and '.join(ids[1])}"
        return
    apart = _NOT_THE_MACHINE if on_gpu([*base.records, *new.records]) else _NOT_THE_MACHINE | {"gpu"}
    facts = [_flat({k: v for k, v in m.items() if k not in apart}) for m in (base.machine, new.machine)]
    found = {name: pair for name, pair in _unlike(facts).items() if name not in _DRIFTING}
    found |= _unlike([_versions(backend, base.machine), _versions(backend, new.machine)])
    yield from (f"{name} {a} / {b}" for name, (a, b) in found.items())


def _versions(backend: str, machine: Mapping[str, Any]) -> dict[str, Any]:
    """The libraries as the worker of this backend named them; all that are installed where it did not."""
    worker = machine.get("workers", {}).get(backend, {})
    return dict(worker.get("libraries") or machine.get("libraries", {}))
