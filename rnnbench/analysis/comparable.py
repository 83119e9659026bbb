"""Whether two sides measured the same work in the same way on the same kind of machine; if not, what differs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from rnnbench.analysis.devices import on_gpu
from rnnbench.records.record import Record, checks_in

MAX_DIFFERENCES = 5  # named one by one


@dataclass(frozen=True)
class Side:
    """What was measured of one version: its records, and the facts of its machine, empty where they are not known."""

    records: Sequence[Record]
    machine: Mapping[str, Any] = field(default_factory=dict)


def differences(backend: str, base: Side, new: Side) -> list[str]:
    """What makes the two unlike, `name base / new` each; nothing where they may stand in one ratio.

    The records are those of one case and backend. Work (sizes, dtype, model, seeds), contract (threads, unless both
    found the better of the same numbers; subnormals, TF32), machine, and the versions of what the backend computes
    with.
    """
    return [*unlike_work(base, new), *_machines(backend, base, new)]


def unlike_work(base: Side, new: Side) -> list[str]:
    """What differs in work and contract, without the machines."""
    records = [(r.case, r.seeds) for side in (base, new) for r in side.records]
    cases = [flat(msgspec.to_builtins(case)) for case in _different(case for case, _ in records)]
    seeds = [flat(msgspec.to_builtins(s), "seed of ") for s in _different(seeds for _, seeds in records)]
    checked = [r for side in (base, new) for r in checks_in(side.records) if r.contract is not None]
    tried = {r.tried for r in checked}
    found = len(tried) == 1 and tried != {()}  # both took the better of the same numbers, whichever that was
    promised = _different((0 if found else c.threads, c.subnormals, c.tf32) for r in checked if (c := r.contract))
    contracts = [dict(zip(("threads", "subnormals", "TF32"), of, strict=True)) for of in promised]
    unlike = {**_unlike(cases), **_unlike(seeds), **_unlike(contracts)}
    return [f"{name} {a} / {b}" for name, (a, b) in unlike.items()]


def unlike_machines(base: Side, new: Side) -> list[str]:
    """What differs between the machines of two runs: facts, versions by backend, and the commit of rnnbench."""
    shared = {r.backend for r in base.records} & {r.backend for r in new.records}
    found: dict[str, None] = {}
    for name in sorted(shared) or [""]:
        found |= dict.fromkeys(_machines(name, base, new))
    machines = [m for m in (base.machine, new.machine) if m]
    code = [{"rnnbench": m.get("rnnbench"), "commit": (m.get("git") or {}).get("commit")} for m in machines]
    return [*found, *(f"{name} {a} / {b}" for name, (a, b) in _unlike(code).items())]


def first_few(differences: Sequence[str]) -> str:
    """Differences in one sentence; of many the first."""
    more = len(differences) - MAX_DIFFERENCES
    return "; ".join([*differences[:MAX_DIFFERENCES], *([f"and {more} more"] if more > 0 else [])])


def _different(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))


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
    found = _unlike_parts(base.machine, new.machine, gpu=on_gpu([*base.records, *new.records]))
    found |= _unlike([_versions(backend, base.machine), _versions(backend, new.machine)])
    yield from (f"{name} {a} / {b}" for name, (a, b) in found.items())


def _unlike_parts(base: Mapping[str, Any], new: Mapping[str, Any], *, gpu: bool) -> dict[str, tuple[Any, Any]]:
    """The facts in which the parts of two machines differ, of a GPU only where it was used.

    Of an older fingerprint, which has no hashes, the fewer.
    """
    hashes = [machine.get("hashes") or {} for machine in (base, new)]
    both = all(hashes)
    found: dict[str, tuple[Any, Any]] = {}
    for part, mine in parts_of(base).items():
        theirs = parts_of(new)[part]
        if (part == GPU and not gpu) or (both and hashes[0].get(part) == hashes[1].get(part)):
            continue
        shared = mine.keys() | theirs.keys() if both else mine.keys() & theirs.keys()
        named = _unlike([{k: v for k, v in side.items() if k in shared} for side in (mine, theirs)])
        if both and not named and part != "software":  # libraries, too, make that hash
            named = {part: (hashes[0].get(part), hashes[1].get(part))}
        found |= named
    return found


def _versions(backend: str, machine: Mapping[str, Any]) -> dict[str, Any]:
    """Libraries, BLAS and OpenMP as the worker of this backend named them; all that are installed where it did not."""
    worker = machine.get("workers", {}).get(backend, {})
    versions = dict(worker.get("libraries") or machine.get("libraries", {}))
    for pool in worker.get("threadpools") or ():
        name = pool.get("internal_api") or "threads"
        kind = " ".join(str(pool[key]) for key in ("version", "architecture") if pool.get(key))
        versions[name] = " and ".join(sorted({*filter(None, (versions.get(name) or "").split(" and ")), kind}))
    return versions


_SETTINGS = (
    "allowed",
    "governor",
    "frequency_driver",
    "turbo",
    "turbo_off",
    "container",
)  # of the system, not the chip
_DRIFTING = ("mhz",)
_SYSTEM = ("memory_bytes", "os", "distribution", "libc", "limits", "kernel", "environment")
_SOFTWARE = ("python", "compiler")
_OF_GPU = (
    "name", "driver", "cuda", "memory_bytes", "compute_capability", "ecc", "mig", "most_sm_mhz", "power_limit_watts",
)  # fmt: skip
GPU = "gpu"


def flat(facts: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested facts by name: `{"model": {"H": 32}}` as `{"model H": 32}`."""
    found: dict[str, Any] = {}
    for key, value in facts.items():
        name = f"{prefix}{key.rstrip('_')}"
        found |= flat(value, f"{name} ") if isinstance(value, Mapping) else {name: value}
    return found


def parts_of(machine: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Part -> its facts by name, of a `machine.json` of any age. Libraries are looked at by backend, and not here."""
    found, gpu = machine.get("cpu"), machine.get("gpu")
    cpu = found if isinstance(found, Mapping) else {}
    chip = {key: value for key, value in cpu.items() if key not in (*_SETTINGS, *_DRIFTING)}
    settings = {key: value for key, value in cpu.items() if key in _SETTINGS}
    system = {key: machine[key] for key in _SYSTEM if key in machine}
    if isinstance(memory := system.get("memory_bytes"), int):
        system["memory_bytes"] = _memory_put_in(memory)
    return {
        "processor": flat({"cpu": chip}),
        GPU: flat({"gpu": {key: gpu[key] for key in _OF_GPU if key in gpu}} if isinstance(gpu, Mapping) else {}),
        "system": flat({"cpu": settings, **system}),
        "software": flat({key: machine[key] for key in _SOFTWARE if key in machine}),
    }


def _memory_put_in(usable: int) -> int:
    """Bytes up to the next 4 binary digits, such as 32 GiB of 31.2.

    A system keeps 1 to 3 % for itself, and at each start, and on each of several alike machines, a little more or less.
    """
    step = 1 << max(0, usable.bit_length() - 4)
    return -(-usable // step) * step


def hashes_of(machine: Mapping[str, Any]) -> dict[str, str]:
    """Part -> its hash. That of the software covers everything installed that computes, and rnnbench."""
    parts = parts_of(machine)
    parts["software"] |= flat({key: machine.get(key) for key in ("libraries", "rnnbench")})
    return {part: digest(facts) for part, facts in parts.items()}


def digest(facts: Mapping[str, Any]) -> str:
    """The first twelve signs of the SHA-256 of facts as JSON."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:12]
