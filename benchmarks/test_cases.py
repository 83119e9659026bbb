"""Every case, timed by pytest-benchmark: products, pointwise functions, optimizers, passes, and starting up."""

from __future__ import annotations

import pytest

from cases import passes, session_of, starts
from kernel_cases import optimizer, pointwise, products

KERNELS = [*products(), *pointwise(), *optimizer()]


@pytest.mark.parametrize("case", KERNELS, ids=str)
def test_kernel(measure, case):
    assert measure(case).expected()


@pytest.mark.parametrize("case", passes(), ids=str)
def test_pass(measure, case):
    assert measure(case, rounds=20).answer()["loss"] > 0


@pytest.mark.parametrize("case", starts(), ids=str)
def test_start(measure, case):
    session_of("parity").train_step()  # from then on the kernels lie compiled on the disk
    measure(case, rounds=5)
