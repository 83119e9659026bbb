"""Our own kernels by pass and workload: forward, gradient, train step and epoch."""

from __future__ import annotations

import pytest

from cases import passes


@pytest.mark.parametrize("case", passes(), ids=lambda case: case.name)
def test_pass(measure, case):
    work = measure(case, rounds=20)
    assert work.answer()["loss"] > 0
