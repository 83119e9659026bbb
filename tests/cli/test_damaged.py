"""Damaged runs: whatever a file holds, it is named and left out, and 1 means what it always means."""

from __future__ import annotations

import json
import os
import random
import shutil
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from rnnbench.analysis.noise import NOISE
from rnnbench.records import store
from tests.calling import called
from tests.damaged import WHOLE, WHOLE_OBJECTS, copy_of, damage, run_of
from tests.helpers import specs


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> tuple[Path, Path]:
    """Two whole runs of one machine."""
    folder = tmp_path_factory.mktemp("runs")
    return run_of(folder, "base"), run_of(folder, "other", 1)


def sound(*arguments: object) -> tuple[int, str]:
    """What a command answers about a damaged run, which is no fault of ours, no wrong option and no verdict."""
    result = called(*arguments)
    assert "Traceback" not in result.output, result.output
    assert result.exit_code in (0, 3, 4), result.output
    return result.exit_code, " ".join(result.output.split())


def compared(base: Path, new: Path, *more: object) -> None:
    """`compare` answers; 1 only with a case that is slower."""
    result = called("compare", base, new, "--json", *more)
    if result.exit_code == 1:
        assert json.loads(result.stdout)["counts"]["slower"] > 0
    else:
        assert result.exit_code in (0, 3, 4, 5), result.output


@pytest.mark.slow
def test_no_damage_is_a_fault_or_a_verdict(runs, tmp_path, monkeypatch, request):
    base, other = runs
    shutil.copytree(base, tmp_path / "many/base")
    for seed in range(120 if request.config.getoption("--every-case") else 60):
        damaged = copy_of(other, tmp_path / "many/damaged")
        how = damage(damaged, random.Random(seed))
        try:
            compared(base, damaged)
            assert sound("history", tmp_path / "many", "--json")[0] == 0
            if seed % 3 == 0:
                compared(base, base, "--noise", damaged)
                assert called("check", damaged).exit_code in (0, 1, 4)
                sound("report", damaged, "--export", "bencher")
            if seed % 12 == 0:
                sound("report", damaged)
                with monkeypatch.context() as patch:  # the figures of one are enough
                    patch.setattr("rnnbench.report.page._figures", lambda *_: {})
                    sound("report", base, damaged)
        except BaseException as error:
            error.add_note(f"seed {seed}, {how}")
            raise


@pytest.mark.parametrize("content", WHOLE, ids=lambda content: repr(content[:12]))
@pytest.mark.parametrize("name", [store.RUN, store.MACHINE])
def test_a_file_of_facts_that_is_none_is_named_with_the_way_out(name, content, runs, tmp_path):
    damaged = copy_of(runs[1], tmp_path / "damaged")
    (damaged / name).write_bytes(content)
    code, text = sound("compare", runs[0], damaged)
    if content in WHOLE_OBJECTS:
        assert code == 0
    else:
        assert code == 4
        assert f"{damaged / name} cannot be read: it is cut or damaged" in text
        assert text.endswith("put back a copy, or remove it")


def test_a_damaged_run_is_left_out_of_the_history_of_the_others(runs, tmp_path):
    for run in runs:
        shutil.copytree(run, tmp_path / run.name)
    for i, content in enumerate(WHOLE):
        damaged = copy_of(runs[0], tmp_path / f"damaged-{i}")
        (damaged / store.RECORDS).write_bytes(content)
        (damaged / store.MACHINE).write_bytes(content)
    folder = copy_of(runs[0], tmp_path / "folder")
    (folder / store.RECORDS).unlink()
    (folder / store.RECORDS).mkdir()
    code, text = sound("history", tmp_path)
    assert code == 0
    assert f"{folder} cannot be read: it is a folder and not a file; it was left out" in text
    assert text.count("it was left out") >= 10
    assert " base " in text
    assert " other " in text


def changed(run: Path, change) -> None:
    """All turns of a run, or its checks where no turn has what changes, as JSON; the other lines are gone."""
    every = [json.loads(line) for line in (run / store.RECORDS).read_bytes().splitlines()]
    turns, checks = ([line for line in every if (line["round"] >= 0) is turn] for turn in (True, False))
    lines = turns
    try:
        for line in lines:
            change(line)
    except KeyError:
        lines = checks
        for line in lines:
            change(line)
    (run / store.RECORDS).write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r.update(samples_ns=[0] * 5), "Expected `int` >= 1 - at `$.samples_ns[0]`"),
        (lambda r: r.update(samples_ns=[9, -5, 9, 9, 9]), "Expected `int` >= 1 - at `$.samples_ns[1]`"),
        (lambda r: r.update(samples_ns=[10**400] * 5), "a number has 401 digits"),
        (lambda r: r.update(samples_ns=[2**63] * 5), "a number has 19 digits; at most 9223372036854775807 is read"),
        (lambda r: r.update(samples_ns=[7.5] * 5), "Expected `int`, got `float`"),
        (lambda r: r.update(warmup=5), "5 of 5 samples are warm-ups; one at least must count"),
        (lambda r: r.update(device_ns=[1]), "5 samples, but 1 by the device's clock"),
        (lambda r: r["errors"]["loss"].update(limit=0.0), "Expected `float` > 0.0 - at `$.errors[...].limit`"),
        (lambda r: r["errors"]["loss"].update(error=-1.0), "Expected `float` >= 0.0"),
        (lambda r: r["case"].update(steps=0), "steps is 0; it must be greater than 0"),
        (lambda r: r.update(energy={"joules": -1.0}), "Expected `float` >= 0.0 - at `$.energy.joules`"),
        (lambda r: r.update(schema=True), "schema is True; a whole number from 1 on"),
        (lambda r: r.pop("case"), "it has no case"),
    ],
)  # fmt: skip
def test_a_record_that_cannot_be_is_left_out_and_said(change, words, runs, tmp_path):
    damaged = copy_of(runs[1], tmp_path / "damaged")
    changed(damaged, change)
    code, text = sound("compare", runs[0], damaged)
    assert code == 4
    assert f"{damaged}: records.jsonl line 1 was left out: it is cut or damaged" in text
    assert words in text
    assert "faster" not in text
    before = (damaged / "report.md").exists()
    code, text = sound("report", damaged)
    assert code == 0  # its curves are whole
    shutil.rmtree(damaged / "figures")
    (damaged / store.CURVES).unlink()
    assert sound("report", damaged)[0] == 4
    assert not (damaged / "figures").exists()
    assert not before


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"machine_id": 0}, "`$.machine_id`"),
        ({"git": "x"}, "`$.git`"),
        ({"workers": [0]}, "`$.workers`"),
        ({"workers": {"numba": 0}}, "`$.workers[...]`"),
        ({"workers": {"numba": {"threadpools": [None]}}}, "threadpools"),
        ({"hashes": {"processor": 0}}, "`$.hashes[...]`"),
        ({"libraries": None}, "`$.libraries`"),
        ({"memory_bytes": 10**400}, "a number has 401 digits"),
    ],
)
def test_facts_of_a_machine_of_a_wrong_kind_are_named(facts, words, runs, tmp_path):
    damaged = copy_of(runs[1], tmp_path / "damaged")
    whole = json.loads((damaged / store.MACHINE).read_text())
    (damaged / store.MACHINE).write_text(json.dumps(whole | facts))
    for asked in (("compare", runs[0], damaged), ("check", damaged), ("report", damaged)):
        code, text = sound(*asked)
        assert code == 4
        assert words in text
        assert str(damaged / store.MACHINE) in text


def test_a_peak_of_zeros_is_no_peak(runs, tmp_path):
    damaged = copy_of(runs[1], tmp_path / "damaged")
    whole = json.loads((damaged / store.MACHINE).read_text())
    for rates in whole["peak"]["rates"].values():
        for each in rates:
            each.update(flops=0.0, read=0.0, mixed=0.0)
    (damaged / store.MACHINE).write_text(json.dumps(whole))
    assert sound("report", damaged)[0] == 0
    assert "Share of the machine's peak" not in (damaged / "report.md").read_text()


def test_the_report_of_a_backend_that_is_no_more_can_be_made(runs, tmp_path):
    old = copy_of(runs[1], tmp_path / "old")
    for name in (store.RECORDS, store.CURVES, store.RUN):
        (old / name).write_text((old / name).read_text().replace("numba", "theano"))
    assert sound("report", old)[0] == 0
    assert "theano" in (old / "report.md").read_text()
    assert sound("history", old)[0] == 0


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ({"backends": ["numpy", "theano"]}, "there is no backend 'theano'"),
        ({"backends": ["nump#2"]}, "there is no backend 'nump'; did you mean numpy"),
        ({"reference": "theano"}, "there is no backend 'theano'"),
        ({"workloads": ["imdb-50"]}, "Expected `object`, got `str` - at `$.workloads[0]`"),
        (
            {"workloads": [msgspec.to_builtins(replace(specs("imdb-50")[0], origin="imdb-51"))]},
            "there is no workload 'imdb-51'; did you mean imdb-50",
        ),
        ({"training": ["imdb-51"]}, "there is no workload 'imdb-51'"),
        ({"threads": 0}, "Expected `int` >= 1 - at `$.threads`"),
        ({"timeout": 0.0}, "Expected `float` > 0.0 - at `$.timeout`"),
        ({"seed": -1}, "Expected `int` >= 0 - at `$.seed`"),
        ({"sweep": {"H": [0]}}, "H is 0; it must be at least 1"),
        ({"rule": {"precision": 7.0}}, "the precision is 7; it must be above 0 and below 1"),
        (None, "it has no run.json of a run"),
    ],
)
def test_a_plan_that_cannot_be_followed_is_refused_before_anything_is_measured(plan, words, runs, tmp_path):
    damaged = copy_of(runs[1], tmp_path / "damaged")
    whole = json.loads((damaged / store.RUN).read_text())
    whole["plan"] = None if plan is None else whole["plan"] | plan
    (damaged / store.RUN).write_text(json.dumps(whole))
    before = {path: path.read_bytes() for path in damaged.iterdir()}
    code, text = sound("run", "--resume", damaged)
    assert code == 4, text
    assert words in text
    assert {path: path.read_bytes() for path in damaged.iterdir()} == before


def test_damaged_noise_is_named(runs, tmp_path):
    base, damaged = copy_of(runs[0], tmp_path / "base"), copy_of(runs[1], tmp_path / "damaged")
    for content, words in ((b"[", "is cut or damaged"), (b'{"floor": -1}', "is cut or damaged")):
        (damaged / NOISE).write_bytes(content)
        code, text = sound("compare", base, base, "--noise", damaged)
        assert code == 4
        assert f"{damaged / NOISE} cannot be read: it {words}" in text
        result = called("compare", base, base, "--json")
        assert result.exit_code == 0
        told = json.loads(result.stdout)["notes"]
        assert told[0].startswith(f"{damaged / NOISE} cannot be read")
        assert told[0].endswith("its noise was left out")
        assert told[1].endswith(f"in {base}")


def test_a_pipe_is_not_waited_for(runs, tmp_path):
    damaged = copy_of(runs[1], tmp_path / "damaged")
    (damaged / store.RECORDS).unlink()
    os.mkfifo(damaged / store.RECORDS)
    code, text = sound("check", damaged)
    assert (code, "it is a pipe and not a file" in text) == (4, True)
