"""Several kinds of machines: which backend is fastest where, and how its lead goes with what the machines have.

No ratio is of times of two machines: a lead is within one, and only leads are held against one another.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rnnbench.analysis.ranking import Ranking, rankings, rival_ratios
from rnnbench.analysis.stats import Summary, by_case

if TYPE_CHECKING:
    import pandas as pd

# Features of a processor -> bits of its widest vectors, the widest first.
_VECTORS = {"avx512f": 512, "asimd": 128, "avx2": 256, "avx": 256, "sse2": 128, "neon": 128}


@dataclass(frozen=True)
class KindOfMachine:
    """What alike machines measured: a label, their names, their facts, and the summaries of all cases."""

    label: str
    names: Sequence[str]
    machine: Mapping[str, Any]
    summaries: Sequence[Summary]

    @property
    def _cpu(self) -> Mapping[str, Any]:
        return self.machine.get("cpu") or {}

    @property
    def model(self) -> str:
        """The processor by name."""
        return str(self._cpu.get("model") or "unknown")

    @property
    def cores(self) -> int | None:
        """Cores that a run may use."""
        return self._cpu.get("allowed")

    @property
    def cache_bytes(self) -> int | None:
        """The largest cache of a core."""
        sizes = [size for size in (self._cpu.get("cache_bytes") or {}).values() if isinstance(size, int)]
        return max(sizes, default=None)

    @property
    def vector_bits(self) -> int | None:
        """The width of the processor's vectors."""
        features = set(self._cpu.get("features") or ())
        return next((bits for name, bits in _VECTORS.items() if name in features), None)

    @cached_property
    def rankings(self) -> dict[str, Ranking]:
        """Case -> its ranking."""
        return {ranking.key: ranking for ranking in rankings(self.summaries)}

    @cached_property
    def leads(self) -> dict[str, dict[str, float]]:
        """Backend -> case -> the time of its fastest rival over its own, by shared rounds."""
        found: dict[str, dict[str, float]] = {}
        for group in by_case(self.summaries).values():
            for cell in rival_ratios(group):
                found.setdefault(cell.backend, {})[cell.case.key] = cell.ratio
        return found


def followed(kinds: Iterable[KindOfMachine]) -> str | None:
    """The backend that is fastest most often; None where no case has two that are right."""
    fastest = Counter(r.fastest for kind in kinds for r in kind.rankings.values() if r.fastest and r.leads)
    return fastest.most_common(1)[0][0] if fastest else None


@dataclass(frozen=True)
class LeadAt:
    """The lead of a backend on the machines that have one value of a fact: its geometric mean over the cases."""

    fact: str
    value: int
    kinds: tuple[str, ...]
    lead: float
    cases: int
    ahead: int  # in how many of them


FACTS = {"cores": "cores", "largest cache": "cache_bytes", "vector width": "vector_bits"}


def leads_by_fact(kinds: Sequence[KindOfMachine], backend: str) -> list[LeadAt]:
    """How a backend's lead goes with each fact in which the machines differ, over the cases that all of them have."""
    every = [set(kind.leads.get(backend, {})) for kind in kinds]
    cases = sorted(set.intersection(*every)) if every else []
    found = []
    for fact, name in FACTS.items():
        values = {kind.label: getattr(kind, name) for kind in kinds}
        known = sorted({value for value in values.values() if value is not None})
        if len(known) < 2 or not cases:
            continue
        for value in known:
            alike = [kind for kind in kinds if values[kind.label] == value]
            ratios = [kind.leads[backend][case] for kind in alike for case in cases]
            mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
            ahead = sum(ratio > 1 for ratio in ratios)
            found.append(LeadAt(fact, value, tuple(kind.label for kind in alike), mean, len(ratios), ahead))
    return found


def machines_frame(kinds: Iterable[KindOfMachine]) -> pd.DataFrame:
    """One row for each kind of machine: label, names, processor, cores, largest cache in bytes, vector bits."""
    import pandas as pd

    columns = ["kind", "machines", "processor", "cores", "cache_bytes", "vector_bits"]
    rows = [(k.label, ", ".join(k.names), k.model, k.cores, k.cache_bytes, k.vector_bits) for k in kinds]
    return pd.DataFrame(rows, columns=columns)


def fastest_frame(kinds: Iterable[KindOfMachine]) -> pd.DataFrame:
    """One row for each case and kind of machine: fastest backend, seconds of a call, runner-up, lead and interval."""
    import pandas as pd

    rows = [
        {
            "case": key,
            "kind": kind.label,
            "fastest": r.fastest,
            "seconds": r.time.value if r.time else None,
            "runner_up": r.runner_up,
            "lead": r.lead.value if r.lead else None,
            "lead_low": r.lead.low if r.lead else None,
            "lead_high": r.lead.high if r.lead else None,
        }
        for kind in kinds
        for key, r in kind.rankings.items()
    ]
    columns = ["case", "kind", "fastest", "seconds", "runner_up", "lead", "lead_low", "lead_high"]
    return pd.DataFrame(rows, columns=columns)
