"""The memory of a pass: of it and not of what went before, in a process of its own; a failure costs itself."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from rnnbench.analysis.devices import memory_frame, memory_of
from rnnbench.analysis.stats import summaries
from rnnbench.harness.memory import measure_memory
from rnnbench.harness.run_state import RunState
from rnnbench.model import Pass
from rnnbench.records.record import MemoryRecord, Status
from rnnbench.report.data import ReportData
from rnnbench.report.devices import memory_section
from rnnbench.report.section import markdown
from tests.harness.test_run_loop import Listener, plan_of, task_of

MIB = 1 << 20
pytestmark = pytest.mark.usefixtures("faulty_backends")


def measured(folder, names, passes, *, memory=True, before=(), failed=()):
    records, listener = [], Listener()
    plan = replace(plan_of(*names), memory=memory)
    state = RunState(plan, folder, records.append, listener, run_id="r", machine_id="m", before=before)
    state.failed = set(failed)
    measure_memory([task_of(passes=passes)], state)
    assert not (folder / "arrays" / "memory.npz").exists()
    return records, listener


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells the memory of a process by /proc")
def test_the_pass_is_told_from_what_went_before_and_a_failure_costs_itself(tmp_path):
    records, listener = measured(tmp_path, ("hungry", "raises"), (Pass.FORWARD, Pass.GRADIENT))
    assert {type(r) for r in records} == {MemoryRecord}
    by = {(r.backend, r.case.pass_): r for r in records}
    assert len(by) == len(records) == 4
    hungry, modest = by["hungry", Pass.FORWARD], by["hungry", Pass.GRADIENT]
    own = hungry.peak_memory_bytes - hungry.memory_before_bytes
    assert 60 * MIB < own < 80 * MIB
    assert modest.peak_memory_bytes - modest.memory_before_bytes < 16 * MIB  # not the 64 of the other pass
    assert by["raises", Pass.FORWARD].status is Status.OK
    assert by["raises", Pass.GRADIENT].status is Status.CRASHED
    assert by["raises", Pass.GRADIENT].reason.startswith("its memory: memory: ")
    assert len(listener.said) == 1
    found = summaries(records)
    assert [s.time for s in found] == [None] * 4
    assert memory_of(next(s for s in found if s.backend == "hungry")).own == own  # its forward comes first
    assert own in memory_frame(found)["own_bytes"].tolist()
    page = markdown([memory_section(ReportData(records))], {})
    assert f"({own / 1e6:.1f})" in page
    assert "not measured" in page


def test_nobody_is_asked_twice_nor_who_failed_nor_where_the_plan_does_not_ask(tmp_path):
    assert measured(tmp_path, ("numpy",), (Pass.FORWARD,), memory=False)[0] == []
    (case,) = task_of(passes=(Pass.FORWARD,)).cases
    assert measured(tmp_path, ("numpy",), (Pass.FORWARD,), failed=[(case, "numpy")])[0] == []
    first, _ = measured(tmp_path, ("numpy",), (Pass.FORWARD,))
    assert [r.status for r in first] == [Status.OK]
    assert measured(tmp_path, ("numpy",), (Pass.FORWARD,), before=first)[0] == []
