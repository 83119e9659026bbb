"""What is too large is refused before it is made, by an estimate that peaks of real processes bear out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import psutil
import pytest

import rnnbench
from rnnbench import backends, workloads
from rnnbench.api.verify import verify_plan
from rnnbench.harness import footprint, tasks
from rnnbench.harness.tasks import check_sizes, tasks_of
from rnnbench.kernels.cpu.pass_record import OWN_TOKENS_WEIGHTS
from rnnbench.machine import fingerprint
from rnnbench.model import DType, Pass
from rnnbench.records.record import Status, turns_in
from rnnbench.sizes import Sizes, Sweep
from rnnbench.workloads import made_up
from rnnbench.workloads.base import Source
from tests.calling import called
from tests.harness.test_run_loop import Listener, loop_of
from tests.harness.test_sweep import plan_of
from tests.helpers import made_up_problem, small_problem, specs
from tests.machine.test_fingerprint import GROUP, tree


@pytest.fixture
def two_gib(monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 2 << 30}))
    monkeypatch.setattr(fingerprint, "memory_left", lambda: None)


@pytest.mark.parametrize(
    ("files", "left"),
    [
        ({"proc/self/cgroup": "0::/a/b", f"{GROUP}/cgroup.controllers": "memory", f"{GROUP}/a/memory.max": "1000",
          f"{GROUP}/a/memory.current": "700", f"{GROUP}/a/memory.stat": "anon 500\ninactive_file 200",
          f"{GROUP}/a/b/memory.max": "max", f"{GROUP}/a/b/memory.current": "1"}, 500),
        ({"proc/self/cgroup": "4:memory:/gone", f"{GROUP}/memory/memory.limit_in_bytes": "100",
          f"{GROUP}/memory/memory.usage_in_bytes": "150"}, 0),
        ({"proc/self/cgroup": "0::/", f"{GROUP}/cgroup.controllers": "memory", f"{GROUP}/memory.max": "max"}, None),
        ({}, None),
    ],
    ids=["version 2, nested", "version 1, full", "no limit", "no groups"],
)  # fmt: skip
def test_what_a_control_group_may_still_take(tmp_path, files, left):
    assert fingerprint.memory_left(tree(tmp_path, **files)) == left


def test_the_lesser_of_the_machine_and_its_control_group_counts(two_gib, monkeypatch):
    assert footprint.free() == 2 << 30
    monkeypatch.setattr(fingerprint, "memory_left", lambda: 1 << 20)
    assert footprint.free() == 1 << 20


def test_parameters_are_counted_in_every_process():
    (small, large) = (made_up_problem(Sizes(H, 1, 1), 1, DType.FLOAT64) for H in (8, 8000))
    needed = [footprint.bytes_needed(p, 1, 1, 3) for p in (small, large)]
    assert needed[0] < 1 << 20
    parameters = 8000 * 8000
    assert needed[1] > parameters * (5 * 8 + 3 * 5 * 4)  # the oracle's and those of three workers, with Adam's moments


def test_processes_alone_are_no_reason_to_refuse():
    assert footprint.too_large(1 << 20, workers=8, room=1 << 30) is None
    assert (
        footprint.too_large(1 << 30, workers=8, room=1 << 30)
        == "needs about 3.9 GiB in 8 processes, and 1.0 GiB are free"
    )
    assert "needs about 9.3e+20 GiB in 1 process," in str(footprint.too_large(10**30, workers=1, room=1 << 30))


def test_a_size_that_does_not_fit_is_unsupported_and_the_others_are_measured(tmp_path, two_gib):
    plan = plan_of(Sweep(H=(3, 100_000), centre=Sizes(3, 1, 4), E=1), passes=(Pass.FORWARD,), dtypes=(DType.FLOAT32,))
    said, records = [], []
    tasks = tasks_of(plan, said.append)
    assert [task.refused is None for task in tasks] == [True, False]
    runner = loop_of(plan, tasks, tmp_path, records.append, Listener(), run_id="r", machine_id="m")
    alone = loop_of(plan, tasks[:1], tmp_path, records.append, Listener(), run_id="r", machine_id="m")
    assert runner.expected_seconds() == alone.expected_seconds()
    runner.run()
    (refused,) = (r for r in records if r.status is Status.UNSUPPORTED)
    assert refused.case.model.H == 100_000
    assert refused.reason in said[0]
    assert "needs about 2," in refused.reason
    assert "GiB in 1 process, and 2.0 GiB are free; take smaller sizes" in refused.reason
    assert any(r.samples_ns for r in turns_in(records) if r.case.model.H == 3)


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "-w", "running-parity", "-b", "numpy", "--quick", "-o", "run"],
        ["run", "-w", "running-parity", "-b", "numpy", "--dry-run"],
        ["verify", "-w", "running-parity", "-b", "numpy"],
        ["train", "running-parity", "-b", "numpy", "-o", "run"],
    ],
    ids=lambda a: " ".join(a[:1] + a[-1:]),
)
@pytest.mark.parametrize("T", [100_000_000, 2**31 - 1])
def test_rows_that_are_too_long_are_refused_in_one_sentence_and_nothing_is_made(arguments, T, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = called(*arguments, "-T", T, code=2)
    (line,) = result.output.splitlines()
    assert line.startswith(f"Error: running-parity T{T} with T = {T}, B = 32 needs about ")
    assert line.endswith("GiB are free; take a smaller -B or -T")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", [["run", "-w", "parity", "-b", "numpy", "-o", "run"], ["train", "parity"]])
def test_a_batch_of_more_rows_than_there_are_is_refused_before_anything_is_made(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = called(*command, "-B", 10**9, code=2)
    assert result.output == "Error: batch size 1000000000 is more than the 800 training rows of parity B1000000000\n"
    assert not list(tmp_path.iterdir())


def test_a_large_batch_is_refused_by_its_states(two_gib):
    plan = plan_of(None, workloads=specs("imdb-200"), dtypes=(DType.FLOAT32,), passes=(Pass.FORWARD,))
    check_sizes(plan)
    with pytest.raises(
        ValueError, match=r"imdb-200 B20000 with T = 200, B = 20000 needs about .* 2\.0 GiB are free; take a sm"
    ):
        check_sizes(plan_of(None, workloads=specs("imdb-200", B=20_000), dtypes=(DType.FLOAT32,)))


def test_of_several_workloads_the_one_that_does_not_fit_is_unsupported(two_gib):
    """By type: what fits in float32 is measured in float32. Nothing is raised, also where a resumed run has no room."""
    given = {"passes": (Pass.FORWARD,), "dtypes": tuple(DType)}
    plan = plan_of(None, workloads=specs("parity") + specs("imdb-synthetic-200", B=320), **given)
    check_sizes(plan)
    said: list[str] = []
    found = {(task.problem.workload.split()[0], task.problem.dtype): task for task in tasks_of(plan, said.append)}
    assert {key for key, task in found.items() if task.refused} == {("imdb-synthetic-200", DType.FLOAT64)}
    assert len(found) == 4
    (line,) = said
    assert "imdb-synthetic-200 B320 with T = 200, B = 320 needs about " in line
    assert line.endswith("and 2.0 GiB are free; take a smaller -B or -T")
    alone = replace(plan, workloads=specs("running-parity", T=10**8))
    assert all(task.refused for task in tasks_of(alone, said.append))
    with pytest.raises(ValueError, match="running-parity T100000000 with T = 100000000, B = 32 needs about"):
        check_sizes(alone)


def test_verify_checks_the_workloads_that_fit(two_gib):
    """The truncated ones among them too, of which none fits here."""
    large, display = specs("running-parity", T=10**8), Listener()
    plan = plan_of(None, workloads=specs("parity") + large, passes=(Pass.FORWARD,), dtypes=(DType.FLOAT32,))
    found = verify_plan(replace(plan, backends=("numpy",)), {}, display)
    assert {(r.case.name, r.status) for r in found.records} == {
        ("parity", Status.OK),
        ("running-parity T100000000", Status.UNSUPPORTED),
    }
    assert {str(r.case.truncation) for r in found.records if r.status is Status.UNSUPPORTED} == {"None", "20:5"}
    assert found.ok


@pytest.mark.parametrize("H", ["100000,200000", "8,100000"])
def test_a_dry_run_says_what_a_run_would_leave_out(two_gib, H):
    done = called("sweep", "--H", H, "--B", "1", "--T", "1", "-b", "numpy", "--dry-run", code=0 if H[0] == "8" else 2)
    reason = "made-up E100000 H100000 B1 T1 with T = 1, B = 1 needs about "
    assert f"{'left out' if H[0] == '8' else 'Error'}: {reason}" in done.output.replace("\n", " ")


@pytest.mark.parametrize("T", [10**8, 10**30])
def test_python_says_what_is_too_large(T):
    for call in (
        lambda: rnnbench.session("numba", "running-parity", T=T).__enter__(),
        lambda: rnnbench.train("running-parity", "numpy", T=T, progress=False),
        lambda: rnnbench.run("running-parity", ["numpy"], T=T, progress=False),
        lambda: rnnbench.verify("running-parity", ["numpy"], T=T, progress=False),
    ):
        with pytest.raises(
            ValueError, match=rf"running-parity T{T} with T = {T}, B = 32 needs about .* are free; take"
        ):
            call()


def test_rows_that_are_there_already_are_not_counted_as_made():
    """A session of a user's own arrays is refused by what it adds to them."""
    data = rnnbench.Data(np.zeros((9, 3, 1)), np.zeros(9))
    own = rnnbench.Workload("own", rnnbench.Model(E=1, H=2, O=1), data, B=2).spec
    assert tasks.too_large_here(own, own.problem(DType.FLOAT32)) is None
    assert tasks.too_large_here(replace(own, rows=(10**11, 10**11)), own.problem(DType.FLOAT32))


def test_tables_of_tokens_and_the_projected_vocabulary_are_counted():
    problem = small_problem(V=10_000_000, E=2, H=32, dtype=DType.FLOAT32)
    one, many = (footprint.in_worker(problem, 4, threads=threads) for threads in (1, 16))
    assert many - one == 4 * 10_000_000 * 16
    assert footprint.in_worker(problem, 4, predicts=True) - one > 4 * 10_000_000 * (32 + 2)
    large = small_problem(V=10_000_000, E=65, H=64, dtype=DType.FLOAT32)
    assert large.model.E * large.model.H > OWN_TOKENS_WEIGHTS == footprint.OWN_TOKENS_WEIGHTS
    one, many = (footprint.in_worker(large, 4, threads=threads) for threads in (1, 16))
    assert one == many


@pytest.mark.parametrize("name", ["parity", "running-parity", "imdb-synthetic-50", "imdb-synthetic-200"])
def test_a_workload_has_as_many_rows_as_it_says(name):
    workload = workloads.get(name)
    found = workload.load(Source(T=workload.T))
    held = 0 if found.validation is None else len(found.validation.inputs)
    train = len(found.train.inputs)
    assert workload.rows == (train, train + held + len(found.test.inputs))
    if (real := name.replace("-synthetic", "")) != name:
        assert workloads.get(real).rows == workload.rows


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sizes", "passes"),
    [(Sizes(H=128, B=32, T=2000), (Pass.FORWARD, Pass.GRADIENT)), (Sizes(H=1500, B=1, T=2), (Pass.TRAIN_STEP,))],
    ids=["states", "parameters"],
)
def test_the_estimate_is_near_the_peak_of_real_workers(tmp_path, sizes, passes):
    """What a larger state adds to all of them, within a factor of 2: no size is refused that fits well."""
    names = [name for name in ("numpy", "numba", "torch", "jax") if backends.missing(name) is None]
    plan = plan_of(
        Sweep(H=(1, sizes.H), centre=sizes, E=16), backends=tuple(names), dtypes=(DType.FLOAT32,), passes=passes
    )
    records = []
    loop_of(plan, tasks_of(plan, print), tmp_path, records.append, Listener(), run_id="r", machine_id="m").run()
    assert {r.status for r in records} == {Status.OK}

    def peak(problem, name):
        return max(r.peak_memory_bytes for r in records if r.backend == name and r.case.model == problem.model)

    def told(problem):
        rows = made_up.batch_count(problem.model, problem.B, problem.T) * problem.B
        with_it, without = (footprint.bytes_needed(problem, rows, rows, workers) for workers in (1, 0))
        return with_it - without

    small, large = (spec.problem(DType.FLOAT32) for spec in plan.workloads)
    added = {name: peak(large, name) - peak(small, name) for name in names}
    assert 1 / 2 < len(names) * (told(large) - told(small)) / sum(added.values()) < 2, (added, told(small), told(large))
