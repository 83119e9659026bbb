"""Merging runs: all launches of all, none twice, nothing unlike under one number."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from rnnbench.analysis.compare import Gate, Verdict
from rnnbench.analysis.stats import summaries
from rnnbench.api.compare import compared
from rnnbench.api.merge import merge
from rnnbench.api.run import read_plan
from rnnbench.model import Pass
from rnnbench.records import store
from rnnbench.records.record import MEMORY, Mode, Seeds
from tests.calling import called, stored
from tests.report import fake

MACHINE = {
    "cpu": {"model": "Made-up CPU 9000"}, "libraries": {"numpy": "2", "torch": "2"}, "git": {"commit": "abc1234x"},
    "peak": {"method": "made up", "rates": {"float32": [{"threads": 1, "flops": 1e9, "read": 1e9, "mixed": 1e9}]}},
}  # fmt: skip
PASSES = (Pass.FORWARD, Pass.TRAIN_STEP)


def write(folder, run_id, backends=("numpy", "numba"), names=("parity",), seed=0, machine=None, run=None, **changes):
    made = fake.make(names, backends, PASSES, seed=seed)
    records = [replace(r, **{"run_id": run_id, "machine_id": "m1"} | changes) for r in made.records]
    stored(folder, records, {**MACHINE, **(machine or {})})
    curves = store.Journal(folder, store.CURVES)
    curves.append(replace(e, run_id=run_id) for e in made.epochs)
    curves.close()
    plan = {"workloads": list(names), "backends": list(backends), "sweep": None, "seed": 0}
    store.write_json(
        folder / store.RUN,
        {"run_id": run_id, "plan": plan, "command": f"run {run_id}", "started": "2026-01-02", "beside": [],
         "seconds": {"report": 2.0, "timed calls": 98.0}, **(run or {})},
    )  # fmt: skip
    return str(folder)


def test_a_process_for_memory_is_no_launch(tmp_path):
    runs = [write(tmp_path / name, f"run-{name}") for name in "ab"]
    for name in "ab":
        r = store.load(tmp_path / name).records[0]
        memory = replace(r, launch=MEMORY, round=MEMORY, samples_ns=(), peak_memory_bytes=1)
        stored(tmp_path / name, [memory])
    merge(tmp_path / "all", runs, "merge", print)
    loaded = store.load(tmp_path / "all")
    assert {r.launch for r in loaded.records if r.round == MEMORY} == {MEMORY}
    assert [told["launches"] for told in loaded.run["merged"].values()] == ["0 to 2", "3 to 5"]


@pytest.fixture
def runs(tmp_path):
    return [write(tmp_path / name, f"run-{name}", seed=n) for n, name in enumerate("abc")]


def test_all_launches_of_all_runs_stand_in_one(tmp_path, runs):
    merge(tmp_path / "all", runs, "merge", print)
    loaded = store.load(tmp_path / "all")
    assert loaded.problems == []
    assert len(loaded.records) == 3 * len(store.load(tmp_path / "a").records)
    assert len({(r.case.key, r.backend, r.part, r.launch, r.round) for r in loaded.records}) == len(loaded.records)
    assert {r.run_id: {s.launch for s in loaded.records if s.run_id == r.run_id} for r in loaded.records} == {
        "run-a": {0, 1, 2}, "run-b": {3, 4, 5}, "run-c": {6, 7, 8},
    }  # fmt: skip
    assert len(loaded.curves) == 3 * len(store.load(tmp_path / "a").curves)
    for s in summaries(loaded.records):
        assert len({key[:2] for key in s.turns}) == 9
        alone = [t for name in "abc" for t in _of(tmp_path / name, s).turns.values()]
        assert sorted(s.turns.values()) == sorted(alone)
    run = loaded.run
    assert run["merged"]["run-b"]["launches"] == "3 to 5"
    assert run["merged"]["run-b"]["command"] == "run run-b"
    assert run["seconds"] == {"timed calls": 294.0, "report": 6.0}
    assert run["unlike"] == []
    assert run["run_id"] not in ("run-a", "run-b", "run-c")


def _of(folder, s):
    return next(x for x in summaries(store.load(folder).records) if (x.case, x.backend) == (s.case, s.backend))


def test_runs_of_other_cases_and_backends_lie_side_by_side(tmp_path, runs):
    other = write(tmp_path / "other", "run-o", ("jax",), ("imdb-50",), run={"beside": ["reports/x (process 1)"]})
    merge(tmp_path / "all", [runs[0], other], "", print)
    loaded = store.load(tmp_path / "all")
    assert {(r.backend, r.case.workload) for r in loaded.records} == {
        ("numpy", "parity"), ("numba", "parity"), ("jax", "imdb-50"),
    }  # fmt: skip
    assert loaded.run["plan"]["backends"] == ["numpy", "numba", "jax"]
    assert loaded.run["beside"] == ["reports/x (process 1)"]


def test_a_merge_is_compared_merged_again_and_not_resumed(tmp_path, runs):
    merge(tmp_path / "ab", runs[:2], "", print)
    found = compared(str(tmp_path / "ab"), runs[2], Gate(), "", print).findings
    assert {f.launches for f in found} == {(6, 3)}
    assert all(f.has_interval for f in found)
    merge(tmp_path / "abc", [str(tmp_path / "ab"), runs[2]], "", print)
    merged = store.load(tmp_path / "abc").run["merged"]
    assert {name: m["launches"] for name, m in merged.items()} == {
        "run-a": "0 to 2", "run-b": "3 to 5", "run-c": "6 to 8",
    }  # fmt: skip
    with pytest.raises(store.StoreError, match="resume those, and merge again"):
        read_plan(tmp_path / "ab")
    with pytest.raises(ValueError, match="both hold run run-a"):
        merge(tmp_path / "twice", [str(tmp_path / "ab"), runs[0]], "", print)
    assert not (tmp_path / "twice").exists()


UNLIKE = [
    ({"machine": {"cpu": {"model": "Another CPU"}}, "machine_id": "m2"}, "cpu model Made-up CPU 9000 / Another CPU"),
    ({"machine": {"libraries": {"numpy": "3", "torch": "2"}}, "machine_id": "m2"}, "numpy 2 / 3"),
    ({"machine": {"git": {"commit": "def"}}}, "commit abc1234x / def"),
]


@pytest.mark.parametrize(("changes", "words"), UNLIKE)
def test_unlike_machines_are_refused_and_by_force_get_no_common_number(tmp_path, runs, changes, words):
    other = write(tmp_path / "other", "run-o", **changes)
    extra = write(tmp_path / "extra", "run-e", ("jax",), **changes)
    with pytest.raises(ValueError, match="unlike machines or versions") as refused:
        merge(tmp_path / "all", [runs[0], other], "", print)
    assert words in str(refused.value)
    assert "--force" in str(refused.value)
    said = []
    made = merge(tmp_path / "all", [runs[0], extra, other], "", said.append, force=True)
    assert any(words in line for line in said)
    found = {(s.backend, s.case.pass_): s for s in summaries(made.records)}
    assert found["jax", Pass.FORWARD].ranked
    assert not found["numba", Pass.FORWARD].ranked
    assert "not comparable: measured on unlike machines" in found["numba", Pass.FORWARD].reason
    verdicts = {(f.backend, f.verdict) for f in compared(runs[0], str(tmp_path / "all"), Gate(), "", print).findings}
    assert ("numba", Verdict.NOT_COMPARABLE) in verdicts


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mode": Mode.QUICK}, "mode default / quick"),
        ({"seeds": Seeds(1, 1, 1)}, "seed of params 0 / 1"),
        ({"contract": replace(fake.contract("numpy"), threads=7)}, "threads 2 / 7"),
        ({"case": replace(fake.case("parity", Pass.FORWARD), B=64)}, "B 32 / 64"),
        ({"run": {"plan": {"sweep": {"H": [1]}}}}, "sweep none / {'H': [1]}"),
    ],
)
def test_unlike_work_is_refused_even_by_force(tmp_path, runs, changes, words):
    other = write(tmp_path / "other", "run-o", **changes)
    with pytest.raises(ValueError, match="did not do the same") as refused:
        merge(tmp_path / "all", [runs[0], other], "", print, force=True)
    assert words in str(refused.value)
    assert not (tmp_path / "all").exists()


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path, runs):
    with pytest.raises(store.StoreError, match="c holds a run; give a new folder"):
        merge(tmp_path / "c", runs[:2], "", print)
    with pytest.raises(store.StoreError, match="is not a folder; give a new folder"):
        merge(tmp_path / "c" / store.RUN, runs[:2], "", print)
    (tmp_path / "empty").mkdir()
    merge(tmp_path / "empty", runs[:2], "", print)
    assert (tmp_path / "empty" / store.RECORDS).exists()


def test_a_disk_that_is_full_leaves_no_half_of_a_run(tmp_path, runs, monkeypatch):
    def full(self, items):
        raise store.StoreError("no room")

    monkeypatch.setattr(store.Journal, "append", full)
    with pytest.raises(store.StoreError, match="was not written: no room; make room"):
        merge(tmp_path / "out" / "all", runs[:2], "", print)
    assert list((tmp_path / "out").iterdir()) == []


def test_an_interrupt_leaves_no_half_of_a_run(tmp_path, runs, monkeypatch):
    def interrupted(self, items):
        raise KeyboardInterrupt

    monkeypatch.setattr(store.Journal, "append", interrupted)
    with pytest.raises(KeyboardInterrupt):
        merge(tmp_path / "out" / "all", runs[:2], "", print)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["out", "a"], 2, "one run is given, a; merging takes two or more after OUT"),
        (["out", "a", "a"], 2, "a is given twice"),
        (["out", "a", "./a"], 2, "a is given twice"),
        (["out", "a", "nowhere"], 4, "nowhere is neither a folder, nor a file, nor a run under reports"),
        (["out", "a", "a/records.jsonl"], 4, "is a file; give the folder of a run"),
        (["b", "a", "c"], 4, "b holds a run; give a new folder"),
        (["", "a", "c"], 2, "the name of the folder is empty"),
    ],
)
def test_what_cannot_be_merged_is_said_in_one_sentence(tmp_path, runs, monkeypatch, arguments, code, words):
    monkeypatch.chdir(tmp_path)
    done = called("merge", *arguments, code=code)
    assert words in " ".join(done.output.split())
    assert not (tmp_path / "out").exists()


def test_the_command_writes_a_report(tmp_path, runs, monkeypatch):
    monkeypatch.setattr("rnnbench.report.page._figures", lambda *_: ({}, []))  # drawn in tests/report
    write(tmp_path / "other", "run-o", machine={"cpu": {"model": "Another CPU"}}, machine_id="m2")
    monkeypatch.chdir(tmp_path)
    done = called("merge", "all", "a", "other", "--force", code=0)
    assert "merged from unlike machines or versions: cpu model Made-up CPU 9000 / Another CPU" in done.output
    page = (tmp_path / "all" / "report.md").read_text()
    assert "> **merged from unlike machines" in page
    assert "merged: run-o: command" in page
    assert json.loads((tmp_path / "all" / store.RUN).read_text())["unlike"]
