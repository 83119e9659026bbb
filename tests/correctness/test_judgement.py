"""Over sizes and seeds at random, no right backend is judged wrong, and no planted fault right.

`make test WHAT=tests/correctness/test_judgement.py ARGS=--every-case` makes more than 1,000 judgements, in about an
hour.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rnnbench import backends
from rnnbench.backends.base import Backend, Session
from rnnbench.correctness.oracle import Oracle
from rnnbench.correctness.tolerances import verdict
from rnnbench.data import Data
from rnnbench.model import USUAL_PASSES, Case, DType, Model, Optimizer, Pass, Problem, Train
from rnnbench.params import Init, cast, init_params
from rnnbench.records.record import ErrorOf
from rnnbench.workloads import made_up
from tests.faulty import SESSIONS, made_of

FAULTS = ("scaled", "swapped", "no-bias", "off-by-one", "no-clip", "stale", "forgets-moments", "swapped-betas",
          "same-batch", "drops-short-batch")  # fmt: skip
EPOCH_STEPS = 6
SIZES = {
    "H": (16, 31, 64, 128, 256, 384, 512, 1024),
    "B": (1, 2, 8, 32, 64, 128, 256),
    "T": (5, 20, 50, 120, 200, 500),
    "E": (1, 16, 64, 128),
}
# Right backends were judged wrong there: losses that drift apart (as in a sweep), parameters after a step of Adam.
KNOWN = [dict(zip("HBTE", sizes, strict=True)) for sizes in ((256, 64, 120, 64), (256, 64, 50, 1), (64, 2, 200, 16))]


def drawn(number: int, flops: float) -> dict[str, int]:
    """Sizes and a seed at random, whose train step takes no more operations than that."""
    rng = np.random.default_rng(number)
    while True:
        sizes = {name: int(rng.choice(each)) for name, each in SIZES.items()}
        if 6 * sizes["B"] * sizes["T"] * sizes["H"] * (sizes["H"] + sizes["E"]) <= flops:
            return {**sizes, "seed": number % 10}


class Judged:
    """One problem, its rows (five batches and half a one) and its oracle."""

    def __init__(self, H: int, B: int, T: int, E: int, seed: int, dtype: DType, train: Train, *, tokens: bool) -> None:
        rng = np.random.default_rng(seed)
        n = EPOCH_STEPS * B - B // 2
        if tokens:
            model = Model(E=E, H=H, O=1, V=500)
            inputs = rng.integers(0, 500, (n, T), dtype=np.int32)
        else:
            model = Model(E=E, H=H, O=1)
            inputs = np.float32(made_up.INPUT_SCALE) * rng.standard_normal((n, T, E), dtype=np.float32)
        self.problem = Problem("test", dtype, model, train, B, T)
        self.data = Data(inputs, rng.integers(0, 2, n).astype(np.float32))
        self.params = cast(init_params(model, Init.KERAS, seed), dtype)
        self.order = rng.permutation(n).tolist()
        self.oracle = Oracle(self.problem, self.params, self.data, self.order)

    def errors(self, backend: Backend, pass_: Pass) -> dict[str, ErrorOf]:
        """As a run checks them."""
        session = backend.prepare(self.problem, self.params, self.data)
        try:
            return self._errors(session, pass_)
        finally:
            session.close()

    def _errors(self, session: Session, pass_: Pass) -> dict[str, ErrorOf]:
        session.reset()
        session.select(0)
        if pass_ is Pass.EPOCH:
            session.train_epoch(np.array(self.oracle.epoch().rows))
        else:
            getattr(session, str(pass_))()
        session.synchronize()
        errors = self.oracle.errors(pass_, session.fetch())
        if pass_ is Pass.TRAIN_STEP:
            session.reset()
            errors |= self.oracle.loss_errors(list(map(float, self._losses(session))))
        return errors

    def _losses(self, session: Session):
        for step in range(len(self.oracle.losses())):
            session.select(step % self.oracle.batches)
            session.train_step()
            session.synchronize()
            yield session.fetch().loss

    def reasons(self, backend: Backend) -> dict[Pass, str]:
        """Pass -> why it is judged wrong, for those that are."""
        case = Case(**vars(self.problem))
        passes = [p for p in USUAL_PASSES if backend.unsupported(replace(case, pass_=p)) is None]
        found = {p: verdict(self.errors(backend, p)) for p in passes}
        return {p: reason for p, reason in found.items() if reason is not None}

    @property
    def vanishes(self) -> bool:
        """Whether the exact gradient is the same without its first step, as far as the limits of this type tell."""
        exact = replace(self.problem, dtype=DType.FLOAT64)
        session = SESSIONS["off-by-one"](exact, self.params, self.data)
        session.gradient()
        return verdict(self.oracle.errors(Pass.GRADIENT, session.fetch())) is None

    def is_wrong(self, backend: Backend) -> bool:
        """Whether any pass is judged wrong."""
        return any(verdict(self.errors(backend, p)) for p in USUAL_PASSES)


def judged(number: int, flops: float = 1e10) -> Judged:
    """The problem of that number: the known ones, then at random; each third in float64, each second of tokens."""
    sizes = {**KNOWN[number], "seed": 0} if number < len(KNOWN) else drawn(number, flops)
    train = Train() if number % 4 < 3 else Train(Optimizer.SGD, learning_rate=0.05, clip_norm=1e-3)
    dtype = DType.FLOAT64 if number >= len(KNOWN) and number % 3 == 0 else DType.FLOAT32
    return Judged(**sizes, dtype=dtype, train=train, tokens=number >= len(KNOWN) and number % 2 == 0)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    numbers = range(160) if metafunc.config.getoption("--every-case") else (1, 2, 4)  # the first takes a minute
    metafunc.parametrize("number", numbers, scope="module")


@pytest.fixture(scope="module")
def problem(number):
    return judged(number)


def names_of(number: int) -> list[str]:
    """The backends asked of a problem; those that compile each anew for seconds, of every eighth."""
    slow = [name for name, entry in backends.REGISTRY.items() if entry.compiles and not name.startswith("numba")]
    usual = [name for name in backends.usual() if backends.missing(name) is None]
    return [name for name in usual if name not in slow or number % 16 in (4, 13)]


def test_no_right_backend_is_judged_wrong(problem, number):
    found = {name: problem.reasons(backends.load(name)) for name in names_of(number)}
    assert {name: reasons for name, reasons in found.items() if reasons} == {}, problem.problem


def test_every_planted_fault_is_judged_wrong(problem):
    missed = [name for name in faults_of(problem) if not problem.is_wrong(made_of(SESSIONS[name])())]
    assert missed == [], problem.problem


def faults_of(problem: Judged) -> list[str]:
    """The faults that change an answer here: SGD has clipping and no moments, a batch of one row is never short,
    and where gradients vanish before they reach the first step, nobody sees that it is left out.
    """
    train = problem.problem.train
    none = {"forgets-moments", "swapped-betas"} if train.clips else {"no-clip"}
    if problem.problem.B == 1:
        none.add("drops-short-batch")
    if problem.vanishes:
        none.add("off-by-one")
    return [name for name in FAULTS if name not in none]
