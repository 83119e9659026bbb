"""Intervals by ranks: against exact counts, at the edges, and the constants of few launches against simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from rnnbench.analysis import intervals
from rnnbench.analysis.intervals import CONFIDENCE, chance, median_interval, shift_interval

rng = np.random.default_rng(0)


def held(intervals, truth=0.0):
    """The share that holds the truth."""
    return np.mean([low <= truth <= high for _, low, high in intervals])


@pytest.mark.parametrize("n", [3, 4, 5, 6, 9, 10, 30])
def test_an_interval_of_the_median_holds_95_in_100(n):
    """Of n normal values, and of contaminated ones no less; 4 standard errors of 4,000."""
    even = held([median_interval(x) for x in rng.normal(0, 1, (4000, n))])
    assert even == pytest.approx(CONFIDENCE, abs=0.014)
    far = rng.normal(0, 1, (4000, n)) + 100 * (rng.random((4000, n)) < 0.2) - 0.3186  # the median of all is 0
    assert held([median_interval(x) for x in far]) > CONFIDENCE - 0.014


@pytest.mark.parametrize("sizes", [(3, 3), (4, 3), (3, 5), (5, 5), (4, 9), (20, 20)])
def test_an_interval_of_a_shift_holds_95_in_100(sizes):
    n, m = sizes
    pairs = zip(rng.normal(0, 1, (4000, n)), rng.normal(0, 1, (4000, m)), strict=True)
    assert held([shift_interval(a, b) for a, b in pairs]) == pytest.approx(CONFIDENCE, abs=0.014)


def test_the_ends_lie_between_the_order_statistics_of_the_sign_test():
    for n in range(6, 40):
        centre, low, high = median_interval(range(1, n + 1))
        at_least = stats.binom.cdf(math.floor(low) - 1, n, 0.5)
        assert at_least <= 0.025 < stats.binom.cdf(math.floor(low), n, 0.5)
        assert low + high == pytest.approx(n + 1)
        assert centre == (n + 1) / 2


def test_the_ends_of_a_shift_are_where_the_exact_test_would_end():
    for n, m in ((4, 4), (5, 7), (10, 10)):
        base, new = rng.normal(0, 1, n), rng.normal(0, 1, m)
        _, low, high = shift_interval(base, new)
        width = high - low
        for end, sign in ((low, 1), (high, -1)):
            inside, outside = (
                stats.mannwhitneyu(new - end - sign * step, base, method="exact").pvalue
                for step in (0.2 * width, -0.2 * width)
            )
            assert outside < 0.05 < inside


def test_one_launch_in_five_at_700_times_moves_the_middle_by_one_rank():
    calm = np.log([1.0, 1.01, 1.02, 1.03, 1.04])
    centre, low, _ = median_interval([*calm[:4], calm[4] + math.log(700)])
    assert centre == median_interval(calm)[0]
    assert math.exp(low) == pytest.approx(1 / 700**0.0359, rel=0.01)
    shift, *_ = shift_interval(calm, [*(calm[:4] + 0.1), calm[4] + math.log(700)])
    assert shift == pytest.approx(0.1, abs=0.011)


@pytest.mark.parametrize("values", [[0.0] * 3, [2.0] * 6, [1.0] * 5 + [9.0]])
def test_equal_values_have_an_interval_of_no_width_where_most_are_equal(values):
    centre, low, high = median_interval(values)
    assert low == centre == values[0]
    assert high == centre or len(set(values)) > 1
    assert shift_interval([0.0] * 4, [1.0] * 4) == (1.0, 1.0, 1.0)


def test_the_chance_is_5_percent_where_an_interval_ends():
    assert chance(1.0, 0.0, 2.0, 10) == pytest.approx(0.05)
    assert chance(-1.0, -4.0, 0.0, 3) == pytest.approx(0.05)
    assert chance(1.0, 0.1, 2.0, 10) < 0.05 < chance(1.0, -0.1, 2.0, 10)
    assert (chance(0.0, 0.0, 0.0, 3), chance(1.0, 1.0, 1.0, 3)) == (1.0, 0.0)


@pytest.mark.parametrize("n", [3, 5, 10])
def test_a_chance_of_one_in_a_hundred_is_hardly_more(n):
    seen = [chance(*median_interval(x), n) for x in rng.normal(0, 1, (4000, n))]
    assert np.mean(np.array(seen) <= 0.01) < 0.016
    pairs = zip(*rng.normal(0, 1, (2, 4000, n)), strict=True)
    assert np.mean([chance(*shift_interval(a, b), 2 * n) <= 0.01 for a, b in pairs]) < 0.016


def test_few_values_reach_as_far_beyond_their_ends_as_95_of_100_need():
    for n, part in intervals._BEYOND.items():
        x = np.sort(rng.normal(0, 1, (400_000, n)), axis=1)
        assert np.quantile(x[:, 0] / (x[:, -1] - x[:, 0]), 0.975) == pytest.approx(part, abs=0.02)
    for (n, m), part in intervals._BEYOND_OF_TWO.items():
        a, b = rng.normal(0, 1, (200_000, n)), rng.normal(0, 1, (200_000, m))
        low, high = b.min(axis=1) - a.max(axis=1), b.max(axis=1) - a.min(axis=1)
        assert np.quantile(low / (high - low), 0.975) == pytest.approx(part, abs=0.01)
