"""Backends that cheat the clock in one way each, for the tests of the audit. They compute with NumPy."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from rnnbench.backends.base import Outputs, Session
from rnnbench.backends.numpy import NumpyBackend, NumpySession
from rnnbench.contract import Contract
from rnnbench.params import Params


def made_of(session: type[NumpySession], **contract) -> NumpyBackend:
    """A backend of these sessions, its contract changed."""

    class Cheat(NumpyBackend):
        def _prepare(self, problem, params, data) -> Session:
            return session(problem, params, data)

        def contract(self, problem) -> Contract:
            return replace(super().contract(problem), **contract)

    return Cheat()


class KeepsFirstAnswer(NumpySession):
    """Computes a batch once."""

    def __init__(self, problem, params, data):
        self.known: dict[int, Outputs] = {}
        super().__init__(problem, params, data)

    def select(self, batch):
        super().select(batch)
        self.number = batch

    def forward(self):
        if self.number not in self.known:
            super().forward()
            self.known[self.number] = self.outputs
        self.outputs = self.known[self.number]

    def poison(self):
        self.outputs = Outputs()


class Memoises(NumpySession):
    """Right, always: it knows which batch, which parameters, and what the answer was the last time."""

    memo: tuple[object, Outputs] | None = None

    def _remembered(self, key, compute: Callable[[], None]):
        if self.memo is None or self.memo[0] != key:
            compute()
            self.memo = key, self.outputs
        self.outputs = self.memo[1]

    def _key(self, *more):
        return self.batch.inputs.tobytes(), *(value.tobytes() for value in self.params.values()), *more

    def forward(self):
        self._remembered(self._key("forward"), super().forward)

    def gradient(self):
        self._remembered(self._key("gradient"), super().gradient)

    def poison(self):
        self.outputs = Outputs()


class DoesNotWait(NumpySession):
    """Starts a thread, as slow to begin as a device; `synchronize` does nothing; whoever needs the answer waits."""

    thread: threading.Thread | None = None

    def _begin(self, work):
        self._finish()
        self.thread = threading.Timer(0.01, work)
        self.thread.start()

    def _finish(self):
        if self.thread is not None:
            self.thread.join()
            self.thread = None

    def forward(self):
        self._begin(super().forward)

    def gradient(self):
        self._begin(super().gradient)

    def train_step(self):
        self._begin(super().train_step)

    def _train_epoch(self, order):
        self._begin(lambda: NumpySession._train_epoch(self, order))

    def reset(self):
        self._finish()
        super().reset()

    def select(self, batch):
        self._finish()
        super().select(batch)

    def poison(self):
        self._finish()
        super().poison()

    def fetch(self):
        self._finish()
        return super().fetch()


class ComputesOnFetch(DoesNotWait):
    """Notes what was asked, and does it when somebody looks."""

    todo: Callable[[], None] | None = None

    def _begin(self, work):
        self._finish()
        self.todo = work

    def _finish(self):
        if self.todo is not None:
            todo, self.todo = self.todo, None
            todo()


class PacksAhead(NumpySession):
    """Reads its weights when it is put back, not in the pass."""

    def reset(self):
        super().reset()
        self.packed = {name: value.copy() for name, value in self.params.items()}

    def _forward(self, batch, state):
        current, self.params = self.params, self.packed
        try:
            return super()._forward(batch, state)
        finally:
            self.params = current


class WorksInSelect(NumpySession):
    """Has the answer before it is asked; asked again, or with other parameters, it computes."""

    ready: tuple[Params, Outputs] | None = None

    def select(self, batch):
        super().select(batch)
        super().forward()
        self.ready = {name: value.copy() for name, value in self.params.items()}, self.outputs

    def forward(self):
        ready, self.ready = self.ready, None
        if ready and all(np.array_equal(a, b) for a, b in zip(ready[0].values(), self.params.values(), strict=True)):
            self.outputs = ready[1]
            return
        super().forward()

    def poison(self):
        self.outputs, self.ready = Outputs(), None


class OneOrder(NumpySession):
    """Goes through its rows in the first order that it was given."""

    order = None

    def _train_epoch(self, order):
        self.order = order if self.order is None else self.order
        super()._train_epoch(self.order)


class OldGradient(NumpySession):
    """Gives the gradient of the embedding of the call before."""

    before = None

    def gradient(self):
        super().gradient()
        new = self.outputs.grads["embedding"].copy()
        if self.before is not None:
            self.outputs.grads["embedding"][:] = self.before
        self.before = new


class OldState(NumpySession):
    """Writes the last state in its first call, and leaves it there."""

    kept = None

    def forward(self):
        super().forward()
        self.kept = self.outputs.states if self.kept is None else self.kept
        self.outputs = replace(self.outputs, states=self.kept)


class WiderType(NumpySession):
    """Answers in float64, whatever was asked."""

    def fetch(self):
        return replace(super().fetch(), logits=self.outputs.logits.astype(np.float64))


class Flushes(NumpySession):
    """No subnormal number in its gradients."""

    def _gradient(self, batch, state):
        grads = super()._gradient(batch, state)
        for g in grads.values():
            g[np.abs(g) < np.finfo(g.dtype).tiny] = 0
        return grads
