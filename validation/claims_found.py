"""What simulated runs showed, and the tables of `claims.py`."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

SURE = 0.999  # confidence at which a bound counts as broken: of 100 rows one in ten thousand runs is so by chance


@dataclass(frozen=True)
class Found:
    """Of so many simulated runs those in which something held. `least` and `most`: the share that this project states.

    `claimed` is what the method promises; `more` is what else the same runs showed.
    """

    what: str
    world: str
    claimed: str
    hits: int
    runs: int
    least: float = 0.0
    most: float = 1.0
    more: str = ""

    @property
    def share(self) -> float:
        return self.hits / self.runs

    @cached_property
    def chance(self) -> tuple[float, float]:
        """The exact 95 % interval of the share (Clopper and Pearson, 1934)."""
        return self._interval(0.95)

    @property
    def broken(self) -> bool:
        """Whether the share surely lies outside its bounds, chance left aside."""
        low, high = self._interval(SURE)
        return high < self.least or low > self.most

    def _interval(self, confidence: float) -> tuple[float, float]:
        from scipy.stats import binomtest

        low, high = binomtest(self.hits, self.runs).proportion_ci(confidence, method="exact")
        return float(low), float(high)

    def row(self) -> dict[str, str]:
        """Its line of a table."""
        low, high = (percent(x) for x in self.chance)
        return {
            "what": self.what,
            "simulated": self.world,
            "claimed": self.claimed,
            "found": f"{percent(self.share)} % ({low} to {high})",
            "of": f"{self.runs:,}",
            "beside": self.more,
        }

    def complaint(self) -> str:
        """What is wrong, with the bound."""
        bound = f"at least {100 * self.least:g}" if self.share < self.least else f"at most {100 * self.most:g}"
        return f"{self.what}, {self.world}: {percent(self.share)} % of {self.runs:,}; {bound} % is stated"


@dataclass(frozen=True)
class Table:
    """A table of one part; where `rows` is empty it has a row of its own for each thing found."""

    title: str
    found: Sequence[Found]
    rows: Sequence[Mapping[str, str]] = ()

    def markdown(self) -> str:
        from tabulate import tabulate

        rows = [dict(row) for row in self.rows or [one.row() for one in self.found]]
        filled = [name for name in rows[0] if any(row[name] for row in rows)]
        table = tabulate([[row[name] for name in filled] for row in rows], filled, "pipe", disable_numparse=True)
        return f"**{self.title}**\n\n{table}\n"


def percent(share: float) -> str:
    """`94.7`, `0.25`: two figures below 1 %."""
    return f"{100 * share:.1f}" if share >= 0.01 or share == 0 else f"{100 * share:.2g}"


def rng_of(seed: int, what: str) -> np.random.Generator:
    """Chance of its own for each row, whatever other rows are drawn."""
    return np.random.default_rng([seed, zlib.crc32(what.encode())])
