"""`check` as a user types it, over stored runs."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from rnnbench.api.exit_codes import EXIT_CODES
from rnnbench.records import store
from tests.analysis.test_contention import contended
from tests.analysis.test_warnings import QUIET, steady
from tests.calling import called


def check(*arguments):
    return called("check", *arguments)


def test_a_clean_run_is_0(folder):
    result = check(folder("clean", steady(), QUIET))
    assert (result.exit_code, result.stdout) == (0, "warnings: 0, notes: 0\n")
    assert json.loads(check(folder("clean2", steady(), QUIET), "--json").stdout) == {"warnings": [], "contention": []}


def test_warnings_are_1_most_severe_first_with_their_remedies(folder):
    busy = folder("busy", steady(launches=1), {**QUIET, "end": {"others_share": 0.5, "load_per_core": 1.0}})
    result = check(busy)
    assert result.exit_code == 1
    first, second, last = result.stdout.splitlines()
    assert first.startswith("severe, busy machine: other processes took 50.0 %")
    assert second.startswith("warning, few launches: imdb-50 train_step")
    assert "Remedy: end other programs" in first
    assert last == "warnings: 2, notes: 0"
    result = check(busy / store.RECORDS, "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)["warnings"]
    assert [w["kind"] for w in found] == ["others", "launches"]
    assert all(w["remedy"] and w["title"] and w["text"] for w in found)


def test_notes_alone_are_0(folder):
    result = check(folder("old", steady(), None))
    assert result.exit_code == 0
    assert "note, not known" in result.stdout


@pytest.mark.parametrize("content", [None, b"", b"{}\n"])
def test_what_cannot_be_read_is_4(tmp_path, content):
    if content is not None:
        (tmp_path / store.RECORDS).write_bytes(content)
    result = check(tmp_path)
    assert result.exit_code == 4
    assert "Error: " in result.stderr
    assert check(tmp_path / "nowhere").exit_code == 4


def test_a_damaged_machine_is_4(folder):
    damaged = folder("damaged", steady(), QUIET)
    (damaged / store.MACHINE).write_text("{")
    result = check(damaged)
    assert result.exit_code == 4
    assert "machine.json cannot be read" in result.stderr


def test_the_exit_codes_are_documented():
    text = check("--help").stdout
    for code, meaning in EXIT_CODES["check"].items():
        assert f"  {code}  {meaning}" in text
    assert check().exit_code == 2


def test_what_others_took_is_shown_and_is_no_warning(folder):
    run = folder("run", contended(), QUIET)
    result = check(run)
    assert result.exit_code == 0
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    all_ = lines.index("all 5 of 6 turns, 7.00 s 40.0 % 42 25.7 % 0.5 % 1.04x")
    assert lines[all_ + 1].endswith("numba launch 1, round 2 80.0 % 40 50.0 % 1.0 % 1.10x")
    assert lines[all_ + 2].endswith("1.45x")
    found = json.loads(check(run, "--json").stdout)["contention"]
    assert found[0]["worst"][0]["amounts"] == {
        "seconds": 3.0, "waited": pytest.approx(0.8), "involuntary_switches": 40, "others": 0.5, "stolen": 0.01,
        "throttled": None, "slowed": pytest.approx(0.1),
    }  # fmt: skip


def test_what_a_control_group_held_back_is_shown_where_there_is_any(folder):
    turns = [replace(r, contention=replace(r.contention, throttled_ns=ns)) if r.contention else r
             for r, ns in zip(contended(), (0, 600_000_000, 0, None, 0, 0), strict=True)]  # fmt: skip
    text = check(folder("run", turns, QUIET)).stdout
    assert "throttled" in text
    assert "10.0 %" in text  # 0.6 of 6 s
    assert "throttled" not in check(folder("calm", contended(), QUIET)).stdout


def test_brackets_in_a_name_are_no_markup(folder):
    lines = check(folder("[red] run[/x]", [replace(r, backend="[/b]") for r in contended()], QUIET)).stdout
    assert "of [red] run[/x] by" in lines
    assert " [/b] " in lines
