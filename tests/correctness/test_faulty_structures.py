"""Planted faults of layers, directions and lengths: the check that comes before every time finds each."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rnnbench.backends import numpy as plain
from rnnbench.backends.numpy import NumpyBackend
from rnnbench.correctness.oracle import Oracle
from rnnbench.correctness.tolerances import verdict
from rnnbench.model import Head, Model, Pass
from tests.helpers import random_data, random_params, small_problem


def not_reversed(patch: pytest.MonkeyPatch) -> None:
    """The backward direction takes its steps in order of time."""
    for name in ("_run", "_run_back", "_emitted"):
        right = getattr(plain, name)
        patch.setattr(plain, name, lambda d, *rest, right=right: right(replace(d, back=False), *rest))


def padding_that_learns(patch: pytest.MonkeyPatch) -> None:
    """The steps past a row's length are taken too."""
    right = plain._run
    patch.setattr(plain, "_run", lambda d, params, x, initial, lengths: right(d, params, x, initial, None))


def a_layer_left_out(patch: pytest.MonkeyPatch) -> None:
    """The last layer reads the first."""
    right = Model.stack.fget  # type: ignore[attr-defined]
    patch.setattr(Model, "stack", property(lambda model: (right(model)[0], right(model)[-1])))


def swapped_states(patch: pytest.MonkeyPatch) -> None:
    """The last states of the two directions of each layer under one another's names."""
    right = plain.Trace.at

    def swapped(trace: plain.Trace, step: int) -> dict[str, plain.Array]:
        states = right(trace, step)
        return {n: states[n.replace(".h", ".back.h") if "back" not in n else n.replace("back.", "")] for n in states}

    patch.setattr(plain.Trace, "at", swapped)


def swapped_in_the_head(patch: pytest.MonkeyPatch) -> None:
    """The head reads the backward direction first."""
    right = plain.forward_pass

    def swapped(model, params, *rest):
        H, W_hy = model.H, params["W_hy"]
        return right(model, {**params, "W_hy": plain.np.concatenate([W_hy[H:], W_hy[:H]])}, *rest)

    patch.setattr(plain, "forward_pass", swapped)


@pytest.mark.parametrize("head", list(Head))
@pytest.mark.parametrize(
    "fault", [not_reversed, padding_that_learns, a_layer_left_out, swapped_states, swapped_in_the_head],
    ids=lambda fault: fault.__name__,
)  # fmt: skip
def test_a_planted_fault_is_found(fault, head):
    problem = small_problem(head=head, layers=3, bidirectional=True, mean_length=3.5)
    params, data = random_params(problem), random_data(problem)

    oracle, session = Oracle(problem, params, data, None), NumpyBackend().prepare(problem, params, data)
    session.gradient()
    assert verdict(oracle.errors(Pass.GRADIENT, session.fetch())) is None
    with pytest.MonkeyPatch.context() as patch:
        fault(patch)
        session.gradient()
    assert "arrays are over" in (verdict(oracle.errors(Pass.GRADIENT, session.fetch())) or "")
