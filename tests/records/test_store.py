"""The journal: what comes back is what went in, and a damaged file costs only its damaged lines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rnnbench.contract import Contract
from rnnbench.model import Case, DType, Head, Model, Pass, Train, Truncation
from rnnbench.records import store
from rnnbench.records.record import (
    SCHEMA,
    CheckRecord,
    Costs,
    Epoch,
    ErrorOf,
    MemoryRecord,
    Mode,
    Seeds,
    Status,
    TrialRecord,
    TurnRecord,
)

MODEL = Model(V=11, E=2, H=3, O=1, head=Head.EVERY)
CASE = Case("parity", DType.FLOAT32, MODEL, Train(clip_norm=1.0), 32, 5, Truncation(3, 2), pass_=Pass.EPOCH, steps=7)
COMMON = {
    "run_id": "r", "case": CASE, "backend": "numpy", "status": Status.WRONG, "mode": Mode.QUICK, "part": 3,
    "reason": "because", "peak_memory_bytes": 4, "seeds": Seeds(1, 2, 3), "machine_id": "m", "data_source": "d",
    "started": "now",
}  # fmt: skip
RECORD = TurnRecord(**COMMON, launch=1, round=2, samples_ns=(5, 6, 7), warmup=1)
CHECKED = CheckRecord(
    **COMMON,
    launch=1,
    errors={"loss": ErrorOf(None, 1e-5), "grad W_hh": ErrorOf(2e-7, 1e-5)},
    costs=Costs(1, 2, 3, "warm"),
    contract=Contract(2, "kept", False, {"forward": "x"}),
)
MEMORY = MemoryRecord(**COMMON, memory_before_bytes=3)
TRIAL = TrialRecord(**COMMON, threads=1, tried=(1, 2), launch=0, pair=2, samples_ns=(5, 6), warmup=1)
PLAIN = TurnRecord(run_id="r", case=CASE, backend="b", status=Status.OK, mode=Mode.DEFAULT, launch=0, round=0)
EPOCH = Epoch("r", "parity", "numpy", "float32", 0, 1, 5, 0.5, None, 0.6, 0.7, 1.5)


def written(folder, *records, name=store.RECORDS):
    journal = store.Journal(folder, name)
    for record in records:
        journal.append([record])
    journal.close()


def test_records_and_epochs_come_back_equal(tmp_path):
    written(tmp_path, CHECKED, RECORD, PLAIN, MEMORY, TRIAL)
    written(tmp_path, EPOCH, name=store.CURVES)
    loaded = store.load_run(tmp_path)
    assert loaded.records == [CHECKED, RECORD, PLAIN, MEMORY, TRIAL]
    assert loaded.curves == [EPOCH]
    assert loaded.problems == []


def test_the_field_names_of_the_file():
    raw = json.loads(store.encode(RECORD))
    assert raw["case"]["workload"] == "parity"
    assert raw["case"]["pass"] == "epoch"
    assert raw["schema"] == SCHEMA
    assert raw["samples_ns"] == [5, 6, 7]
    assert {"backend", "status", "reason", "machine_id", "seeds"} <= set(raw)
    assert "samples_ns" not in json.loads(store.encode(PLAIN))
    check = json.loads(store.encode(CHECKED))
    assert {"errors", "costs", "contract"} <= set(check)
    others = (json.loads(store.encode(r)) for r in (MEMORY, TRIAL))
    assert [(r["launch"], r["round"]) for r in (raw, check, *others)] == [(1, 2), (1, -1), (-2, -2), (0, -3)]
    assert not {"threads", "tried"} & raw.keys()


def test_a_round_that_is_none_is_damage(tmp_path):
    lines = [json.loads(store.encode(RECORD)) | {"round": value} for value in (-4, None, "0", [])]
    (tmp_path / store.RECORDS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    loaded = store.load_run(tmp_path)
    assert loaded.records == []
    assert all("$.round" in problem for problem in loaded.problems)
    assert len(loaded.problems) == 4


def test_a_cut_line_is_left_out_and_said(tmp_path):
    written(tmp_path, RECORD, RECORD)
    path = tmp_path / store.RECORDS
    path.write_bytes(path.read_bytes()[:-40])
    loaded = store.load_run(tmp_path)
    assert loaded.records == [RECORD]
    assert len(loaded.problems) == 1
    assert "records.jsonl line 2 was left out" in loaded.problems[0]
    journal = store.Journal(tmp_path)
    assert journal.problems == ["records.jsonl ended in the middle of a line; that line was dropped"]
    journal.append([RECORD])
    journal.close()
    assert store.load_run(tmp_path).records == [RECORD, RECORD]


@pytest.mark.parametrize("damage", [b"{}\n", b"[1]\n", b'"text"\n', b'{"schema": 1}\n', b"\xff\xfe\n", b"null\n"])
def test_a_damaged_line_in_the_middle_costs_itself_alone(tmp_path, damage):
    path = tmp_path / store.RECORDS
    path.write_bytes(store.encode(RECORD) + damage + store.encode(RECORD))
    loaded = store.load_run(tmp_path)
    assert loaded.records == [RECORD, RECORD]
    assert len(loaded.problems) == 1


def test_a_newer_schema_is_refused(tmp_path):
    raw = json.loads(store.encode(RECORD))
    (tmp_path / store.RECORDS).write_text(json.dumps({**raw, "schema": SCHEMA + 1}) + "\n")
    with pytest.raises(store.StoreError, match="upgrade rnnbench"):
        store.load_run(tmp_path)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(store.StoreError, match="holds no run"):
        store.load_run(tmp_path)


def test_one_writer_at_a_time(tmp_path):
    first = store.Journal(tmp_path)
    with pytest.raises(store.StoreError, match="in use by another run"):
        store.Journal(tmp_path)
    first.close()
    store.Journal(tmp_path).close()


def test_json_is_replaced_whole(tmp_path):
    store.write_json(tmp_path / "run.json", {"a": 1})
    assert store.read_json(tmp_path / "run.json") == {"a": 1}
    assert store.read_json(tmp_path / "other.json") == {}
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(store.StoreError, match="cannot be read"):
        store.read_json(tmp_path / "run.json")


def test_facts_are_read_as_far_as_json_goes(tmp_path):
    (tmp_path / "run.json").write_text('{"a": NaN, "b": [Infinity, 1e400, -1e400, 1e300], "c": "\\ud800"}')
    assert store.read_json(tmp_path / "run.json") == {"a": None, "b": [None, None, None, 1e300], "c": "\ud800"}
    for text, words in (('{"a": 1' + "0" * 400 + "}", "401 digits"), ('{"a":' * 40 + "0" + "}" * 40, "32 levels")):
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(store.StoreError, match=f"run.json cannot be read: it is cut or damaged .*{words}"):
            store.read_json(tmp_path / "run.json")


@pytest.mark.parametrize("name", ["cpu-2-cores", "sweep-cpu-2-cores"])
def test_stored_reports_are_whole(name):
    loaded = store.load_run(Path(__file__).resolve().parents[2] / "reports" / name)
    assert loaded.records
    assert loaded.problems == []
