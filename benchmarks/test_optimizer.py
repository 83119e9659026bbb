"""One update of all parameters: SGD and Adam, in cache and out of it."""

from __future__ import annotations

import pytest

from kernel_cases import optimizer


@pytest.mark.parametrize("case", optimizer(), ids=lambda case: case.name)
def test_update(measure, case):
    assert measure(case).expected()
