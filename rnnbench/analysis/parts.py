"""The facts of a machine that make times unlike, in parts with a hash each: processor, GPU, system, software.

What says how busy a machine was or what was measured on it is in none of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

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
    found = machine.get("cpu")
    cpu = found if isinstance(found, Mapping) else {}
    chip = {key: value for key, value in cpu.items() if key not in (*_SETTINGS, *_DRIFTING)}
    settings = {key: value for key, value in cpu.items() if key in _SETTINGS}
    system = {key: machine[key] for key in _SYSTEM if key in machine}
    return {
        "processor": flat({"cpu": chip}),
        GPU: flat(_gpus(machine.get("gpu"))),
        "system": flat({"cpu": settings, **system}),
        "software": flat({key: machine[key] for key in _SOFTWARE if key in machine}),
    }


def _gpus(facts: Any) -> dict[str, Any]:
    """What of the device does not drift."""
    return {"gpu": {key: facts[key] for key in _OF_GPU if key in facts}} if isinstance(facts, Mapping) else {}


def hashes_of(machine: Mapping[str, Any]) -> dict[str, str]:
    """Part -> its hash. That of the software covers everything installed that computes, and rnnbench."""
    parts = parts_of(machine)
    parts["software"] |= flat({key: machine.get(key) for key in ("libraries", "rnnbench")})
    return {part: digest(facts) for part, facts in parts.items()}


def digest(facts: Mapping[str, Any]) -> str:
    """The first twelve signs of the SHA-256 of facts as JSON."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:12]
