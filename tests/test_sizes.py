"""The sizes of a sweep: one axis at a time, each case once."""

from __future__ import annotations

import pytest

from rnnbench.sizes import Sizes, Sweep


def test_one_axis_at_a_time_around_the_centre():
    sweep = Sweep(H=(16, 128, 64), T=(5, 100), centre=Sizes(128, 32, 100))
    assert sweep.axes == {
        "H": [Sizes(16, 32, 100), Sizes(64, 32, 100), Sizes(128, 32, 100)],
        "T": [Sizes(128, 32, 5), Sizes(128, 32, 100)],
    }
    assert sweep.cases == [*sweep.axes["H"], Sizes(128, 32, 5)]  # the centre is on both axes, and one case


def test_a_grid_has_each_h_with_each_b_once():
    sweep = Sweep(H=(2, 4), B=(1, 3), centre=Sizes(2, 1, 7), grid=True)
    assert sweep.cases == [Sizes(2, 1, 7), Sizes(4, 1, 7), Sizes(2, 3, 7), Sizes(4, 3, 7)]
    assert len(set(sweep.cases)) == 4


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda: Sizes(H=0), "H is 0; it must be at least 1"),
        (lambda: Sweep(H=(4, -1)).cases, "H is -1; it must be at least 1"),
        (lambda: Sweep(H=(4, 5), E=0), "E is 0; it must be at least 1"),
        (lambda: Sweep(), "no axis is swept"),
        (lambda: Sweep(H=(4, 5), grid=True), "more than one size of H and of B"),
    ],
)
def test_wrong_sizes_are_refused(made, words):
    with pytest.raises(ValueError, match=words):
        made()
