"""Warnings from what the machine is and how busy it was."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rnnbench.analysis.warnings.base import Severity, Sign, facts_of
from rnnbench.records.record import Record, checks_in

OTHERS, OTHERS_SEVERE = 0.05, 0.25  # of the time of the allowed cores
STOLEN, STOLEN_SEVERE = 0.01, 0.1
LOAD_BEFORE = 0.25  # a core; an idle machine is near 0
LOAD_AFTER = 1.25  # a core; the run itself keeps no more than 1 busy


def of_machine(records: Sequence[Record], machine: Mapping[str, Any]) -> Iterator[Sign]:
    """Load, other processes, stolen time, clock policy, and more threads than cores."""
    yield from _business(machine)
    yield from _clock_policy(facts_of(machine, "cpu"))
    yield from _crowded(records, machine)


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _number(facts: Mapping[str, Any], key: str) -> float | None:
    value = facts.get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _business(machine: Mapping[str, Any]) -> Iterator[Sign]:
    start, end = facts_of(machine, "start"), facts_of(machine, "end")
    shares = (
        ("others", "others_share", "other processes took", OTHERS, OTHERS_SEVERE),
        ("stolen", "stolen_share", "the hypervisor gave to others", STOLEN, STOLEN_SEVERE),
    )
    for kind, key, words, limit, severe in shares:
        before, during = _number(start, key), _number(end, key)
        value = during if during is not None else before
        when = "during the run" if during is not None else "just before the run"
        if value is not None and value > limit:
            text = f"{words} {_share(value)} of the allowed cores' time {when}; more than {_share(limit)} disturbs"
            yield Sign(kind, Severity.SEVERE if value > severe else Severity.WARNING, text)
    if _number(end, "others_share") is None:
        yield Sign("unknown", Severity.NOTE, "how busy other processes were during the run was not recorded")
    for facts, when, limit in ((start or _old_load(machine), "start", LOAD_BEFORE), (end, "end", LOAD_AFTER)):
        load = _number(facts, "load_per_core")
        if load is not None and load > limit:
            text = f"load {load:.2f} per core at the {when} of the run, more than {limit:g}"
            yield Sign("load", Severity.WARNING, text)


def _old_load(machine: Mapping[str, Any]) -> dict[str, Any]:
    load, cores = machine.get("load"), _number(facts_of(machine, "cpu"), "allowed")
    minute = load[0] if isinstance(load, list) and load else None
    return {"load_per_core": minute / cores} if isinstance(minute, int | float) and cores else {}


def _clock_policy(cpu: Mapping[str, Any]) -> Iterator[Sign]:
    if not cpu:
        return
    governor, turbo = cpu.get("governor"), cpu.get("turbo")
    low, high = _number(cpu, "min_mhz"), _number(cpu, "max_mhz")
    between = f", which lets the clock move from {low:.0f} to {high:.0f} MHz" if low and high else ""
    if governor is None:
        yield Sign("unknown", Severity.NOTE, "the frequency governor is not told here")
    elif governor != "performance":
        yield Sign("governor", Severity.WARNING, f"the governor is {governor}{between}; performance holds it up")
    if turbo is None:
        yield Sign("unknown", Severity.NOTE, "whether the clock may rise above its nominal one is not told here")
    elif turbo == "on":
        text = "the clock may rise above its nominal one as heat and neighbours allow; off is steady"
        yield Sign("turbo", Severity.WARNING, text)


def _crowded(records: Sequence[Record], machine: Mapping[str, Any]) -> Iterator[Sign]:
    threads = max((r.contract.threads for r in checks_in(records) if r.contract), default=0)
    cores, group = _number(facts_of(machine, "cpu"), "allowed"), _number(facts_of(machine, "limits"), "cpus")
    for limit, words in ((cores, "cores are allowed"), (group, "processors are what the control group allows")):
        if limit is not None and threads > limit:
            yield Sign("crowded", Severity.SEVERE, f"{threads} threads, but {limit:g} {words}")
