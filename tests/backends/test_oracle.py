"""The oracle itself: against finite differences, and its truncation against an independent statement of it."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from rnnbench import backends
from rnnbench.backends.base import Outputs
from rnnbench.backends.numpy import NumpyBackend
from rnnbench.cells import CELLS
from rnnbench.model import Head, Loss, Problem, StepSum, Truncation
from tests.helpers import assert_agrees, random_data, random_params, small_problem


def loss_at(problem: Problem, params, data, states) -> float:
    session = NumpyBackend().prepare(problem, params, data)
    session.start_from(states)
    session.forward()
    return session.fetch().loss


def finite_differences(problem: Problem, params, data, states, name: str) -> np.ndarray:
    grad = np.zeros_like(params[name])
    step = 1e-6
    for index in np.ndindex(grad.shape):
        moved = {key: value.copy() for key, value in params.items()}
        moved[name][index] += step
        up = loss_at(problem, moved, data, states)
        moved[name][index] -= 2 * step
        grad[index] = (up - loss_at(problem, moved, data, states)) / (2 * step)
    return grad


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(
    ("loss", "head", "V"), list(product(Loss, Head, [11, None])), ids=lambda value: str(value).replace("None", "dense")
)
def test_full_gradient_equals_finite_differences(cell, loss, head, V):
    O = 3 if loss is Loss.CATEGORICAL_CROSS_ENTROPY else 2
    problem = small_problem(cell=cell, loss=loss, head=head, V=V, O=O, B=3, T=5)
    params, data = random_params(problem), random_data(problem)
    rng = np.random.default_rng(5)
    states = {name: rng.standard_normal((3, 5)) * 0.3 for name in CELLS[cell].states}
    session = NumpyBackend().prepare(problem, params, data)
    session.start_from(states)
    session.gradient()
    for name, grad in session.fetch().grads.items():
        expected = finite_differences(problem, params, data, states, name)
        np.testing.assert_allclose(grad, expected, rtol=1e-6, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("window", "stride"), [(w, s) for w in (1, 2, 3, 6, 7, 9) for s in range(1, w + 1)])
@pytest.mark.parametrize("head", list(Head))
def test_truncated_gradient_is_the_sum_over_blocks_from_constant_states(cell, head, window, stride):
    """Each block is full BPTT over its own steps from a state taken as given: its losses, differenced."""
    T = 7
    problem = small_problem(cell=cell, head=head, T=T, B=2, truncation=Truncation(window, stride), step_sum=StepSum.SUM)
    full = small_problem(cell=cell, head=head, T=T, B=2, step_sum=StepSum.SUM)
    params, data = random_params(problem), random_data(problem)

    session = NumpyBackend().prepare(problem, params, data)
    session.gradient()
    got = session.fetch().grads

    from rnnbench.backends.numpy import forward_pass  # the states that blocks start from

    trace = forward_pass(full.model, params, data.inputs[:2], None)
    expected = {name: np.zeros_like(value) for name, value in params.items()}
    ends = [*range(stride, T, stride), T]
    for i, end in enumerate(ends):
        emit = 0 if i == 0 else ends[i - 1]
        if head is Head.LAST and end != T:
            continue
        start = max(0, end - window)

        def block_loss(p, start=start, emit=emit, end=end):
            y = data.targets[:2].reshape(2, *((T,) if head is Head.EVERY else ()), 1)
            z = forward_pass(full.model, p, data.inputs[:2, start:end], trace.at(start)).logits
            if head is Head.EVERY:
                z, y = z[:, emit - start :], y[:, emit:end]
            return float((np.logaddexp(0, z) - y * z).sum() / 2)

        for name in params:
            for index in np.ndindex(params[name].shape):
                moved = {key: value.copy() for key, value in params.items()}
                moved[name][index] += 1e-6
                up = block_loss(moved)
                moved[name][index] -= 2e-6
                expected[name][index] += (up - block_loss(moved)) / 2e-6
    for name in params:
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-5, atol=1e-8, err_msg=name)


def test_truncation_to_the_whole_is_full_bptt():
    for head in Head:
        full = small_problem(head=head, T=6)
        cut = small_problem(head=head, T=6, truncation=Truncation(6, 6))
        params, data = random_params(full), random_data(full)
        a, b = (NumpyBackend().prepare(p, params, data) for p in (full, cut))
        a.gradient()
        b.gradient()
        for name, grad in a.fetch().grads.items():
            np.testing.assert_array_equal(grad, b.fetch().grads[name])


def test_a_stream_cut_in_two_ends_in_the_same_state():
    whole = small_problem(T=8, head=Head.EVERY)
    half = small_problem(T=4, head=Head.EVERY)
    params, data = random_params(whole), random_data(whole, rows=4)
    a = NumpyBackend().prepare(whole, params, data)
    a.forward()
    states, logits = None, []
    for part in (slice(0, 4), slice(4, 8)):
        b = NumpyBackend().prepare(half, params, type(data)(data.inputs[:, part], data.targets[:, part]))
        b.start_from(states)
        b.forward()
        states = b.fetch().states
        logits.append(b.fetch().logits)
    np.testing.assert_allclose(states["h"], a.fetch().states["h"], rtol=1e-14)
    np.testing.assert_allclose(np.concatenate(logits, axis=1), a.fetch().logits, rtol=1e-13)


@pytest.mark.parametrize(
    ("cell", "name"), [(cell, name) for cell in ("gru", "lstm") for name in CELLS[cell].computed_by or ()]
)
def test_a_cell_equals_that_of_pytorch(cell, name):
    """Logits, states and all gradients in float64. PyTorch has two biases; where the cell has one, it is their sum."""
    torch = pytest.importorskip("torch")
    if reason := backends.missing(name):
        pytest.skip(reason)
    problem = small_problem(cell=cell, head=Head.EVERY, loss=Loss.SQUARED_ERROR, V=None, E=3, H=5, O=2, B=4, T=6)
    data, model = random_data(problem), problem.model
    torch.manual_seed(0)
    kind = {"gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[cell]
    layer, head = kind(3, 5, dtype=torch.float64), torch.nn.Linear(5, 2, dtype=torch.float64)
    first = {state: torch.rand((4, 5), dtype=torch.float64) - 0.5 for state in model.recurrence.states}
    given = tuple(state[None] for state in first.values())
    h, last = layer(torch.from_numpy(data.inputs[:4]).transpose(0, 1), given if cell == "lstm" else given[0])
    logits = head(h).transpose(0, 1)
    loss = 0.5 * ((logits - torch.from_numpy(data.targets[:4])) ** 2).sum() * model.loss_scale(4, 6)
    loss.backward()

    def ours(of) -> dict[str, np.ndarray]:
        """What `of` gives for PyTorch's parameters, under the model's names and in its layouts."""
        arrays = {
            "W_xh": of(layer.weight_ih_l0).T, "W_hh": of(layer.weight_hh_l0).T, "b_h": of(layer.bias_ih_l0),
            "W_hy": of(head.weight).T, "b_y": of(head.bias),
        }  # fmt: skip
        return arrays | ({"b_hn": of(layer.bias_hh_l0)[10:]} if cell == "gru" else {})

    params = ours(lambda p: p.detach().numpy().copy())
    summed = slice(10) if cell == "gru" else slice(20)
    params["b_h"][summed] += layer.bias_hh_l0.detach().numpy()[summed]
    ref = Outputs(
        loss=loss.item(),
        logits=logits.detach().numpy(),
        states={
            state: value[0].detach().numpy()
            for state, value in zip(first, last if cell == "lstm" else [last], strict=True)
        },
        grads=ours(lambda p: p.grad.numpy()),
    )
    session = backends.load(name).prepare(problem, params, data)
    session.start_from({state: value.numpy() for state, value in first.items()})
    session.gradient()
    session.synchronize()
    assert_agrees(ref, session.fetch(), problem.dtype)
