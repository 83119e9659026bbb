"""Products in register tiles, at the sizes of the workloads, against NumPy and against the clock."""

from __future__ import annotations

import pytest

from kernel_cases import products


@pytest.mark.parametrize("case", products(), ids=lambda case: case.name)
def test_product(measure, case):
    assert measure(case).expected()
