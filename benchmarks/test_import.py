"""What every command pays before it does anything, and what kernels cost that lie compiled on the disk."""

from __future__ import annotations

import pytest

from cases import session_of, starts


@pytest.fixture(scope="module", autouse=True)
def _compiled():
    session_of("parity").train_step()


@pytest.mark.parametrize("case", starts(), ids=lambda case: case.name)
def test_start(measure, case):
    measure(case, rounds=5)
