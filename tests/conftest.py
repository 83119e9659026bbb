"""Shared fixtures and options."""

from __future__ import annotations

import pytest
from threadpoolctl import threadpool_limits

from rnnbench import backends


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--backend", action="append", choices=list(backends.REGISTRY), help="only these backends")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "backend" in metafunc.fixturenames:
        names = metafunc.config.getoption("--backend") or list(backends.REGISTRY)
        metafunc.parametrize("backend", names, indirect=True, scope="session")


@pytest.fixture(scope="session", autouse=True)
def _one_thread_for_the_oracle():
    """The oracle's products are small; where tests run side by side, a second BLAS thread waits more than it works."""
    with threadpool_limits(limits=1, user_api="blas"):
        yield


@pytest.fixture(scope="session")
def backend(request: pytest.FixtureRequest):
    """A backend of the registry, loaded in this process; skipped, with the way to get it, where it is not installed."""
    if reason := backends.missing(request.param):
        pytest.skip(reason)
    return backends.load(request.param)
