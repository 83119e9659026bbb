"""One browser for all pages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.report import browsing


@pytest.fixture(scope="package")
def browser() -> Iterator:
    with browsing.started() as made:
        yield made
