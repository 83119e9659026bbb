"""Where most launches lie, and how far two sets of them are apart: 95 % intervals by ranks, of logarithms.

Ranks, since one launch of an hour on a busy machine is then one launch and no more (decision 0040).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
LOOKED = 0.97  # where a stop rule looked after each launch: 97 % then hold the truth in 95 % of the runs (0045)

# Of so few values even the smallest and the largest hold the truth too seldom. The interval then goes on to each side
# by this part of their distance, by which 95 % of it is held where the values are normal.
_BEYOND = {3: 0.822, 4: 0.238, 5: 0.0359}
_BEYOND_OF_TWO = {(3, 3): 0.146, (3, 4): 0.0228}  # the same of the differences of two sets, the smaller set first


def median_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float, float]:
    """The median of n values and the interval of the median of all that they were drawn from, by the sign test.

    Between the order statistics that hold it more often than that and less, whatever the distribution, it is
    interpolated (Hettmansperger and Sheather, 1986). Of five values or fewer it is one of 95 %.
    """
    from scipy.special import bdtr

    x, n = np.sort(np.asarray(values, float)), len(values)
    if n in _BEYOND:
        return (float(np.median(x)), *_extended(x, _BEYOND[n]))
    held = 1 - 2 * bdtr(np.arange(n // 2), n, 0.5)  # from the k-th smallest to the k-th largest, k = 1, 2, ...
    k = int(np.count_nonzero(held >= confidence))
    part = (held[k - 1] - confidence) / (held[k - 1] - held[k])
    return (float(np.median(x)), *_at(x, k + (n - k) * part / (k + (n - 2 * k) * part)))


def shift_interval(base: Sequence[float], new: Sequence[float]) -> tuple[float, float, float]:
    """How much more `new` is than `base`: the median of all differences (Hodges and Lehmann, 1963), and its interval.

    The interval is what the test of Mann and Whitney (1947) does not reject, by its normal approximation.
    """
    from scipy.special import ndtri

    n, m = sorted((len(base), len(new)))
    apart = np.sort(np.subtract.outer(np.asarray(new, float), np.asarray(base, float)), axis=None)
    if (n, m) in _BEYOND_OF_TWO:
        return (float(np.median(apart)), *_extended(apart, _BEYOND_OF_TWO[n, m]))
    spread = math.sqrt(n * m * (n + m + 1) / 12)
    return (float(np.median(apart)), *_at(apart, n * m / 2 + 0.5 - float(ndtri(0.5 + CONFIDENCE / 2)) * spread))


def _extended(x: NDArray[np.float64], part: float) -> tuple[float, float]:
    beyond = part * float(x[-1] - x[0])
    return float(x[0]) - beyond, float(x[-1]) + beyond


def _at(x: NDArray[np.float64], rank: float) -> tuple[float, float]:
    """The values of a rank from below and from above, 1 the first, between two ranks by a line."""
    ranks = np.arange(1, len(x) + 1)
    return float(np.interp(rank, ranks, x)), float(np.interp(len(x) + 1 - rank, ranks, x))


def chance(centre: float, low: float, high: float, launches: int) -> float:
    """Two-sided p of such a value where the truth is 0: 0.05 where its interval ends there, else by Student's t.

    Half as many degrees of freedom as launches: the ends of such an interval scatter more than a standard deviation.
    """
    from scipy.special import stdtr, stdtrit

    reach = centre - low if centre > 0 else high - centre
    if centre == 0 or reach == 0:
        return float(centre == 0)
    freedom = launches / 2
    end = float(stdtrit(freedom, 0.5 + CONFIDENCE / 2))
    return 2 * float(stdtr(freedom, -end * abs(centre) / reach))
