"""Each way to cheat the clock is found by its check, and an honest backend passes all of them."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from rnnbench import backends
from rnnbench.backends.numpy import NumpyBackend, NumpySession
from rnnbench.correctness import timing_audit
from rnnbench.correctness.timing_audit import Finding, Subject, audited_problem
from rnnbench.model import USUAL_PASSES, DType, Pass
from tests import cheats
from tests.cheats import made_of
from tests.helpers import failed

SMALL = audited_problem(DType.FLOAT32, B=8, T=40, V=11, E=8, H=32)

CHEATS = {
    "keeps its first answer": (cheats.KeepsFirstAnswer, timing_audit.follows_parameters, Pass.FORWARD),
    "memoises forward": (cheats.Memoises, timing_audit.remembers_nothing, Pass.FORWARD),
    "memoises gradient": (cheats.Memoises, timing_audit.remembers_nothing, Pass.GRADIENT),
    "packs ahead": (cheats.PacksAhead, timing_audit.follows_parameters, Pass.FORWARD),
    "packs ahead for a step": (cheats.PacksAhead, timing_audit.follows_parameters, Pass.TRAIN_STEP),
    "works in select": (cheats.WorksInSelect, timing_audit.stages_little, Pass.FORWARD),
    "one order": (cheats.OneOrder, timing_audit.answers, Pass.EPOCH),
    "old gradient": (cheats.OldGradient, timing_audit.answers, Pass.GRADIENT),
    "old state": (cheats.OldState, timing_audit.answers, Pass.FORWARD),
    "wider type": (cheats.WiderType, timing_audit.answers, Pass.FORWARD),
    **{f"does not wait in {p}": (cheats.DoesNotWait, timing_audit.leaves_nothing_to_fetch, p) for p in USUAL_PASSES},
    **{
        f"computes {p} on fetch": (cheats.ComputesOnFetch, timing_audit.leaves_nothing_to_fetch, p)
        for p in USUAL_PASSES
    },
}


def test_each_backend_that_compiles_for_the_cpu_says_by_what():
    compile_ = {name for name, entry in backends.REGISTRY.items() if entry.compiles and not entry.gpu}
    said = {name for name, entry in backends.REGISTRY.items() if entry.compiler and not entry.gpu}
    assert compile_ - said <= {"keras+torch"}  # whose loop over the steps is PyTorch's, call by call


@pytest.mark.parametrize("name", ["numba", "jax"])
def test_what_is_compiled_runs_no_step_in_the_interpreter(name):
    if reason := backends.missing(name):
        pytest.skip(reason)
    backend, compiler = backends.load(name), backends.REGISTRY[name].compiler
    assert not failed(timing_audit.is_compiled(backend, DType.FLOAT32, Pass.GRADIENT, compiler))
    assert failed(timing_audit.is_compiled(NumpyBackend(), DType.FLOAT32, Pass.GRADIENT, compiler))
    if name == "jax":
        import jax

        with jax.disable_jit():
            assert failed(timing_audit.is_compiled(backend, DType.FLOAT32, Pass.FORWARD, compiler))


@pytest.mark.parametrize(("session", "check", "pass_"), CHEATS.values(), ids=CHEATS)
def test_a_cheat_is_found(session, check, pass_):
    assert failed(check(Subject(made_of(session), SMALL), pass_))
    assert not failed(check(Subject(NumpyBackend(), SMALL), pass_))


class FetchesBesideOthers(NumpySession):
    """Another program delays three of five fetches."""

    fetched = 0

    def fetch(self):
        self.fetched += 1
        if self.fetched % 5 > 1:
            time.sleep(0.02)
        return super().fetch()


def test_what_delays_most_fetches_is_not_taken_for_work_that_was_left():
    subject = Subject(made_of(FetchesBesideOthers), SMALL)
    assert not failed(timing_audit.leaves_nothing_to_fetch(subject, Pass.FORWARD))


class OldC(NumpySession):
    """Writes c of its lstm in its first call, and leaves it there; h is right."""

    kept = None

    def forward(self):
        super().forward()
        states = self.outputs.states
        self.kept = states["c"] if self.kept is None else self.kept
        self.outputs = replace(self.outputs, states=states | {"c": self.kept})


def test_a_state_beside_h_is_looked_at_as_well():
    problem = replace(SMALL, model=replace(SMALL.model, cell="lstm"))
    (found,) = failed(timing_audit.answers(Subject(made_of(OldC), problem), Pass.FORWARD))
    assert found.what == "error of state c"
    assert not failed(timing_audit.answers(Subject(NumpyBackend(), problem), Pass.FORWARD))


@pytest.mark.parametrize("session", [cheats.Memoises, cheats.DoesNotWait, cheats.ComputesOnFetch, cheats.WorksInSelect])
@pytest.mark.parametrize("pass_", list(USUAL_PASSES))
def test_right_answers_alone_do_not_find_these(session, pass_):
    """So the checks of times are needed."""
    subject = Subject(made_of(session), SMALL)
    assert not [f for check in timing_audit.answer_checks(subject) for f in failed(check(subject, pass_))]


@pytest.mark.parametrize("dtype", list(DType))
@pytest.mark.parametrize("keeps", [True, False])
@pytest.mark.parametrize("told", ["kept", "flushed, per thread"])
def test_what_becomes_of_subnormals_is_tried_and_not_believed(dtype, keeps, told):
    backend = made_of(NumpySession if keeps else cheats.Flushes, subnormals=told)
    found = failed(timing_audit.treats_subnormals_as_said(backend, dtype))
    assert bool(found) == (keeps != (told == "kept"))


def test_the_probe_has_numbers_on_both_sides_of_the_subnormals():
    for dtype in DType:
        problem, params, data = timing_audit.vanishing(dtype)
        oracle = Subject(NumpyBackend(), problem, params, data).oracle
        oracle.gradient()
        size = np.abs(oracle.fetch().grads["embedding"]).max(axis=1)
        tiny = np.finfo(str(dtype)).tiny
        assert (size > tiny).sum() > 10
        assert (size < tiny).sum() > 10
        assert timing_audit.count_subnormals(oracle.fetch().grads["embedding"].astype(str(dtype))) >= 8


def test_more_processor_time_than_the_contract_has_threads_is_found():
    def cores(per_wall: float) -> Finding:
        now = [0]

        def clock() -> int:
            now[0] += 5_000_000
            return now[0]

        subject = Subject(made_of(NumpySession, threads=1), SMALL)
        (finding,) = timing_audit.keeps_to_its_threads(subject, Pass.FORWARD, clock, lambda: int(now[0] * per_wall))
        return finding

    assert cores(1.0).ok
    assert not cores(1.6).ok


def test_numpy_passes_the_whole_audit():
    found = list(timing_audit.audit(NumpyBackend(), DType.FLOAT32, list(USUAL_PASSES), SMALL))
    assert not failed(found)
    assert {f.pass_ for f in found} == set(USUAL_PASSES)
    assert len({f.check for f in found}) == 8


@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_single_steps_leave_nothing_to_fetch_however_short_they_are(name):
    """A step takes microseconds, as the calls of Python do that fetch what it left: all of a row are looked at."""
    backend = backends.load(name)
    subject = Subject(backend, audited_problem(DType.FLOAT32))
    assert not failed(timing_audit.leaves_nothing_to_fetch(subject, Pass.STEP))
    (threads,) = timing_audit.keeps_to_its_threads(subject, Pass.STEP)
    assert threads.limit == timing_audit.MAX_THREAD_USE * backend.contract(subject.problem).threads_in(Pass.STEP)
    subject.session.close()
