"""Several runs as one: all launches of all, none twice, nothing unlike under one number."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from rnnbench.analysis.compare import Gate
from rnnbench.analysis.stats import summaries
from rnnbench.api.compare import compared
from rnnbench.api.history import history_of
from rnnbench.api.run import read_plan
from rnnbench.api.runs import read_runs
from rnnbench.model import Pass
from rnnbench.records import store
from rnnbench.records.record import MemoryRecord, Mode, Seeds, turns_in
from tests.calling import called, stored
from tests.report import fake

MACHINE = {
    "cpu": {"model": "Made-up CPU 9000"}, "libraries": {"numpy": "2", "torch": "2"}, "git": {"commit": "abc1234x"},
    "peak": {"method": "made up", "rates": {"float32": [{"threads": 1, "flops": 1e9, "read": 1e9, "mixed": 1e9}]}},
}  # fmt: skip
CONTRACT = fake.contract("numpy")
PASSES = (Pass.FORWARD, Pass.TRAIN_STEP)


def write(folder, run_id, backends=("numpy", "numba"), names=("parity",), seed=0, machine=None, run=None, **changes):
    made = fake.make(names, backends, PASSES, seed=seed)
    changes = {"run_id": run_id, "machine_id": "m1"} | changes
    records = [replace(r, **{name: v for name, v in changes.items() if hasattr(r, name)}) for r in made.records]
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


def read(*folders, force=False):
    return read_runs([Path(folder) for folder in folders], print, force=force)


def test_a_process_for_memory_is_no_launch(tmp_path):
    runs = [write(tmp_path / name, f"run-{name}") for name in "ab"]
    for name in "ab":
        r = store.load_run(tmp_path / name).records[0]
        memory = fake.memory(r.case, r.backend, run_id=r.run_id, machine_id=r.machine_id, peak_memory_bytes=1)
        stored(tmp_path / name, [memory])
    pooled = read(*runs)
    assert sum(isinstance(r, MemoryRecord) for r in pooled.records) == 2
    assert [known["launches"] for known in pooled.run["merged"].values()] == ["0 to 2", "3 to 5"]


@pytest.fixture
def runs(tmp_path):
    return [write(tmp_path / name, f"run-{name}", seed=n) for n, name in enumerate("abc")]


def test_all_launches_of_all_runs_stand_in_one(tmp_path, runs):
    pooled = read(*runs)
    assert pooled.problems == []
    assert len(pooled.records) == 3 * len(store.load_run(tmp_path / "a").records)
    turns = turns_in(pooled.records)
    assert len({(r.case.key, r.backend, r.key) for r in turns}) == len(turns)
    assert {r.run_id: {s.launch for s in pooled.records if s.run_id == r.run_id} for r in pooled.records} == {
        "run-a": {0, 1, 2}, "run-b": {3, 4, 5}, "run-c": {6, 7, 8},
    }  # fmt: skip
    assert len(pooled.curves) == 3 * len(store.load_run(tmp_path / "a").curves)
    for s in summaries(pooled.records):
        assert len({key[:2] for key in s.turns}) == 9
        alone = [t for name in "abc" for t in _of(tmp_path / name, s).turns.values()]
        assert sorted(s.turns.values()) == sorted(alone)
    run = pooled.run
    assert run["run_id"] == "run-a + run-b + run-c"
    assert run["merged"]["run-b"]["launches"] == "3 to 5"
    assert run["merged"]["run-b"]["command"] == "run run-b"
    assert run["seconds"] == {"timed calls": 294.0, "report": 6.0}
    assert run["unlike"] == []
    assert pooled.machine["peak"]["rates"] == MACHINE["peak"]["rates"] | pooled.machine["peak"]["rates"]


def _of(folder, s):
    return next(x for x in summaries(store.load_run(folder).records) if (x.case, x.backend) == (s.case, s.backend))


def test_one_run_is_read_as_it_is(tmp_path, runs):
    assert read(runs[0]) == store.load_run(tmp_path / "a")


def test_runs_of_other_cases_and_backends_lie_side_by_side(tmp_path, runs):
    other = write(tmp_path / "other", "run-o", ("jax",), ("imdb-50",), run={"beside": ["reports/x (process 1)"]})
    pooled = read(runs[0], other)
    assert {(r.backend, r.case.workload) for r in pooled.records} == {
        ("numpy", "parity"), ("numba", "parity"), ("jax", "imdb-50"),
    }  # fmt: skip
    assert pooled.run["plan"]["backends"] == ["numpy", "numba", "jax"]
    assert pooled.run["beside"] == ["reports/x (process 1)"]


def test_the_busiest_moment_of_any_is_told(tmp_path):
    loads = [{"end": {"load_per_core": load, "others_share": 0.1}} for load in (0.2, 0.9, 0.4)]
    runs = [write(tmp_path / str(n), f"run-{n}", machine=machine) for n, machine in enumerate(loads)]
    assert read(*runs).machine["end"] == {"load_per_core": 0.9, "others_share": 0.1}


def test_sides_of_several_runs_are_compared(runs, monkeypatch, tmp_path):
    found = compared(",".join(runs[:2]), runs[2], Gate(), "", print).findings
    assert {f.launches for f in found} == {(6, 3)}
    assert all(f.has_interval for f in found)
    monkeypatch.chdir(tmp_path)
    done = called("compare", "a,b", "c", "--json")
    assert json.loads(done.stdout)["counts"]
    assert "a is given twice" in called("compare", "a,./a", "c", code=2).output
    assert "nowhere is neither" in called("compare", "a,nowhere", "c", code=4).output


def test_a_name_with_a_comma_is_one_run(tmp_path, runs, monkeypatch):
    write(tmp_path / "a,b", "run-comma")
    monkeypatch.chdir(tmp_path)
    assert {f.launches for f in compared("a,b", "c", Gate(), "", print).findings} == {(3, 3)}


def test_history_takes_several_as_one_run(runs):
    lines = history_of([",".join(runs[:2]), runs[2]], "", 0.05, print).lines
    assert {tuple(point.run.id for point in line.points) for line in lines} == {("run-a + run-b", "run-c")}
    assert all(len({key[:2] for key in line.points[0].summary.turns}) == 6 for line in lines)


def test_a_folder_that_an_older_version_merged_is_read_pooled_and_not_resumed(tmp_path, runs):
    pooled = read(*runs[:2])
    stored(tmp_path / "ab", pooled.records, pooled.machine)
    store.write_json(tmp_path / "ab" / store.RUN, pooled.run)
    again = read(tmp_path / "ab", runs[2])
    assert {name: known["launches"] for name, known in again.run["merged"].items()} == {
        "run-a": "0 to 2", "run-b": "3 to 5", "run-c": "6 to 8",
    }  # fmt: skip
    assert again.run["merged"]["run-a"]["command"] == "run run-a"
    with pytest.raises(store.StoreError, match="resume those"):
        read_plan(tmp_path / "ab")
    with pytest.raises(ValueError, match="both hold run run-a"):
        read(tmp_path / "ab", runs[0])
    page = called("report", tmp_path / "ab", code=0)
    assert f"Report: {tmp_path / 'ab' / 'report.html'} and report.md" in page.output.replace("\n", "")
    assert "merged: run-b: launches" in (tmp_path / "ab" / "report.md").read_text()


UNLIKE = [
    ({"machine": {"cpu": {"model": "Another CPU"}}, "machine_id": "m2"}, "cpu model Made-up CPU 9000 / Another CPU"),
    ({"machine": {"libraries": {"numpy": "3", "torch": "2"}}, "machine_id": "m2"}, "numpy 2 / 3"),
    ({"machine": {"git": {"commit": "def"}}}, "commit abc1234x / def"),
]


@pytest.mark.parametrize(("changes", "words"), UNLIKE)
def test_unlike_machines_are_refused_and_by_force_get_no_common_number(tmp_path, runs, changes, words, capsys):
    other = write(tmp_path / "other", "run-o", **changes)
    extra = write(tmp_path / "extra", "run-e", ("jax",), **changes)
    with pytest.raises(ValueError, match="unlike machines or versions") as refused:
        read(runs[0], other)
    assert words in str(refused.value)
    assert "--force" in str(refused.value)
    pooled = read(runs[0], extra, other, force=True)
    assert words in capsys.readouterr().out
    found = {(s.backend, s.case.pass_): s for s in summaries(pooled.records)}
    assert found["jax", Pass.FORWARD].ranked
    assert not found["numba", Pass.FORWARD].ranked
    assert "not comparable: measured on unlike machines" in found["numba", Pass.FORWARD].reason


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
        read(runs[0], other, force=True)
    assert words in str(refused.value)


def test_runs_that_found_different_threads_the_better_stand_in_one_and_both_are_told(tmp_path):
    runs = [
        write(tmp_path / f"by-{n}", f"run-{n}", tried=(1, 2), threads=n, contract=replace(CONTRACT, threads=n))
        for n in (1, 2)
    ]
    pooled = read(*runs)
    for s in summaries(pooled.records):
        assert (s.threads, s.ranked, len({key[:2] for key in s.turns})) == ((1, 2), True, 6)
    result = called("report", *runs, code=0)
    assert "Threads: 4 of 4 by 1 or 2" in result.output
    assert re.search(r"ahead of", result.output)
    assert "by 1 thread or 2 threads" in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["a", "a"], 2, "a is given twice"),
        (["a", "./a"], 2, "a is given twice"),
        (["a", "nowhere"], 4, "nowhere is neither a folder, nor a file, nor a run under reports"),
        (["a", "none"], 4, "none holds no run"),
        (["a", "", "c"], 2, "the name of the folder is empty"),
        (["a", "c", "--svg"], 2, "several runs are only printed; give --output, or leave out --svg"),
        (["a", "--export", "github", "-o", "out"], 2, "--export writes nothing; leave out --output"),
        (["a", "c", "-o", "theirs"], 4, "report.md there was not made by rnnbench"),
    ],
)
def test_what_cannot_be_reported_as_one_is_said_in_one_sentence(tmp_path, runs, monkeypatch, arguments, code, words):
    monkeypatch.chdir(tmp_path)
    for name in ("none", "theirs"):
        (tmp_path / name).mkdir()
    (tmp_path / "theirs" / "report.md").write_text("# My own words\n")
    done = called("report", *arguments, code=code)
    assert words in " ".join(done.output.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("no_figures")
def test_a_report_of_several_is_printed_and_written_where_it_is_asked_for(tmp_path, runs, monkeypatch):
    write(tmp_path / "other", "run-o", machine={"cpu": {"model": "Another CPU"}}, machine_id="m2")
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    done = called("report", "a", "b", code=0)
    assert "parity" in done.output
    assert "Report:" not in done.output
    assert sorted(tmp_path.rglob("*")) == before
    done = called("report", "a", "other", "--force", "-o", "both", code=0)
    assert "runs of unlike machines or versions: cpu model Made-up CPU 9000 / Another CPU" in done.output
    page = (tmp_path / "both" / "report.md").read_text()
    assert "## Answer\n\n**runs of unlike machines" in page
    assert "merged: run-o: command" in page
    called("report", "a", "c", "-o", "both", code=0)
    assert re.search(r"\| launches +\| +6 \|", (tmp_path / "both" / "report.md").read_text())
    assert json.loads(called("report", "a", "c", "--export", "bencher", code=0).stdout)
