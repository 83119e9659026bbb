"""What compute-sanitizer watches reaches every kernel."""

from __future__ import annotations

import functools

import pytest

from rnnbench.backends.cuda import CudaBackend
from rnnbench.kernels.cuda import device, optimizer
from tests.cuda import every_kernel, stub
from tests.cuda.conftest import REGIMES, WIDE


@pytest.mark.usefixtures("gpu")
@pytest.mark.skipif(stub.STUB is not None, reason="the simulator tells it in a tenth of the time")
def test_nothing_is_left_out(monkeypatch):
    monkeypatch.setattr(optimizer, "never_launched", never_launched, raising=False)
    assert every_kernel.run_all([*REGIMES.values(), *WIDE.values()], (6,)) == ["optimizer.never_launched"]


@functools.cache
def never_launched(dtype: str) -> None:
    """A factory of kernels that no pass asks for."""


never_launched.__module__ = optimizer.__name__


def test_without_a_device_it_says_why(monkeypatch, capsys):
    monkeypatch.setattr(device, "probe", lambda: None)
    monkeypatch.setattr(device, "unusable", lambda facts: "there is none")
    monkeypatch.setattr(CudaBackend, "prepare", lambda *arguments: pytest.fail("something was prepared"))
    assert every_kernel.main() == 3
    assert capsys.readouterr().err == "Error: there is none\n"
