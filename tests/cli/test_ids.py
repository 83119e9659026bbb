"""Runs by their ids: every one that was printed is found again, also cut short; several that are meant are told."""

from __future__ import annotations

import json
import re

import pytest

from rnnbench import load
from rnnbench.records import store
from tests.calling import called, stored
from tests.cli.test_compare import times

IDS = ("20260102-030405-aaaa", "20260102-030405-aabb", "20260103-111111-cccc")


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Three runs, whose folders do not tell their ids: two under `reports`, one of them deeper, one under `runs`."""
    monkeypatch.chdir(tmp_path)
    for run_id, name in zip(IDS, ("reports/one", "reports/nightly/two", "runs/three"), strict=True):
        stored(tmp_path / name, times(1, run_id=run_id, machine_id="one"), {"machine_id": "one", "python": "3.11"})
        store.write_json(tmp_path / name / store.RUN, {"run_id": run_id, "started": f"2026-01-0{len(name) % 3 + 1}"})
    return tmp_path


def lines(*arguments) -> list[dict]:
    return json.loads(called("history", *arguments, "--json", code=0).stdout)["lines"]


def test_every_id_that_history_prints_is_found_by_every_command(runs):
    printed = set(re.findall(r"\d{8}-\d{6}-\w{4}", called("history", code=0).output))
    assert printed == {*IDS}
    for run_id in printed:
        called("compare", run_id, IDS[0], code=0)
        called("check", run_id, "--json")
        called("report", run_id, "--export", "github", code=0)
        assert [run["run"] for run in lines(run_id)[0]["runs"]] == [run_id]
    assert load(IDS[2]).folder.name == "three"


def test_the_beginning_of_an_id_is_enough(runs):
    assert [run["run"] for run in lines("20260103")[0]["runs"]] == [IDS[2]]
    assert called("compare", "20260102-030405-aaa", "20260103", code=0)


def test_several_that_are_meant_are_told(runs):
    text = " ".join(called("check", "20260102", code=4).output.split())
    assert f"2 ids begin with 20260102: {IDS[1]} in reports/nightly/two, {IDS[0]} in reports/one" in text
    assert "give more of the id, or the folder" in text
    stored(runs / "runs" / "copy", times(1, run_id=IDS[0]))
    store.write_json(runs / "runs" / "copy" / store.RUN, {"run_id": IDS[0]})
    assert f"run {IDS[0]} lies in 2 folders, reports/one, runs/copy; give one of them" in " ".join(
        called("check", IDS[0], code=4).output.split()
    )


def test_an_id_is_looked_for_beside_what_else_is_given(runs):
    elsewhere = runs / "elsewhere" / "four"
    stored(elsewhere, times(1, run_id="20250101-000000-dddd"))
    store.write_json(elsewhere / store.RUN, {"run_id": "20250101-000000-dddd"})
    stored(runs / "elsewhere" / "five", times(1, run_id="five"))
    called("compare", "2025", runs / "elsewhere" / "five", code=0)
    assert "neither a folder" in called("compare", "2025", "20260103", code=4).output
    assert len(lines(runs / "elsewhere", "2025")[0]["runs"]) == 2


def test_what_a_pooled_report_is_called_is_found(runs):
    title = " + ".join(IDS[::2])
    assert lines("reports/one,runs/three")[0]["runs"][0]["run"] == title
    assert [run["run"] for run in lines(title)[0]["runs"]] == [title]
    called("report", title, "--export", "github", code=0)


def test_a_run_without_its_description_and_one_of_several_in_a_folder(runs):
    (runs / "runs" / "three" / store.RUN).unlink()
    called("check", IDS[2], "--json")
    (runs / "reports" / "one" / store.RUN).write_text("{damaged")
    called("check", IDS[0], "--json")
    stored(runs / "runs" / "three", times(1, run_id="20240101-000000-eeee"))
    text = " ".join(called("check", "2024", code=4).output.split())
    assert "lies in runs/three together with 1 other; give that folder, which means all of them" in text
