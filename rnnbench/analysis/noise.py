"""What a run says of itself: each backend against its replica, the same code in processes of their own (A/A).

The true ratio of replicas is 1. So what lies beside 1 is the noise of this machine and this way of measuring, and every
pair that is called different is a false alarm.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from rnnbench.analysis.intervals import CONFIDENCE, chance, median_interval
from rnnbench.analysis.stats import Basis, Interval, Summary, by_case, launch_medians, ratio_of, summaries
from rnnbench.model import Case
from rnnbench.records.record import Record

NOISE = "noise.json"
MARK = "#"  # of a replica: numba#2
MIN_MARGIN = 0.01  # a margin is never below
SHARE = 95  # percent of the launches that the floor covers


@dataclass(frozen=True)
class ReplicaPair:
    """One backend against its replica in one case. `q` is the chance of such a ratio, corrected for all pairs."""

    case: Case
    backend: str
    ratio: Interval  # replica / backend
    logs: tuple[float, ...]  # of the ratio, by launch
    q: float = math.nan

    @property
    def different(self) -> bool:
        """Whether the two would be called different: a false alarm."""
        return self.q <= 1 - CONFIDENCE

    @property
    def excludes_one(self) -> bool:
        """Whether the interval of this pair by itself leaves out 1, as one in 20 does by chance."""
        return self.ratio.basis is Basis.LAUNCHES and not self.ratio.low <= 1 <= self.ratio.high


@dataclass(frozen=True)
class Noise:
    """All pairs of a run."""

    pairs: tuple[ReplicaPair, ...]

    @property
    def launches(self) -> int:
        """The launches of the pair that has fewest."""
        return min(len(pair.logs) for pair in self.pairs)

    @property
    def spread(self) -> float:
        """What the ratio of one launch stays within in 95 of 100, as a part: 0.1 for 1 / 1.1 to 1.1."""
        logs = [abs(log) for pair in self.pairs for log in pair.logs]
        return math.expm1(float(np.percentile(logs, SHARE)))

    @property
    def floor(self) -> float:
        """The noise floor: the spread of a ratio over all launches, the median of them.

        Chance shrinks with the root of their number; a median has the root of pi/2 times that of a mean.
        """
        return math.expm1(math.log1p(self.spread) * math.sqrt(math.pi / 2 / self.launches))

    @property
    def false_alarms(self) -> int:
        """How many pairs are called different, all of them judged together."""
        return sum(pair.different for pair in self.pairs)

    def as_json(self, run_id: str, machine_id: str) -> dict[str, Any]:
        """What `noise.json` holds."""
        return {
            "schema": 1, "run_id": run_id, "machine_id": machine_id, "floor": self.floor,
            "spread_of_launches": self.spread, "launches": self.launches, "false_alarms": self.false_alarms,
            "pairs": [_fields(pair) for pair in self.pairs],
        }  # fmt: skip


def _fields(pair: ReplicaPair) -> dict[str, Any]:
    numbers = {"ratio": pair.ratio.value, "low": pair.ratio.low, "high": pair.ratio.high, "q": pair.q}
    found = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
    return {"case": pair.case.key, "backend": pair.backend, **found, "different": pair.different}


def noise_of(records: Iterable[Record]) -> Noise | None:
    """All replicas that share rounds; None where there are none."""
    pairs = []
    for group in by_case(summaries(records)).values():
        known = {s.backend: s for s in group if s.ranked}
        replicas = [s for s in known.values() if MARK in s.backend and s.backend.partition(MARK)[0] in known]
        pairs += [pair for s in replicas if (pair := _pair(known[s.backend.partition(MARK)[0]], s))]
    return Noise(tuple(_corrected(pairs))) if pairs else None


def _pair(s: Summary, replica: Summary) -> ReplicaPair | None:
    ratio = ratio_of(replica.turns, s.turns)
    shared = sorted(s.turns.keys() & replica.turns.keys())
    logs = launch_medians({key: replica.turns[key] / s.turns[key] for key in shared})
    return None if ratio is None else ReplicaPair(s.case, s.backend, ratio, tuple(logs))


def _corrected(pairs: list[ReplicaPair]) -> list[ReplicaPair]:
    """The pairs with q (Benjamini and Hochberg, 1995), of those with an interval."""
    from scipy.stats import false_discovery_control

    known = [pair for pair in pairs if pair.ratio.basis is Basis.LAUNCHES and np.ptp(pair.logs) > 0]
    if not known:
        return pairs
    q = false_discovery_control([chance(*median_interval(pair.logs), len(pair.logs)) for pair in known], method="bh")
    found = dict(zip(map(id, known), map(float, q), strict=True))
    return [ReplicaPair(p.case, p.backend, p.ratio, p.logs, found.get(id(p), math.nan)) for p in pairs]
