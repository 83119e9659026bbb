"""Time to accuracy: what is inside its clock, and whole runs with planted backends, which go on after an end."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest

import rnnbench as rb
from rnnbench.backends import REGISTRY
from rnnbench.harness.to_accuracy import ToAccuracy
from rnnbench.harness.train import Training
from rnnbench.harness.worker_client import Limit, WorkerFailure
from rnnbench.model import DType, Model, Train
from rnnbench.params import Init, init_params
from rnnbench.records import store
from rnnbench.records.record import Mode, Status
from tests.calling import called

PLANTED = """
import os, time
from dataclasses import replace
import numpy as np
from rnnbench.backends.numpy import NumpyBackend, NumpySession

class Slow(NumpyBackend):  # starts half a second later than NumPy, and is the same then
    def __init__(self):
        time.sleep(0.5)

class Never(NumpyBackend):  # learns, and answers as if it had not
    def prepare(self, problem, params, data):
        class Session(NumpySession):
            def _predict(self, inputs, lengths):
                return np.zeros_like(super()._predict(inputs, lengths))
        return Session(problem, params, data)

class Wrong(NumpyBackend):  # learns as NumPy does, and a tenth off in what it says of it
    def prepare(self, problem, params, data):
        class Session(NumpySession):
            def fetch(self):
                outputs = super().fetch()
                return replace(outputs, logits=None if outputs.logits is None else 1.1 * outputs.logits)
        return Session(problem, params, data)

class Dies(NumpyBackend):  # in its second epoch
    def prepare(self, problem, params, data):
        class Session(NumpySession):
            epochs = 0
            def epoch_of(self, order):
                if self.epochs:
                    os._exit(9)
                self.epochs += 1
                return super().epoch_of(order)
        return Session(problem, params, data)
"""
NAMES = ("numpy", "planted.Slow", "planted.Never", "planted.Dies")
EPOCHS, SEEDS = 6, 3
LEARNING_RATE = 0.02


def learnable() -> rb.Workload:
    """Whether the last number of a row is above 0: 0.97 are right after two to five epochs."""
    x = np.random.default_rng(0).standard_normal((640, 2, 1)).astype(np.float32)
    y = (x[:, -1, 0] > 0).astype(np.float32)
    data = rb.Data(x[:320], y[:320])
    model = Model(E=1, H=4, O=1)
    return rb.Workload("sign", model, data, B=32, test=rb.Data(x[320:], y[320:]),
                       train=Train(learning_rate=LEARNING_RATE), epochs=EPOCHS)  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("to-accuracy")
    (folder / "planted.py").write_text(PLANTED)
    before = dict(REGISTRY)
    asked = ["numpy", *(f"{folder}/planted.py:{name.partition('.')[2]}" for name in NAMES[1:])]
    yield rb.run(learnable(), asked, until_accuracy=0.97, seeds=SEEDS, threads=1, output=folder / "run", progress=False)
    for name in REGISTRY.keys() - before.keys():
        del REGISTRY[name]


@pytest.mark.timeout(120)
def test_planted_backends_are_found_out(run):
    table = run.to_accuracy.set_index("backend")
    assert {*table.index[:2]} == {*NAMES[:2]}  # those that do not get there come last
    numpy, slow, never, dies = (table.loc[name] for name in NAMES)
    assert numpy["reached"] == slow["reached"] == SEEDS
    assert numpy["epochs"] == slow["epochs"] > 1  # the same parameters in the same order: they learn alike
    assert numpy["accuracy"] == slow["accuracy"] >= 0.97
    assert slow["import_seconds"] > 0.5
    assert slow["seconds"] > 0.5
    for row in (numpy, slow):
        assert row["low"] <= row["seconds"] <= row["high"]
        assert row["status"] == "ok"
        assert sum(row[f"{part}_seconds"] for part in PARTS) == pytest.approx(row["seconds"], rel=0.5)
    assert never["trainings"] == SEEDS  # censored, not dropped
    assert never["reached"] == 0
    assert math.isnan(never["seconds"])
    assert never["at_least"] > 0
    assert 0.4 < never["accuracy"] < 0.6
    assert dies["status"] == "crashed"
    assert "epoch: the worker ended with exit code 9" in dies["reason"]
    assert dies["trainings"] == 2  # and no third, after two deaths
    assert dies["reached"] == 0


PARTS = ("start", "import", "read", "prepare", "first_call", "train")


def test_the_records_say_how_each_training_went(run):
    records = run.loaded.trainings
    for r in records:
        assert r.until == 0.97
        assert r.threads == 1
        assert r.data_source == "rows given by the user"
        assert r.seeds.data == 0
        assert len({r.machine_id, run.loaded.machine["machine_id"]}) == 1
        assert [e.at_ns for e in r.epochs] == sorted(e.at_ns for e in r.epochs)
        parts = r.start_ns + r.import_ns + r.read_ns + r.prepare_ns + sum(e.train_ns for e in r.epochs)
        if r.epochs:
            assert 0 <= r.epochs[-1].at_ns - parts < 0.2e9  # the parts are all of it, tests left out
    never = [r for r in records if r.backend == "planted.Never"]
    assert [len(r.epochs) for r in never] == [EPOCHS] * SEEDS
    assert all(r.status is Status.OK and r.reached_ns is None for r in never)
    losses = {r.seeds.params: [e.loss for e in r.epochs] for r in records if r.backend == "numpy"}
    assert losses == {r.seeds.params: [e.loss for e in r.epochs] for r in records if r.backend == "planted.Slow"}
    assert len({tuple(of) for of in losses.values()}) == SEEDS  # each seed has parameters and an order of its own


def test_the_report_shows_all_of_them(run):
    page = run.report().read_text()
    answer = page.partition("## Answer")[2].partition("\n## ")[0]
    assert "**sign to 97 %**: numpy in " in answer
    assert "planted.Never (0 of 3 seeds, " in answer
    assert "planted.Dies (crashed, 0 of 2 seeds)" in answer
    assert "## Time to accuracy" in page
    assert "figures/to-accuracy.png" in page
    assert (run.folder / "figures" / "to-accuracy.png").stat().st_size > 5000
    assert "Time to accuracy" in (run.folder / "report.html").read_text()
    assert "sign to 97 %" in repr(run)


@pytest.mark.usefixtures("no_figures")
def test_a_run_goes_on_where_it_was_ended(run, tmp_path):
    path = run.folder / store.TRAININGS
    before = path.read_text().splitlines(keepends=True)
    kept = [line for line in before if not (json.loads(line)["backend"] == "numpy" and '"params":2' in line)]
    assert len(kept) == len(before) - 1
    path.write_text("".join(kept) + before[0][:50])  # and a line that was cut
    try:
        again = rb.run(resume=run.folder, progress=False)
        assert len(again.loaded.trainings) == len(before)
        assert again.loaded.trainings[-1].part == 1
        assert (again.loaded.trainings[-1].backend, again.loaded.trainings[-1].seeds.params) == ("numpy", 2)
    finally:
        path.write_text("".join(before))


@pytest.mark.timeout(120)
@pytest.mark.usefixtures("no_figures")
def test_what_is_wrong_in_a_pass_is_not_trained(run, tmp_path):
    names = ["numpy", f"{run.folder.parent}/planted.py:Wrong"]
    asked = {"passes": ["forward"], "mode": "quick", "threads": 1, "training": False, "progress": False}
    both = rb.run(learnable(), names, until_accuracy=0.6, output=tmp_path / "run", **asked)
    assert set(both.times["backend"]) == {"numpy", "planted.Wrong"}
    table = both.to_accuracy.set_index("backend")
    assert (table.loc["numpy", "reached"], table.loc["numpy", "trainings"]) == (1, 1)  # a quick run has one seed
    assert table.loc["planted.Wrong", "trainings"] == 0
    assert table.loc["planted.Wrong", "status"] == "wrong"
    assert "planted.Wrong (wrong)" in " ".join(repr(both).split())


class FakePool:
    """A worker without a process: each request takes so many seconds of a clock that it has."""

    takes: ClassVar[dict[str, float]] = {
        "hello": 3.0,
        "unsupported": 0.0,
        "prepare": 2.0,
        "epoch": 10.0,
        "evaluate": 100.0,
    }

    def __init__(self, folder, accuracies, fails=None):
        self.folder, self.threads, self.seconds = folder, 2, 50.0
        self.accuracies, self.fails, self.limit = iter(accuracies), fails, lambda: Limit(1e4)
        self.seeds, self.dismissed = [], []

    def now(self) -> int:
        return round(self.seconds * 1e9)

    def worker(self, name):
        self.seconds += self.takes["hello"]

    def place(self, name):
        return SimpleNamespace(import_ns=2_000_000_000)

    def ask(self, name, op, **arguments):
        limit = self.limit()
        if limit.seconds < self.takes[op] or (self.fails == op):
            self.seconds += max(0.0, min(limit.seconds, self.takes[op]))
            status = Status.CRASHED if self.fails == op else limit.status
            raise WorkerFailure(status, limit.reason(op) if limit.budget else "it died", alive=False)
        self.seconds += self.takes[op]
        if op == "epoch":
            self.seeds.append(arguments["seed"])
        return {
            "unsupported": {"reason": None},
            "prepare": {"prepare_ns": 500_000_000},
            "epoch": {"loss": 0.5},
            "evaluate": {"accuracy": next(self.accuracies) if op == "evaluate" else 0},
        }[op]

    def dismiss(self, name):
        self.dismissed.append(name)


def training_of(seed: int = 0, epochs: int = 3) -> Training:
    mine = learnable()
    rows = mine.load(None)
    problem = mine.spec.problem(DType.FLOAT32, train=rows.train)
    return Training(problem, init_params(mine.model, Init.KERAS, seed), rows, epochs, seed, "run")


def trained(pool: FakePool, budget: float | None = None, cache: str = "warm", **asked):
    trainer = ToAccuracy(pool, 0.8, budget, {"mode": Mode.DEFAULT, "machine_id": "m"}, pool.now)
    return trainer.train(training_of(**asked), "numpy", 0, cache)


def test_the_clock_stands_still_in_tests(tmp_path):
    r = trained(FakePool(tmp_path, [0.6, 0.81, 0.9]))
    assert (r.start_ns, r.import_ns, r.read_ns, r.prepare_ns) == (1e9, 2e9, 1.5e9, 0.5e9)
    assert [e.at_ns for e in r.epochs] == [15e9, 25e9]  # of three: it is there after the second
    assert [e.test_ns for e in r.epochs] == [100e9] * 2
    assert r.reached_ns == r.ended_ns == 25e9


@pytest.mark.parametrize(("accuracies", "at"), [([0.1, 0.2, 0.3], None), ([0.8] * 3, 15e9), ([0.1, 0.1, 0.8], 35e9)])
def test_it_ends_at_the_accuracy_or_after_the_last_epoch(tmp_path, accuracies, at):
    r = trained(FakePool(tmp_path, accuracies))
    assert r.reached_ns == at
    assert r.ended_ns == (at or 35e9)
    assert r.status is Status.OK


def test_a_cold_training_is_of_one_epoch(tmp_path):
    r = trained(FakePool(tmp_path, [0.1]), cache="cold")
    assert (len(r.epochs), r.max_epochs, r.cache) == (1, 1, "cold")


@pytest.mark.parametrize("op", ["unsupported", "prepare", "epoch", "evaluate"])
def test_what_was_known_when_it_died_is_kept(tmp_path, op):
    pool = FakePool(tmp_path, [0.1], fails=op)
    r = trained(pool)
    assert (r.status, r.reason, r.reached_ns) == (Status.CRASHED, "it died", None)
    assert r.prepare_ns == (0.5e9 if op in ("epoch", "evaluate") else 0)
    assert r.ended_ns > 0
    assert pool.dismissed == ["numpy"]


def test_the_budget_of_a_training_ends_it(tmp_path):
    r = trained(FakePool(tmp_path, [0.1, 0.2, 0.3]), budget=240.0)
    assert r.status is Status.SKIPPED
    assert "the budget of a training of 4 min was spent; raise --case-budget" in r.reason
    assert len(r.epochs) == 2
    assert r.ended_ns == 25e9 + 15e9  # tests that were ended count


def test_each_seed_has_an_order_of_rows_that_is_the_same_for_all(tmp_path):
    orders = []
    for seed in (0, 1, 0):
        pool = FakePool(tmp_path, [0.1] * 3)
        trained(pool, seed=seed)
        orders.append(pool.seeds)
    assert orders[0] == orders[2] != orders[1]
    assert len(set(orders[0])) == 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("-w", "imdb-50", "--until-accuracy", "80"), "give 0.8 or 80%"),
        (("-w", "imdb-50", "--until-accuracy", "much"), "is no accuracy, such as 0.8 or 80%"),
        (("-w", "imdb-50", "--seeds", "3"), "give --until-accuracy too"),
        (("-w", "imdb-50", "--seeds", "0", "--until-accuracy", "0.8"), "'0' is not a whole number from 1 to"),
        (("-E", "4", "-H", "4", "-T", "5", "--until-accuracy", "0.8"), "has random rows, with nothing to learn"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence(options, words, tmp_path):
    result = called("run", *options, "-o", tmp_path / "run", code=2)
    assert words in " ".join(result.output.split())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"until_accuracy": 80}, "the accuracy is 80; it must be above 0 and at most 1"),
        ({"until_accuracy": 0.8, "seeds": 0}, "seeds = 0; it must be at least 1"),
        ({"seeds": 3}, "give --until-accuracy too"),
    ],
)
def test_what_cannot_be_asked_in_python_is_a_value_error(asked, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        rb.run("imdb-synthetic-50", ["numpy"], output=tmp_path / "run", progress=False, **asked)
    assert not (tmp_path / "run").exists()


def test_a_dry_run_lists_the_trainings():
    text = called("run", "--dry-run", "-w", "imdb-50", "-b", "numpy,numba", "--until-accuracy", "80%", code=0).output
    assert "imdb-50 float32 to 80 %" in text
    assert "2 to be trained, each from 5 seeds; nothing was run." in text
    text = called("run", "--dry-run", "-w", "imdb-50", "-b", "numpy", "--pass", "forward", "--until-accuracy", "0.8",
                  "--seeds", "1", code=0).output  # fmt: skip
    assert "1 answer, each in 5 launches of 3 rounds; 1 to be trained, each from 1 seed; nothing was run." in text
