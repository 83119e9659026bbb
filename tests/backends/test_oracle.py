"""The oracle itself: against finite differences, and its truncation against an independent statement of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest

from rnnbench import backends
from rnnbench.backends.base import Outputs
from rnnbench.backends.numpy import NumpyBackend, forward_pass
from rnnbench.cells import CELLS
from rnnbench.model import Case, Head, Loss, Model, Pass, Problem, StepSum, Truncation
from tests.helpers import STRUCTURES, assert_agrees, random_data, random_params, small_problem


def loss_at(problem: Problem, params, data, states) -> float:
    session = NumpyBackend().prepare(problem, params, data)
    session.start_from(states)
    session.forward()
    return session.fetch().loss


def differences(params, loss: Callable[[dict[str, np.ndarray]], float]) -> dict[str, np.ndarray]:
    """The gradient of a loss of parameters, each moved by a little up and down."""
    grads, step = {name: np.zeros_like(value) for name, value in params.items()}, 1e-6
    for name, grad in grads.items():
        for index in np.ndindex(grad.shape):
            moved = {key: value.copy() for key, value in params.items()}
            moved[name][index] += step
            up = loss(moved)
            moved[name][index] -= 2 * step
            grad[index] = (up - loss(moved)) / (2 * step)
    return grads


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
    grads = session.fetch().grads
    for name, expected in differences(params, lambda moved: loss_at(problem, moved, data, states)).items():
        np.testing.assert_allclose(grads[name], expected, rtol=1e-6, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize(("head", "V"), [(Head.LAST, 11), (Head.EVERY, None)], ids=str)
def test_the_gradient_of_layers_directions_and_lengths_equals_finite_differences(cell, structure, head, V):
    problem = small_problem(cell=cell, head=head, V=V, B=3, T=4, E=2, H=2, O=2, **STRUCTURES[structure])
    params, data = random_params(problem), random_data(problem)
    rng = np.random.default_rng(5)
    states = {name: rng.standard_normal((3, 2)) * 0.3 for name in problem.model.states}
    session = NumpyBackend().prepare(problem, params, data)
    session.start_from(states)
    session.gradient()
    grads = session.fetch().grads
    assert grads.keys() == params.keys() == problem.model.shapes.keys()
    for name, expected in differences(params, lambda moved: loss_at(problem, moved, data, states)).items():
        np.testing.assert_allclose(grads[name], expected, rtol=1e-6, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("window", "stride"), [(w, s) for w in (1, 2, 3, 4, 5, 7) for s in range(1, w + 1)])
@pytest.mark.parametrize("head", list(Head))
def test_truncated_gradient_is_the_sum_over_blocks_from_constant_states(cell, head, window, stride):
    """Each block is full BPTT over its own steps from a state taken as given: its losses, differenced."""
    T = 5
    problem = small_problem(cell=cell, head=head, T=T, B=2, truncation=Truncation(window, stride), step_sum=StepSum.SUM)
    full = small_problem(cell=cell, head=head, T=T, B=2, step_sum=StepSum.SUM)
    params, data = random_params(problem), random_data(problem)

    session = NumpyBackend().prepare(problem, params, data)
    session.gradient()
    got = session.fetch().grads

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

        for name, grad in differences(params, block_loss).items():
            expected[name] += grad
    for name in params:
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-5, atol=1e-8, err_msg=name)


@pytest.mark.parametrize(("window", "stride"), [(1, 1), (3, 2), (3, 3), (6, 1), (7, 7), (9, 4)])
@pytest.mark.parametrize("head", list(Head))
def test_truncated_layers_of_rows_with_lengths_are_the_sum_over_blocks(head, window, stride):
    """As above, of two layers, both cut at the same step; the loss of a row with one output is in the block of its
    end.
    """
    T, lengths = 7, np.array([0, 1, 3, 4, 6, 7])
    given = {"T": T, "B": 6, "V": None, "E": 2, "H": 3, "layers": 2, "head": head, "mean_length": 3.5}
    problem = small_problem(truncation=Truncation(window, stride), step_sum=StepSum.SUM, **given)
    params = random_params(problem)
    data = replace(random_data(problem, rows=6), lengths=lengths)
    session = NumpyBackend().prepare(problem, params, data)
    session.gradient()
    got = session.fetch().grads
    trace = forward_pass(problem.model, params, data.inputs, None, lengths)
    expected = {name: np.zeros_like(value) for name, value in params.items()}
    ends = [*range(stride, T, stride), T]
    for i, end in enumerate(ends):
        emit = 0 if i == 0 else ends[i - 1]
        start = max(0, end - window)

        def block_loss(p, start=start, emit=emit, end=end):
            inside = (lengths - start).clip(0, end - start)
            z = forward_pass(problem.model, p, data.inputs[:, start:end], trace.at(start), inside).logits
            if head is Head.EVERY:
                steps = np.arange(emit, end)
                z, y = z[:, emit - start :], data.targets[:, emit:end]
                own = steps < lengths[:, None]
            else:
                y = data.targets
                own = (emit < lengths) & (lengths <= end) | (lengths == 0) & (emit == 0)
            return float((np.logaddexp(0, z) - y * z)[own].sum() / 6)

        for name, grad in differences(params, block_loss).items():
            expected[name] += grad
    for name in params:
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-5, atol=1e-8, err_msg=name)


@pytest.mark.parametrize("name", ["numpy", "numba", "cuda"])
@pytest.mark.parametrize("top", [2.0, 10.41, 30.0, 90.0])
def test_the_categorical_loss_is_right_to_the_last_digits_for_confident_rows(name, top):
    """log(1 + exp(-top)) for the first class, and top more for the second; of a tie log 2 is the first term."""
    if reason := backends.missing(name):
        pytest.skip(reason)
    if reason := backends.load(name).unavailable():
        pytest.skip(reason)
    less = 4.87 - top
    rest = np.log1p(np.exp(less - 4.87))
    for logits, y, expected in [
        ([4.87, less], 0, rest),
        ([less, 4.87], 0, rest + (4.87 - less)),
        ([4.87, 4.87], 1, np.log(2.0)),
    ]:
        problem = small_problem(T=2, O=2, loss=Loss.CATEGORICAL_CROSS_ENTROPY)
        params = random_params(problem) | {"W_hy": np.zeros((5, 2)), "b_y": np.array(logits)}
        data = replace(random_data(problem), targets=np.full(14, y, np.int32))
        session = backends.load(name).prepare(problem, params, data)
        session.forward()
        np.testing.assert_allclose(session.fetch().loss, expected, rtol=2e-15)


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


@pytest.mark.parametrize("name", backends.REGISTRY)
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_a_cell_equals_that_of_pytorch(cell, name):
    """Logits, states and all gradients in float64. PyTorch has two biases; where the cell has one, it is their sum."""
    torch = pytest.importorskip("torch")
    if reason := backends.missing(name):
        pytest.skip(reason)
    backend = backends.load(name)
    problem = small_problem(cell=cell, head=Head.EVERY, loss=Loss.SQUARED_ERROR, V=None, E=3, H=5, O=2, B=4, T=6)
    if reason := backend.unavailable() or backend.unsupported(Case(**vars(problem), pass_=Pass.GRADIENT)):
        pytest.skip(reason)
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
    session = backend.prepare(problem, params, data)
    session.start_from({state: value.numpy() for state, value in first.items()})
    session.gradient()
    session.synchronize()
    assert_agrees(ref, session.fetch(), problem.dtype)


def named_in_torch(layer: Any, model: Model, of: Callable[[Any], np.ndarray]) -> dict[str, np.ndarray]:
    """What `of` gives for the parameters of nn.RNN, nn.GRU or nn.LSTM, under the model's names and in its layouts."""
    found = {}
    for direction in model.directions:
        suffix = f"l{direction.layer}" + "_reverse" * direction.back
        arrays = {
            "W_xh": of(getattr(layer, f"weight_ih_{suffix}")).T,
            "W_hh": of(getattr(layer, f"weight_hh_{suffix}")).T,
            "b_h": of(getattr(layer, f"bias_ih_{suffix}")),
        }
        if model.cell == "gru":
            arrays["b_hn"] = of(getattr(layer, f"bias_hh_{suffix}"))[2 * model.H :]
        found |= direction.named(arrays)
    return found


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("head", list(Head))
@pytest.mark.parametrize(
    ("layers", "bidirectional", "lengths"),
    [(1, True, False), (3, False, False), (1, False, True), (2, True, False), (3, True, True)],
)
def test_layers_directions_and_lengths_equal_those_of_pytorch(cell, head, layers, bidirectional, lengths):
    """num_layers, bidirectional and pack_padded_sequence in float64: loss, logits, states, all gradients.

    The bias inside the product is zero but for that of the gru's n.
    """
    torch = pytest.importorskip("torch")
    B, T, H = 6, 7, 4
    problem = small_problem(
        cell=cell, head=head, loss=Loss.SQUARED_ERROR, V=None, E=3, H=H, O=2, B=B, T=T, layers=layers,
        bidirectional=bidirectional, mean_length=3.5 if lengths else None,
    )  # fmt: skip
    model, data = problem.model, random_data(problem, rows=B)
    steps = np.array([7, 1, 4, 3, 7, 2]) if lengths else np.full(B, T)
    data = replace(data, lengths=steps if lengths else None)
    torch.manual_seed(0)
    kind = {"rnn": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[cell]
    layer = kind(3, H, num_layers=layers, bidirectional=bidirectional, batch_first=True, dtype=torch.float64)
    dense = torch.nn.Linear(model.read, 2, dtype=torch.float64)
    with torch.no_grad():
        for name, value in layer.named_parameters():
            if name.startswith("bias_hh"):
                value[: 2 * H if cell == "gru" else None] = 0
    count = len(model.directions)
    first = {state: torch.rand((count, B, H), dtype=torch.float64) - 0.5 for state in model.recurrence.states}
    x = torch.nn.utils.rnn.pack_padded_sequence(
        torch.from_numpy(data.inputs), torch.from_numpy(steps), batch_first=True, enforce_sorted=False
    )
    packed, last = layer(x, tuple(first.values()) if cell == "lstm" else first["h"])
    lasts = dict(zip(first, last if cell == "lstm" else [last], strict=True))
    every, _ = torch.nn.utils.rnn.pad_packed_sequence(packed, batch_first=True, total_length=T)
    inside = torch.from_numpy(np.arange(T) < steps[:, None])
    if head is Head.EVERY:
        logits = torch.where(inside[..., None], dense(every), 0.0)
        each = 0.5 * ((logits - torch.from_numpy(data.targets)) ** 2).sum(dim=-1)
        loss = each[inside].mean()  # over all real steps of the batch, as ignore_index has it
    else:
        top = lasts["h"][-len(model.stack[-1]) :]
        logits = dense(torch.cat(list(top), dim=1))
        loss = 0.5 * ((logits - torch.from_numpy(data.targets)) ** 2).sum() / B
    loss.backward()

    def ours(of) -> dict[str, np.ndarray]:
        return named_in_torch(layer, model, of) | {"W_hy": of(dense.weight).T, "b_y": of(dense.bias)}

    def by_name(states) -> dict[str, np.ndarray]:
        return {
            name: value
            for i, direction in enumerate(model.directions)
            for name, value in direction.named({s: v[i].detach().numpy() for s, v in states.items()}).items()
        }

    ref = Outputs(loss.item(), logits.detach().numpy(), by_name(lasts), ours(lambda p: p.grad.numpy()))
    session = NumpyBackend().prepare(problem, ours(lambda p: p.detach().numpy()), data)
    session.start_from(by_name(first))
    session.gradient()
    assert_agrees(ref, session.fetch(), problem.dtype)
