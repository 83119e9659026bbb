"""The CUDA kernels under the audit, in the simulator or on a GPU: a tiny problem, and what is poisoned first."""

from __future__ import annotations

import numpy as np
import pytest

from rnnbench.correctness import timing_audit
from rnnbench.correctness.timing_audit import Subject, audited_problem
from rnnbench.kernels.cuda import device
from rnnbench.model import USUAL_PASSES, DType, Pass
from tests.helpers import arrays_of, failed

TINY = audited_problem(DType.FLOAT32, B=2, T=2, V=3, E=1, H=2)


@pytest.mark.numbers
@pytest.mark.parametrize("pass_", list(USUAL_PASSES))
def test_the_timed_call_does_all_of_its_work_anew(one_backend, request, pass_):
    if pass_ is Pass.EPOCH and device.simulated() and not request.config.getoption("--every-case"):
        pytest.skip("an epoch takes the simulator seconds; --every-case runs it")
    subject = Subject(one_backend, TINY)
    assert not failed(timing_audit.answers(subject, pass_))


@pytest.mark.numbers
def test_new_parameters_give_a_new_answer(one_backend):
    subject = Subject(one_backend, TINY)
    assert not failed(timing_audit.follows_parameters(subject, Pass.FORWARD))


def test_poison_reaches_all_that_a_gradient_writes(one_backend):
    session = Subject(one_backend, TINY).session
    session.gradient()
    session.poison()
    left = list(arrays_of(session.fetch()))
    assert {"loss", "logits", "state", "grad W_hh"} <= {name for name, _ in left}
    assert not [name for name, a in left if not np.isnan(a).all()]


def test_the_contract_tells_what_is_staged_and_what_waits(one_backend):
    contract = one_backend.contract(TINY)
    assert contract.staged
    assert contract.waits == "cuda.synchronize"
