"""The right answers to a problem, computed once by the float64 NumPy backend and compared with everyone's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from threading import Lock

import numpy as np
from threadpoolctl import threadpool_limits

from rnnbench.backends.base import Data, Inputs, Outputs, Session
from rnnbench.backends.numpy import NumpyBackend, NumpySession, Trace
from rnnbench.measure import verify
from rnnbench.model import DType, Pass, Problem
from rnnbench.params import Array, Params, cast
from rnnbench.results.record import ErrorOf

LOSS_STEPS = 20


class _Session(NumpySession):
    """Asks before each forward whether to go on."""

    go_on: Callable[[], None]

    def _forward(self, x: Inputs, y: Inputs, state: Array | None) -> Trace:
        self.go_on()
        return super()._forward(x, y, state)


class _Backend(NumpyBackend):
    def __init__(self, go_on: Callable[[], None]) -> None:
        self.go_on = go_on

    def _prepare(self, problem: Problem, params: Params, data: Data) -> Session:
        session = _Session(problem, params, data)
        session.go_on = self.go_on
        return session


class Oracle:
    """Answers to one problem on given rows: by pass, from the initial parameters, and the losses of the first steps.

    `go_on` is called before each train step, and raises where no time is left.
    """

    def __init__(
        self,
        problem: Problem,
        params: Params,
        data: Data,
        order: list[int] | None,
        go_on: Callable[[], None] = lambda: None,
    ) -> None:
        self.problem, self.order = problem, order
        self.backend = _Backend(go_on)
        inputs = data.inputs if problem.model.V is not None else data.inputs.astype(np.float64)
        self.batches = len(inputs) // problem.B
        self.params, self.data = params, Data(inputs, data.targets)
        self.session: Session = self.backend.prepare(replace(problem, dtype=DType.FLOAT64), params, self.data)
        self._answers: dict[Pass, Outputs] = {}
        self._losses: dict[str, list[float]] = {}
        self._working = Lock()

    @threadpool_limits.wrap(limits=1, user_api="blas")  # small products: on a busy machine two threads wait, not work
    def answer(self, pass_: Pass) -> Outputs:
        """The outputs of a pass on the first batch, or of the epoch over `order`."""
        if pass_ not in self._answers:
            self.session.reset()
            self.session.select(0)
            if pass_ is Pass.EPOCH:
                self.session.train_epoch(np.array(self.order, dtype=np.int64))
            else:
                getattr(self.session, str(pass_))()
            self._answers[pass_] = self.session.fetch()
        return self._answers[pass_]

    @threadpool_limits.wrap(limits=1, user_api="blas")
    def losses(self, precision: str | None = None) -> list[float]:
        """The loss before each of the first train steps, one batch after the other: 20, or as many as can be compared.

        Training may be chaotic (recurrent weights whose spectral radius grows above 1 make it so): two trainings that
        start one rounding error apart then lose each other within a few steps, and no implementation in that type can
        follow the oracle. So a second oracle starts from parameters moved by one rounding error of the type (or of
        another `precision`, TF32), and the losses end where the two differ by a tenth of the limit.
        """
        precision = precision or str(self.problem.dtype)
        with self._working:  # backends that are checked side by side may ask at the same time
            if precision not in self._losses:
                self._losses[precision] = self._worked_out(precision)
            return self._losses[precision]

    def _worked_out(self, precision: str) -> list[float]:
        losses: list[float] = []
        twin = self._twin(verify.ROUNDING[precision])
        limit = 0.1 * verify.LOSS_LIMITS[precision]
        self.session.reset()
        for step in range(LOSS_STEPS):
            loss, moved = (_step(session, step % self.batches) for session in (self.session, twin))
            error = verify.relative_error(loss, moved)
            if step and (error is None or error > limit):
                break
            losses.append(loss)
        return losses

    def _twin(self, rounding: float) -> Session:
        rng = np.random.default_rng(0)
        moved = {
            name: value * (1 + rounding * rng.standard_normal(value.shape))
            for name, value in cast(self.params, DType.FLOAT64).items()
        }
        return self.backend.prepare(replace(self.problem, dtype=DType.FLOAT64), moved, self.data)

    def errors(self, pass_: Pass, got: Outputs, precision: str | None = None) -> dict[str, ErrorOf]:
        """The error of every array of a pass, judged in the problem's type or in another precision."""
        return verify.errors_of(self.answer(pass_), got, precision or str(self.problem.dtype), pass_)

    def loss_errors(self, got: list[float], precision: str | None = None) -> dict[str, ErrorOf]:
        """The largest relative error of the losses of the first steps, under one name."""
        precision = precision or str(self.problem.dtype)
        pairs = zip(self.losses(precision), got, strict=True)
        each = [verify.relative_error(ref, x) for ref, x in pairs]
        worst = None if any(e is None for e in each) else max(e for e in each if e is not None)
        return {f"losses of {len(got)} steps": ErrorOf(worst, verify.LOSS_LIMITS[precision])}


def _step(session: Session, batch: int) -> float:
    session.select(batch)
    session.train_step()
    loss = session.fetch().loss
    assert loss is not None
    return loss
