"""A folder as the first release writes it is read, reported, compared and pooled; other schemas are refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from rnnbench.analysis.compare import Gate
from rnnbench.api.compare import compared
from rnnbench.api.runs import read_runs
from rnnbench.records import store
from rnnbench.records.record import SCHEMA
from rnnbench.report.data import ReportData
from rnnbench.report.page import write_report
from rnnbench.work import work_of

FIXTURE = Path(__file__).parent / "fixtures" / "schema-1"


@pytest.fixture
def copied(tmp_path):
    return Path(shutil.copytree(FIXTURE, tmp_path / "run"))


def test_it_is_read():
    loaded = store.load_run(FIXTURE)
    assert loaded.problems == []
    assert len(loaded.records) == 2 * 2 * 3 * (1 + 2)
    assert loaded.curves
    assert {line.schema for line in (*loaded.records, *loaded.curves)} == {SCHEMA} == {1}
    for r in loaded.records:
        assert (r.flops, r.least_bytes) == (work_of(r.case).flops, work_of(r.case).bytes)
    assert [store.decode_record(store.encode(r).strip()) for r in loaded.records] == loaded.records


@pytest.mark.parametrize("name", [store.RECORDS, store.CURVES])
@pytest.mark.parametrize("schema", [2, 3, 999])
def test_another_schema_is_refused_with_the_version_that_reads_it(copied, name, schema):
    path = copied / name
    path.write_text(path.read_text().replace('"schema":1', f'"schema":{schema}'))
    said = f"{name} line 1: a record has schema {schema}, this rnnbench reads 1; upgrade rnnbench"
    machine = store.read_json(copied / store.MACHINE)
    machine |= {"rnnbench": "0.0.9", "git": {"commit": "0123456789"}}
    store.write_json(copied / store.MACHINE, machine)
    writer = ", or read it with the one that wrote it, rnnbench 0.0.9 at commit 0123456"
    with pytest.raises(store.StoreError, match=f"{said}{writer}$"):
        store.load_run(copied)
    (copied / store.MACHINE).unlink()
    with pytest.raises(store.StoreError, match=f"{said}$"):
        store.load_run(copied)


@pytest.mark.usefixtures("no_figures")
def test_it_is_reported(tmp_path):
    loaded = store.load_run(FIXTURE)
    page, *_ = write_report(tmp_path, ReportData(loaded.records, loaded.curves, loaded.machine, loaded.run))
    text = page.read_text()
    assert f"# rnnbench: {loaded.run['run_id']}" in text
    assert "**parity train\\_step**: numba" in text


def test_it_is_compared_and_pooled_with_itself_renamed(copied):
    for path in copied.iterdir():
        path.write_text(path.read_text().replace(store.load_run(FIXTURE).run["run_id"], "another"))
    found = compared(str(FIXTURE), str(copied), Gate(), "", print)
    assert [f.ratio and f.ratio.value for f in found.findings] == [1.0] * 4
    assert all(f.has_interval for f in found.findings)
    assert {r.launch for r in read_runs([FIXTURE, copied], print).records} == set(range(6))


def test_a_line_without_a_readable_case_costs_itself_alone(tmp_path):
    good = (FIXTURE / store.RECORDS).read_text().splitlines()[:2]
    (tmp_path / store.RECORDS).write_text("\n".join([good[0], good[0].replace('"B":32', '"B":"x"'), good[1]]) + "\n")
    loaded = store.load_run(tmp_path)
    assert len(loaded.records) == 2
    assert "records.jsonl line 2 was left out" in loaded.problems[0]
