"""Where W_hh does not fit a thread a column: each regime against the float64 oracle, and which one is chosen.

In `spread` several blocks wait for each other, in the simulator too.
"""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from rnnbench.backends.cuda import CudaBackend
from rnnbench.kernels.cuda.device import SIMULATOR, Room
from rnnbench.kernels.cuda.launch import Launcher, LaunchSize
from rnnbench.kernels.cuda.plan import LaunchPlan, RegimeKind
from rnnbench.kernels.cuda.recurrence_launches import settle, steps_back
from rnnbench.kernels.cuda.regimes import choose, describe
from rnnbench.model import DType, Head, Truncation
from tests.cuda.conftest import WIDE
from tests.cuda.test_passes import check, problem_of, run, sessions
from tests.helpers import assert_near, assert_same_bits, random_data, random_params

H100, A100, SMALL_CARD = Room(132, 227 << 10, True), Room(108, 163 << 10, True), Room(40, 64 << 10, True)


@pytest.fixture(params=WIDE)
def wide_backend(request: pytest.FixtureRequest, gpu):
    return CudaBackend(WIDE[request.param])


@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (3, 1, 2, 5), (5, 2, 1, 6)], ids=str)
def test_edge_sizes(wide_backend, sizes):
    B, T, E, H = sizes
    check(wide_backend, problem_of(B=B, T=T, E=E, H=H, V=None, dtype=DType.FLOAT32, head=Head.EVERY))


@pytest.mark.parametrize("head", list(Head))
def test_truncation_from_a_state(wide_backend, head, request):
    """Windows overlap and the last block is short; with one loss alone, or one a step."""
    if head is Head.LAST and not request.config.getoption("--every-case"):
        pytest.skip("its passes are some of those of a loss a step; run with --every-case")
    state = np.random.default_rng(3).uniform(-0.9, 0.9, (3, 5))
    cut = problem_of(B=3, T=5, E=1, H=5, O=1, V=None, head=head, truncation=Truncation(3, 2))
    check(wide_backend, cut, states={"h": state})


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    ("kind", "H", "b"), [(RegimeKind.SPLIT, 17, 3), (RegimeKind.STEPS, 9, 2), (RegimeKind.TILES, 9, 3)]
)
def test_weights_beyond_registers_and_several_turns_of_k(kind, H, b):
    plan = WIDE[kind]
    if kind is RegimeKind.SPLIT:
        regime = choose(plan, H, b, "float64", SIMULATOR)
        assert regime.kept
        assert regime.block.pooled
        assert regime.rows == 2
    check(CudaBackend(plan), problem_of(B=b, T=2, E=1, H=H, O=1, V=None))


def test_the_same_numbers_give_the_same_bits(wide_backend):
    """Again in the same session: a barrier begins at 0 again."""
    problem = problem_of(B=3, T=2, E=1, H=3, V=None, dtype=DType.FLOAT32, head=Head.EVERY)
    _, got = sessions(wide_backend, problem)
    first = run(got, "gradient")
    assert_same_bits(first, run(got, "gradient"))
    assert got.arrays["arrived"].copy_to_host() == 0


@pytest.mark.numbers
def test_nan_is_not_hidden(wide_backend):
    problem = problem_of(B=1, T=2, E=1, H=3, V=None, dtype=DType.FLOAT32)
    params = random_params(problem)
    params["W_hh"][0, 1] = np.nan
    answer = run(wide_backend.prepare(problem, params, random_data(problem)), "gradient")
    assert np.isnan(answer.grads["W_hh"]).any()


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("kind", WIDE)
def test_a_short_batch_keeps_the_regime_of_a_full_one(kind, monkeypatch):
    monkeypatch.setattr("rnnbench.backends.cuda.PREDICT_ROWS", 2)
    problem = problem_of(B=2, T=1, E=1, H=3, O=1, V=None)
    ref, got = sessions(CudaBackend(WIDE[kind]), problem)
    inputs = random_data(problem, rows=3, seed=2).inputs
    assert_near(ref.predict(inputs), got.predict(inputs), 1e-12)
    assert got.runner.regime.kind is kind


@pytest.mark.parametrize(
    ("H", "b", "dtype", "room", "kind"),
    [
        (128, 32, "float32", H100, RegimeKind.REGISTERS),
        (128, 32, "float64", H100, RegimeKind.SPLIT),
        (256, 32, "float32", H100, RegimeKind.SPLIT),
        (256, 33, "float32", H100, RegimeKind.SPLIT),  # these three and (512, 257): looked at for races on a device
        (512, 33, "float32", H100, RegimeKind.SPREAD),
        (1024, 5, "float32", H100, RegimeKind.SPREAD),
        (512, 257, "float32", H100, RegimeKind.TILES),
        (256, 32, "float32", SMALL_CARD, RegimeKind.SPREAD),
        (288, 512, "float32", H100, RegimeKind.SPLIT),
        (288, 512, "float32", A100, RegimeKind.TILES),
        (289, 1, "float32", H100, RegimeKind.SPREAD),
        (1024, 1, "float32", H100, RegimeKind.SPREAD),
        (1024, 64, "float64", A100, RegimeKind.SPREAD),
        (1024, 65, "float32", H100, RegimeKind.TILES),
        (1025, 1, "float32", H100, RegimeKind.TILES),
        (1024, 16, "float32", SMALL_CARD, RegimeKind.STEPS),
        (1024, 17, "float32", SMALL_CARD, RegimeKind.TILES),
        (512, 8, "float32", replace(H100, together=False), RegimeKind.STEPS),
        (200, 128, "float64", SMALL_CARD, RegimeKind.TILES),
    ],
)
def test_the_table_of_regimes(H, b, dtype, room, kind):
    regime = choose(LaunchPlan(), H, b, dtype, room)
    assert regime.kind is kind
    assert regime.threads <= 1024
    assert regime.shared <= room.block_bytes
    assert describe(regime)
    if kind is RegimeKind.SPREAD:
        assert regime.grid <= room.multiprocessors
        assert regime.grid * regime.shape.columns >= H
        assert regime.shape.adders * regime.shape.rows * regime.shape.columns == regime.threads


@pytest.mark.parametrize(
    ("in_memory", "kind", "local"),
    [
        ((), RegimeKind.REGISTERS, 0),
        ((RegimeKind.REGISTERS,), RegimeKind.SPLIT, 0),
        ((RegimeKind.REGISTERS, RegimeKind.SPLIT), RegimeKind.SPREAD, 0),
        ((*set(RegimeKind) - {RegimeKind.TILES},), RegimeKind.REGISTERS, 512),
    ],
)
def test_weights_that_the_compiler_leaves_in_memory(monkeypatch, in_memory, kind, local):
    module = "rnnbench.kernels.cuda.recurrence_launches"
    monkeypatch.setattr(f"{module}.simulated", lambda: False)
    monkeypatch.setattr(f"{module}._local_bytes", lambda plan, regime, *rest: 512 * (regime.kind in in_memory))
    settle.cache_clear()
    found = settle(LaunchPlan(), 128, 32, "float32", H100)
    settle.cache_clear()
    assert (found.regime.kind, found.local_bytes) == (kind, local)
    assert ("512 bytes of a thread in local memory" in found.said) is (local > 0)


def test_no_regime_is_an_error_that_names_the_way_out():
    with pytest.raises(ValueError, match="rnn of H = 2000, B = 4 in float32 among registers; add tiles"):
        choose(LaunchPlan(kinds=(RegimeKind.REGISTERS,)), 2000, 4, "float32", H100)


def test_blocks_that_cannot_be_resident_together_are_refused(monkeypatch):
    monkeypatch.setattr("rnnbench.kernels.cuda.launch.simulated", lambda: True)
    holds_one = SimpleNamespace(overloads={(): SimpleNamespace(max_cooperative_grid_blocks=lambda threads: 1)})
    with pytest.raises(RuntimeError, match="2 blocks wait for each other and the device holds 1 of them at a time"):
        Launcher()(holds_one, LaunchSize(2, 4, together=True))


def test_steps_back_are_those_of_one_launch():
    steps = [(x.t, x.more, x.emits, x.again) for x in steps_back(((0, 0, 3), (1, 3, 4)), T=4, S=4)]
    assert steps == [(2, 0, 1, 0), (1, 1, 1, 0), (0, 1, 1, 0), (3, 0, 1, 0), (2, 1, 0, 1), (1, 1, 0, 1)]
