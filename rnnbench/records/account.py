"""Where the time of a run went: seconds by kind, as `run.json` holds them, and the share that the harness took."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any


class TimeKind(StrEnum):
    """What a second of a run was for. Each second is counted once, by the innermost kind."""

    START = "starting and importing"
    PREPARE = "preparing"  # parameters and rows staged, put back before a turn, a batch chosen before a call
    CHECK = "compiling and checking"  # first calls, losses of the first steps, the oracle
    TRIAL = "finding the threads"  # their processes, first calls and turns
    TURNS = "timed calls"  # warm-ups too
    MEMORY = "memory of passes"
    TRAINING = "trainings"
    PEAK = "peak of the machine"
    DATA = "reading data"
    AROUND = "around the calls"  # of a turn: the request, its reply, other clocks and counters
    WAITING = "waiting between turns"  # for the threads of the one before to fall asleep
    AGAIN = "measuring disturbed turns again"
    QUIET = "waiting for quiet"  # before that
    STOP = "stopping workers"
    REPORT = "report"
    REST = "the rest"


# Measuring, importing, compiling and checking. The others are what the harness costs. Waiting is measuring, as warm-ups
# are: without it a turn would be timed beside the threads of the one before, or beside other programs.
WORK = (
    TimeKind.START,
    TimeKind.PREPARE,
    TimeKind.CHECK,
    TimeKind.TRIAL,
    TimeKind.TURNS,
    TimeKind.AGAIN,
    TimeKind.WAITING,
    TimeKind.QUIET,
    TimeKind.MEMORY,
    TimeKind.TRAINING,
    TimeKind.PEAK,
)


def seconds_of(run: Mapping[str, Any]) -> dict[TimeKind, float]:
    """Seconds by kind in a `run.json`; empty where they are not there, as in runs before they were kept."""
    found = run.get("seconds")
    kept = found if isinstance(found, Mapping) else {}
    return {kind: float(kept[kind]) for kind in TimeKind if isinstance(kept.get(kind), int | float)}


def overhead(seconds: Mapping[TimeKind, float]) -> float:
    """The share of all seconds that is neither measuring nor importing, compiling or checking; 0 of no seconds."""
    total = sum(seconds.values())
    return sum(s for kind, s in seconds.items() if kind not in WORK) / total if total else 0.0


def time_in_words(run: Mapping[str, Any]) -> str | None:
    """One sentence for a report, or None where nothing was kept."""
    seconds = seconds_of(run)
    total = sum(seconds.values())
    if not total:
        return None
    work = ", ".join(f"{kind} {100 * seconds.get(kind, 0) / total:.1f} %" for kind in WORK if seconds.get(kind))
    rest = {kind: s for kind, s in seconds.items() if kind not in WORK and s >= 0.05}
    named = ", ".join(f"{kind} {s:.1f} s" for kind, s in sorted(rest.items(), key=lambda item: -item[1]))
    text = f"Of {total:.0f} s: {work}; harness {100 * overhead(seconds):.1f} %" + (f" ({named})" if named else "")
    return text if TimeKind.REPORT in seconds else f"{text}, the report not yet counted"
