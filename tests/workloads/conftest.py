"""An environment with no IMDB in it: every folder that is looked in lies under tmp_path, and nothing is downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.workloads import fake_imdb


@dataclass(frozen=True)
class Places:
    """The folders of the search, none of them made yet, and the content that passes for the real file."""

    data_dir: Path
    rnnbench_data: Path
    keras_home: Path
    home: Path
    cache: Path
    content: bytes

    def folder(self, name: str) -> Path:
        return {
            "--data-dir": self.data_dir,
            "$RNNBENCH_DATA": self.rnnbench_data,
            "$KERAS_HOME/datasets": self.keras_home / "datasets",
            "~/.keras/datasets": self.home / ".keras" / "datasets",
        }[name]


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    where = Places(*(tmp_path / n for n in ("asked", "data", "keras", "home", "cache")), fake_imdb.content())
    monkeypatch.setenv("RNNBENCH_DATA", str(where.rnnbench_data))
    monkeypatch.setenv("KERAS_HOME", str(where.keras_home))
    monkeypatch.setenv("HOME", str(where.home))
    monkeypatch.setenv("USERPROFILE", str(where.home))
    monkeypatch.setenv("RNNBENCH_CACHE", str(where.cache))
    monkeypatch.setenv("RNNBENCH_OFFLINE", "1")
    fake_imdb.expect(monkeypatch, where.content)
    return where
