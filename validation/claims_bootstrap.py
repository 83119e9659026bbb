"""Student's t over launches, which this project uses, beside two bootstraps: what each covers, and how wide it is."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np

from rnnbench.analysis.compare import ratio_of_runs
from rnnbench.analysis.stats import CONFIDENCE, interval_of
from worlds import Floats, Rng, World, turns_of

RESAMPLES = 1_999
CHUNK = 250  # runs that are resampled together: their resamples are the same, those of the next are others
METHODS = ("t", "percentile", "BCa")


@dataclass(frozen=True)
class Ends:
    """Of each simulated run the ends of its interval, as logarithms (runs,)."""

    low: Floats
    high: Floats

    def hold(self, truth: float) -> int:
        """How many hold the truth. An interval with no ends holds nothing."""
        return int(((self.low <= truth) & (truth <= self.high)).sum())

    @property
    def width(self) -> float:
        """The median of high over low, as a part: 0.1 for 1.1 times."""
        return math.expm1(float(np.nanmedian(self.high - self.low)))


def by_student(logs: Floats) -> Ends:
    """The project's interval of each row of launch values (runs, L)."""
    found = [interval_of(turns_of(np.exp(row)[:, None])) for row in logs]
    return Ends(*(np.log([getattr(one, end) for one in found]) for end in ("low", "high")))


def by_bootstrap(logs: Floats, rng: Rng) -> dict[str, Ends]:
    """The same by resampling launches: percentiles (Efron, 1979), and BCa (Efron, 1987)."""
    from scipy.stats import bootstrap

    ends: dict[str, list[Floats]] = {"percentile": [], "BCa": []}
    for rows in np.array_split(logs, math.ceil(len(logs) / CHUNK)):
        how = {"axis": -1, "vectorized": True, "confidence_level": CONFIDENCE, "rng": rng}
        found = bootstrap((rows,), np.mean, n_resamples=RESAMPLES, method="percentile", batch=50, **how)
        ends["percentile"].append(np.array(found.confidence_interval))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of rows whose resamples are all alike; they have no ends
            found = bootstrap((rows,), np.mean, n_resamples=0, method="BCa", bootstrap_result=found, **how)
        ends["BCa"].append(np.array(found.confidence_interval))
    return {name: Ends(*np.concatenate(parts, axis=1)) for name, parts in ends.items()}


def every_method(world: World, launches: int, runs: int, rng: Rng) -> dict[str, Ends]:
    """Method -> its intervals of the same simulated runs."""
    logs = world.draw(rng, (runs, launches))
    return {"t": by_student(logs), **by_bootstrap(logs, rng)}


def of_two_runs(launches: int, runs: int, spread: float, rng: Rng) -> dict[str, Ends]:
    """The ratio of two unchanged runs: Welch's interval, and percentiles of resampled launches of both."""
    from scipy.stats import bootstrap

    base, new = rng.normal(0, spread, (2, runs, launches))
    found = [ratio_of_runs(*rows) for rows in zip(base.tolist(), new.tolist(), strict=True)]
    welch = Ends(*(np.log([getattr(one, end) for one in found]) for end in ("low", "high")))
    drawn = bootstrap(
        (new, base), lambda x, y, axis: x.mean(axis) - y.mean(axis), n_resamples=RESAMPLES, method="percentile",
        batch=50, axis=-1, vectorized=True, confidence_level=CONFIDENCE, rng=rng,
    )  # fmt: skip
    return {"Welch": welch, "percentile": Ends(*drawn.confidence_interval)}
