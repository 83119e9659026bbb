"""A backend of one's own: the recurrence as one einsum a step, checked and timed beside the others.

    python -m rnnbench verify -b examples/own_backend.py:EinsumBackend -w parity --dtype float64
    python -m rnnbench run -b examples/own_backend.py:EinsumBackend,numpy -w parity --pass forward --quick

A `Backend` prepares a `Session`; its methods do the measured work. This one computes the forward pass by itself and
says that it does nothing else. `rnnbench/backends/numpy.py` has all passes in plain NumPy.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

import rnnbench as rb
from rnnbench.backends.base import Outputs, Session
from rnnbench.backends.numpy import losses
from rnnbench.contract import Contract
from rnnbench.data import shaped_targets
from rnnbench.model import Case, Head, Pass
from rnnbench.params import cast


class EinsumSession(Session):
    """One problem. What the harness calls outside the clock is `_select`, `reset` and `fetch`."""

    def __init__(self, problem, params, data):
        super().__init__(problem, data)
        self.params, kind = cast(params, problem.dtype), np.int32 if problem.model.V else str(problem.dtype)
        self.inputs, self.targets = np.asarray(data.inputs, kind), shaped_targets(problem, data.targets)
        self.initial, self.outputs = None, Outputs()
        self.select(0)

    def _select(self, batch):
        rows = slice(batch * self.problem.B, (batch + 1) * self.problem.B)
        self.x, self.y = self.inputs[rows], self.targets[rows]

    def _start_from(self, states):
        self.initial = None if states is None else states["h"]

    def reset(self):
        """There is nothing to put back: no pass here changes a parameter."""

    def forward(self):
        model, p = self.problem.model, self.params
        h = np.zeros((len(self.x), model.H), p["W_hh"].dtype) if self.initial is None else self.initial
        states = []
        for t in range(self.problem.T):
            x = p["embedding"][self.x[:, t]] if model.V else self.x[:, t]
            h = np.tanh(np.einsum("be,eh->bh", x, p["W_xh"]) + np.einsum("bh,hk->bk", h, p["W_hh"]) + p["b_h"])
            states.append(h)
        read = np.stack(states, axis=1) if model.head is Head.EVERY else h
        logits = read @ p["W_hy"] + p["b_y"]
        loss = losses(model, logits, self.y).sum() * model.loss_scale(len(self.x), self.problem.T)
        self.outputs = Outputs(float(loss), logits, {"h": h})

    def fetch(self):
        return self.outputs

    def gradient(self):
        raise NotImplementedError

    train_step = gradient

    def _train_epoch(self, order):
        raise NotImplementedError

    def _predict(self, inputs, lengths):
        raise NotImplementedError


class EinsumBackend(rb.Backend):
    """NumPy's einsum, forward only."""

    name: ClassVar[str] = "einsum"

    def _unsupported(self, case: Case) -> str | None:
        return None if case.pass_ is Pass.FORWARD else "only the forward pass is written"

    def contract(self, problem):
        return Contract(
            threads=1,
            subnormals="kept",
            tf32=False,
            timed={"forward": "a Python loop over T of einsum and tanh; the loss"},
        )

    def libraries(self):
        return {"numpy": np.__version__}

    def _prepare(self, problem, params, data):
        return EinsumSession(problem, params, data)
