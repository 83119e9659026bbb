"""Runs for the commands to read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.calling import stored


@pytest.fixture
def folder(tmp_path):
    """`folder(name, records, machine)`: a run of this name."""

    def made(name: str, records, machine=None) -> Path:
        return stored(tmp_path / name, [replace(r, run_id=name) for r in records], machine)

    return made
