"""An entry of the registry is all that a backend needs outside its own file."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from rnnbench import backends
from rnnbench.machine.environment import environment, thread_counts
from rnnbench.machine.fingerprint import libraries
from rnnbench.report.style import look

PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"


@pytest.mark.parametrize("name", backends.REGISTRY)
def test_an_extra_is_one_of_the_project(name):
    extras = tomllib.loads(PYPROJECT.read_text())["project"]["optional-dependencies"]
    entry = backends.REGISTRY[name]
    assert (entry.extra in extras) if entry.needs else entry.extra is None


def test_what_an_entry_says_reaches_workers_runs_and_figures(monkeypatch, tmp_path):
    mine = backends.Entry(
        "mine:Mine",
        (),
        None,
        "of one's own",
        libraries=("click",),
        environment={"MINE_THREADS": "{threads}", "MINE_MODE": "fast"},
        caches={"MINE_CACHE": "{folder}/mine", "MINE_FLAGS": "--cache={folder}/flags"},
        look=backends.Look("#123456", "o", "-", ""),
    )
    monkeypatch.setitem(backends.REGISTRY, "mine", mine)
    monkeypatch.setenv("MINE_THREADS", "9")
    monkeypatch.setenv("MINE_FLAGS", "--mine")
    env = environment(2, tmp_path)
    assert (env["MINE_THREADS"], env["MINE_MODE"]) == ("2", "fast")
    assert env["MINE_CACHE"] == str(tmp_path / "mine")
    assert env["MINE_FLAGS"] == f"--mine --cache={tmp_path / 'flags'}"
    assert (tmp_path / "mine").is_dir()
    assert "MINE_CACHE" not in environment(2, None)
    assert "MINE_THREADS" in thread_counts()
    assert "click" in libraries()
    assert look("mine").colour == "#123456"
    monkeypatch.setenv("MINE_MODE", "slow")
    assert environment(2, None)["MINE_MODE"] == "slow"


def test_a_replica_has_the_entry_of_its_backend():
    assert backends.entry_of(f"numpy{backends.REPLICA}") is backends.REGISTRY["numpy"]


def test_looks_tell_all_backends_apart_and_their_markers_can_be_filled():
    from matplotlib.markers import MarkerStyle

    looks = [entry.look for entry in backends.REGISTRY.values() if entry.look]
    for what in ("colour", "marker", "line"):
        assert len({getattr(one, what) for one in looks}) == len(looks), what
    assert all(MarkerStyle(one.marker).is_filled() for one in looks)
