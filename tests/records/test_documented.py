"""`docs/records.md` describes every field and column that a run leaves, and none that it does not."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

from rnnbench.analysis.devices import memory_frame
from rnnbench.analysis.stats import summaries
from rnnbench.contract import Contract
from rnnbench.harness.plan import Plan
from rnnbench.machine.fingerprint import fingerprint
from rnnbench.model import Case, Model, Train
from rnnbench.records.record import (
    CheckRecord,
    Contention,
    Costs,
    DeviceState,
    Energy,
    Epoch,
    ErrorOf,
    MemoryRecord,
    RecordBase,
    Seeds,
    TrainedEpoch,
    TrainingRecord,
    TrialRecord,
    TurnRecord,
)
from rnnbench.workloads.base import Spec
from tests.report.fake import case, memory

ROOT = Path(__file__).resolve().parents[2]
REPORTS = [
    ROOT / "reports" / name for name in ("cpu-2-cores", "sweep-cpu-2-cores", "to-accuracy-imdb-50", "to-accuracy-lstm")
]
TABLES = sorted({path.name for report in REPORTS for path in (report / "tables").iterdir()} - {"curves.csv"})


def documented() -> dict[str, list[str]]:
    """Heading -> the names in the first column of its table."""
    sections = re.split(r"^#+ ", (ROOT / "docs" / "records.md").read_text(), flags=re.MULTILINE)
    return {
        section.splitlines()[0].strip("`"): re.findall(r"^\| `([^`]+)` \| \S", section, re.MULTILINE)
        for section in sections[1:]
    }


def names_of(kind: type, *, but: type | None = None) -> set[str]:
    names = {field.name.rstrip("_") for field in fields(kind)}
    return names - (names_of(but) if but else set())


def test_each_field_of_a_record_is_described():
    found = documented()
    places = {"launch", "round"}
    assert set(found["Every record"]) == names_of(RecordBase) | places
    for heading, kind in (
        ("Checks", CheckRecord),
        ("Trials", TrialRecord),
        ("Turns", TurnRecord),
        ("Memory", MemoryRecord),
        ("Trainings", TrainingRecord),
    ):
        assert set(found[heading]) == names_of(kind, but=RecordBase) - places


@pytest.mark.parametrize(
    ("heading", "kind"),
    [
        ("case", Case), ("model", Model), ("train", Train), ("errors", ErrorOf), ("costs", Costs), ("seeds", Seeds),
        ("contract", Contract), ("device_states", DeviceState), ("energy", Energy),
        ("contention", Contention), ("Epochs", Epoch), ("epochs", TrainedEpoch), ("plan", Plan),
        ("workloads", Spec),
    ],
)  # fmt: skip
def test_each_field_inside_them_is_described(heading, kind):
    assert set(documented()[heading]) == names_of(kind)


def test_the_facts_of_run_and_machine_are_described():
    found = documented()
    for report in REPORTS:
        assert json.loads((report / "run.json").read_text()).keys() <= set(found["The run"])
        assert json.loads((report / "machine.json").read_text()).keys() <= set(found["The machine"])
    assert fingerprint().keys() <= set(found["The machine"])


@pytest.mark.parametrize("name", TABLES)
def test_the_columns_of_the_tables_are_described(name):
    found = documented()
    for report in REPORTS:
        if (report / "tables" / name).exists():
            with (report / "tables" / name).open() as file:
                columns = set(next(csv.reader(file)))
            assert columns <= {*found[name], *found["Any of them"]}
            assert set(found[name]) <= columns


def test_the_columns_of_memory_are_described():
    table = memory_frame(summaries([memory(case(), "numpy", peak_memory_bytes=2, memory_before_bytes=1)]))
    assert set(table.columns) == {"case", *documented()["memory.csv"]}
