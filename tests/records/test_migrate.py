"""Folders as earlier versions wrote them: each is read, reported, compared and merged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from rnnbench.analysis.compare import Gate
from rnnbench.api.compare import compared
from rnnbench.api.merge import merge
from rnnbench.records import migrate, store
from rnnbench.records.record import SCHEMA
from rnnbench.report.data import ReportData
from rnnbench.report.page import write_report
from rnnbench.work import work_of

FIXTURES = Path(__file__).parent / "fixtures"
OLDER = list(range(1, SCHEMA))


def folder_of(schema):
    return FIXTURES / f"schema-{schema}"


def test_every_schema_has_a_fixture_and_a_step():
    assert sorted(path.name for path in FIXTURES.iterdir()) == [f"schema-{n}" for n in range(1, SCHEMA + 1)]
    assert list(migrate.STEPS) == OLDER
    for schema in range(1, SCHEMA + 1):
        for name in (store.RECORDS, store.CURVES):
            lines = (folder_of(schema) / name).read_bytes().splitlines()
            assert {json.loads(line)["schema"] for line in lines} == {schema}


@pytest.mark.parametrize("schema", range(1, SCHEMA + 1))
def test_it_is_read_in_the_newest_form(schema):
    loaded = store.load(folder_of(schema))
    assert loaded.problems == []
    assert len(loaded.records) == 2 * 2 * 3 * (1 + 2)
    assert loaded.curves
    assert {line.schema for line in (*loaded.records, *loaded.curves)} == {SCHEMA}
    for r in loaded.records:
        assert (r.flops, r.least_bytes) == (work_of(r.case).flops, work_of(r.case).bytes)
        assert (r.device_ns, r.disturbances, r.energy) == ((), (), None)
    assert [store.decode_record(store.encode(r).strip()) for r in loaded.records] == loaded.records


def test_the_newest_line_comes_back_as_it_is():
    raw = {"schema": SCHEMA, "anything": 1}
    assert migrate.migrated(raw) is raw


def test_a_newer_one_is_refused_with_the_way_out(tmp_path):
    shutil.copytree(folder_of(SCHEMA), tmp_path / "run")
    path = tmp_path / "run" / store.CURVES
    path.write_text(path.read_text().replace(f'"schema":{SCHEMA}', f'"schema":{SCHEMA + 1}'))
    with pytest.raises(store.StoreError, match="upgrade rnnbench"):
        store.load(tmp_path / "run")


@pytest.mark.parametrize("schema", range(1, SCHEMA + 1))
def test_it_is_reported(schema, tmp_path, monkeypatch):
    monkeypatch.setattr("rnnbench.report.page._figures", lambda *_: ({}, []))  # drawn in tests/report
    loaded = store.load(folder_of(schema))
    page, *_ = write_report(tmp_path, ReportData(loaded.records, loaded.curves, loaded.machine, loaded.run))
    text = page.read_text()
    assert f"# rnnbench: {loaded.run['run_id']}" in text
    assert "**parity train\\_step**: numba" in text


@pytest.mark.parametrize("schema", range(1, SCHEMA + 1))
def test_it_is_compared_and_merged_with_itself_renamed(schema, tmp_path):
    again = tmp_path / "again"
    shutil.copytree(folder_of(schema), again)
    for path in again.iterdir():
        path.write_text(path.read_text().replace(store.load(folder_of(schema)).run["run_id"], "another"))
    found = compared(str(folder_of(schema)), str(again), Gate(), "", print)
    assert [f.ratio and f.ratio.value for f in found.findings] == [1.0] * 4
    assert all(f.has_interval for f in found.findings)
    made = merge(tmp_path / "all", [str(folder_of(schema)), str(again)], "", print)
    assert {r.launch for r in made.records} == set(range(6))


def test_a_line_of_an_older_schema_without_a_readable_case_costs_itself_alone(tmp_path):
    good = (folder_of(1) / store.RECORDS).read_text().splitlines()[:2]
    (tmp_path / store.RECORDS).write_text("\n".join([good[0], good[0].replace('"B":32', '"B":"x"'), good[1]]) + "\n")
    loaded = store.load(tmp_path)
    assert len(loaded.records) == 2
    assert "records.jsonl line 2 was left out" in loaded.problems[0]
