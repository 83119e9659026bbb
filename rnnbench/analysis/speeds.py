"""Did the machine run at two speeds? On a shared host its other guests switch the core between two, for seconds.

All backends are slow at the same time then, so all turns of a run are looked at together, in the order of time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rnnbench.analysis.diagnostics import BIMODAL, separation
from rnnbench.analysis.stats import turn_seconds
from rnnbench.records.record import Record, Status, turns_in

MIN_TURNS = 100  # of a run, to look
NEIGHBOURS = 7  # turns in time, of which the median shows the speed: a disturbed one alone is none
MIN_SHARE = 0.15  # of the turns at either speed
MIN_STRETCHES = 3  # at the lower speed; once or twice is another program
ALIKE = 1.08  # no stretch at the lower speed is further from their median; programs take now more, now less
APART = (1.15, 2.0)  # of two clock speeds; what takes more is another program
FAST = 0.1  # quantile of a case's turns that is surely of the higher speed, to begin with
STEPS = 5  # of finding the speeds by the level of each case, and the levels by the speeds

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Speeds:
    """`slow` of `turns` turns, in `stretches`, took `apart` times as long as the others. `separation`: Ashman's D."""

    turns: int
    slow: int
    apart: float
    separation: float
    stretches: int


def two_speeds(records: Iterable[Record]) -> Speeds | None:
    """The two speeds that all backends ran at in turn, or None where there is one, or too few turns to tell."""
    timed = [(r, s) for r in turns_in(records) if r.status is Status.OK and (s := turn_seconds(r)) is not None]
    if len(timed) < MIN_TURNS:
        return None
    number: dict[tuple[str, str], int] = {}
    answers = np.array([number.setdefault((r.case.key, r.backend), len(number)) for r, _ in timed])
    logs = np.log([s for _, s in timed])
    return speeds_of(logs, answers)


def speeds_of(logs: Floats, answers: NDArray[np.int_]) -> Speeds | None:
    """Of N turns in the order of time, log seconds (N,), and which answer each is of (N,), counted from 0."""
    own = [np.flatnonzero(answers == i) for i in range(answers.max() + 1)]
    levels = np.array([np.quantile(logs[turns], FAST) for turns in own])
    for _ in range(STEPS):
        smooth = _running_median(logs - levels[answers])
        apart, ratio, cut = separation(smooth, MIN_SHARE)
        slow = smooth > cut
        levels = np.array([np.median(logs[turns] - np.log(ratio) * slow[turns]) for turns in own])
    own_levels = logs - levels[answers]
    ends = np.flatnonzero(np.diff(slow, prepend=False, append=False)).reshape(-1, 2)
    stretches = [float(np.median(own_levels[a:b])) for a, b in ends if b - a > NEIGHBOURS // 2]
    if apart <= BIMODAL or not APART[0] < ratio < APART[1] or len(stretches) < MIN_STRETCHES:
        return None
    if np.max(np.abs(np.array(stretches) - np.median(stretches))) > np.log(ALIKE):
        return None
    return Speeds(len(logs), int(slow.sum()), ratio, apart, len(stretches))


def _running_median(x: Floats) -> Floats:
    """Of each value and its neighbours: (N,) of (N,)."""
    padded = np.pad(x, NEIGHBOURS // 2, mode="edge")
    found: Floats = np.median(np.lib.stride_tricks.sliding_window_view(padded, NEIGHBOURS), axis=1)
    return found
