"""Later launches: the answer of a first launch that was right is right again; any other one goes to the oracle."""

from __future__ import annotations

import gc
from dataclasses import replace

import numpy as np
import pytest

from rnnbench import backends
from rnnbench.backends.base import Outputs
from rnnbench.correctness.oracle import FEWEST_LOSSES, LOSS_STEPS, Oracle
from rnnbench.harness import worker_client
from rnnbench.harness.arrays import digest_of
from rnnbench.harness.clock import Turn
from rnnbench.harness.plan import EFFORTS, Effort
from rnnbench.harness.worker import operations
from rnnbench.harness.worker_pool import WorkerPool
from rnnbench.model import USUAL_PASSES, Head, Optimizer, Pass, Train, Truncation
from rnnbench.records.record import Mode, Status, checks_in, turns_in
from tests.faulty import LATE
from tests.harness.test_run_loop import plan_of, run, task_of
from tests.helpers import small_problem

CUT = {"head": Head.EVERY, "truncation": Truncation(3, 2)}
PROBLEMS = {
    "no-clip": {"train": Train(Optimizer.SGD, learning_rate=0.5, clip_norm=0.01)},
    "swapped-gates": {"cell": "gru"},
    # After one step of Adam parameters moved by the same length, whatever the moments are.
    "forgets-moments": {"train": Train(learning_rate=0.05)},
    "swapped-betas": {"train": Train(learning_rate=0.05)},
}
ONLY_TRAINING = ("no-clip", "forgets-moments", "swapped-betas", "same-batch", "wrong-parameter")
ANSWERS_IN_THEIR_PASS = {"drops-short-batch": {Pass.EPOCH}, "scaled": {Pass.GRADIENT}, "wrong-loss": {Pass.GRADIENT}}


@pytest.fixture(autouse=True)
def _four_launches(monkeypatch, faulty_backends, tmp_path):
    monkeypatch.setitem(EFFORTS, Mode.QUICK, Effort(launches=4, rounds=1, turn=Turn(0.001, 1, 2)))
    monkeypatch.setenv("RNNBENCH_TEST_STARTS", str(tmp_path / "starts"))


def task_for(name: str, passes=USUAL_PASSES):
    task = task_of(small_problem(**PROBLEMS.get(name, CUT)), passes)
    if name == "drops-short-batch":  # two whole batches and a half: 10 of its rows
        rows = replace(task.rows, inputs=task.rows.inputs[:10], targets=task.rows.targets[:10])
        task = replace(task, rows=rows)
    return task


@pytest.mark.parametrize("name", [name for name in LATE if name not in ("rounds", "jitters")])
def test_who_goes_wrong_in_its_third_process_is_wrong_there(tmp_path, name):
    records, listener, _ = run(tmp_path, plan_of(f"late-{name}", "numpy"), [task_for(name)])
    late = [r for r in records if r.backend == f"late-{name}"]
    assert {r.status for r in late if r.launch < 2} == {Status.OK}
    wrong = {r.case.pass_: r for r in late if r.status is Status.WRONG}
    assert wrong
    assert {r.launch for r in wrong.values()} == {2}
    assert all("the limit is" in r.reason and r.errors for r in wrong.values())
    if name in ONLY_TRAINING:
        assert Pass.TRAIN_STEP in wrong
    else:
        assert ANSWERS_IN_THEIR_PASS.get(name, {Pass.FORWARD, Pass.GRADIENT}) & wrong.keys()
    assert not any(r.launch >= 2 and r.samples_ns for r in turns_in(late) if r.case.pass_ in wrong)
    assert {r.status for r in records if r.backend == "numpy"} == {Status.OK}
    assert any("wrong" in said for said in listener.said)


@pytest.mark.parametrize("name", ["late-rounds", "jitters"])
def test_who_differs_in_its_last_bits_is_right_by_the_oracle(tmp_path, name):
    records, listener, _ = run(tmp_path, plan_of(name), [task_for(name)])
    assert {r.status for r in records} == {Status.OK}
    assert listener.said == []
    errors = {r.launch: r.errors for r in checks_in(records) if r.case.pass_ is Pass.GRADIENT}
    assert errors[0] != errors[2]  # judged anew, by the same limits
    assert {a: e.limit for a, e in errors[0].items()} == {a: e.limit for a, e in errors[2].items()}


def test_the_same_answer_is_neither_written_nor_compared_again(tmp_path, monkeypatch):
    asked, judged, errors_of = [], [], Oracle.errors
    ask = WorkerPool.ask

    def noted(self, name, op, limit=None, **arguments):
        asked.append((op, arguments))
        return ask(self, name, op, limit, **arguments)

    def seen(self, pass_, *rest):
        judged.append(pass_)
        return errors_of(self, pass_, *rest)

    monkeypatch.setattr(WorkerPool, "ask", noted)
    monkeypatch.setattr(Oracle, "errors", seen)
    records, *_ = run(tmp_path, plan_of("numpy"), [task_for("numpy")])
    assert judged == list(USUAL_PASSES)  # once each, of four launches
    assert [len(a["right"]) for op, a in asked if op == "first"] == [0] * 4 + [1] * 12
    assert [a["steps"] for op, a in asked if op == "losses"] == [LOSS_STEPS] + [FEWEST_LOSSES] * 3
    assert sum(op == "prepare" for op, _ in asked) == 4
    by_launch = [{(r.case.pass_, a, e) for r in checks_in(records) if r.launch == launch for a, e in r.errors.items()
                  if "losses" not in a} for launch in range(4)]  # fmt: skip
    assert by_launch[0] == by_launch[1] == by_launch[2] == by_launch[3]


def test_only_a_first_launch_imports_as_a_user_does(tmp_path, monkeypatch):
    timed = []

    class Seen(worker_client.WorkerClient):
        def __init__(self, name, target, log, env, serve=None):
            timed.append("RNNBENCH_TIMES_IMPORT" in env)
            super().__init__(name, target, log, env, serve)

    monkeypatch.setattr("rnnbench.harness.worker_pool.WorkerClient", Seen)
    run(tmp_path, plan_of("numpy"), [task_of(small_problem(), (Pass.FORWARD,))])
    assert timed == [True, False, False, False]


def test_an_import_that_nobody_times_has_no_collections(monkeypatch):
    collecting = []
    monkeypatch.setattr(backends, "class_of", lambda target: lambda: collecting.append(gc.isenabled()))
    try:
        for timed in ("1", ""):
            monkeypatch.setenv("RNNBENCH_TIMES_IMPORT", timed)
            operations("module:Class")
            assert gc.isenabled()
    finally:
        gc.unfreeze()
    assert collecting == [True, False]


def test_a_later_epoch_is_asked_only_as_far_as_it_can_be_compared(tmp_path, monkeypatch):
    asked, ask, epoch_of = [], WorkerPool.ask, Oracle._epoch

    def short(self, precision):
        answer = epoch_of(self, precision)
        order = np.array(answer.rows[: 2 * self.problem.B])
        self.session.reset()
        self.session.train_epoch(order)
        return replace(answer, rows=order.tolist(), steps=2, outputs=self.session.fetch())

    def noted(self, name, op, limit=None, **arguments):
        if op == "first":
            asked.append(len(arguments["order"]))
        return ask(self, name, op, limit, **arguments)

    monkeypatch.setattr(Oracle, "_epoch", short)
    monkeypatch.setattr(WorkerPool, "ask", noted)
    records, *_ = run(tmp_path, plan_of("numpy"), [task_of(small_problem(), (Pass.EPOCH,))])
    assert {r.status for r in records} == {Status.OK}
    assert asked == [12, 8, 8, 8, 8]
    checks = checks_in(records)
    assert all("param W_xh after 2 of 3 steps" in r.errors for r in checks)
    assert [r.costs.first_call_ns is None for r in checks] == [False, True, True, True]  # the cost of another call


def test_a_digest_tells_names_types_shapes_and_bits_apart():
    x = np.arange(6.0)
    each = [
        Outputs(loss=1.0, grads={"a": x}),
        Outputs(loss=np.nextafter(1.0, 2), grads={"a": x}),
        Outputs(loss=1.0, params={"a": x}),
        Outputs(loss=1.0, grads={"b": x}),
        Outputs(loss=1.0, grads={"a": x.astype(np.float32)}),
        Outputs(loss=1.0, grads={"a": x.reshape(2, 3)}),
        Outputs(loss=1.0, grads={"a": np.nextafter(x, 9)}),
        Outputs(loss=1.0, grads={"a": -x * 0}),
        Outputs(loss=1.0, grads={"a": x * 0}),
        Outputs(loss=1.0),
    ]
    assert len({digest_of(outputs) for outputs in each}) == len(each)
    assert digest_of(each[0]) == digest_of(Outputs(loss=1.0, grads={"a": np.asfortranarray(x)}))
