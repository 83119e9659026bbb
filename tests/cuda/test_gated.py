"""The cells with gates in each of their regimes against the float64 oracle, and which regime is chosen.

Losses, updates and the embedding are the same kernels as of the tanh cell: here they are reached by one case each.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rnnbench.backends.cuda import CudaBackend, device_sizes
from rnnbench.backends.cuda_graph import CudaGraphBackend
from rnnbench.kernels.cuda.buffers import work_shapes
from rnnbench.kernels.cuda.device import SIMULATOR
from rnnbench.kernels.cuda.plan import LaunchPlan, RegimeKind
from rnnbench.kernels.cuda.regimes import choose, describe
from rnnbench.model import DType, Head, Problem, Train, Truncation
from tests.cuda.conftest import REGIMES, TINY, WIDE
from tests.cuda.test_passes import check, problem_of, run, sessions
from tests.cuda.test_regimes import A100, H100
from tests.helpers import assert_agrees, assert_near, assert_same_bits, random_data, random_params

pytestmark = pytest.mark.usefixtures("gpu")
PLANS = {RegimeKind.REGISTERS: REGIMES["registers"], RegimeKind.TILES: REGIMES["tiles"]} | {
    kind: WIDE[kind] for kind in (RegimeKind.SPLIT, RegimeKind.SPREAD)
}


@pytest.fixture(params=["gru", "lstm"])
def cell(request: pytest.FixtureRequest) -> str:
    return request.param


def of(cell: str, **sizes) -> Problem:
    """Three rows: two blocks of the recurrence, the last half empty."""
    return problem_of(**{"cell": cell, "B": 3, "T": 2, "E": 2, "H": 3, "O": 1, "V": None, **sizes})


@pytest.mark.numbers
@pytest.mark.parametrize("kind", PLANS)
def test_each_regime(kind, cell):
    """Windows overlap and the last block is short, from a state, a loss a step; again to the same bits."""
    H = 9 if kind is RegimeKind.SPLIT else 5
    problem = of(cell, T=4, H=H, head=Head.EVERY, truncation=Truncation(3, 2))
    regime = choose(PLANS[kind], H, 3, "float64", SIMULATOR, cell)
    assert regime.kind is kind
    assert kind is not RegimeKind.SPLIT or (regime.block.pooled and regime.back.pooled)
    ref, got = sessions(CudaBackend(PLANS[kind]), problem)
    states = {name: np.random.default_rng(3).uniform(-0.9, 0.9, (3, H)) for name in problem.model.states}
    for session in (ref, got):
        session.start_from(states)
    answer = run(got, "gradient")
    assert_agrees(run(ref, "gradient"), answer, problem.dtype)
    assert_same_bits(answer, run(got, "gradient"))


@pytest.mark.numbers
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_threads_that_share_four_units(cell):
    """Their sums meet in several exchanges, with a row for each of two threads, and of the last block with one row."""
    plan = replace(PLANS[RegimeKind.SPLIT if cell == "rnn" else RegimeKind.REGISTERS], group=4)
    regime = choose(plan, 31, 3, "float32", SIMULATOR, cell)
    shape = regime.back or regime.block
    assert (shape.per, shape.turns, shape.rows) == (4, 2, 2)
    check(CudaBackend(plan), of(cell, H=31, dtype=DType.FLOAT32))


@pytest.mark.numbers
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_places_of_64_bits(one_backend, cell, monkeypatch):
    """As arrays of 2 ** 32 numbers take them: the same bits as of 32."""
    problem = of(cell, T=3, H=5, dtype=DType.FLOAT32)
    params, data = random_params(problem), random_data(problem)
    near = run(one_backend.prepare(problem, params, data), "gradient")
    monkeypatch.setattr("rnnbench.kernels.cuda.recurrence_launches.NEAR", 0)
    assert_same_bits(near, run(one_backend.prepare(problem, params, data), "gradient"))


@pytest.mark.numbers
@pytest.mark.parametrize("kind", [RegimeKind.REGISTERS, RegimeKind.TILES])
@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (5, 2, 3, 7)], ids=str)
def test_edge_sizes(kind, cell, sizes):
    B, T, E, H = sizes
    check(CudaBackend(PLANS[kind]), of(cell, B=B, T=T, E=E, H=H, dtype=DType.FLOAT32))


@pytest.mark.numbers
def test_tokens_and_a_window_before_the_last_step(one_backend, cell):
    answer = check(one_backend, of(cell, T=4, V=5, truncation=Truncation(3, 2), dtype=DType.FLOAT32))
    assert len(answer.grads) == (7 if cell == "gru" else 6)


@pytest.mark.numbers
def test_train_steps_an_epoch_and_a_prediction(one_backend, cell):
    problem = of(cell, B=2, V=4, train=Train(clip_norm=0.05, epsilon=1e-5))
    ref, got = sessions(one_backend, problem)
    for step in range(2):
        for session in (ref, got):
            session.select(step)
        assert_agrees(run(ref, "train_step"), run(got, "train_step"), problem.dtype)
    for session in (ref, got):
        session.reset()
    order = np.random.default_rng(0).permutation(3)  # a batch of 2 and one of 1
    assert_agrees(run(ref, "train_epoch", order), run(got, "train_epoch", order), problem.dtype)
    inputs = random_data(problem, rows=3, seed=2).inputs
    assert_near(ref.predict(inputs), got.predict(inputs), 1e-12)


@pytest.mark.numbers
def test_a_graph_replays_the_same_bits(cell):
    problem = of(cell, B=2, dtype=DType.FLOAT32)
    params, data = random_params(problem), random_data(problem)
    plain, got = (b(LaunchPlan(**TINY)).prepare(problem, params, data) for b in (CudaBackend, CudaGraphBackend))
    for step in range(2):
        for session in (plain, got):
            session.select(step)
        assert_same_bits(run(plain, "train_step"), run(got, "train_step"))


@pytest.mark.numbers
def test_nan_is_not_hidden(one_backend, cell):
    problem = of(cell, B=1, dtype=DType.FLOAT32)
    params = random_params(problem)
    params["W_hh"][0, 1] = np.nan
    answer = run(one_backend.prepare(problem, params, random_data(problem)), "gradient")
    assert np.isnan(answer.logits).all()
    assert np.isnan(answer.grads["W_hh"]).any()


@pytest.mark.parametrize(
    ("cell", "H", "b", "dtype", "room", "kind"),
    [
        ("gru", 32, 32, "float32", H100, RegimeKind.REGISTERS),
        ("lstm", 64, 512, "float32", H100, RegimeKind.REGISTERS),
        ("gru", 128, 32, "float32", A100, RegimeKind.REGISTERS),
        ("lstm", 128, 32, "float32", H100, RegimeKind.SPLIT),
        ("gru", 160, 32, "float32", H100, RegimeKind.SPLIT),
        ("gru", 161, 32, "float32", H100, RegimeKind.SPREAD),
        ("gru", 161, 65, "float32", H100, RegimeKind.TILES),
        ("lstm", 129, 1, "float32", H100, RegimeKind.SPREAD),
        ("lstm", 1024, 1, "float32", H100, RegimeKind.SPREAD),
        ("lstm", 1025, 1, "float32", A100, RegimeKind.TILES),
        ("lstm", 1024, 64, "float64", A100, RegimeKind.TILES),
    ],
)
def test_the_table_of_regimes(cell, H, b, dtype, room, kind):
    regime = choose(LaunchPlan(), H, b, dtype, room, cell)
    assert regime.kind is kind
    assert regime.threads <= 1024
    assert regime.shared <= room.block_bytes
    assert ("threads a unit" in describe(regime)) == (regime.back is not None)


def test_no_row_of_a_block_is_without_weights_in_registers():
    """Every width that a block takes, whatever its rows: no thread has more registers than there are."""
    for cell, b, H in ((cell, b, H) for cell in ("gru", "lstm") for b in (1, 300, 1 << 20) for H in range(1, 200)):
        r = choose(LaunchPlan(), H, b, "float32", H100, cell)
        if r.back is not None:
            for shape in (r.block, r.back):
                assert 0 < shape.kept <= LaunchPlan().thread_registers(r.threads)
                assert shape.kept % (4 * shape.columns) == 0
                assert shape.pooled % 4 == 0
                assert shape.depth * shape.lanes == shape.along * shape.width


def test_buffers_of_gates():
    """H 3, so 9 gates and for gru the n gate's second derivative."""
    shapes = work_shapes(device_sizes(of("gru", B=2, T=4, E=2, H=3)), LaunchPlan(**TINY), learns=True)
    assert shapes["gates"] == (8, 9)
    assert shapes["tape"] == shapes["h"] == (10, 3)
    assert shapes["delta"] == (8, 12)
    assert shapes["spare"] == (4, 9)
    assert shapes["parts"][1] == (2 + 3 + 1) * 9 + 3
    learns_not = work_shapes(device_sizes(of("lstm")), LaunchPlan(**TINY), learns=False)
    assert set(learns_not) == {"h", "gates", "tape", "z", "dz"}
