"""tanh and sigmoid over all states of a batch."""

from __future__ import annotations

import pytest

from kernel_cases import pointwise


@pytest.mark.parametrize("case", pointwise(), ids=lambda case: case.name)
def test_pointwise(measure, case):
    assert measure(case).expected()
