"""Single time steps: how turns take them, what records keep of them, and what is said of the rare ones."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import rnnbench as rb
from rnnbench.analysis.latency import latencies_frame
from rnnbench.analysis.stats import summaries
from rnnbench.api.planning import plan_of
from rnnbench.backends.base import Steps
from rnnbench.backends.numpy import NumpyBackend
from rnnbench.harness.clock import STEP_BLOCKS, Turn, time_steps
from rnnbench.model import USUAL_PASSES, Case, Pass
from rnnbench.records.record import Mode, turns_in
from rnnbench.records.steps import counted_steps, percentile, pooled, rounded
from rnnbench.records.store import load_run
from rnnbench.work import work_of
from tests.helpers import random_data, random_params, small_problem


class Ticking:
    """A session whose steps take 2 us, but every hundredth 50 us and perhaps the first, by a clock of its own."""

    def __init__(self, first: int = 2_000) -> None:
        self.now, self.taken, self.first = 0, list[int](), first

    def begin_steps(self) -> Steps:
        return Steps([0, 1, 2], self.step)

    def step(self, x: int) -> None:
        self.taken.append(x)
        self.now += 50_000 if len(self.taken) % 100 == 0 else 2_000 if len(self.taken) > 1 else self.first

    def synchronize(self) -> None:
        self.now += 0

    def clock(self) -> int:
        return self.now


def test_a_turn_times_each_step_by_itself():
    session = Ticking()
    times = time_steps(session, Turn(seconds=0.1, min_calls=2, max_calls=10**6), session.clock)
    assert session.taken[:7] == [0, 1, 2, 0, 1, 2, 0]
    assert times.total == session.now
    assert 100e6 <= session.now < 101e6
    assert len(times.samples) <= STEP_BLOCKS + 1
    assert set(times.samples) == {2_000}
    counts = dict(times.counts)
    assert counts.keys() == {rounded(2_000), rounded(50_000)}
    kept = sum(counts.values())
    assert len(session.taken) - kept == pytest.approx(10e6 / 2_480, rel=0.02)  # the first 10 ms are warm-ups
    assert counts[rounded(50_000)] == pytest.approx(kept / 100, abs=1)


def test_a_turn_ends_by_the_most_calls_and_has_the_fewest():
    session = Ticking()
    assert len(time_steps(session, Turn(1, 2, 6), session.clock).samples) <= 6
    assert len(session.taken) == 6
    slow = Ticking()
    time_steps(slow, Turn(0, 5, 99), slow.clock)
    assert len(slow.taken) == 6  # whole rows of 3


def test_durations_keep_8_binary_digits():
    rng = np.random.default_rng(0)
    for ns in [*range(1, 2000), *(int(x) for x in np.exp(rng.uniform(0, 23, 2000)))]:
        assert abs(rounded(max(1, ns)) - max(1, ns)) * 256 <= max(1, ns)
    assert len(counted_steps(range(1_000, 64_000))) < 6 * 128 + 2


def test_a_percentile_needs_ten_steps_beyond_it():
    rng = np.random.default_rng(1)
    for n in (20, 999, 1_000, 9_999, 10_000):
        each = np.sort(rng.integers(1, 200, n))
        counts = pooled([counted_steps(map(int, part)) for part in np.array_split(each, 3)])
        for percent, fewest in ((50, 20), (99, 1_000), (99.9, 10_000)):
            want = int(each[int(np.ceil(percent * n / 100 - 1e-9)) - 1]) if n >= fewest else None
            assert percentile(counts, percent) == want, (n, percent)


def test_a_run_of_steps_says_how_rare_the_slow_ones_are(tmp_path):
    mine = rb.Workload("mine", rb.Model(E=3, H=4, O=1, cell="gru"), random_data(small_problem(V=None, B=2), 40), B=2)
    asked = {"backends": ["numpy"], "passes": ["step"], "mode": "quick", "output": tmp_path / "run", "progress": False}
    run = rb.run(mine, **asked)
    (row,) = run.latencies.itertuples()
    assert row.steps > 100
    assert 0 < row.p50 < 1e-2
    assert run.errors["ok"].all()
    assert set(run.errors["array"]) == {"logits", "state"}
    page = run.report().read_text()
    assert "## Latency of a step" in page
    assert "too few" in page
    assert (tmp_path / "run" / "tables" / "latencies.csv").exists()
    turns = turns_in(load_run(tmp_path / "run").records)
    assert all(len(r.samples_ns) <= STEP_BLOCKS + 1 and r.warmup == 1 for r in turns)
    assert sum(count for r in turns for _, count in r.step_counts) == row.steps
    assert (tmp_path / "run" / "records.jsonl").stat().st_size < 30_000
    assert len(latencies_frame(summaries(turns))) == 1
    assert "latency of a step" in repr(run)


def test_a_long_first_step_is_a_warm_up():
    """Such as one that compiles: it is in no percentile, however long it takes."""
    session = Ticking(first=500_000_000)
    times = time_steps(session, Turn(seconds=0.1, min_calls=200, max_calls=10**6), session.clock)
    assert max(ns for ns, _ in times.counts) < 60_000
    assert times.samples[0] == 500_000_000
    assert max(times.samples[1:]) < 60_000


def test_only_who_asks_gets_steps():
    mine = rb.Workload("mine", rb.Model(E=3, H=4, O=1), random_data(small_problem(V=None), 40), B=4)
    rest = {"mode": Mode.QUICK, "seed": 0, "timeout": 60.0}
    assert plan_of([mine], **rest).passes == USUAL_PASSES == tuple(p for p in Pass if p is not Pass.STEP)
    assert plan_of([mine], passes=["step"], **rest).passes == (Pass.STEP,)


def test_the_work_of_a_step_is_that_of_one_time_step():
    problem = small_problem(V=None, B=2, T=7, E=3, H=5, cell="lstm")
    step, one = (
        Case(**vars(p), pass_=pass_)
        for p, pass_ in ((problem, Pass.STEP), (small_problem(V=None, B=2, T=1, E=3, H=5, cell="lstm"), Pass.FORWARD))
    )
    assert work_of(step).flops == work_of(one).flops == 2 * 2 * (8 * 20 + 5)


def test_steps_go_on_over_the_rows_of_a_batch():
    problem = small_problem(V=None, B=1, T=3)
    session = NumpyBackend().prepare(problem, random_params(problem), random_data(problem))
    steps = session.begin_steps()
    for x in itertools.islice(itertools.cycle(steps.inputs), 7):
        steps.take(x)
    far = session.fetch().states["h"]
    again = session.begin_steps()
    again.take(again.inputs[0])
    assert not np.array_equal(session.fetch().states["h"], far)


def test_what_fetches_a_step_is_not_built_inside_its_clock(monkeypatch):
    """No other backend does so, and of a step of NumPy it would be a tenth."""
    problem = small_problem()
    session = NumpyBackend().prepare(problem, random_params(problem), random_data(problem))
    steps = session.begin_steps()
    monkeypatch.setattr("rnnbench.backends.numpy.Outputs", None)
    for x in steps.inputs:
        steps.take(x)
    monkeypatch.undo()
    stepped = session.fetch()
    assert stepped.loss is None
    session.forward()
    np.testing.assert_allclose(stepped.states["h"], session.fetch().states["h"], rtol=1e-5)
