"""Recurrent weights of small and of large spectral radius: gradients that vanish, that explode, that overflow."""

from __future__ import annotations

import numpy as np
import pytest

from rnnbench.backends.base import Outputs, Session
from rnnbench.backends.numba import NumbaBackend
from rnnbench.backends.numpy import DirectionTrace, NumpyBackend, Trace, backward_pass, dlosses
from rnnbench.cells import CELLS
from rnnbench.correctness.tolerances import LIMITS, arrays_of, relative_error
from rnnbench.data import Data
from rnnbench.model import DType, Head, Loss, Optimizer, Problem, Train
from rnnbench.params import cast
from tests.helpers import assert_agrees, oracle, random_data, random_params, small_problem, threads

T = 200


def scaled(W: np.ndarray, radius: float, dtype: DType) -> np.ndarray:
    """W of that spectral radius."""
    return (W * (radius / np.abs(np.linalg.eigvals(W)).max())).astype(str(dtype))


def gradient(session: Session) -> Outputs:
    session.gradient()
    return session.fetch()


@pytest.mark.parametrize("dtype", list(DType))
@pytest.mark.parametrize("head", list(Head))
@pytest.mark.parametrize("V", [11, None])
@pytest.mark.parametrize("cell", CELLS)
def test_vanishing_gradients_agree(dtype, head, V, cell):
    problem = small_problem(cell=cell, B=4, T=T, E=8, H=48, V=V, dtype=dtype, head=head)
    params, data = random_params(problem), random_data(problem)
    rng, gates = np.random.default_rng(0), len(problem.model.recurrence.gates)
    params["W_hh"] = np.hstack([scaled(rng.standard_normal((48, 48)), 0.1, dtype) for _ in range(gates)])
    got = gradient(NumbaBackend().prepare(problem, params, data))
    assert_agrees(gradient(oracle(problem, params, data)), got, dtype)


@pytest.mark.parametrize("dtype", list(DType))
def test_what_has_vanished_is_zero(dtype):
    problem = small_problem(B=4, T=T, E=8, H=48, V=11, dtype=dtype)
    params, data = random_params(problem), random_data(problem)
    params["W_hh"] = scaled(np.random.default_rng(0).standard_normal((48, 48)), 0.001, dtype)
    early = np.where(np.arange(T) < T // 4, 1 + data.inputs % 5, 6 + data.inputs % 5).astype(np.int32)
    ref = gradient(oracle(problem, params, Data(early, data.targets)))
    got = gradient(NumbaBackend().prepare(problem, params, Data(early, data.targets)))
    assert_agrees(ref, got, dtype)
    assert np.abs(ref.grads["embedding"][1:6]).max() < np.finfo(str(dtype)).tiny
    assert not got.grads["embedding"][:6].any()
    assert got.grads["embedding"][6:].all()


@pytest.mark.parametrize("dtype", list(DType))
@pytest.mark.parametrize("V", [11, None])
@pytest.mark.parametrize("workers", [1, 3])
def test_chaotic_states_solve_the_equations_and_have_the_gradients_of_their_own(dtype, V, workers):
    """At radius 3 two forward passes one rounding apart are strangers after 100 steps, whoever computes them.

    So each step is checked from the state before it, and the gradients, which grow to 1e16 and more, from the states
    that the kernels found. W_hy is the identity: the logits are the states.
    """
    B, H = 4, 64
    problem = small_problem(B=B, T=T, E=8, H=H, O=H, V=V, dtype=dtype, head=Head.EVERY, loss=Loss.SQUARED_ERROR)
    params, data = random_params(problem), random_data(problem)
    params["W_hh"] = scaled(np.random.default_rng(0).standard_normal((H, H)), 3.0, dtype)
    params["W_hy"], params["b_y"] = np.eye(H, dtype=str(dtype)), np.zeros(H, str(dtype))
    with threads(workers):
        got = gradient(NumbaBackend().prepare(problem, params, data))
    exact, inputs = cast(params, DType.FLOAT64), data.inputs[:B]
    x = (inputs.astype(np.float64) if V is None else exact["embedding"][inputs]).swapaxes(0, 1)
    logits = got.logits.astype(np.float64)
    h = np.concatenate([np.zeros((1, B, H)), logits.swapaxes(0, 1)])
    stepped = np.tanh(x @ exact["W_xh"] + h[:-1] @ exact["W_hh"] + exact["b_h"])
    assert relative_error(stepped, h[1:]) <= LIMITS[dtype]
    dz = dlosses(problem.model, logits, data.targets[:B].astype(np.float64)) * problem.model.loss_scale(B, T)
    part = DirectionTrace(x, {"h": h}, [{}] * T, [slice(None)] * T)
    ref = backward_pass(problem.model, exact, inputs, Trace(problem.model, [part], logits, logits, None), dz, None)
    assert np.abs(ref["W_hh"]).max() > 1e16
    assert_agrees(Outputs(grads=ref), Outputs(grads=got.grads), dtype)


def growing(dtype: DType, steps: int, train: Train | None = None, B: int = 4) -> tuple[Problem, dict, Data]:
    """Positive weights of radius 3, no input: a small state triples with every step, and so does a delta, backwards."""
    problem = small_problem(B=B, T=steps, E=2, H=9, V=None, dtype=dtype, loss=Loss.SQUARED_ERROR, train=train)
    params, data = random_params(problem), random_data(problem)
    rng = np.random.default_rng(0)
    params["W_hh"], params["b_h"] = scaled(rng.uniform(0.5, 1.5, (9, 9)), 3.0, dtype), np.zeros(9, str(dtype))
    params["W_hy"] = np.abs(params["W_hy"])
    return problem, params, Data(np.zeros_like(data.inputs), data.targets)


@pytest.mark.parametrize(("dtype", "steps", "size"), [(DType.FLOAT32, 60, 1e26), (DType.FLOAT64, T, 1e92)])
@pytest.mark.parametrize("train", [None, Train(Optimizer.SGD, 0.1, clip_norm=1.0), Train(clip_value=1.0)])
def test_exploding_gradients_agree(dtype, steps, size, train):
    """Also where the square of a gradient is beyond float32: the norm that clips them is not."""
    problem, params, data = growing(dtype, steps, train)
    state = (np.random.default_rng(1).uniform(0.1, 1, (problem.B, 9)) / (1e5 * size)).astype(str(dtype))
    ref, got = oracle(problem, params, data), NumbaBackend().prepare(problem, params, data)
    for session in (ref, got):
        session.start_from({"h": state})
    gradients = gradient(ref), gradient(got)
    assert np.abs(gradients[0].grads["b_h"]).min() > size
    assert_agrees(*gradients, dtype)
    if train is not None:
        for session in (ref, got):
            session.train_step()
        assert_agrees(ref.fetch(), got.fetch(), dtype)


def test_what_float32_cannot_hold_is_not_finite():
    """The states stay 0 and the deltas pass 1e38: infinite, and NaN where infinity meets 0, as in NumPy's float32."""
    problem, params, data = growing(DType.FLOAT32, T, B=1)
    sessions = (NumpyBackend().prepare(problem, params, data), NumbaBackend().prepare(problem, params, data))
    with np.errstate(over="ignore", invalid="ignore"):
        ref = gradient(oracle(problem, params, data))
        plain, got = (gradient(session) for session in sessions)
        np.testing.assert_array_equal(ref.grads["b_h"].astype(np.float32), got.grads["b_h"])
        assert np.isinf(got.grads["b_h"]).all()
        assert np.isnan(got.grads["W_hh"]).all()
        for session in sessions:
            session.train_step()
        stepped = [dict(arrays_of(session.fetch())) for session in sessions]
    for theirs, ours in ((dict(arrays_of(plain)), dict(arrays_of(got))), stepped):
        for name, x in theirs.items():
            np.testing.assert_allclose(ours[name], x, rtol=1e-5, atol=1e-7, err_msg=name)
