"""A run for trackers: what they read, and what has no place there."""

from __future__ import annotations

import json

import pytest

from rnnbench.model import Pass
from rnnbench.records import store
from rnnbench.records.record import Status
from rnnbench.report.trackers import FORMS, export
from tests.calling import called, stored
from tests.report.fake import case, failure, record

CASE = case("imdb-50", Pass.TRAIN_STEP)
NAME = "imdb-50 train_step float32"
RIGHT = [record(CASE, "numba", [s * 1e-3], launch=i, machine_id="abc") for i, s in enumerate((1.0, 1.01, 0.99))]
ALONE = [record(CASE, "jax", [2e-3])]
CRASH = [failure(CASE, "torch", Status.CRASHED, "killed by signal 9")]
WRONG = [record(CASE, "numpy", [1e-3], status=Status.WRONG, reason="loss is off")]
MACHINE = {"git": {"commit": "f" * 40, "dirty": False}}


def test_github_action_benchmark():
    found, left = export("github", [*RIGHT, *ALONE, *CRASH, *WRONG], MACHINE)
    first, second = found
    assert (first["name"], first["unit"]) == (f"{NAME} numba", "ns")
    assert first["value"] == pytest.approx(1e6, rel=1e-3)
    assert first["range"] == "973,857 to 1,026,742"
    assert first["extra"].splitlines() == ["launches 3, rounds 3", "machine abc", f"commit {'f' * 40}"]
    assert (second["name"], second["value"], "range" in second) == (f"{NAME} jax", pytest.approx(2e6), False)
    assert left == [f"{NAME} torch: crashed: killed by signal 9", f"{NAME} numpy: wrong: loss is off"]


def test_bencher_metric_format():
    found, left = export("bencher", [*RIGHT, *ALONE], {})
    latency = found[f"{NAME} numba"]["latency"]
    assert latency["lower_value"] < latency["value"] < latency["upper_value"]
    assert latency["value"] == pytest.approx(1e6, rel=1e-3)
    assert found[f"{NAME} jax"] == {"latency": {"value": pytest.approx(2e6)}}
    assert left == []


@pytest.mark.parametrize("form", FORMS)
def test_the_command_prints_it_and_writes_nothing(form, tmp_path):
    result = called("report", stored(tmp_path / "run", [*RIGHT, *CRASH]), "--export", form, code=0)
    assert len(json.loads(result.stdout)) == (4 if form == "badge" else 1)
    assert f"left out: {NAME} torch: crashed" in result.stderr
    assert [path.name for path in (tmp_path / "run").iterdir()] == [store.RECORDS]


def test_nothing_to_print_is_a_fault(tmp_path):
    result = called("report", stored(tmp_path, CRASH), "--export", "github", code=3)
    assert "no right time to print" in result.stderr
    wrong = called("report", tmp_path, "--export", "csv", code=2)
    assert "'github', 'bencher', 'badge'" in wrong.output
    assert "leave out --svg" in called("report", tmp_path, "--export", "github", "--svg", code=2).output
