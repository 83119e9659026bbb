"""`check` as a user types it, over stored runs."""

from __future__ import annotations

import json

import pytest

from rnnbench.api.exit_codes import EXIT_CODES
from rnnbench.records import store
from tests.analysis.test_warnings import QUIET, steady
from tests.calling import called


def check(*arguments):
    return called("check", *arguments)


def test_a_clean_run_is_0(folder):
    result = check(folder("clean", steady(), QUIET))
    assert (result.exit_code, result.stdout) == (0, "warnings: 0, notes: 0\n")
    assert json.loads(check(folder("clean2", steady(), QUIET), "--json").stdout) == []


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
    found = json.loads(result.stdout)
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
