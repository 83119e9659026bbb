"""From which size a GPU is ahead."""

from __future__ import annotations

import pytest

from rnnbench.analysis.ranking import Ahead, Stretch, ahead, crossing_size, fastest_line


def test_the_crossing_lies_where_the_power_laws_meet():
    cpu = {size: 1e-6 * size**2 for size in (16, 64, 256)}
    gpu = dict.fromkeys((16, 64, 256), 1e-6 * 100**2)
    found = ahead(gpu, cpu)
    assert found.sizes == (16, 64, 256)
    (stretch,) = found.stretches
    assert stretch.since == pytest.approx(100)
    assert stretch.until is None
    assert not found.always


@pytest.mark.parametrize(
    ("gpu", "stretches"),
    [
        ({8: 0.5, 16: 0.5, 32: 0.5}, (Stretch(None, None),)),
        ({8: 2.0, 16: 2.0, 32: 2.0}, ()),
        ({8: 2.0, 16: 1.0, 32: 2.0}, ()),  # level is not ahead
        ({16: 0.5}, (Stretch(None, None),)),
    ],
)
def test_ahead_everywhere_and_nowhere(gpu, stretches):
    found = ahead(gpu, {8: 1.0, 16: 1.0, 32: 1.0})
    assert found.stretches == stretches
    assert found.always is (stretches == (Stretch(None, None),))


def test_ahead_in_between_and_at_both_ends():
    cpu = dict.fromkeys((1, 4, 16), 1.0)
    (middle,) = ahead({1: 2.0, 4: 0.5, 16: 2.0}, cpu).stretches
    assert (middle.since, middle.until) == (pytest.approx(2.0), pytest.approx(8.0))
    first, last = ahead({1: 0.5, 4: 2.0, 16: 0.5}, cpu).stretches
    assert (first.since, last.until) == (None, None)
    assert first.until == pytest.approx(2.0)
    assert last.since == pytest.approx(8.0)


def test_lines_without_a_common_size_do_not_cross():
    assert ahead({1: 1.0}, {2: 1.0}) is None
    assert ahead({1: 1.0, 2: 1.0}, {2: 2.0}) == Ahead((2,), (Stretch(None, None),))


def test_a_level_start_counts_from_there():
    assert crossing_size((8, 1.0), (16, 2.0)) == pytest.approx(8)


def test_the_fastest_of_several_lines():
    assert fastest_line([{1: 3.0, 2: 1.0}, {1: 2.0, 4: 5.0}]) == {1: 2.0, 2: 1.0, 4: 5.0}
    assert fastest_line([]) == {}
