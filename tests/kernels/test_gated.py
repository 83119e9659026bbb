"""Cells with gates: columns in their orders, the bound of a gate, wide states in shares, and faults that are found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rnnbench.backends.numba import NumbaBackend, NumbaSession
from rnnbench.cells import CELLS
from rnnbench.data import Data
from rnnbench.kernels.cpu import cell_tile, simd, tile
from rnnbench.kernels.cpu.cell_tile import GATE_ULP
from rnnbench.kernels.cpu.pass_record import GRU, LSTM
from rnnbench.kernels.cpu.products import pack_gates, pack_gates_transposed
from rnnbench.model import DType, Head, Problem, Truncation
from tests.helpers import assert_agrees, assert_same_bits, oracle, random_data, random_params, small_problem, threads
from tests.kernels.test_pointwise import worst_ulp

GATED = [name for name, cell in CELLS.items() if len(cell.gates) > 1]


def gradient_of(problem: Problem, count: int = 1, **changed: np.ndarray) -> NumbaSession:
    with threads(count):
        session = NumbaBackend().prepare(problem, random_params(problem) | changed, random_data(problem))
    assert isinstance(session, NumbaSession)
    session.gradient()
    return session


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("gates", [3, 4])
@pytest.mark.parametrize("parts", [1, 3])
def test_packed_columns_stand_in_their_order(dtype, gates, parts):
    lanes = simd.lanes(dtype)
    for k, H in ((1, 1), (5, lanes - 1), (4, lanes), (3, lanes + 1), (2, 3 * lanes + 2)):
        W = np.arange(1, k * gates * H + 1, dtype=dtype).reshape(k, gates * H)
        padded = np.zeros((k, gates, simd.padded(H, dtype)), dtype)
        padded[:, :, :H] = W.reshape(k, gates, H)
        blocks = padded.shape[2] // lanes
        by_units = padded.reshape(k, gates, blocks, lanes).swapaxes(1, 2)
        for vectors in (gates, simd.panel_vectors()):
            panels = -(-blocks * gates // vectors)
            out = np.full((panels * k, vectors * lanes), np.nan, dtype)
            for part in range(parts):
                pack_gates(out, W, gates, part, parts)
            ref = np.zeros((k, panels * vectors, lanes), dtype)
            ref[:, : blocks * gates] = by_units.reshape(k, -1, lanes)
            ref = ref.reshape(k, panels, vectors * lanes).swapaxes(0, 1)
            np.testing.assert_array_equal(out, ref.reshape(out.shape))
        for turn in (0, 1):
            rows, wide = gates * padded.shape[2], simd.panel_width(dtype)
            out = np.zeros((simd.panels(k, dtype) * rows, wide), dtype)
            for part in range(parts):
                pack_gates_transposed(out, W, gates, turn, padded.shape[2], part, parts)
            ref = np.zeros((rows, simd.panels(k, dtype) * wide), dtype)
            ref[:, :k] = np.roll(padded, turn, axis=1).reshape(k, rows).T
            ref = ref.reshape(rows, -1, wide).swapaxes(0, 1)
            np.testing.assert_array_equal(out, ref.reshape(out.shape))


def test_a_tile_has_rows_to_go_by():
    assert max(cell_tile.ROWS.values()) <= tile.MOST_ROWS
    registers = 32 if simd.panel_vectors() == 4 else 16
    for recurrence in (GRU, LSTM):  # sums, a row of B, a number of A
        assert cell_tile.ROWS[recurrence] * cell_tile.GATES[recurrence] + cell_tile.GATES[recurrence] < registers + 4


@pytest.mark.parametrize("cell", GATED)
@pytest.mark.parametrize("dtype", list(DType))
def test_gates_keep_their_bound_over_the_whole_range(cell, dtype):
    """One unit whose gates are each a function of one input, none of which takes digits from the other."""
    gates, kind = CELLS[cell].gates, np.dtype(str(dtype))
    rng = np.random.default_rng(0)
    n, most = 40_000, 80 if dtype is DType.FLOAT32 else 700
    x = np.concatenate(
        [rng.uniform(-20, 20, n), rng.uniform(-most, most, n), rng.choice([-1, 1], n) * 10 ** rng.uniform(-30, 1, n)]
    )
    inputs = np.stack([rng.permutation(x) for _ in gates], axis=1).astype(kind)[:, None]
    problem = small_problem(cell=cell, B=len(x), T=1, E=len(gates), H=1, V=None, dtype=dtype)
    params = {name: np.zeros_like(value) for name, value in random_params(problem).items()}
    params["W_xh"] = np.eye(len(gates), dtype=kind)
    session = NumbaBackend().prepare(problem, params, Data(inputs, np.zeros((len(x), 1), kind)))
    assert isinstance(session, NumbaSession)
    session.forward()
    found = session.record.arrays["gates"][: len(x)].reshape(len(x), -1, simd.lanes(kind))[:, : len(gates), 0]
    exact = inputs[:, 0].astype(np.longdouble)
    for i, gate in enumerate(gates):
        ref = np.tanh(exact[:, i]) if gate in ("n", "g") else 1 / (1 + np.exp(-exact[:, i]))
        assert worst_ulp(found[:, i], ref) <= GATE_ULP, gate


@pytest.mark.parametrize("cell", GATED)
@pytest.mark.parametrize("dtype", list(DType))
@pytest.mark.parametrize("V", [11, None])
@pytest.mark.parametrize("H", [255, 256, 257])
def test_wide_states_are_shared_by_columns(cell, dtype, V, H):
    cut = None if V else Truncation(5, 3)
    problem = small_problem(cell=cell, B=2, T=9, E=3, H=H, V=V, O=2, dtype=dtype, head=Head.EVERY, truncation=cut)
    ref = oracle(problem, random_params(problem), random_data(problem))
    ref.gradient()
    alone = gradient_of(problem).fetch()
    assert_agrees(ref.fetch(), alone, dtype)
    for count in (2, 3):
        session = gradient_of(problem, count)
        assert session.record.fields["column_shares"][0] == count
        assert_agrees(ref.fetch(), session.fetch(), dtype)
        assert_same_bits(gradient_of(problem, count).fetch(), session.fetch())


@pytest.mark.parametrize("cell", GATED)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_padding_stays_out_of_the_gradients(cell, value):
    """A row that is not finite makes what is in its padding NaN; the gradients of the oracle are finite or are not."""
    problem = small_problem(cell=cell, B=3, T=4, E=1, H=5, V=None, dtype=DType.FLOAT64)
    params, data = random_params(problem), random_data(problem)
    inputs = data.inputs.copy()
    inputs[1, 2] = value
    ref, got = (make(problem, params, Data(inputs, data.targets)) for make in (oracle, NumbaBackend().prepare))
    with np.errstate(invalid="ignore"):
        for session in (ref, got):
            session.gradient()
    assert_agrees(ref.fetch(), got.fetch(), DType.FLOAT64)


def columns(problem: Problem, W: np.ndarray, order: tuple[str, ...]) -> np.ndarray:
    """W with its gates in another order."""
    cell, H = problem.model.recurrence, problem.model.H
    return np.concatenate([W[..., cell.units_of(gate, H)] for gate in order], axis=-1)


@pytest.mark.parametrize("cell", GATED)
@pytest.mark.parametrize("name", ["W_xh", "W_hh", "b_h"])
def test_swapped_gates_are_found(cell, name):
    """Any two of them."""
    problem = small_problem(cell=cell)
    params, gates = random_params(problem), CELLS[cell].gates
    ref = oracle(problem, params, random_data(problem))
    ref.forward()
    for a in range(len(gates)):
        for b in range(a):
            order = list(gates)
            order[a], order[b] = gates[b], gates[a]
            got = gradient_of(problem, **{name: columns(problem, params[name], tuple(order))})
            got.forward()
            with pytest.raises(AssertionError):
                assert_agrees(ref.fetch(), got.fetch(), problem.dtype)


def test_a_forgotten_b_hn_is_found():
    problem = small_problem(cell="gru")
    params = random_params(problem)
    ref = oracle(problem, params, random_data(problem))
    ref.forward()
    # Without it, and added to the input's bias as if no factor stood before it
    summed = params["b_h"].copy()
    summed[problem.model.recurrence.units_of("n", problem.model.H)] += params["b_hn"]
    nothing = np.zeros_like(params["b_hn"])
    for changed in ({"b_hn": nothing}, {"b_hn": nothing, "b_h": summed}):
        got = gradient_of(problem, **changed)
        got.forward()
        with pytest.raises(AssertionError):
            assert_agrees(ref.fetch(), got.fetch(), problem.dtype)


def test_a_reset_before_the_product_is_found(monkeypatch):
    """The gru of Cho et al. as first published: n = tanh(x W + b + (r h) U)."""
    true = CELLS["gru"]

    def reset_first(params, x, before):
        """`gru_forward` of a state that r has gone through; n alone is of that."""
        h, H = before["h"], before["h"].shape[1]
        step = true.forward(params, x, before)
        sums = x @ params["W_xh"] + params["b_h"]
        m = (step.tape["r"] * h) @ params["W_hh"][:, 2 * H :] + params["b_hn"]
        n, z = np.tanh(sums[:, 2 * H :] + m), step.tape["z"]
        return step._replace(after={"h": (1 - z) * n + z * h})

    problem = small_problem(cell="gru")
    params, data = random_params(problem), random_data(problem)
    got = gradient_of(problem)
    got.forward()
    monkeypatch.setitem(CELLS, "gru", replace(true, forward=reset_first))
    ref = oracle(problem, params, data)
    ref.forward()
    with pytest.raises(AssertionError):
        assert_agrees(ref.fetch(), got.fetch(), problem.dtype)
