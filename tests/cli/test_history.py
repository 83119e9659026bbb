"""The history of many runs as a user asks for it: lines, steps, the commits they came with, and what is wrong."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from rnnbench.api.exit_codes import EXIT_CODES
from rnnbench.contract import Contract
from rnnbench.model import Pass
from rnnbench.records import store
from rnnbench.records.record import Mode, Status, TurnRecord
from tests.calling import called, stored
from tests.report.fake import case, check, failure, record

CASE = case("imdb-50", Pass.TRAIN_STEP)
OTHER = case("imdb-50", Pass.FORWARD)
WOBBLE = (1.0, 1.01, 0.985, 1.02, 0.99, 1.015, 0.98, 1.005)


def invoke(*arguments: object) -> tuple[int, str]:
    result = called("history", *arguments)
    return result.exit_code, result.output


def records(number: int, scale: float, **fields):
    """One run of two cases; the scale in milliseconds."""
    contract = Contract(fields.pop("threads", 2), "kept", False, {})
    fields = {"machine_id": "one", "run_id": f"run-{number:02}"} | fields
    return [
        r
        for c in (CASE, OTHER)
        for i, s in enumerate((1.0, 1.01, 0.99))
        for r in (
            record(c, "numba", [scale * WOBBLE[number % 8] * s * 1e-3], launch=i, **fields),
            check(c, "numba", launch=i, contract=contract, **fields),
        )
    ]


def write(folder: Path, found, commit: str | None = None, number: int = 0, dirty: bool = False) -> Path:
    git = {"commit": commit, "dirty": dirty} if commit else None
    stored(folder, found, {"machine_id": found[0].machine_id, "python": "3.11", "git": git})
    store.write_json(folder / store.RUN, {"run_id": found[0].run_id, "started": f"2026-01-{number + 1:02}T03:00:00"})
    return folder


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Twelve runs under `reports`, a commit each; from the seventh on one of two cases takes 1.3 times as long."""
    monkeypatch.chdir(tmp_path)
    subprocess.run(["git", "init", "-q"], check=True)
    identity = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.org"]
    for number in range(12):
        subprocess.run(["git", *identity, "commit", "-q", "--allow-empty", "-m", f"Change number {number}"], check=True)
        commit = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
        found = [
            replace(r, samples_ns=(round(1.3 * r.samples_ns[0]),))
            if isinstance(r, TurnRecord) and r.case != OTHER and number >= 6
            else r
            for r in records(number, 1.0)
        ]
        write(tmp_path / "reports" / f"night-{11 - number}", found, commit, number)
    return tmp_path / "reports"


def lines_of(*arguments: object) -> list[dict]:
    return json.loads(called("history", *arguments, "--json", code=0).stdout)["lines"]


def test_a_step_is_named_by_its_commit(runs):
    stepped, calm = sorted(lines_of(), key=lambda line: -len(line["steps"]))
    (step,) = stepped["steps"]
    assert (stepped["case"], calm["steps"]) == (CASE.key, [])
    assert [run["run"] for run in stepped["runs"]] == [f"run-{n:02}" for n in range(12)]
    assert step["run"] == "run-06"
    assert step["ratio"] == pytest.approx(1.3, rel=0.03)
    assert step["p"] <= 0.01
    assert step["came"].startswith("with commit ")
    assert step["came"].endswith("Change number 6")
    assert all(run["low"] < run["seconds"] < run["high"] for run in calm["runs"])


def test_what_is_not_known_of_a_commit_is_said(runs):
    store.write_json(runs / "night-5" / store.MACHINE, {"machine_id": "one", "python": "3.11"})
    step = lines_of(runs, "-k", "train_step")[0]["steps"][0]
    assert step["came"].startswith("between runs run-05 and run-06; run-05 is of ")
    (runs / "night-6" / store.RECORDS).unlink()
    for name in ("night-5", "night-7"):
        machine = store.read_json(runs / "night-4" / store.MACHINE)
        before = {**machine["git"], "dirty": True} if name == "night-7" else machine["git"]
        store.write_json(runs / name / store.MACHINE, {**machine, "git": before})
    (step,) = lines_of(runs, "-k", "train_step")[0]["steps"]
    assert step["came"].startswith("between runs run-04 and run-06, both of commit ")
    assert step["came"].endswith("files were changed beside it")


def test_several_commits_between_two_runs_are_counted(runs):
    (runs / "night-5" / store.RECORDS).unlink()
    came = lines_of(runs, "-k", "train_step")[0]["steps"][0]["came"]
    assert came.startswith("between commits ")
    assert came.endswith(", 2 commits")


def test_unlike_runs_are_on_lines_of_their_own(runs):
    write(runs / "elsewhere", records(12, 5.0, machine_id="two"), number=12)
    write(runs / "threads", records(13, 5.0, threads=1), number=13)
    _, text = invoke()
    assert "unlike runs are kept apart (2 lines): machine one / two" not in text  # their facts are known to be alike
    assert "unlike runs are kept apart (2 lines): threads 2 / 1" in text
    assert len(lines_of("-k", "forward")) == 2
    store.write_json(runs / "elsewhere" / store.MACHINE, {"machine_id": "two", "python": "3.13"})
    assert "unlike runs are kept apart (2 lines): python 3.11 / 3.13" in invoke()[1]
    apart = lines_of("-k", "forward")
    assert [len(line["runs"]) for line in apart] == [12, 1, 1]
    assert apart[1]["machine_id"] == "two"


def test_runs_that_found_different_threads_the_better_are_on_one_line(runs):
    for number, threads in ((12, 2), (13, 1), (14, 2)):
        write(runs / f"found-{number}", records(number, 1.0, threads=threads, tried=(1, 2)), number=number)
    assert [len(line["runs"]) for line in lines_of("-k", "forward")] == [15]


def test_merged_and_damaged_runs_and_smoke_tests(runs):
    together = write(runs / "merged", [*records(20, 1.3), *records(21, 1.3), *records(3, 1.0)], number=20)
    with (together / store.RECORDS).open("ab") as file:
        file.write(b'{"schema": 1, "cut')
    lone = runs / "lone.jsonl"
    lone.write_bytes(b"".join(map(store.encode, records(22, 1.3))))
    write(runs / "quick", records(23, 9.0, mode=Mode.QUICK), number=23)
    (runs / "newer").mkdir()
    (runs / "newer" / store.RECORDS).write_text('{"schema": 999}\n')
    code, text = invoke()
    assert code == 0
    assert "records.jsonl line 37 was left out" in text
    assert "upgrade rnnbench; it was left out" in text
    assert "1 quick run is left out" in text
    assert len(lines_of(runs, lone)[0]["runs"]) == 12 + 2 + 1 + 1  # run-03 once


def test_a_report_is_written(runs, tmp_path):
    code, text = invoke(runs, "-o", tmp_path / "out", "--fail")
    assert code == 1
    assert f"History: {tmp_path / 'out' / 'history.html'} and history.md" in " ".join(text.split())
    assert "1 case became slower." in (tmp_path / "out" / "history.html").read_text()
    page = (tmp_path / "out" / "history.md").read_text()
    assert r"- **imdb-50 train\_step numba**: **slower, 1." in page
    assert "Change number 6" in page
    assert (tmp_path / "out" / "figures" / "history.png").stat().st_size > 10_000
    assert (tmp_path / "out" / "tables" / "history.csv").read_text().count("\n") == 25
    assert invoke(runs, "--fail", "--margin", "50")[0] == 0


def test_every_exit_code_is_documented():
    text = " ".join(called("history", "--help").output.split())
    for code, words in EXIT_CODES["history"].items():
        assert f"{code} {words}" in text


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 4, "no run lies under reports and runs; give the folders"),
        (["nowhere"], 4, "nowhere is neither a folder, nor a file"),
        (["empty"], 4, "no run lies under empty"),
        (["newer.jsonl"], 4, "none of 1 runs holds a record that can be read"),
        (["failed"], 3, "no run has a right time"),
        (["failed", "--json"], 3, '"lines": []'),
        (["good", "-k", "nothing-like-it"], 2, "the filter 'nothing-like-it' leaves no timed case of 1 runs"),
        (["good", "--margin", "0"], 2, "'0' has 0 %; above 0 and below 100 is allowed"),
        (["good", "-o", "newer.jsonl"], 2, "is a file"),
        (["good", "-o", "/proc/nosuch"], 4, "choose another folder"),
        (["good"], 0, "1 run on a line at most: a step is looked for from 10 on"),
    ],
)
def test_wrong_use_gets_one_sentence(arguments, code, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "newer.jsonl").write_text('{"schema": 999}\n')
    write(tmp_path / "failed", [failure(CASE, "numba", Status.CRASHED, "killed")])
    write(tmp_path / "good", records(0, 1.0))
    found, text = invoke(*arguments)
    assert found == code, text
    assert words in " ".join(text.split())


def test_many_lines_of_one_run_are_counted_in_place_of_a_table_each(tmp_path):
    names = [f"backend-{n}" for n in range(7)]
    write(tmp_path / "run", [replace(r, backend=name) for name in names for r in records(0, 1.0)])
    code, text = invoke(tmp_path, "-o", tmp_path / "page")
    assert code == 0
    assert "14 lines hold one run each and are not shown" in " ".join(text.split())
    assert "backend-3" not in text
    assert "backend-3" in (tmp_path / "page" / "history.md").read_text()
    assert "backend-3" in invoke(tmp_path, "-k", "backend-3")[1]
