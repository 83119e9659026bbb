"""The limits of TF32: its own rounding is within them, a coarser one and a wrong gradient are not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rnnbench.backends.numpy import NumpyBackend, NumpySession
from rnnbench.correctness.oracle import Oracle
from rnnbench.correctness.timing_audit import Subject, answers, audited_problem
from rnnbench.correctness.tolerances import LIMITS, TF32, precision_of, verdict
from rnnbench.model import USUAL_PASSES, DType, Head, Pass, Problem
from tests.helpers import random_data, random_params, small_problem


class Rounded(np.ndarray):
    """A float32 array whose products keep so many of the 23 bits of each factor, to the nearest."""

    kept = 10

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        plain = [np.asarray(x) for x in inputs]
        if ufunc is np.matmul:
            plain = [self._rounded(x) for x in plain]
        if out is not None:
            options["out"] = tuple(np.asarray(x) for x in out)
        result = getattr(ufunc, method)(*plain, **options)
        return result.view(type(self)) if isinstance(result, np.ndarray) else result

    def _rounded(self, x):
        cut = np.uint32((1 << (23 - self.kept)) - 1)
        bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
        return ((bits + (cut // 2 + 1)) & ~cut).view(np.float32)


class Coarse(Rounded):
    kept = 3


class RoundedSession(NumpySession):
    kind: type[Rounded] = Rounded

    def reset(self):
        super().reset()
        self.params = {name: value.view(self.kind) for name, value in self.params.items()}


class CoarseSession(RoundedSession):
    kind = Coarse


class ScaledSession(RoundedSession):
    def _gradient(self, batch, state):
        grads = super()._gradient(batch, state)
        for g in grads.values():
            g *= 1.2
        return grads


PROBLEM = small_problem(B=8, T=20, E=16, H=24, V=30, head=Head.EVERY, dtype=DType.FLOAT32)


def errors_of(kind: type[NumpySession], pass_: Pass, precision: str, problem: Problem = PROBLEM):
    params, data = random_params(problem), random_data(problem)
    oracle = Oracle(problem, params, data, list(range(20)))
    session = kind(problem, params, data)
    if pass_ is Pass.EPOCH:
        session.train_epoch(np.arange(20))
    else:
        getattr(session, str(pass_))()
    return oracle.errors(pass_, session.fetch(), precision)


@pytest.mark.parametrize("pass_", list(USUAL_PASSES))
def test_its_rounding_is_within_its_limits_and_over_those_of_float32(pass_):
    assert verdict(errors_of(RoundedSession, pass_, TF32)) is None
    if pass_ in (Pass.FORWARD, Pass.GRADIENT):
        errors = errors_of(RoundedSession, pass_, str(DType.FLOAT32))
        assert sum(not e.ok for e in errors.values()) > len(errors) / 2
        assert verdict(errors_of(NumpySession, pass_, str(DType.FLOAT32))) is None


@pytest.mark.parametrize("kind", [CoarseSession, ScaledSession])
def test_a_coarser_rounding_and_a_wrong_gradient_are_over(kind):
    reason = verdict(errors_of(kind, Pass.GRADIENT, TF32))
    assert reason is not None
    assert f"the limit is {LIMITS[TF32]:.0e}" in reason


def test_losses_are_compared_as_long_as_tf32_can_follow():
    problem = small_problem(B=8, T=40, H=24, V=None, dtype=DType.FLOAT32)
    oracle = Oracle(problem, random_params(problem, scale=3.0), random_data(problem, rows=160), None)
    wrong = [1.2 * loss for loss in oracle.losses()]
    steps = {}
    for precision in (TF32, str(DType.FLOAT32)):
        ((name, error),) = oracle.loss_errors(wrong, precision).items()
        assert not error.ok
        steps[precision] = int(name.split()[2])
    assert 1 <= steps[TF32] < steps[str(DType.FLOAT32)]


def test_the_row_is_chosen_by_contract_and_type():
    assert precision_of(DType.FLOAT32, True) == TF32
    assert precision_of(DType.FLOAT32, False) == "float32"
    assert precision_of(DType.FLOAT64, True) == "float64"
    contract = NumpyBackend().contract(PROBLEM)
    assert precision_of(PROBLEM.dtype, contract.tf32) == "float32"


class RoundedBackend(NumpyBackend):
    tf32 = True

    def contract(self, problem):
        return replace(super().contract(problem), tf32=self.tf32)

    def _prepare(self, problem, params, data):
        return RoundedSession(problem, params, data)


class Unsaid(RoundedBackend):
    tf32 = False


def test_an_audit_judges_by_the_contract():
    problem = audited_problem(DType.FLOAT32, B=8, T=20, V=11, E=8, H=16)
    assert all(f.ok for f in answers(Subject(RoundedBackend(), problem), Pass.GRADIENT))
    assert not all(f.ok for f in answers(Subject(Unsaid(), problem), Pass.GRADIENT))
