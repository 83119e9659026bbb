"""`check` as a user types it, over stored runs."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from rnnbench.cli import main
from rnnbench.commands.check import EXIT_CODES
from rnnbench.results import store
from tests.results.test_warnings import QUIET, steady


@pytest.fixture
def stored(tmp_path):
    def made(name, records, machine):
        journal = store.Journal(tmp_path / name)
        journal.append(records)
        journal.close()
        if machine is not None:
            store.write_json(tmp_path / name / store.MACHINE, machine)
        return tmp_path / name

    return made


def check(*arguments):
    result = CliRunner().invoke(main, ["check", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_a_clean_run_is_0(stored):
    result = check(stored("clean", steady(), QUIET))
    assert (result.exit_code, result.stdout) == (0, "warnings: 0, notes: 0\n")
    assert json.loads(check(stored("clean2", steady(), QUIET), "--json").stdout) == []


def test_warnings_are_1_most_severe_first_with_their_remedies(stored):
    folder = stored("busy", steady(launches=1), {**QUIET, "end": {"others_share": 0.5, "load_per_core": 1.0}})
    result = check(folder)
    assert result.exit_code == 1
    first, second, last = result.stdout.splitlines()
    assert first.startswith("severe, busy machine: other processes took 50.0 %")
    assert second.startswith("warning, few launches: imdb-50 train_step")
    assert "Remedy: end other programs" in first
    assert last == "warnings: 2, notes: 0"
    result = check(folder / store.RECORDS, "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert [w["kind"] for w in found] == ["others", "launches"]
    assert all(w["remedy"] and w["title"] and w["text"] for w in found)


def test_notes_alone_are_0(stored):
    result = check(stored("old", steady(), None))
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


def test_the_exit_codes_are_documented():
    text = CliRunner().invoke(main, ["check", "--help"]).stdout
    for code, meaning in EXIT_CODES.items():
        assert f"  {code}  {meaning}" in text
    assert check().exit_code == 2
