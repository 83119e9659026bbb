"""The right answers to a problem, computed once by the float64 NumPy backend and compared with every backend's."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from threading import RLock
from typing import Any, TypeVar

import numpy as np
from threadpoolctl import threadpool_limits

from rnnbench.backends.base import Outputs, Session
from rnnbench.backends.numpy import NumpySession
from rnnbench.correctness import tolerances
from rnnbench.data import Data, batches_of, check_data
from rnnbench.machine.known import known
from rnnbench.model import DType, Pass, Problem
from rnnbench.params import Array, Params, cast, check_shapes
from rnnbench.records.record import ErrorOf

LOSS_STEPS, FEWEST_LOSSES = 20, 3  # the last of the fewest tells of the first update that has a past
STARTS = 3  # runs beside the oracle's, each of which starts a few roundings away

Kept = TypeVar("Kept")


@dataclass(frozen=True)
class EpochAnswer:
    """The answer to an epoch over the first `rows` of its order, `steps` batches: as far as it can be compared.

    `limits`: the largest relative error of each array, as far as the problem's own drift decides it.
    """

    rows: list[int]
    steps: int
    outputs: Outputs
    limits: dict[str, float]


class _Drift:
    """The oracle's session and some beside it that started a few roundings away: how far they are apart by now.

    `of` has the largest distance so far of each array, over all starts and steps.
    """

    def __init__(self, sessions: list[Session]) -> None:
        self.sessions = sessions
        self.of: dict[str, float] = {}

    def step(self, call: Callable[[Session], None], only: str | None = None) -> None:
        """Call the same for each session, and compare all arrays that the oracle's then has, or one of them."""
        ref, *others = (dict(tolerances.arrays_of(_done(session, call))) for session in self.sessions)
        for name, value in ref.items():
            if only not in (None, name):
                continue
            apart = [tolerances.relative_error(value, other[name]) for other in others]
            worst = max(math.inf if error is None else error for error in apart)
            self.of[name] = max(worst, self.of.get(name, 0.0))

    def limits(self, after: float, before: float | None = None) -> dict[str, float]:
        """Array -> so many times its distance: parameters and losses after an update, and all else before it."""
        times = {name: after if before is None or name.startswith("param ") else before for name in self.of}
        return {
            name: min(times[name] * apart, tolerances.MAX_LIMIT)
            for name, apart in self.of.items()
            if name != "accuracy"
        }


class Oracle:
    """Answers to one problem on given rows: by pass, from the initial parameters, and the losses of the first steps.

    No implementation can be nearer to the oracle than rounding lets it. Where a sum nearly cancels, or training is
    chaotic (recurrent weights whose spectral radius grows above 1 make it so), that is further than the table of limits
    allows. An array over its limit is therefore judged by the problem's own sensitivity: how far runs in float64 drift
    apart whose start differs by a few roundings of the case's type (or of another `precision`, TF32), step by step.
    Where several steps make that more than a limit can be, that step and those beyond are not judged, and the name of
    what was judged says how many steps were. Decision 0001.

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
        self.problem, self.order, self.go_on = problem, order, go_on
        inputs = data.inputs if problem.model.V is not None else data.inputs.astype(np.float64)
        self.batches = len(inputs) // problem.B
        self.params, self.data = params, replace(data, inputs=inputs)
        self.exact = replace(problem, dtype=DType.FLOAT64)
        check_shapes(params, problem.model)
        check_data(self.exact, self.data)
        self.session = NumpySession(self.exact, params, self.data, go_on)
        self._kept: dict[tuple[str, ...], Any] = {}
        self._working = RLock()  # backends that are checked side by side may ask at the same time

    def _once(self, work: Callable[..., Kept], *arguments: str) -> Kept:
        """What the work gives, done the first time that it is asked for."""
        key = (work.__name__, *arguments)
        with self._working:
            if key not in self._kept:
                with known(threadpool_limits, limits=1, user_api="blas") or nullcontext():  # small products: two wait
                    self._kept[key] = work(*arguments)
            kept: Kept = self._kept[key]
        return kept

    def answer(self, pass_: Pass) -> Outputs:
        """The outputs of one call of a pass other than the epoch, on the first batch."""
        return self._once(self._answer, pass_)

    def _answer(self, pass_: str) -> Outputs:
        return _done(self.session, _first(pass_))

    def epoch(self, precision: str | None = None) -> EpochAnswer:
        """The outputs of the epoch over `order`, or over as much of it as can be compared."""
        return self._once(self._epoch, precision or str(self.problem.dtype))

    def _epoch(self, precision: str) -> EpochAnswer:
        assert self.order is not None
        order, B = np.array(self.order, dtype=np.int64), self.problem.B
        batches = batches_of(order, B)
        drift, limits = self._drift(precision), dict[str, float]()
        for steps, rows in enumerate(batches):
            drift.step(lambda session, rows=rows: session.train_epoch(rows))  # type: ignore[misc]
            found = drift.limits(tolerances.UPDATE_DRIFTS[precision])
            # Two batches stay: a whole one, and one as short as the last of all.
            if steps > 1 and max(found.values()) > tolerances.MAX_EPOCH_LIMITS[precision]:
                order = order[: (steps - 1) * B + len(batches[-1])]
                break
            limits = found
        self.session.reset()
        outputs = _done(self.session, lambda session: session.train_epoch(order))
        return EpochAnswer(order.tolist(), -(-len(order) // B), outputs, limits)

    def losses(self) -> list[float]:
        """The loss before each of the first train steps, one batch after the other."""
        return self._once(self._losses)

    def _losses(self) -> list[float]:
        self.session.reset()
        losses = (_done(self.session, self._step(step)).loss for step in range(LOSS_STEPS))
        return [loss for loss in losses if loss is not None]

    def _loss_limits(self, precision: str) -> list[float]:
        """The limit of each loss as the problem's own sensitivity has it, as far as a loss can be judged."""
        limits: list[float] = []
        drift = self._drift(precision)
        for step in range(LOSS_STEPS):
            drift.step(self._step(step), "loss")
            limit = drift.limits(tolerances.UPDATE_DRIFTS[precision])["loss"]
            if step >= FEWEST_LOSSES and limit > tolerances.MAX_LOSS_LIMIT:
                break
            limits.append(limit)
        return limits

    def _step(self, step: int) -> Callable[[Session], None]:
        def call(session: Session) -> None:
            session.select(step % self.batches)
            session.train_step()

        return call

    def _pass_limits(self, pass_: str, precision: str) -> dict[str, float]:
        """The limit of each array of one call, as the problem's own sensitivity has it."""
        drift = self._drift(precision)
        drift.step(_first(pass_))
        return drift.limits(tolerances.UPDATE_DRIFTS[precision], tolerances.PASS_DRIFTS)

    def _drift(self, precision: str) -> _Drift:
        self.session.reset()
        return _Drift([self.session, *(self._moved(tolerances.ROUNDING[precision], start) for start in range(STARTS))])

    def _moved(self, rounding: float, start: int) -> Session:
        """A session with each parameter moved by about so much of itself.

        Two differences are off by what rounds their terms: each loss, of numbers as large as its logit, and its
        derivative, of a probability and a target. Where a row is learnt, or the rows of a batch cancel, little else is
        left.
        """
        rng = np.random.default_rng(start)
        moved = {
            name: value * (1 + rounding * rng.standard_normal(value.shape))
            for name, value in cast(self.params, DType.FLOAT64).items()
        }

        def off_loss(logits: Array, scale: float) -> float:
            return float(rounding * rng.standard_normal() * scale * np.linalg.norm(logits.ravel()))

        def off_dlosses(shape: tuple[int, ...]) -> Array:
            return rounding * rng.standard_normal(shape)

        return NumpySession(self.exact, moved, self.data, self.go_on, off_loss, off_dlosses)

    def errors(self, pass_: Pass, got: Outputs, precision: str | None = None) -> dict[str, ErrorOf]:
        """The error of every array of a pass, judged in the problem's type or in another precision.

        `got` of an epoch: over the rows of `epoch`. Where those are not the whole, the names tell.
        """
        precision = precision or str(self.problem.dtype)
        if pass_ is Pass.EPOCH:
            answer = self.epoch(precision)
            whole = -(-len(self.order or ()) // self.problem.B)
            after = "" if answer.steps == whole else f" after {answer.steps} of {whole} steps"
            errors = _widened(tolerances.errors_of(answer.outputs, got, precision, pass_), answer.limits)
            return {f"{name}{after}": e for name, e in errors.items()}
        errors = tolerances.errors_of(self.answer(pass_), got, precision, pass_)
        if all(e.ok for e in errors.values()):
            return errors
        return _widened(errors, self._once(self._pass_limits, pass_, precision))

    def loss_errors(self, got: list[float], precision: str | None = None) -> dict[str, ErrorOf]:
        """Among the losses of the first steps, at most `LOSS_STEPS`, the relative error that is nearest to its limit,
        under one name.
        """
        precision = precision or str(self.problem.dtype)
        floor = tolerances.LOSS_LIMITS[precision]
        pairs = zip(self.losses()[: len(got)], got, strict=True)
        each = [ErrorOf(tolerances.relative_error(ref, x), floor) for ref, x in pairs]
        name = f"losses of {len(got)} steps"
        if not all(e.ok for e in each):
            limits = self._once(self._loss_limits, precision)[: len(got)]
            if len(limits) < len(got):
                name = f"losses of {len(limits)} of {len(got)} steps"
            each = [replace(e, limit=max(floor, limit)) for e, limit in zip(each, limits, strict=False)]
        return {name: max(each, key=lambda e: math.inf if e.error is None else e.error / e.limit)}


def _done(session: Session, call: Callable[[Session], None]) -> Outputs:
    """What the session has computed after the call."""
    call(session)
    return session.fetch()


def _first(pass_: str) -> Callable[[Session], None]:
    """One call of a pass on the first batch, from the initial parameters."""

    def call(session: Session) -> None:
        session.reset()
        session.select(0)
        if pass_ == Pass.STEP:
            assert isinstance(session, NumpySession)
            session.every_step()
        else:
            getattr(session, pass_)()

    return call


def _widened(errors: dict[str, ErrorOf], limits: dict[str, float]) -> dict[str, ErrorOf]:
    """The errors; those over their limit with the problem's own, where that is larger."""
    return {name: e if e.ok else replace(e, limit=max(e.limit, limits.get(name, 0.0))) for name, e in errors.items()}
