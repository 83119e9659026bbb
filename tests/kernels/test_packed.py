"""What a forward pass finds ready, and when it does not: packed weights, and tokens that no table is worth."""

from __future__ import annotations

import numpy as np
import pytest

from rnnbench.backends.numba import NumbaBackend, NumbaSession
from rnnbench.model import DType, Head, Train
from tests.helpers import (
    STRUCTURES,
    assert_agrees,
    assert_same_bits,
    oracle,
    random_data,
    random_params,
    small_problem,
    threads,
)


def session_of(problem, params=None, count=2) -> NumbaSession:
    with threads(count):
        session = NumbaBackend().prepare(problem, params or random_params(problem), random_data(problem))
    assert isinstance(session, NumbaSession)
    return session


def forward(session):
    session.select(1)
    session.forward()
    return session.fetch()


@pytest.mark.parametrize("structure", [{}, *STRUCTURES.values()], ids=["plain", *STRUCTURES])
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_weights_are_packed_again_where_parameters_have_changed(cell, structure):
    """After a train step the answer is that of a session which starts from its parameters, to the bit."""
    problem = small_problem(B=5, T=6, E=7, H=20, V=30, cell=cell, **structure)
    ours, packed = session_of(problem), []
    first = forward(ours)
    packed.append(int(ours.record.fields["packed"][0]))
    assert_same_bits(first, forward(ours))
    ours.train_step()
    packed.append(int(ours.record.fields["packed"][0]))
    trained = {name: value.copy() for name, value in ours.params.items()}
    assert_same_bits(forward(session_of(problem, trained)), forward(ours))
    ours.reset()
    packed.append(int(ours.record.fields["packed"][0]))
    assert_same_bits(first, forward(ours))
    ours.gradient()  # packs, and changes nothing
    packed.append(int(ours.record.fields["packed"][0]))
    assert packed == [1, 0, 0, 1]
    assert_same_bits(first, forward(ours))
    ours.train_epoch(np.arange(5, dtype=np.int64))
    trained = {name: value.copy() for name, value in ours.params.items()}
    assert_same_bits(forward(session_of(problem, trained)), forward(ours))


@pytest.mark.parametrize("structure", [{}, STRUCTURES["lengths"], STRUCTURES["all"]], ids=["plain", "lengths", "all"])
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize(("E", "in_table"), [(16, False), (600, True)])
def test_tokens_are_projected_row_by_row_where_their_table_is_wide(cell, structure, E, in_table):
    """Few numbers to multiply for each of a wide table: by row and step. Many: each unique token once."""
    H = 400 if cell == "rnn" else 136
    sizes = {"B": 26, "T": 40, "V": 1500, "H": H, "E": E, "cell": cell, "head": Head.EVERY} | structure
    problem = small_problem(train=Train(clip_norm=0.5), **sizes)
    ours, exact = session_of(problem, count=3), oracle(problem, random_params(problem), random_data(problem))
    for batch, name in [(0, "forward"), (1, "gradient"), (0, "forward"), (2, "train_step"), (0, "gradient")]:
        for session in (ours, exact):
            session.select(batch)
            getattr(session, name)()
        assert ours.layers[0].fields["gathers"][0] == in_table
        assert_agrees(exact.fetch(), ours.fetch(), problem.dtype)


@pytest.mark.parametrize("own", [False, True], ids=["of the batch", "of each worker"])
def test_no_pass_leaves_its_tokens_in_the_next_gradient(own):
    """Gradients of tokens go before the next, also where passes forward, which write none, come in between."""
    problem = small_problem(B=8, T=8, E=3 if own else 60, H=90, V=200, dtype=DType.FLOAT32)
    ours = session_of(problem)
    assert bool(ours.record.fields["can_own_tokens"][0]) == own
    for batch, call in ((0, "gradient"), (1, "forward"), (2, "forward"), (1, "gradient"), (2, "train_step")):
        ours.select(batch)
        getattr(ours, call)()
    ours.reset()
    ours.select(0)
    ours.forward()
    ours.poison()
    ours.gradient()
    afresh = session_of(problem)
    afresh.select(0)
    afresh.gradient()
    assert_same_bits(ours.fetch(), afresh.fetch())
