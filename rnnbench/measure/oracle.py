"""The right answers to a problem, computed once by the float64 NumPy backend and compared with everyone's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rnnbench.backends.base import Data, Outputs, Session
from rnnbench.backends.numpy import NumpyBackend
from rnnbench.measure import verify
from rnnbench.model import DType, Pass, Problem
from rnnbench.params import Params
from rnnbench.results.record import ErrorOf

LOSS_STEPS = 20


class Oracle:
    """Answers to one problem on given rows: by pass, from the initial parameters, and the losses of the first steps."""

    def __init__(self, problem: Problem, params: Params, data: Data, order: list[int] | None) -> None:
        self.problem, self.order = problem, order
        inputs = data.inputs if problem.model.V is not None else data.inputs.astype(np.float64)
        self.batches = len(inputs) // problem.B
        self.session: Session = NumpyBackend().prepare(
            replace(problem, dtype=DType.FLOAT64), params, Data(inputs, data.targets)
        )
        self._answers: dict[Pass, Outputs] = {}
        self._losses: list[float] = []

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

    def losses(self) -> list[float]:
        """The loss before each of the first 20 train steps, one batch after the other."""
        if not self._losses:
            self.session.reset()
            for step in range(LOSS_STEPS):
                self.session.select(step % self.batches)
                self.session.train_step()
                loss = self.session.fetch().loss
                assert loss is not None
                self._losses.append(loss)
        return self._losses

    def errors(self, pass_: Pass, got: Outputs) -> dict[str, ErrorOf]:
        """The error of every array of a pass."""
        return verify.errors_of(self.answer(pass_), got, self.problem.dtype, pass_)

    def loss_errors(self, got: list[float]) -> dict[str, ErrorOf]:
        """The largest relative error of the losses of the first steps, under one name."""
        pairs = zip(self.losses(), got, strict=True)
        each = [verify.relative_error(ref, x) for ref, x in pairs]
        worst = None if any(e is None for e in each) else max(e for e in each if e is not None)
        return {f"losses of {LOSS_STEPS} steps": ErrorOf(worst, verify.LOSS_LIMITS[self.problem.dtype])}
