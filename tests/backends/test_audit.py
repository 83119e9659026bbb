"""Every backend of the registry under the audit: what is timed is all of the work, done anew and done in time."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from rnnbench.backends.base import Session
from rnnbench.backends.numba import NumbaBackend
from rnnbench.correctness import timing_audit
from rnnbench.correctness.timing_audit import Subject, audited_problem
from rnnbench.correctness.tolerances import relative_error
from rnnbench.model import USUAL_PASSES, Case, DType, Pass
from tests.helpers import arrays_of, failed, threads

PROBLEM = audited_problem(DType.FLOAT32, T=50)


@pytest.fixture(autouse=True)
def _one_thread():
    """Numba raises the number of OpenMP threads of a process, PyTorch's too: they would wait for one another."""
    with threadpool_limits(limits=1):
        yield


def skip_what_it_lacks(backend, *passes: Pass) -> None:
    for pass_ in passes:
        if reason := backend.unsupported(Case(**vars(PROBLEM), pass_=pass_)):
            pytest.skip(f"{backend.name}: {reason}")


@cache
def subject_of(backend) -> Subject:
    """One for all passes: what compiles does so once."""
    return Subject(backend, PROBLEM)


@pytest.mark.parametrize("pass_", list(USUAL_PASSES))
def test_the_timed_call_does_all_of_its_work_anew(backend, pass_):
    skip_what_it_lacks(backend, pass_)
    for of_answers in timing_audit.answer_checks(subject_of(backend)):
        assert not failed(of_answers(subject_of(backend), pass_))


@pytest.mark.parametrize("pass_", list(USUAL_PASSES))
def test_the_timed_call_remembers_nothing_and_leaves_nothing_to_fetch(backend, pass_):
    skip_what_it_lacks(backend, pass_)
    for of_times in timing_audit.OF_TIMES:
        assert not failed(of_times(subject_of(backend), pass_))


def test_poison_bites_and_spares_what_a_pass_reads(backend):
    session = subject_of(backend).session
    session.reset()
    session.select(0)
    before = logits_of(session)
    session.poison()
    left = [a for _, a in arrays_of(session.fetch())]
    assert not [a for a in left if np.isfinite(a).any()]
    assert relative_error(before, logits_of(session)) == 0


def logits_of(session: Session) -> np.ndarray:
    session.forward()
    session.synchronize()
    logits = session.fetch().logits
    assert logits is not None
    return logits.copy()


def test_other_parameters_give_another_answer(backend):
    subject = subject_of(backend)
    subject.session.reset()
    subject.session.select(0)
    before = logits_of(subject.session)
    other = Subject(backend, PROBLEM, {name: 0.5 * value for name, value in subject.params.items()})
    assert relative_error(before, logits_of(other.session)) > 1e-2
    assert not failed(timing_audit.answers(other, Pass.FORWARD))


def test_a_batch_is_chosen_and_not_computed(backend):
    assert not failed(timing_audit.stages_little(subject_of(backend), Pass.FORWARD))


@pytest.mark.parametrize("dtype", list(DType))
def test_subnormals_are_treated_as_the_contract_says(backend, request, dtype):
    if (
        dtype is DType.FLOAT64
        and backend.name in ("jax", "tensorflow")
        and not request.config.getoption("--every-case")
    ):
        pytest.skip("compiles again; --every-case runs it")
    skip_what_it_lacks(backend, Pass.GRADIENT)
    assert not failed(timing_audit.treats_subnormals_as_said(backend, dtype))


def test_one_thread_of_ours_is_one():
    with threads(1):
        subject = Subject(NumbaBackend(), PROBLEM)
        assert subject.backend.contract(PROBLEM).threads == 1
        assert not failed(timing_audit.keeps_to_its_threads(subject, Pass.GRADIENT))


def test_the_contract_tells_all_that_list_shows(backend):
    contract = backend.contract(PROBLEM)
    assert contract.threads >= 1
    assert not contract.tf32, "there is none on a CPU"
    assert contract.staged
    assert contract.waits
    assert contract.subnormals.startswith(("kept", "flushed"))
