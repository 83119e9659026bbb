"""The facts of a machine in lines, for the page and for `env`: what is not told is called unknown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rnnbench.report.text import threads

UNKNOWN = "unknown"


def lines(machine: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Name and value of each fact, nested names with a blank between; workers in one line each."""
    for key, value in machine.items():
        if key == "workers":
            yield from ((f"worker {name}", _worker(facts)) for name, facts in value.items())
        else:
            yield from _lines(key, value)


def _lines(key: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _lines(f"{key} {name}", inner)
    elif isinstance(value, Sequence) and value and all(isinstance(item, Mapping) for item in value):
        for number, item in enumerate(value):
            yield from _lines(f"{key} {number}", item)
    else:
        yield key, _said(value)


def _said(value: Any) -> str:
    if value is None or value == []:
        return UNKNOWN
    return " ".join(map(_said, value)) if isinstance(value, list | tuple) else str(value)


def _pool(pool: Mapping[str, Any]) -> str:
    kind = " ".join(str(pool[key]) for key in ("version", "architecture", "threading_layer") if pool.get(key))
    name = " ".join(filter(None, (pool.get("internal_api") or "a thread pool", kind)))
    return f"{name}, {threads(pool['num_threads'])}" if "num_threads" in pool else name


def _worker(facts: Mapping[str, Any]) -> str:
    """Versions, thread pools, and what its compiler takes the machine for."""
    said = [f"{name} {version}" for name, version in facts.get("libraries", {}).items()]
    said += map(_pool, facts.get("threadpools", ()))
    said += [f"{name.replace('_', ' ')}: {value}" for name, value in facts.get("built_for", {}).items()]
    return "; ".join(said)
