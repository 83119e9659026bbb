"""The Python door: light to import, the same cases as the command line, tidy tables, and nothing lost on Ctrl-C."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import rnnbench as rb
from rnnbench.harness.run_loop import TurnTimer
from rnnbench.records import store
from rnnbench.work import work_of
from tests.calling import called

QUICK = {"backends": ["numpy"], "passes": ["forward"], "mode": "quick", "training": False, "progress": False}
RNG = np.random.default_rng(0)


def mine(name="mine", N=64, **sizes) -> rb.Workload:
    model = rb.Model(**{"V": 30, "E": 3, "H": 4, "O": 1} | sizes)
    return rb.Workload(name, model, rb.Data(RNG.integers(0, 30, (N, 5)), RNG.integers(0, 2, N)), B=8)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("api") / "run"
    asked = QUICK | {"backends": ["numpy", "numba"], "passes": ["forward", "train_step"]}
    return rb.run([mine(), "parity"], output=folder, **asked)


IMPORT = """
import sys, time
start = time.perf_counter()
import rnnbench
took = time.perf_counter() - start
heavy = {"pandas", "numpy", "numba", "torch", "tensorflow", "jax", "matplotlib", "click", "rich"} & set(sys.modules)
rnnbench.Model, rnnbench.Data, rnnbench.Truncation
late = {"pandas", "numba", "torch", "tensorflow", "jax", "matplotlib"} & set(sys.modules)
print(took, sorted(heavy), sorted(late))
"""


def test_importing_takes_no_time_and_brings_no_library():
    done = [
        subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True) for _ in range(3)
    ]
    took = min(float(run.stdout.split()[0]) for run in done)
    assert took < 0.05
    assert done[0].stdout.split(maxsplit=1)[1] == "[] []\n"


def test_every_public_name_is_there_and_no_other():
    for name in [
        "run",
        "sweep",
        "verify",
        "train",
        "compare",
        "load",
        "session",
        "Workload",
        "Model",
        "Train",
        "Truncation",
        "Data",
        "Backend",
    ]:
        assert name in dir(rb)
        assert getattr(rb, name).__doc__
    with pytest.raises(AttributeError, match="module 'rnnbench' has no attribute 'runn'"):
        rb.runn  # noqa: B018


def test_results_are_tidy_tables(measured):
    times = measured.times
    assert len(times) == 2 * 2 * 2
    assert set(times["status"]) == {"ok"}
    assert set(times["cell"]) == {"rnn"}
    assert times["seconds"].between(1e-7, 1).all()
    ranking = measured.ranking
    assert list(ranking.columns[:8]) == ["case", "workload", "cell", "pass", "dtype", "truncation", "rank", "backend"]
    for _, group in ranking.groupby("case"):
        assert list(group["rank"]) == [1, 2]
        assert group["seconds"].is_monotonic_increasing
        assert (group["behind"].iloc[0], group["behind"].iloc[1] > 0) == (1.0, True)
    assert set(measured.ratios["reference"]) == {"numpy"}
    assert set(measured.ratios_over("numba")["reference"]) == {"numba"}
    with pytest.raises(ValueError, match="reference 'jax' is not in this run"):
        measured.ratios_over("jax")
    assert measured.errors["ok"].all()
    assert (measured.errors["error_over_limit"] < 1).all()
    assert "quick run" in set(measured.warnings["title"])
    for table in (times, ranking, measured.ratios, measured.errors, measured.warnings):
        assert isinstance(table, pd.DataFrame)


def test_a_result_shows_its_answer(measured):
    text, page = repr(measured), measured._repr_html_()
    fastest = measured.ranking.iloc[0]["backend"]
    assert f"mine: use {fastest}: " in text
    assert text.endswith(str(measured.folder))
    assert f"<td>{fastest}</td>" in page
    assert "<li>" in page


def test_what_was_measured_is_read_again_and_reported(measured):
    again = rb.load(measured.folder)
    pd.testing.assert_frame_equal(again.times, measured.times)
    assert again.report().read_text().startswith("# ")
    compared = rb.compare(measured, again, margin=0.5)
    assert set(compared.table["ratio"]) == {1.0}
    assert list(compared.table["backend"]) == list(measured.times["backend"])
    assert "mine forward" in repr(compared)
    assert "<table" in compared._repr_html_()


@pytest.mark.usefixtures("no_figures")
def test_the_command_line_and_python_ask_the_same(tmp_path, measured):
    workload = mine()
    np.savez(tmp_path / "mine.npz", x=workload.data.inputs, y=workload.data.targets)
    (tmp_path / "a.toml").write_text('name = "mine"\ndata = "mine.npz"\nB = 8\n[model]\nV = 30\nE = 3\nH = 4\n')
    (tmp_path / "a.py").write_text(
        "import numpy as np\nimport rnnbench as rb\nfrom pathlib import Path\n"
        "rows = np.load(Path(__file__).parent / 'mine.npz')\n"
        "W = rb.Workload('mine', rb.Model(V=30, E=3, H=4, O=1), rb.Data(rows['x'], rows['y']), B=8)\n"
    )
    cases = []
    sizes = ("-V", "30", "-E", "3", "-H", "4", "-B", "8")
    for number, asked in enumerate([("mine.npz", *sizes), ("a.toml",), ("a.py:W",)]):
        folder = tmp_path / str(number)
        called("run", "-w", tmp_path / asked[0], *asked[1:], "-b", "numpy", "--pass", "forward,train_step", "--quick",
               "--no-training", "-o", folder, code=0)  # fmt: skip
        cases.append({r.case for r in store.load_run(folder).records})
    python = {r.case for r in measured.loaded.records if r.case.workload == "mine"}
    assert cases == [python] * 3
    made = {r.case for r in rb.run(output=tmp_path / "p", **QUICK, V=30, E=3, H=4, B=8, T=5).loaded.records}
    called("run", *sizes, "-T", "5", "-b", "numpy", "--pass", "forward", "--quick", "-o", tmp_path / "c", code=0)
    assert {r.case for r in store.load_run(tmp_path / "c").records} == made
    assert next(iter(made)).workload == "made-up V30 E3 H4 B8 T5"


def test_a_sweep_is_that_of_the_command_line(tmp_path):
    asked = {"backends": ["numpy"], "mode": "quick", "progress": False}
    run = rb.sweep(output=tmp_path / "p", H=[8, 4, 4], B=np.array([1, 2]), T=3, grid=True, cell="gru", **asked)
    axes = ("--hidden", "4,8", "--batch-size", "1,2", "--time-steps", "3")
    called("sweep", *axes, "--grid", "--cell", "gru", "-b", "numpy", "--quick", "-o", tmp_path / "c", code=0)
    plans = [store.read_run(tmp_path / name)["plan"] for name in "pc"]
    assert {axis: sorted(plans[0]["sweep"][axis]) for axis in "HB"} == {"H": [4, 8], "B": [1, 2]}
    for plan in plans:
        plan["workloads"] = sorted(spec["name"] for spec in plan["workloads"])
        plan["sweep"] |= {axis: sorted(plan["sweep"][axis]) for axis in "HBT"}
    assert plans[0] == plans[1]
    assert {r.case for r in run.loaded.records} == {r.case for r in store.load_run(tmp_path / "c").records}
    assert set(run.times["status"]) == {"ok"}
    assert "crossover" in run.report().read_text()
    grown = rb.sweep(mine(), H=[4, 8], passes="forward", output=tmp_path / "m", **asked)
    assert list(grown.times["workload"]) == ["mine", "mine H8"]
    called("sweep", "--resume", tmp_path / "p", *axes, "--quick", code=0)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"H": "4:8"}, "H is '4:8'; give a whole number or several, such as"),
        ({"B": [1, 2.5]}, "B is .*; give a whole number or several"),
        ({"T": []}, "T is .*; give a whole number or several"),
        ({"H": [0, 4]}, "H is 0; it must be at least 1"),
        ({"H": 4, "B": 2, "T": 3}, "no axis is swept"),
        ({"H": [4, 8], "grid": True}, "more than one size of H and of B"),
        ({"H": [4, 8], "passes": ["epoch"]}, "a sweep has no epoch"),
        ({"H": [4, 8], "mode": "rigorous"}, "there is no mode 'rigorous'"),
        ({"H": [4, 8], "cell": ["gru", "lstm"]}, "a sweep has one cell, not gru, lstm"),
        ({"workload": "parityy"}, "there is no workload 'parityy'; did you mean parity"),
        ({"H": [100_000], "B": [1000, 100_000]}, "GiB are free; take smaller sizes"),
    ],
)
def test_what_cannot_be_swept_is_refused_before_anything_is_made(asked, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        rb.sweep(**{"backends": ["numpy"], "output": tmp_path / "run", "progress": False} | asked)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("no_figures")
def test_an_interrupted_run_keeps_what_was_measured_and_goes_on_without_the_rows(tmp_path, monkeypatch):
    turns = []
    before = TurnTimer.measure

    def turn(self, slot):
        turns.append(slot)
        if len(turns) == 2:
            raise KeyboardInterrupt
        before(self, slot)

    monkeypatch.setattr(TurnTimer, "measure", turn)
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt, match=r"what was measured is kept: rnnbench.load\("):
        rb.run(mine(), output=folder, **QUICK)
    monkeypatch.setattr(TurnTimer, "measure", before)
    assert len(rb.load(folder).times) == 1
    assert (folder / "rows" / "mine.npz").exists()
    run = rb.run(resume=folder, progress=False)
    assert list(run.times["rounds"]) == [2]
    assert {r.part for r in run.loaded.records} == {0, 1}


@pytest.mark.usefixtures("no_figures")
def test_backends_that_are_missing_are_said_to_be(tmp_path, monkeypatch):
    absent = lambda name, env=None: None if name in ("numpy", "numba") else f"{name} not installed; pip install it"  # noqa: E731
    monkeypatch.setattr("rnnbench.backends.missing", absent)
    times = rb.run(mine(), output=tmp_path / "run", **QUICK | {"backends": None}).times
    told = dict(zip(times["backend"], times["reason"], strict=True))
    assert told["torch"] == "torch not installed; pip install it"
    assert set(times[times["status"] == "unavailable"]["backend"]) >= {"torch", "jax", "tensorflow"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"backends": ["nunba"]}, "there is no backend 'nunba'; did you mean numba"),
        ({"passes": ["forwards"]}, "there is no pass 'forwards'; did you mean forward"),
        ({"dtypes": ["float16"]}, "there is no dtype 'float16'; did you mean float"),
        ({"mode": "slow"}, "there is no mode 'slow'"),
        ({"threads": 0}, "threads = 0; it must be at least 1"),
        ({"threads": 10**6}, "threads = 1000000 is more than the"),
        ({"reference": "jax"}, "the reference jax is not among the backends of this run: numpy"),
        ({"backends": []}, "no backend is named; known: numpy"),
        ({"max_launches": 5}, "max_launches = 5 has no effect alone"),
        ({"truncation": (2, 3)}, "1 <= stride <= window"),
        ({"T": 9}, "the rows of mine have T = 5"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_is_made(changes, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        rb.run(mine(), output=tmp_path / "run", **QUICK | changes)
    assert not list(tmp_path.iterdir())


def test_verify_and_train():
    checked = rb.verify(mine(), ["numpy", "numba"], passes=["gradient"], dtypes=["float64"], progress=False)
    assert checked.ok
    assert len(checked.errors) == 2 * 9
    assert "mine gradient float64: numba: ok" in repr(checked)
    trained = rb.train(mine(), epochs=2, progress=False)
    assert list(trained.curve["epoch"]) == [0, 1, 2]
    assert trained.test.accuracy is not None
    assert json.loads(json.dumps(trained.as_json()))["backend"] == "numba"
    with pytest.raises(ValueError, match=r"cuda: numba_cuda not installed|cuda on mine"), rb.session("cuda", mine()):
        pass


def test_a_session_computes_what_the_oracle_does():
    workload = mine()
    with (
        rb.session("numba", workload, dtype="float64") as ours,
        rb.session("numpy", workload, dtype="float64") as plain,
    ):
        for session in (ours, plain):
            session.gradient()
        got, ref = ours.fetch().grads["W_hh"], plain.fetch().grads["W_hh"]
    assert np.linalg.norm(got - ref) < 1e-12 * np.linalg.norm(ref)


def test_a_session_starts_from_parameters_of_ones_own():
    workload = mine()
    b_y = np.full(workload.model.O, 0.25)
    with rb.session("numba", workload, dtype="float64", params={"b_y": b_y}) as session:
        session.forward()
        moved = session.fetch().logits
    with rb.session("numba", workload, dtype="float64") as session:
        session.forward()
        assert np.abs(moved - session.fetch().logits - 0.25).max() < 1e-12
    for wrong in ({"b_y": np.zeros(9)}, {"b_z": b_y}):
        with pytest.raises(ValueError, match="this model"), rb.session("numba", workload, params=wrong):
            pass


@pytest.mark.usefixtures("no_figures")
def test_a_run_whose_rows_are_gone_is_not_resumed(tmp_path):
    run = rb.run(mine(), output=tmp_path / "run", **QUICK)
    (run.folder / "rows" / "mine.npz").unlink()
    (run.folder / "records.jsonl").write_bytes(b"")
    with pytest.raises(store.StoreError, match=r"rows/mine.npz cannot be read: No such file .*; put back a copy"):
        rb.run(resume=run.folder, progress=False)


@pytest.mark.usefixtures("no_figures")
def test_layers_directions_and_lengths_from_rows_to_records_and_a_training(tmp_path):
    lengths = RNG.integers(0, 6, 64)
    rows = rb.Data(RNG.integers(0, 30, (64, 5)), RNG.integers(0, 2, 64), lengths)
    model = rb.Model(V=30, E=3, H=4, O=1, cell="gru", layers=2, bidirectional=True)
    both = rb.Workload("both", model, rows, B=8)
    name = "both gru L2 bidirectional lengths"
    run = rb.run(both, output=tmp_path / "run", **QUICK | {"passes": ["forward", "epoch"]})
    assert dict(zip(run.times["case"], run.times["status"], strict=True)) == {
        f"{name} forward float32": "ok",
        f"{name} epoch float32": "ok",
    }
    kept = store.load_run(tmp_path / "run").records[0].case
    assert kept.mean_length == lengths[:52].mean()  # of the rows to train on
    whole = work_of(replace(kept, mean_length=None)).flops
    assert work_of(kept).flops == pytest.approx(whole * kept.mean_length / 5, rel=0.01)  # but for the head
    curve = rb.train(both, backend="numpy", epochs=1, progress=False).curve
    assert curve["loss"].notna().sum() == 1
    assert curve["validation_accuracy"].between(0, 1).all()
    with rb.session("numpy", both) as session:
        session.gradient()
        assert session.fetch().grads["l1.back.W_xh"].shape == (8, 12)
    with pytest.raises(ValueError, match="a bidirectional model reads rows from their end too, and truncation 2:2"):
        rb.run(both, output=tmp_path / "cut", **QUICK, truncation=(2, 2))
