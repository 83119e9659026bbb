"""What is particular to JAX: types that do not leak between sessions, memory that is donated, shapes compiled once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rnnbench import backends
from rnnbench.data import Data
from rnnbench.harness.clock import time_call
from rnnbench.model import DType, Head, Loss, Train, Truncation
from tests.helpers import assert_agrees, oracle, random_data, random_params, small_problem

if reason := backends.missing("jax"):
    pytest.skip(reason, allow_module_level=True)


def prepare(problem):
    return backends.load("jax").prepare(problem, random_params(problem), random_data(problem))


def test_float64_and_float32_sessions_take_turns_and_keep_their_types():
    made = {dtype: prepare(small_problem(dtype=dtype)) for dtype in DType}
    for _ in range(2):
        for dtype, session in made.items():
            session.train_step()
            session.synchronize()
            outputs = session.fetch()
            arrays = [outputs.logits, outputs.states["h"], *outputs.params.values()]
            assert {str(array.dtype) for array in arrays} == {str(dtype)}
            assert str(session.moments[0].mu.dtype) == str(dtype)


def test_donated_parameters_leave_the_initial_ones_and_earlier_answers_as_they_were():
    problem = small_problem()
    params = random_params(problem)
    given = {name: value.copy() for name, value in params.items()}
    session = backends.load("jax").prepare(problem, params, random_data(problem))
    session.train_step()
    first = session.fetch()
    kept = {name: value.copy() for name, value in first.params.items()}
    for _ in range(3):
        session.train_step()
    session.train_epoch(np.arange(14))
    assert all(np.array_equal(first.params[name], kept[name]) for name in kept)
    assert all(np.array_equal(params[name], given[name]) for name in given)
    session.reset()
    session.train_step()
    assert all(np.array_equal(session.fetch().params[name], kept[name]) for name in kept)


def test_each_function_is_compiled_once_for_each_shape():
    session = prepare(small_problem(train=Train(clip_norm=1.0)))
    for batch in (0, 1, 2):
        session.select(batch)
        for name in ("forward", "gradient", "train_step"):
            getattr(session, name)()
        session.train_epoch(np.arange(14))
    session.predict(random_data(small_problem(), rows=3).inputs)
    session.predict(random_data(small_problem(), rows=600).inputs)
    sizes = [f._cache_size() for f in (session._forward, session._gradient, session._train_step, session._logits)]
    assert sizes == [1, 1, 1, 1]
    assert session._epoch._cache_size() == 2  # full batches, and the short one


def test_a_single_step_is_compiled_before_it_is_timed(caplog):
    """For states as they begin and as a step leaves them: a turn would be over before the second was compiled."""
    import jax

    session = prepare(small_problem())
    shape = (session.problem.B, session.model.H)
    for states in (None, {name: np.ones(shape, np.float32) for name in session.model.states}):
        session.start_from(states)
        steps = session.begin_steps()
        with jax.log_compiles(), caplog.at_level("WARNING"):
            caplog.clear()
            for x in steps.inputs[:3]:
                steps.take(x)
            session.synchronize()
        assert "ompil" not in caplog.text


@pytest.mark.parametrize("truncation", [Truncation(5, 5), Truncation(6, 2), Truncation(3, 3)], ids=str)
def test_classes_at_every_step_under_truncation(truncation):
    problem = small_problem(
        T=10, O=3, head=Head.EVERY, loss=Loss.CATEGORICAL_CROSS_ENTROPY, truncation=truncation, V=None
    )
    params, data = random_params(problem), random_data(problem)
    ref, got = oracle(problem, params, data), backends.load("jax").prepare(problem, params, data)
    for session in (ref, got):
        session.gradient()
    assert_agrees(ref.fetch(), got.fetch(), DType.FLOAT64)


def test_an_epoch_of_one_short_batch():
    problem = small_problem()
    params, data = random_params(problem), random_data(problem)
    ref, got = oracle(problem, params, data), backends.load("jax").prepare(problem, params, data)
    for session in (ref, got):
        session.train_epoch(np.array([3, 1]))
    assert_agrees(ref.fetch(), got.fetch(), DType.FLOAT64)


def test_the_contract_tells_threads_and_subnormals_as_they_are(monkeypatch):
    problem = small_problem()
    backend = backends.load("jax")
    assert backend.contract(problem).subnormals == "flushed by XLA"
    monkeypatch.setenv("NPROC", "3")
    assert backend.contract(problem).threads == 3


def test_preparing_copies_the_rows():
    problem = small_problem()
    data = random_data(problem)
    inputs = data.inputs.copy()
    session = backends.load("jax").prepare(problem, random_params(problem), Data(inputs, data.targets))
    session.forward()
    before = session.fetch().loss
    inputs[:] = 0
    session.forward()
    assert session.fetch().loss == before


def test_when_the_clock_stops_every_array_is_ready():
    import jax

    problem = small_problem(B=32, T=200, H=64)
    session = backends.load("jax").prepare(problem, random_params(problem), random_data(problem))
    for call in (session.forward, session.gradient, session.train_step, lambda: session.train_epoch(np.arange(70))):
        time_call(call, session.synchronize)
        done = session.done
        leaves = jax.tree.leaves((done.losses, done.result, done.grads, done.params, done.correct))
        assert leaves
        assert all(leaf.is_ready() for leaf in leaves)


def test_a_truncated_problem_is_not_cut_forward():
    problem = small_problem(T=9, dtype=DType.FLOAT32, head=Head.EVERY, truncation=Truncation(7, 3))
    params, data = random_params(problem), random_data(problem)
    ref, got = oracle(problem, params, data), backends.load("jax").prepare(problem, params, data)
    for session in (ref, got):
        session.forward()
    assert_agrees(ref.fetch(), got.fetch(), DType.FLOAT32)
    whole = backends.load("jax").prepare(replace(problem, truncation=None), params, data)
    lowered = [str(s._forward.lower(s.params, s.x, s.y, s.states).as_text()) for s in (got, whole)]
    assert lowered[0] == lowered[1]


def test_rows_with_lengths_compile_nothing_anew():
    problem = small_problem(T=12, mean_length=3.5, layers=2)
    session = prepare(problem)
    for batch in (0, 1, 2):
        session.select(batch)
        session.gradient()
    for rows in (3, 600):
        data = random_data(problem, rows=rows)
        session.predict(data.inputs, data.lengths)
    assert [f._cache_size() for f in (session._gradient, session._logits)] == [1, 1]
