"""`cuda+graph`. In the simulator prepared launches stand for the graph, and no number among them may be the host's to
set: what a graph must read from device memory and does not is seen. The calls of the driver are checked by a double.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numba import cuda

from rnnbench import backends
from rnnbench.backends.cuda import CudaBackend
from rnnbench.backends.cuda_graph import CudaGraphBackend
from rnnbench.kernels.cuda import device
from rnnbench.kernels.cuda.cursor import advance_cursor
from rnnbench.kernels.cuda.graph import Recorder, captured
from rnnbench.kernels.cuda.launch import HostNumber, LaunchSize, PreparedLaunches
from rnnbench.kernels.cuda.passes import UpdateRule
from rnnbench.kernels.cuda.plan import LaunchPlan, RegimeKind
from rnnbench.model import USUAL_PASSES, Case, DType, Head, Optimizer, Pass, Train
from tests.cuda.conftest import TINY
from tests.cuda.test_passes import problem_of, run, sessions
from tests.helpers import assert_agrees, assert_same_bits, random_data, random_params, small_problem

TRAIN = Train(optimizer=Optimizer.ADAM, clip_norm=0.05)


def small(**sizes):
    return problem_of(**{"B": 2, "T": 2, "E": 1, "H": 3, "O": 1, "V": 5, "dtype": DType.FLOAT32, **sizes})


@pytest.fixture
def graph(gpu):
    return CudaGraphBackend(LaunchPlan(**TINY))


def test_a_replay_sees_another_batch_and_another_state(graph):
    ref, got = sessions(graph, small(V=None))
    state = np.random.default_rng(3).uniform(-0.9, 0.9, (2, 3)).astype(np.float32)
    for name in ("forward", "gradient"):
        for batch, start in ((0, None), (1, {"h": state}), (2, None)):
            for session in (ref, got):
                session.select(batch)
                session.start_from(start)
            assert_agrees(run(ref, name), run(got, name), DType.FLOAT32)
    assert set(got.graphs) == {Pass.FORWARD, Pass.GRADIENT}


def test_train_steps_count_on_the_device_as_the_host_does(graph):
    """The same bits as launches with numbers from the host, again after a reset."""
    problem = small(train=TRAIN)
    params, data = random_params(problem), random_data(problem)
    plain, got = (b.prepare(problem, params, data) for b in (CudaBackend(LaunchPlan(**TINY)), graph))
    for steps in (3, 1):
        for step in range(steps):
            for session in (plain, got):
                session.select(step)
            assert_same_bits(run(plain, "train_step"), run(got, "train_step"))
        for session in (plain, got):
            session.reset()


def test_epochs(graph):
    """Full batches are replays, a short one at the end is not; a graph serves every order that has room."""
    problem = small(train=TRAIN, head=Head.EVERY)
    params, data = random_params(problem), random_data(problem)
    plain, got = (b.prepare(problem, params, data) for b in (CudaBackend(LaunchPlan(**TINY)), graph))
    rng = np.random.default_rng(0)
    kept = None
    for rows in (5, 4):
        order = rng.permutation(7)[:rows]
        first, second = run(plain, "train_epoch", order), run(got, "train_epoch", order)
        assert_same_bits(first, second)
        assert first.accuracy == second.accuracy
        assert first.loss == second.loss
        kept = kept or got.graphs[Pass.EPOCH]
        assert got.graphs[Pass.EPOCH] is kept
    inputs = data.inputs[:3]
    assert np.array_equal(plain.predict(inputs), got.predict(inputs))
    got.close()
    assert got.graphs == {}


@pytest.mark.usefixtures("gpu")
def test_steps_that_are_launches_are_captured_too():
    plan = LaunchPlan(**TINY, kinds=(RegimeKind.TILES,), step_micro=1)
    problem = small(V=None, T=3)
    ref, got = sessions(CudaGraphBackend(plan), problem)
    run(got, "gradient")
    assert_agrees(run(ref, "gradient"), run(got, "gradient"), DType.FLOAT32)
    if isinstance(got.graphs[Pass.GRADIENT], PreparedLaunches):
        assert len(got.graphs[Pass.GRADIENT].calls) == 2 + 3 + 1 + 3 + 3


@pytest.mark.usefixtures("gpu")
def test_a_number_that_the_host_sets_cannot_be_captured():
    put = Recorder()
    prepared = put.prepare(
        lambda: put(advance_cursor(), LaunchSize(1, 1), cuda.to_device(np.zeros(2, np.int64)), HostNumber(3))
    )
    with pytest.raises(TypeError, match="a graph keeps the numbers"):
        put.capture(prepared)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("beta", [0.0, 0.9, 0.999])
def test_the_table_ends_where_nothing_differs(dtype, beta):
    rule = UpdateRule(True, 1e-3, beta, beta, 1e-8)
    table, number = rule.table(dtype), np.dtype(dtype).type
    assert len(table) == rule.steps_that_differ(dtype)
    assert np.array_equal(table[0], np.array(rule.corrections(1), dtype))
    for later in (len(table), len(table) + 1, 10 * len(table)):
        assert np.array_equal(table[-1], [number(x) for x in rule.corrections(later)])


def test_a_table_that_would_be_too_long_is_named(monkeypatch):
    monkeypatch.setattr(device, "simulated", lambda: True)
    slow = Case(**vars(small_problem(train=replace(TRAIN, beta_2=1 - 1e-9))))
    reason = CudaGraphBackend().unsupported(slow)
    assert reason is not None
    assert "at most 1,048,576 are tabled; take the backend cuda" in reason
    assert CudaGraphBackend().unsupported(Case(**vars(small_problem(train=TRAIN)))) is None


class Driver:
    """A double of the driver: what is called, in which order, and whether a capture is under way."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple]] = []
        self.capturing = False

    def __getattr__(self, name):
        def call(*args):
            self.calls.append((name, args))
            if name == "cuStreamBeginCapture":
                assert not self.capturing
                self.capturing = True
            if name == "cuStreamEndCapture":
                assert self.capturing
                self.capturing = False
                return "graph"
            return "executable" if name == "cuGraphInstantiate" else None

        return call


def test_the_calls_of_a_capture():
    pytest.importorskip("cuda.bindings.driver")
    driver, launched = Driver(), []
    graph = captured(driver, 7, lambda: launched.append(driver.capturing))
    assert launched == [True]
    graph.replay()
    graph.replay()
    graph.close()
    assert [name for name, _ in driver.calls] == [
        "cuStreamBeginCapture", "cuStreamEndCapture", "cuGraphInstantiate", "cuGraphDestroy",
        "cuGraphLaunch", "cuGraphLaunch", "cuGraphExecDestroy",
    ]  # fmt: skip
    assert driver.calls[4][1] == ("executable", 7)


def test_a_capture_that_fails_gives_the_stream_back():
    pytest.importorskip("cuda.bindings.driver")
    driver = Driver()
    with pytest.raises(ZeroDivisionError):
        captured(driver, 7, lambda: 1 / 0)
    assert not driver.capturing
    assert driver.calls[-1] == ("cuGraphDestroy", ("graph",))


def test_it_is_left_out_unless_it_is_named():
    name = "cuda+graph"
    assert name not in backends.usual()
    backend = backends.load(name)
    assert backend.name == name
    assert set(backend.contract(small_problem(dtype=DType.FLOAT32)).timed) == set(USUAL_PASSES)
