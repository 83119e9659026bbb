"""From a sweep to tasks: all sizes, all passes, and no more memory than there is."""

from __future__ import annotations

import msgspec
import psutil
import pytest

from rnnbench.harness.plan import SWEEP_EFFORTS, Plan
from rnnbench.harness.tasks import check_sizes, tasks_of
from rnnbench.model import DType, Pass
from rnnbench.records.record import CheckRecord, Mode, Status, turns_in
from rnnbench.sizes import Sizes, Sweep
from tests.harness.test_run_loop import Listener, loop_of
from tests.helpers import swept

SWEEP = Sweep(H=(3, 8), B=(1, 2), centre=Sizes(3, 2, 4), grid=True)


def plan_of(sweep=SWEEP, **changes) -> Plan:
    asked = {
        "workloads": swept(sweep) if sweep else (), "backends": ("numpy",), "passes": (Pass.FORWARD, Pass.GRADIENT),
        "dtypes": tuple(DType), "mode": Mode.QUICK, "threads": 1, "seed": 0, "timeout": 60.0, "sweep": sweep,
    }  # fmt: skip
    return Plan(**(asked | changes))


def test_a_plan_with_a_sweep_survives_its_file():
    plan = plan_of()
    assert msgspec.convert(msgspec.json.decode(msgspec.json.encode(plan)), Plan) == plan
    assert plan.effort == SWEEP_EFFORTS[Mode.QUICK]


def test_one_task_for_each_size_and_type():
    tasks = tasks_of(plan_of(), print)
    assert len(tasks) == 4 * 2
    assert len({case.key for task in tasks for case in task.cases}) == 4 * 2 * 2
    for task in tasks:
        assert task.params["W_hh"].dtype == str(task.problem.dtype)
        assert task.params["W_xh"].shape == (task.problem.model.E, task.problem.model.H)
        assert task.source == "made-up rows, seed 0"


def test_a_sweep_of_which_no_size_fits_is_refused_with_what_it_needs(monkeypatch):
    sizes = Sizes(8, 512, 1000)
    free = type("Memory", (), {"available": 2 << 30})
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    words = r"H2048 B512 T1000 with T = 1000, B = 512 needs about \d+\.\d GiB in 2 processes, and 2\.0 GiB"
    with pytest.raises(ValueError, match=words):
        check_sizes(plan_of(Sweep(H=(2048, 4096), centre=sizes), backends=("numpy", "numba")))
    check_sizes(plan_of())
    check_sizes(plan_of(Sweep(H=(8, 2048), centre=Sizes(8, 8, 100)), backends=("numpy", "numba")))


def test_every_case_is_checked_and_timed_and_its_rows_are_dropped(tmp_path):
    plan = plan_of(passes=(Pass.FORWARD, Pass.GRADIENT, Pass.TRAIN_STEP))
    records = []
    runner = loop_of(plan, tasks_of(plan, print), tmp_path, records.append, Listener(), run_id="r", machine_id="m")
    runner.run()
    assert {r.status for r in records} == {Status.OK}
    assert len([r for r in turns_in(records) if r.samples_ns]) == 4 * 2 * 3
    checks = [r for r in records if isinstance(r, CheckRecord)]
    assert len(checks) == 4 * 2 * 3
    assert all(r.errors and all(e.ok for e in r.errors.values()) for r in checks)
    assert runner.checker.oracles == {}
    assert not list((tmp_path / "arrays").glob("*made-up*"))
