"""Warnings from the samples: too few, too short, drifting, in two modes, disturbed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from rnnbench.analysis.calls import UNSETTLED, calls_of
from rnnbench.analysis.disturbances import harmless
from rnnbench.analysis.shape import BIMODAL, bimodal, drifts
from rnnbench.analysis.stats import Summary
from rnnbench.analysis.warnings.base import Severity, Sign, facts_of
from rnnbench.records.record import Mode, Record

LEAST_LAUNCHES = 3  # of fewer there is no interval
LEAST_CALLS = 6  # one in each turn of a default run
RESOLUTIONS = 100  # in a call: an error of 1 %
DRIFT = 0.05  # from the first to the last, and surely so


def of_records(records: Sequence[Record], machine: Mapping[str, Any]) -> Iterator[Sign]:
    """What single records say: mode, machine, disturbances."""
    ids = sorted({r.machine_id for r in records if r.machine_id})
    if len(ids) > 1 or (ids and machine.get("machine_id") not in (None, *ids)):
        ids = sorted({*ids, str(machine.get("machine_id", ids[0]))})
        text = f"records and facts have {len(ids)} fingerprints, {', '.join(ids)}; ratios hold within 1 alone"
        yield Sign("machines", Severity.SEVERE, text)
    quick = sum(r.mode is Mode.QUICK for r in records)
    if quick:
        yield Sign("quick", Severity.SEVERE, f"{quick} of {len(records)} records are of a smoke run; 0 may be quoted")
    for r in records:
        for told in r.disturbances:
            text = f"{told} ({r.moment})"
            severity = Severity.NOTE if harmless(told) else Severity.SEVERE
            yield Sign("disturbed", severity, text, where=f"{r.case.key} {r.backend}")


def of_answers(found: Sequence[Summary], machine: Mapping[str, Any]) -> Iterator[Sign]:
    """What all turns of an answer say together."""
    timed = [s for s in found if s.turns]
    for s in timed:
        yield from _counts(s)
        yield from _clock(s, facts_of(machine, "clock"))
        if (share := bimodal(s)) is not None:
            text = f"{share.turns} of {share.of} turns have two modes {share.apart:.2f}x apart, Ashman's D "
            yield _sign("bimodal", s, f"{text}{share.separation:.1f}, more than {BIMODAL:g}", share.apart)
    for s, change in drifts(timed):
        if abs(change) > DRIFT:
            text = f"the times moved by {100 * change:+.0f} % from first to last; more than {100 * DRIFT:g} % matters"
            yield _sign("drift", s, text, abs(change))


def _sign(kind: str, s: Summary, text: str, weight: float, severity: Severity = Severity.WARNING) -> Sign:
    return Sign(kind, severity, text, weight, f"{s.case.key} {s.backend}")


def _counts(s: Summary) -> Iterator[Sign]:
    launches, calls = len({key[:2] for key in s.turns}), calls_of(s)
    if launches < LEAST_LAUNCHES:
        said = "1 launch" if launches == 1 else f"{launches} launches"
        yield _sign("launches", s, f"{said}, of fewer than {LEAST_LAUNCHES} there is no interval", -launches)
    if calls.kept < LEAST_CALLS:
        yield _sign("calls", s, f"{calls.kept} calls count, fewer than {LEAST_CALLS}", -calls.kept)
    if calls.unsettled and calls.first:
        text = f"the first counted call takes {calls.first.value:.2f} times the later ones, more than {UNSETTLED:g}"
        yield _sign("unsettled", s, text, calls.first.value)


def _clock(s: Summary, clock: Mapping[str, Any]) -> Iterator[Sign]:
    """The clock resolves no better than its step, nor than a reading of it takes."""
    known = [clock[key] for key in ("step_ns", "read_ns") if isinstance(clock.get(key), int | float)]
    if not known:
        return
    typical, resolution = float(np.median([*s.turns.values()])) * 1e9, max(known)
    if typical < RESOLUTIONS * resolution:
        text = f"a call takes {typical:,.0f} ns, less than {RESOLUTIONS} times the clock's resolution, {resolution} ns"
        yield _sign("clock", s, text, -typical)
