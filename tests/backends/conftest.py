"""Backends beside one another in one process."""

from __future__ import annotations

import os

import pytest
from threadpoolctl import threadpool_limits


@pytest.fixture(autouse=True)
def _one_thread_where_tests_run_side_by_side():
    """Whoever was loaded last may have raised OpenMP's threads for all; beside other tests they wait for a core."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        yield
        return
    with threadpool_limits(limits=1):
        yield
