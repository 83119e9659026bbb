"""Backends beside one another in one process."""

from __future__ import annotations

import os

import pytest
from threadpoolctl import threadpool_limits


@pytest.fixture(scope="package", autouse=True)
def _xla_optimizes_little(request):
    """XLA compiles small networks anew in nearly every test, and optimizing is over half of that. `--every-case` has it
    all, as have the runs of the command line.
    """
    if request.config.getoption("--every-case"):
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLA_FLAGS", f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0".strip())
        yield


@pytest.fixture(autouse=True)
def _one_thread_where_tests_run_side_by_side():
    """Whoever was loaded last may have raised OpenMP's threads for all; beside other tests they wait for a core."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        yield
        return
    with threadpool_limits(limits=1):
        yield
