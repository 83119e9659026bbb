"""Every backend of the registry against the float64 oracle, with each cell that it computes: no backend is named here,
but those that lack a pass.

`pytest tests/backends/test_conformance.py --backend jax` runs one.
"""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from rnnbench.backends import REGISTRY
from rnnbench.backends.base import NO_STEPS, Outputs, Session
from rnnbench.backends.numpy import NumpyBackend
from rnnbench.cells import CELLS
from rnnbench.correctness.oracle import Oracle
from rnnbench.correctness.tolerances import LOSS_LIMITS, relative_error, verdict
from rnnbench.data import Data, real_steps
from rnnbench.model import (
    USUAL_PASSES,
    Case,
    DType,
    Feature,
    Head,
    Loss,
    Pass,
    Problem,
    StepSum,
    Truncation,
    features_of,
)
from tests.helpers import (
    STRUCTURES,
    TRAINS,
    assert_agrees,
    assert_same_bits,
    assert_what_is_not_there_is_refused,
    oracle,
    pair,
    random_data,
    random_params,
    small_problem,
)

DTYPES = list(DType)
SGD = TRAINS["sgd"]
LOOPED = 12  # steps, too many for a backend that writes out a short loop, which compiles for many times as long

_TRAINING = (Pass.GRADIENT, Pass.TRAIN_STEP, Pass.EPOCH)
LACKING = {"openvino": _TRAINING, "onnxruntime": _TRAINING} | dict.fromkeys(
    ("keras", "keras+jax", "keras+torch"), (Pass.GRADIENT,)
)


def able(backend, problem: Problem, *passes: Pass) -> list[Pass]:
    """Those of the passes that the backend does on the problem. Skips the test, with the reason, where it does none."""
    reasons = {p: backend.unsupported(Case(**vars(problem), pass_=p)) for p in Pass if p in passes}
    found = [pass_ for pass_, reason in reasons.items() if reason is None]
    if not found:
        pytest.skip(f"{backend.name}: {reasons[passes[-1]]}")
    return found


def deepest(backend, problem: Problem) -> Pass:
    """The gradient; else a train step, by SGD to show it; else the forward pass."""
    return able(backend, problem, Pass.GRADIENT, Pass.TRAIN_STEP, Pass.FORWARD)[0]


def small(backend, **wanted) -> Problem:
    """A small problem in float64, or in float32 where the backend has no other."""
    problem = small_problem(**wanted)
    reason = backend.unsupported(Case(**vars(problem), pass_=Pass.FORWARD))
    return problem if reason is None else small_problem(**wanted | {"dtype": DType.FLOAT32})


def sessions(backend, problem: Problem, states: dict[str, np.ndarray] | None = None) -> tuple[Session, Session]:
    """The oracle and the backend on the same numbers, from these states."""
    found = pair(backend, problem)
    for session in found:
        session.start_from(states)
    return found


def run(session: Session, name: str, *args) -> Outputs:
    getattr(session, name)(*args)
    session.synchronize()
    return session.fetch()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("loss", "head", "V"), list(product(Loss, Head, [11, None])), ids=lambda v: str(v).replace("None", "dense")
)
def test_forward_and_gradient(backend, cell, dtype, loss, head, V):
    problem = small_problem(cell=cell, loss=loss, head=head, V=V, O=3, dtype=dtype, train=SGD)
    passes = "forward", deepest(backend, problem)
    ref, got = sessions(backend, problem)
    for name in passes:
        assert_agrees(run(ref, name), run(got, name), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (1, 9, 2, 17), (33, 1, 1, 16), (2, 3, 33, 1), (5, 4, 15, 31)], ids=str)
def test_edge_sizes(backend, cell, dtype, sizes):
    B, T, E, H = sizes
    for V in (7, None):
        problem = small_problem(cell=cell, B=B, T=T, E=E, H=H, V=V, dtype=dtype, O=2, head=Head.EVERY, train=SGD)
        pass_ = deepest(backend, problem)
        ref, got = sessions(backend, problem)
        assert_agrees(run(ref, pass_), run(got, pass_), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head", list(Head))
def test_truncation(backend, cell, dtype, head):
    T = 9
    cuts = [(1, 1), (7, 3), (7, 7), (T, 4), (T + 5, T + 2)]
    if cell == "rnn":  # where to cut is nothing of a cell's own, and XLA compiles each cut anew
        cuts += [(7, 1), (T - 1, 2), (T - 1, T - 1), (T, T)]
    for window, stride in cuts:
        problem = small_problem(cell=cell, T=T, head=head, dtype=dtype, truncation=Truncation(window, stride))
        pass_ = deepest(backend, problem)
        ref, got = sessions(backend, problem)
        assert_agrees(run(ref, pass_), run(got, pass_), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("truncation", [None, Truncation(4, 3)], ids=str)
@pytest.mark.parametrize("step_sum", list(StepSum))
def test_initial_state(backend, cell, dtype, truncation, step_sum):
    rng = np.random.default_rng(3)
    states = {name: rng.uniform(-0.9, 0.9, (4, 5)).astype(str(dtype)) for name in CELLS[cell].states}
    problem = small_problem(
        cell=cell, head=Head.EVERY, dtype=dtype, truncation=truncation, step_sum=step_sum, train=SGD
    )
    pass_ = deepest(backend, problem)
    ref, got = sessions(backend, problem, states)
    assert_agrees(run(ref, pass_), run(got, pass_), dtype)
    for session in (ref, got):
        session.start_from(None)
    assert_agrees(run(ref, "forward"), run(got, "forward"), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("train", TRAINS.values(), ids=TRAINS.keys())
@pytest.mark.parametrize("truncation", [None, Truncation(3, 2)], ids=str)
def test_train_steps_epoch_and_reset(backend, cell, dtype, train, truncation):
    problem = small_problem(cell=cell, dtype=dtype, train=train, truncation=truncation, head=Head.EVERY)
    able(backend, problem, Pass.TRAIN_STEP)
    ref, got = sessions(backend, problem)
    assert_agrees(run(ref, "train_step"), run(got, "train_step"), dtype)
    first = run(got, "forward")
    for step in range(20):
        losses = []
        for session in (ref, got):
            session.select(step % 3)
            losses.append(run(session, "train_step").loss)
        error = relative_error(*losses)
        assert error is not None
        assert error <= LOSS_LIMITS[dtype], (step, losses)
    order = np.random.default_rng(0).permutation(14)  # three batches of 4 and one of 2
    for session in (ref, got):
        session.reset()
    a, b = run(ref, "train_epoch", order), run(got, "train_epoch", order)
    assert a.accuracy is not None
    assert_agrees(a, b, dtype)
    inputs = random_data(problem, rows=9, seed=2).inputs
    assert relative_error(ref.predict(inputs), got.predict(inputs)) < (1e-4 if dtype is DType.FLOAT32 else 1e-10)
    for session in (ref, got):
        session.reset()
        session.select(0)
    assert_agrees(run(ref, "train_step"), run(got, "train_step"), dtype)
    assert_agrees(run(got, "forward"), first, dtype)


def test_gradient_leaves_parameters_and_fresh_batches_change_the_answer(backend):
    problem = small_problem(dtype=DType.FLOAT64)
    able(backend, problem, Pass.GRADIENT)
    ref, got = sessions(backend, problem)
    run(got, "gradient")
    first = run(got, "gradient")
    assert_agrees(run(ref, "gradient"), first, DType.FLOAT64)
    for session in (ref, got):
        session.select(1)
    second = run(got, "gradient")
    assert_agrees(run(ref, "gradient"), second, DType.FLOAT64)
    assert relative_error(first.grads["W_hh"], second.grads["W_hh"]) > 1e-3


@pytest.mark.parametrize(("head", "dtype"), [(Head.LAST, DType.FLOAT32), (Head.EVERY, DType.FLOAT64)], ids=str)
def test_layers_directions_and_lengths(backend, cell, structure, dtype, head):
    problem = small(backend, T=LOOPED, cell=cell, dtype=dtype, head=head, O=2, train=SGD, **STRUCTURES[structure])
    pass_, dtype = deepest(backend, problem), problem.dtype
    rng = np.random.default_rng(3)
    states = {name: rng.uniform(-0.9, 0.9, (4, 5)).astype(str(dtype)) for name in problem.model.states}
    ref, got = sessions(backend, problem, states)
    assert_agrees(run(ref, pass_), run(got, pass_), dtype)
    for session in (ref, got):
        session.start_from(None)
    assert_agrees(run(ref, "forward"), run(got, "forward"), dtype)


@pytest.mark.structures("layers", "all")
@pytest.mark.parametrize("head", list(Head))
def test_a_training_with_layers_directions_and_lengths(backend, structure, head):
    problem = small(backend, T=LOOPED, V=None, head=head, train=TRAINS["sgd, clipped by norm"], **STRUCTURES[structure])
    able(backend, problem, Pass.TRAIN_STEP)
    ref, got = sessions(backend, problem)
    assert_agrees(run(ref, "train_step"), run(got, "train_step"), problem.dtype)
    order = np.random.default_rng(0).permutation(14)  # three batches of 4 and one of 2
    for session in (ref, got):
        session.reset()
    a, b = run(ref, "train_epoch", order), run(got, "train_epoch", order)
    assert a.accuracy is not None
    assert_agrees(a, b, problem.dtype)
    rows = random_data(problem, rows=9, seed=2)
    logits = [session.predict(rows.inputs, rows.lengths) for session in (ref, got)]
    assert relative_error(*logits) < (1e-4 if problem.dtype is DType.FLOAT32 else 1e-10)


@pytest.mark.structures("layers", "lengths")
@pytest.mark.parametrize("head", list(Head))
@pytest.mark.parametrize("cut", [Truncation(3, 3), Truncation(4, 2)], ids=str)
def test_truncation_of_layers_and_lengths(backend, structure, head, cut):
    given = {"layers": 2} if backend.has(Feature.LAYERS) else {}
    problem = small_problem(T=LOOPED, head=head, truncation=cut, **STRUCTURES[structure] | given)
    able(backend, problem, Pass.GRADIENT)
    ref, got = sessions(backend, problem)
    assert_agrees(run(ref, "gradient"), run(got, "gradient"), problem.dtype)


@pytest.mark.structures("lengths", "all")
@pytest.mark.parametrize("head", list(Head))
def test_what_stands_past_a_length_has_no_effect(backend, structure, head):
    """Not on any output, to the bit; a word that stands nowhere else has a gradient of exactly zero."""
    problem = small(backend, T=LOOPED, V=11, head=head, train=SGD, **STRUCTURES[structure])
    pass_ = deepest(backend, problem)
    data = random_data(problem)
    past = ~real_steps(data.lengths, problem.T)
    found = []
    for word in (9, 10):
        inputs = np.where(past, word, data.inputs % 9).astype(np.int32)
        targets = data.targets if head is Head.LAST else np.where(past[..., None], 10 - word, data.targets)
        session = backend.prepare(problem, random_params(problem), Data(inputs, targets, data.lengths))
        found.append(run(session, pass_))
        if pass_ is Pass.GRADIENT:
            assert not found[-1].grads["embedding"][9:].any()
        assert np.isfinite(found[-1].loss)
    assert_same_bits(*found)


@pytest.mark.structures("lengths", "all")
def test_rows_that_are_all_empty(backend, structure):
    """Their logits are those of zero states, and no recurrence learns from them."""
    problem = small(backend, train=SGD, **STRUCTURES[structure])
    pass_ = deepest(backend, problem)
    data = random_data(problem)
    params = random_params(problem)
    session = backend.prepare(problem, params, replace(data, lengths=np.zeros_like(data.lengths)))
    done = run(session, pass_)
    np.testing.assert_allclose(
        done.logits, np.tile(params["b_y"], (4, 1)), rtol=1e-6 if problem.dtype is DType.FLOAT32 else 1e-14
    )
    if pass_ is not Pass.GRADIENT:
        return
    assert done.grads["b_y"].any()
    assert not any(grad.any() for name, grad in done.grads.items() if name != "b_y")


@pytest.mark.slow
@pytest.mark.structures("lengths", "all")
@pytest.mark.parametrize("dtype", DTYPES)
def test_long_rows_of_layers_directions_and_lengths(backend, structure, dtype):
    """All lengths from 0 to T; three layers."""
    given = STRUCTURES[structure] | ({"layers": 3} if structure == "all" else {})
    problem = small_problem(B=201, T=200, E=4, H=6, dtype=dtype, head=Head.EVERY, train=SGD, **given)
    pass_ = deepest(backend, problem)
    params, data = random_params(problem), random_data(problem, rows=201)
    if problem.lengths:
        data = replace(data, lengths=np.random.default_rng(0).permutation(201))
    ref, got = oracle(problem, params, data), backend.prepare(problem, params, data)
    assert_agrees(run(ref, pass_), run(got, pass_), dtype)


def test_answers_are_blank_past_the_lengths_of_the_batch_that_was_computed(backend):
    if not backend.has(Feature.LENGTHS):
        pytest.skip("rows without lengths")
    problem = small(backend, T=LOOPED, head=Head.EVERY, mean_length=3.5)
    ref, got = sessions(backend, problem)
    for session in (ref, got):
        session.forward()
        session.select(1)
    assert_agrees(ref.fetch(), got.fetch(), problem.dtype)


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_nan_and_infinity_are_not_hidden(backend, poison):
    problem = small_problem(dtype=DType.FLOAT32)
    params, data = random_params(problem), random_data(problem)
    params["W_hy"][2, 0] = poison
    session = backend.prepare(problem, params, data)
    assert not np.isfinite(run(session, "forward").logits).any()


def test_the_loss_of_confident_rows_is_right(backend):
    """1 + 3e-5 is rounded before its logarithm, or not: either is within what the oracle allows."""
    for dtype in DTYPES:
        problem = small_problem(T=2, O=2, loss=Loss.CATEGORICAL_CROSS_ENTROPY, dtype=dtype)
        if backend.unsupported(Case(**vars(problem), pass_=Pass.FORWARD)):
            continue
        params = random_params(problem)
        params["W_hy"][:], params["b_y"][:] = 0, [4.87, -5.54]
        data = replace(random_data(problem), targets=np.zeros(14, np.int32))
        errors = Oracle(problem, params, data, None).errors(
            Pass.FORWARD, run(backend.prepare(problem, params, data), "forward")
        )
        assert all(error.ok for error in errors.values()), errors


@pytest.mark.parametrize("loss", list(Loss))
def test_the_loss_of_infinite_logits_is_nan_or_a_number_everywhere(backend, loss):
    """Rows of one step, whose first logit is infinite, of either sign, or NaN; each with either target."""
    problem = small(backend, B=1, T=1, E=1, H=1, O=2, V=None, loss=loss, dtype=DType.FLOAT32)
    params = random_params(problem) | {"W_hy": np.array([[np.inf, 0.0]], np.float32)}
    params["W_xh"][:], params["b_h"][:], params["b_y"][:] = 1, 0, [0, 1]
    inputs = np.repeat(np.array([2, -2, 0], np.float32), 2)[:, None, None]
    classes = np.tile(np.array([0, 1], np.int32), 3)
    targets = classes if loss is Loss.CATEGORICAL_CROSS_ENTROPY else np.eye(2, dtype=np.float32)[classes]
    data = Data(inputs, targets)
    ref, got = pair(backend, problem, data)
    for row in range(len(inputs)):
        for session in (ref, got):
            session.select(row)
        a, b = run(ref, "forward"), run(got, "forward")
        np.testing.assert_array_equal(np.isfinite(a.logits), np.isfinite(b.logits))
        np.testing.assert_allclose(b.loss, a.loss, rtol=1e-5, err_msg=str((inputs[row], targets[row])))


@pytest.mark.parametrize("name", ["W_xh", "embedding"])
def test_a_token_that_no_loss_reaches_learns_and_teaches_nothing(backend, name):
    """With one loss, truncated: 0, also where 0 would be multiplied by NaN or infinity."""
    problem = small_problem(T=9, V=40, truncation=Truncation(3, 3), train=SGD)
    able(backend, problem, Pass.GRADIENT)
    data, params = random_data(problem), random_params(problem)
    early = np.setdiff1d(data.inputs[:4, :6], data.inputs[:4, 6:])
    assert early.size
    params[name][(1, 2) if name == "W_xh" else (early[0], 0)] = np.nan if name == "W_xh" else np.inf
    session = backend.prepare(problem, params, data)
    with np.errstate(invalid="ignore"):
        done = run(session, Pass.GRADIENT)
    assert not done.grads["embedding"][early].any()
    assert np.isfinite(done.grads["W_xh"]).all() == (name == "embedding")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("truncation", [None, Truncation(199, 60), Truncation(7, 3)], ids=str)
def test_long_rows(backend, dtype, truncation):
    problem = small_problem(B=3, T=200, E=16, H=24, dtype=dtype, head=Head.EVERY, truncation=truncation, train=SGD)
    pass_ = deepest(backend, problem)
    ref, got = sessions(backend, problem)
    assert_agrees(run(ref, pass_), run(got, pass_), dtype)


@pytest.mark.parametrize(("head", "V"), [(Head.LAST, 11), (Head.EVERY, None)], ids=str)
def test_what_is_not_there_is_refused(backend, head, V):
    problem = small(backend, head=head, V=V)
    assert_what_is_not_there_is_refused(backend.prepare(problem, random_params(problem), random_data(problem)))


def test_states_are_copied(backend, cell):
    problem = small(backend, cell=cell)
    states = {name: np.full((4, 5), 0.5) for name in CELLS[cell].states}
    ref, got = sessions(backend, problem, states)
    for state in states.values():
        state[:] = np.nan
    assert_agrees(run(ref, "forward"), run(got, "forward"), problem.dtype)
    assert np.isfinite(run(got, "forward").loss)


def test_a_row_may_come_twice_in_an_epoch(backend):
    problem = small(backend)
    able(backend, problem, Pass.EPOCH)
    ref, got = sessions(backend, problem)
    order = np.array([9, 0, 9], np.int32)
    assert_agrees(run(ref, "train_epoch", order), run(got, "train_epoch", order), problem.dtype)


def test_bad_data_is_refused_with_the_value_and_the_limit(backend):
    problem = small(backend)
    params, data = random_params(problem), random_data(problem)
    outside = data.inputs.copy()
    outside[1, 2] = 11
    with pytest.raises(ValueError, match=r"token 11 is outside the vocabulary: tokens must lie in \[0, 11\)"):
        backend.prepare(problem, params, type(data)(outside, data.targets))
    with pytest.raises(ValueError, match="the batch is empty"):
        backend.prepare(problem, params, type(data)(data.inputs[:0], data.targets[:0]))
    with pytest.raises(ValueError, match="tokens are float64; they must be integers"):
        backend.prepare(problem, params, type(data)(data.inputs.astype(float), data.targets))
    for targets in (np.zeros((len(data.targets), 2)), np.zeros((len(data.targets), problem.T, 1)), data.targets[0]):
        with pytest.raises(ValueError, match=r"each row needs one|targets have shape .*; rows of shape \(1,\)"):
            backend.prepare(problem, params, type(data)(data.inputs, targets))
    with pytest.raises(ValueError, match="W_hh has shape"):
        backend.prepare(problem, params | {"W_hh": params["W_hh"][:2]}, data)


def test_contract_names_what_is_timed_in_every_pass(backend):
    problem = small(backend)
    contract = backend.contract(problem)
    passes = set(Pass) if backend.streams else set(USUAL_PASSES)
    assert set(contract.timed) == passes
    assert all(contract.timed.values())
    assert backend.libraries()
    reasons = {p: backend.unsupported(Case(**vars(problem), pass_=p)) for p in Pass if p in passes}
    lacking = {pass_: reason for pass_, reason in reasons.items() if reason}
    assert tuple(lacking) == LACKING.get(backend.name, ())
    assert lacking == {pass_: contract.timed[pass_] for pass_ in lacking}, "the contract says why, too"


def test_a_feature_that_is_not_implemented_is_refused_with_who_computes_it(backend):
    for given in STRUCTURES.values():
        problem = small_problem(**given)
        lacking = [feature for feature in features_of(problem) if not backend.has(feature)]
        if not lacking:
            continue
        names = [name for name, entry in REGISTRY.items() if lacking[0] in entry.features]
        reason = f"{lacking[0]}: not implemented here yet; {', '.join(names)} compute it"
        assert backend.unsupported(Case(**vars(problem), pass_=Pass.FORWARD)) == reason
        with pytest.raises(RuntimeError, match=re.escape(reason)):
            backend.prepare(problem, random_params(problem), random_data(problem))


def test_lengths_that_do_not_fit_are_refused_with_the_value_and_the_limit(backend):
    problem = small(backend)
    data = random_data(problem)
    with pytest.raises(ValueError, match="lengths are given, but rows of this problem have all T steps"):
        backend.prepare(problem, random_params(problem), replace(data, lengths=np.full(len(data.inputs), 3)))
    problem = small(backend, mean_length=3.5)
    if not backend.has(Feature.LENGTHS):
        return
    for lengths, words in (
        (None, "this problem has rows with lengths, and none are given"),
        (np.full(3, 3), r"lengths have shape \(3,\); one for each of 14 rows"),
        (np.full(14, 8), r"length 8 is outside a row of T = 7 steps: lengths must lie in \[0, 8\)"),
        (np.full(14, -1), "length -1 is outside"),
        (np.full(14, 3.0), "lengths are float64; they must be integers"),
    ):
        with pytest.raises(ValueError, match=words):
            backend.prepare(problem, random_params(problem), replace(data, lengths=lengths))
    session = backend.prepare(problem, random_params(problem), random_data(problem))
    with pytest.raises(ValueError, match="this problem has rows with lengths, and none are given"):
        session.predict(data.inputs)
    with pytest.raises(ValueError, match="length 8 is outside a row of T = 7 steps"):
        session.predict(data.inputs[:1], np.array([8]))


def test_a_cell_that_is_not_implemented_is_refused_with_who_computes_it(backend, monkeypatch):
    monkeypatch.setitem(CELLS, "gru", replace(CELLS["gru"], computed_by=("some", "others")))
    problem = small_problem(cell="gru")
    reason = "gru is not implemented here yet; some, others compute it"
    assert backend.unsupported(Case(**vars(problem), pass_=Pass.FORWARD)) == reason
    with pytest.raises(RuntimeError, match=re.escape(reason)):
        backend.prepare(problem, random_params(problem), random_data(problem))


@pytest.mark.parametrize("stack", ["dense", "layers"])
def test_single_steps_come_to_the_forward_pass(backend, cell, stack):
    given = {"V": None} if stack == "dense" else {"layers": 2}
    problem = small(backend, cell=cell, **given)
    reason = backend.unsupported(Case(**vars(problem), pass_=Pass.STEP))
    if not backend.streams:
        assert reason == NO_STEPS
        return
    assert reason is None
    data, params = random_data(problem), random_params(problem)
    session, exact = backend.prepare(problem, params, data), Oracle(problem, params, data, None)
    for _ in range(2):
        session.reset()
        session.select(0)
        assert verdict(exact.errors(Pass.STEP, session.all_steps())) is None
    session.forward()  # and a pass of another kind after it is what it was
    assert verdict(exact.errors(Pass.FORWARD, session.fetch())) is None


def test_single_steps_start_from_given_states(backend):
    problem = small(backend, cell="lstm")
    if not backend.streams:
        return
    ref, got = pair(backend, problem)
    states = {name: np.linspace(-1, 1, 20).reshape(4, 5) for name in problem.model.states}
    for session in (ref, got):
        session.start_from(states)
        session.forward()
    every = got.all_steps()
    done = Outputs(logits=every.logits[:, -1], states=every.states)
    assert_agrees(Outputs(logits=ref.fetch().logits, states=ref.fetch().states), done, problem.dtype)


@pytest.mark.parametrize(
    ("given", "words"),
    [({"bidirectional": True}, "there is no step before that"), ({"mean_length": 3.5}, "leave the lengths out")],
)
def test_steps_are_of_rows_that_go_on(given, words):
    problem = small_problem(**given)
    assert words in NumpyBackend().unsupported(Case(**vars(problem), pass_=Pass.STEP))
