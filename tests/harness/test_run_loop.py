"""The runner over real worker processes: what is wrong is caught, what fails is named, what was measured stays."""

from __future__ import annotations

import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rnnbench import backends
from rnnbench.harness.checker import Checker
from rnnbench.harness.clock import Turn
from rnnbench.harness.plan import EFFORTS, Effort, Plan
from rnnbench.harness.run_loop import RunLoop, TurnTimer
from rnnbench.harness.run_state import RunState, Task
from rnnbench.harness.worker_pool import WorkerPool
from rnnbench.model import USUAL_PASSES, Case, DType, Head, Pass, Truncation
from rnnbench.params import Params
from rnnbench.records.account import TimeKind
from rnnbench.records.record import CheckRecord, Mode, Record, Status, turns_in
from rnnbench.workloads.base import Split
from tests.helpers import random_data, random_params, small_problem


class Listener:
    def __init__(self):
        self.doings, self.said, self.fractions = [], [], []

    def doing(self, what, estimate, case=""):
        self.doings.append(what)
        self.fractions.append(estimate.fraction)
        assert estimate.remaining >= 0

    def say(self, text):
        self.said.append(text)


@pytest.fixture(autouse=True)
def _quick(monkeypatch, faulty_backends):
    monkeypatch.setitem(EFFORTS, Mode.QUICK, Effort(launches=2, rounds=2, turn=Turn(0.01, 2, 4)))


def plan_of(*names: str, timeout: float = 60.0) -> Plan:
    return Plan(("test",), names, USUAL_PASSES, (DType.FLOAT64,), Mode.QUICK, 1, 0, timeout)


def task_of(problem=None, passes=USUAL_PASSES) -> Task:
    problem = problem or small_problem(head=Head.EVERY, truncation=Truncation(3, 2))
    data = random_data(problem, rows=20 * problem.B)
    cases = tuple(Case(**vars(problem), pass_=p, steps=3 if p is Pass.EPOCH else 1) for p in passes)
    params: Params = random_params(problem)
    return Task(problem, cases, Split(data.inputs, data.targets), params, "generated")


def loop_of(plan, tasks, folder, emit, listener, checker=Checker, timer=TurnTimer, **named) -> RunLoop:
    state = RunState(plan, folder, emit, listener, **named)
    made = checker(state)
    return RunLoop(tasks, state, made, timer(state, made))


def run(folder, plan, tasks, before=()) -> tuple[list[Record], Listener, RunLoop]:
    records: list[Record] = []
    listener = Listener()
    runner = loop_of(plan, tasks, folder, records.append, listener, run_id="r", machine_id="m", before=before)
    runner.run()
    return records, listener, runner


def slots_of(records, backend, pass_) -> set[tuple[int, int]]:
    return {
        (r.launch, r.round) for r in turns_in(records) if (r.backend, r.case.pass_) == (backend, pass_) and r.samples_ns
    }


def status_of(records, backend) -> dict[Pass, Status]:
    """The last word on each pass."""
    return {r.case.pass_: r.status for r in records if r.backend == backend}


def test_two_right_backends_share_all_rounds(tmp_path):
    records, listener, runner = run(tmp_path, plan_of("numpy", "chatty"), [task_of()])
    assert {r.status for r in records} == {Status.OK}
    slots = {(r.backend, r.case.pass_, r.moment) for r in records}
    assert len(slots) == len(records) == 2 * 4 * 2 * (1 + 2)
    for record in records:
        if isinstance(record, CheckRecord):
            assert record.errors
            assert all(e.ok for e in record.errors.values())
            assert record.costs.first_call_ns > 0
            assert record.contract.timed
        else:
            assert len(record.samples_ns) >= 1
            assert min(record.samples_ns) > 0
            assert record.warmup < len(record.samples_ns)
    assert {r.costs.cache for r in records if isinstance(r, CheckRecord)} == {"cold", "warm"}
    assert listener.said == []
    assert listener.fractions[-1] > 0.5
    assert not any(place.worker for place in runner.pool.places.values())
    assert "hello from a library" in (tmp_path / "logs" / "chatty.log").read_text()
    steps = [r for r in records if r.case.pass_ is Pass.TRAIN_STEP and isinstance(r, CheckRecord) and r.launch == 0]
    assert all("losses of 20 steps" in r.errors for r in steps)


def test_processes_may_outlive_a_plan_and_answer_the_next_one(tmp_path, monkeypatch):
    """As the problems of a sweep do; what each of them costs is in its own ledger, and its limits are its own."""
    monkeypatch.setitem(EFFORTS, Mode.QUICK, Effort(launches=1, rounds=1, turn=Turn(0.01, 2, 4), costs=False))
    plan, records = plan_of("numpy"), list[Record]()
    pool, pids, ledgers = WorkerPool(plan.backends, tmp_path, 1, plan.timeout, None), [], []
    try:
        for passes in ((Pass.FORWARD,), (Pass.GRADIENT,)):
            tasks = [task_of(passes=passes)]
            loop = loop_of(plan, tasks, tmp_path, records.append, Listener(), run_id="r", machine_id="m", pool=pool)
            loop.run()
            pids.append(pool.processes)
            ledgers.append(loop.state.ledger)
            assert pool.limit == loop.state.stopping.limit
        assert pids[0] == pids[1] != []
        assert {r.case.pass_ for r in turns_in(records) if r.samples_ns} == {Pass.FORWARD, Pass.GRADIENT}
        assert {r.status for r in records} == {Status.OK}
        assert TimeKind.START in ledgers[0].seconds()
        assert TimeKind.START not in ledgers[1].seconds()
    finally:
        pool.kill()


def test_order_of_turns_is_shuffled_and_repeatable(tmp_path):
    def turns(folder):
        records, _, _ = run(folder, plan_of("numpy", "chatty", "no-epoch"), [task_of(passes=(Pass.FORWARD,))])
        return [(r.launch, r.round, r.backend) for r in turns_in(records)]

    first = turns(tmp_path / "a")
    assert first == turns(tmp_path / "b")
    orders = {tuple(b for launch, r, b in first if (launch, r) == key) for key in {(x, y) for x, y, _ in first}}
    assert len(orders) > 1


def test_a_turn_counts_its_rest_from_the_last_answer_of_anybody(tmp_path, monkeypatch):
    """From a check too, and not from the last turn alone: the threads of whoever was checked are awake."""
    ask, answered, seen = WorkerPool.ask, [time.monotonic_ns()], []

    def noted(self, name, op, limit=None, **arguments):
        if op == "turn":
            seen.append((arguments["idle_ns"], time.monotonic_ns() - answered[-1]))
        try:
            return ask(self, name, op, limit, **arguments)
        finally:
            answered.append(time.monotonic_ns())

    monkeypatch.setattr(WorkerPool, "ask", noted)
    run(tmp_path, plan_of("numpy", "chatty"), [task_of(passes=(Pass.FORWARD,))])
    assert len(seen) >= 4
    assert all(0 <= idle <= since + 50_000_000 for idle, since in seen)


def test_a_turn_too_short_for_its_energy_counter_is_kept_without(tmp_path, monkeypatch):
    ask = WorkerPool.ask

    def without(self, name, op, limit=None, **arguments):
        reply = ask(self, name, op, limit, **arguments)
        return reply | {"energy": None} if op == "turn" else reply

    monkeypatch.setattr(WorkerPool, "ask", without)
    records, _, _ = run(tmp_path, plan_of("numpy"), [task_of(passes=(Pass.FORWARD,))])
    assert {r.status for r in records} == {Status.OK}
    assert {r.energy for r in turns_in(records)} == {None}


@pytest.mark.parametrize("name", ["scaled", "swapped", "no-bias", "off-by-one", "stale"])
def test_a_wrong_backend_is_caught_and_not_timed(tmp_path, name):
    records, listener, _ = run(tmp_path, plan_of(name, "numpy"), [task_of()])
    wrong = [r for r in records if r.backend == name and r.status is Status.WRONG]
    assert wrong
    assert all(r.errors and "the limit is" in r.reason for r in wrong)
    assert any(name in said for said in listener.said)
    caught = {r.case for r in wrong}
    assert not any(r.samples_ns for r in turns_in(records) if r.backend == name and r.case in caught)
    assert set(status_of(records, "numpy").values()) == {Status.OK}
    if name != "stale":
        assert {Pass.GRADIENT, Pass.TRAIN_STEP} <= {case.pass_ for case in caught}


def test_a_forgotten_clipping_is_caught_in_the_train_step(tmp_path):
    from rnnbench.model import Optimizer, Train

    problem = small_problem(train=Train(Optimizer.SGD, learning_rate=0.5, clip_norm=0.01))
    records, _, _ = run(tmp_path, plan_of("no-clip"), [task_of(problem)])
    assert status_of(records, "no-clip") == {
        Pass.FORWARD: Status.OK, Pass.GRADIENT: Status.OK, Pass.TRAIN_STEP: Status.WRONG, Pass.EPOCH: Status.WRONG,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "status", "words"),
    [
        ("killed", Status.CRASHED, "killed by signal 9 (SIGKILL)"),
        ("signal-35", Status.CRASHED, "killed by signal 35"),
        ("hangs", Status.TIMEOUT, "longer than the limit of 3 s; raise it with --timeout"),
        ("raises", Status.CRASHED, "RuntimeError: the kernel has no such step"),
        ("memory", Status.OUT_OF_MEMORY, "cannot allocate 64 GiB"),
    ],
)
def test_a_failing_gradient_costs_its_own_case_and_no_other(tmp_path, name, status, words):
    records, listener, _ = run(tmp_path, plan_of(name, "numpy", timeout=3.0), [task_of()])
    got = status_of(records, name)
    assert got[Pass.GRADIENT] is status
    assert {got[p] for p in (Pass.FORWARD, Pass.TRAIN_STEP, Pass.EPOCH)} == {Status.OK}
    assert set(status_of(records, "numpy").values()) == {Status.OK}
    reason = next(r.reason for r in records if r.status is status)
    assert words in reason
    assert any(words in said for said in listener.said)
    for other in (Pass.FORWARD, Pass.TRAIN_STEP, Pass.EPOCH):
        turns = slots_of(records, name, other)
        assert len(turns) == 4


@pytest.fixture
def four_launches(monkeypatch):
    monkeypatch.setitem(EFFORTS, Mode.QUICK, Effort(launches=4, rounds=1, turn=Turn(0.01, 2, 4)))


@pytest.mark.usefixtures("four_launches")
def test_later_starts_are_side_by_side_and_their_imports_not_timed(tmp_path):
    records, listener, _ = run(tmp_path, plan_of("numpy", "chatty", "bad-import"), [task_of()])
    for name in ("numpy", "chatty"):
        checks = [r for r in records if r.backend == name and isinstance(r, CheckRecord)]
        assert sorted(r.launch for r in checks) == sorted([0, 1, 2, 3] * 4)
        assert all(r.errors and r.contract and r.status is Status.OK for r in checks)
        assert {r.launch for r in checks if r.costs.import_ns is not None} == {0}
        assert all(r.costs.prepare_ns is not None and r.costs.first_call_ns for r in checks)
        assert {r.launch: r.costs.cache for r in checks} == {0: "cold", 1: "warm", 2: "warm", 3: "warm"}
        assert len([r for r in turns_in(records) if r.backend == name and r.samples_ns]) == 4 * 4
    assert listener.doings.count("starting 2 processes") == 3
    assert set(status_of(records, "bad-import").values()) == {Status.CRASHED}


def test_a_first_launch_may_be_side_by_side_and_its_costs_are_kept(tmp_path, monkeypatch):
    monkeypatch.setitem(EFFORTS, Mode.QUICK, Effort(launches=2, rounds=1, turn=Turn(0.01, 2, 4), alone=False))
    records, listener, _ = run(tmp_path, plan_of("numpy", "chatty", "bad-import"), [task_of()])
    checks = [r for r in records if isinstance(r, CheckRecord) and r.backend != "bad-import"]
    assert {r.status for r in checks} == {Status.OK}
    assert {(r.launch, r.costs.cache, r.costs.import_ns is not None) for r in checks} == {
        (0, "cold", True), (1, "warm", False),
    }  # fmt: skip
    assert all(r.costs.prepare_ns is not None and r.costs.first_call_ns for r in checks)
    assert listener.doings.count("starting 3 processes") == listener.doings.count("starting 2 processes") == 1
    assert "libfast.so.3" in next(r.reason for r in records if r.backend == "bad-import")


def requests_noted(monkeypatch) -> list[tuple[str, str, Pass | None, float, float]]:
    """Name, request, pass, begin and end of each that workers get from now on."""
    ask, seen = WorkerPool.ask, []

    def noted(self, name, op, limit=None, **arguments):
        begun = time.monotonic()
        try:
            return ask(self, name, op, limit, **arguments)
        finally:
            seen.append((name, op, arguments.get("pass_"), begun, time.monotonic()))

    monkeypatch.setattr(WorkerPool, "ask", noted)
    return seen


def test_an_openmp_team_is_checked_while_nobody_else_works(tmp_path, monkeypatch):
    monkeypatch.setitem(EFFORTS, Mode.QUICK, Effort(launches=2, rounds=1, turn=Turn(0.01, 2, 4), alone=False))
    monkeypatch.setenv("RNNBENCH_TEST_COMPILES", "0.4")
    seen = requests_noted(monkeypatch)
    plan = replace(plan_of("numpy", "compiles", "chatty"), threads=2)
    records, *_ = run(tmp_path, plan, [task_of(passes=(Pass.FORWARD, Pass.GRADIENT))])
    assert {r.status for r in records} == {Status.OK}
    firsts = {name: [(b, e) for who, op, _, b, e in seen if (who, op) == (name, "first")] for name in plan.backends}
    assert {name: len(each) for name, each in firsts.items()} == {"numpy": 4, "compiles": 4, "chatty": 4}
    assert [op for who, op, *_ in seen if who == "numpy"].count("prepare") == 2
    for begun, ended in firsts["numpy"]:  # the one with a team
        assert not any(b < ended and begun < e for who, *_, b, e in seen if who != "numpy")


def test_a_team_that_compiles_does_so_beside_others_and_takes_its_many_steps_alone(tmp_path, monkeypatch):
    monkeypatch.setitem(EFFORTS, Mode.QUICK, Effort(launches=2, rounds=1, turn=Turn(0.01, 2, 4), alone=False))
    monkeypatch.setenv("RNNBENCH_TEST_COMPILES", "0.4")
    openmp = {"environment": {"OMP_NUM_THREADS": "{threads}"}, "compiles": True}
    monkeypatch.setitem(backends.REGISTRY, "chatty", replace(backends.REGISTRY["chatty"], **openmp))
    seen = requests_noted(monkeypatch)
    records, *_ = run(tmp_path, replace(plan_of("chatty", "compiles"), threads=2), [task_of()])
    assert {r.status for r in records} == {Status.OK}
    calls = [(op, pass_) for who, op, pass_, *_ in seen if who == "chatty" and op in ("first", "losses")]
    step = [("first", Pass.TRAIN_STEP), ("losses", None)]
    once = [("first", p) for p in (Pass.FORWARD, Pass.GRADIENT, Pass.TRAIN_STEP)] + step + [("first", Pass.EPOCH)]
    assert calls == once * 2
    for op, pass_, begun, ended in (entry[1:] for entry in seen if entry[0] == "chatty"):
        if op == "losses" or pass_ is Pass.EPOCH:
            assert not any(b < ended and begun < e for who, _, _, b, e in seen if who != "chatty")
    checks = [r for r in records if isinstance(r, CheckRecord) and r.backend == "chatty"]
    assert len(checks) == 2 * 4
    assert all(r.costs.first_call_ns and r.errors for r in checks)


@pytest.mark.usefixtures("four_launches")
def test_a_start_that_hangs_beside_others_is_a_timeout_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("RNNBENCH_TEST_STARTS", str(tmp_path / "starts"))
    records, _, _ = run(tmp_path, plan_of("third-start", "numpy", timeout=5.0), [task_of(passes=(Pass.FORWARD,))])
    assert status_of(records, "third-start") == {Pass.FORWARD: Status.TIMEOUT}
    assert {r.launch for r in turns_in(records) if r.backend == "third-start" and r.samples_ns} == {0, 1}
    assert {r.launch for r in turns_in(records) if r.backend == "numpy" and r.samples_ns} == {0, 1, 2, 3}


@pytest.mark.usefixtures("four_launches")
def test_an_interrupt_while_workers_start_side_by_side_ends_them_all(tmp_path, monkeypatch):
    starts = tmp_path / "starts"
    monkeypatch.setenv("RNNBENCH_TEST_STARTS", str(starts))
    records: list[Record] = []
    plan = plan_of("third-start", "numpy", timeout=100.0)
    runner = loop_of(plan, [task_of()], tmp_path, records.append, Listener(), run_id="r", machine_id="m")
    main = threading.main_thread().ident
    waiting = threading.Thread(target=lambda: (_until(starts, 3), signal.pthread_kill(main, signal.SIGINT)))
    waiting.start()
    with pytest.raises(KeyboardInterrupt):
        runner.run()
    waiting.join()
    assert not any(place.worker for place in runner.pool.places.values())
    assert {r.status for r in records} == {Status.OK}
    assert {r.launch for r in records} == {0, 1}


def _until(file, size):
    while not file.exists() or file.stat().st_size < size:
        time.sleep(0.05)


def test_rows_are_whole_before_workers_side_by_side_read_them(tmp_path, monkeypatch):
    monkeypatch.setitem(EFFORTS, Mode.QUICK, Effort(launches=1, rounds=1, turn=Turn(0.01, 2, 4), costs=False))
    savez = np.savez

    def slow(file, **arrays):
        if isinstance(file, Path):
            file.touch()
        time.sleep(1)
        savez(file, **arrays)

    monkeypatch.setattr(np, "savez", slow)
    records, _, _ = run(tmp_path, plan_of("numpy", "chatty"), [task_of()])
    assert len(records) == 2 * 4 * 2
    assert {r.status for r in records} == {Status.OK}


def test_absent_unsupported_and_broken_imports_are_named(tmp_path):
    records, _, _ = run(tmp_path, plan_of("absent", "no-epoch", "no-device", "bad-import", "numpy"), [task_of()])
    assert set(status_of(records, "absent").values()) == {Status.UNAVAILABLE}
    assert "pip install" in next(r.reason for r in records if r.backend == "absent")
    assert set(status_of(records, "no-device").values()) == {Status.UNAVAILABLE}
    assert {r.reason for r in records if r.backend == "no-device"} == {"no device can be used: there is no driver"}
    assert status_of(records, "no-epoch")[Pass.EPOCH] is Status.UNSUPPORTED
    assert status_of(records, "no-epoch")[Pass.FORWARD] is Status.OK
    assert set(status_of(records, "bad-import").values()) == {Status.CRASHED}
    assert "libfast.so.3" in next(r.reason for r in records if r.backend == "bad-import")
    assert set(status_of(records, "numpy").values()) == {Status.OK}


def test_resuming_measures_what_is_missing_and_nothing_else(tmp_path):
    plan, task = plan_of("numpy", "chatty"), task_of()
    whole, _, _ = run(tmp_path / "whole", plan, [task])
    kept = whole[: len(whole) // 3]
    rest, _, _ = run(tmp_path / "rest", plan, [task], before=kept)
    turns = [(r.backend, r.case, r.launch, r.round) for r in turns_in([*kept, *rest]) if r.samples_ns]
    assert len(turns) == len(set(turns)) == 2 * 4 * 2 * 2
    assert {r.part for r in rest} == {1}
    nothing, _, _ = run(tmp_path / "nothing", plan, [task], before=whole)
    assert nothing == []


def test_nan_parameters_agree_with_the_oracle_and_end_nothing(tmp_path):
    task = task_of()
    params = {name: value.copy() for name, value in task.params.items()}
    params["W_hy"][0, 0] = np.nan
    records, _, _ = run(tmp_path, plan_of("numpy"), [replace(task, params=params)])
    assert set(status_of(records, "numpy").values()) == {Status.OK}


def test_bad_rows_are_refused_with_the_value_and_the_limit(tmp_path):
    task = task_of()
    inputs = task.rows.inputs.copy()
    inputs[3, 1] = 99
    with pytest.raises(ValueError, match=r"token 99 is outside the vocabulary"):
        run(tmp_path, plan_of("numpy"), [replace(task, rows=Split(inputs, task.rows.targets))])
    with pytest.raises(ValueError, match="the batch is empty"):
        run(tmp_path, plan_of("numpy"), [replace(task, rows=Split(inputs[:0], task.rows.targets[:0]))])
