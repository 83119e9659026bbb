"""A control: the recurrence as one writes it in Numba. Beside it one sees what our kernels are worth."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, ClassVar

import numba
import numpy as np
import scipy
from numpy.typing import NDArray

from rnnbench.backends.base import Backend, Outputs, Session
from rnnbench.backends.numpy import blas_threads
from rnnbench.contract import Contract
from rnnbench.data import Data, Inputs, shaped_targets
from rnnbench.kernels import naive
from rnnbench.kernels.naive import NaiveRows, NaiveTask, NaiveTrace, Rule, Weights, forward_call, training_call
from rnnbench.model import Head, Loss, Model, Optimizer, Problem, Train, blocks_of
from rnnbench.params import Array, Params, cast

PREDICT_ROWS = 512


def _weights(params: Params, model: Model, dtype: str) -> Weights:
    """Copies, with empty arrays for what the model does not have."""
    empty = {"embedding": np.zeros((0, model.E), dtype), "b_hn": np.zeros(0, dtype)}
    return Weights(**(empty | cast(params, dtype)))


def _task(problem: Problem) -> NaiveTask:
    model, T = problem.model, problem.T
    every = model.head is Head.EVERY
    return NaiveTask(
        cell=getattr(naive, model.cell.upper()),
        loss=getattr(naive, model.loss.name),
        T=T,
        S=T if every else 1,
        step_weight=model.loss_scale(1, T),
        blocks=np.array([(b.start, b.emit, b.end) for b in blocks_of(model, problem.truncation, T)], np.int64),
    )


def _some(rows: NaiveRows, some: slice) -> NaiveRows:
    return NaiveRows(rows.tokens[some], rows.inputs[some], rows.targets[some], rows.classes[some])


def _rule(train: Train) -> Rule:
    return Rule(
        updates=True,
        adam=train.optimizer is Optimizer.ADAM,
        learning_rate=float(train.learning_rate),
        beta_1=float(train.beta_1),
        beta_2=float(train.beta_2),
        epsilon=float(train.epsilon),
        clip_value=math.inf if train.clip_value is None else float(train.clip_value),
        clip_norm=math.inf if train.clip_norm is None else float(train.clip_norm),
    )


class NumbaNaiveSession(Session):
    """One problem; each pass is one compiled call."""

    def __init__(self, problem: Problem, params: Params, data: Data) -> None:
        super().__init__(problem, data)
        model = self.model = problem.model
        self.dtype, n = str(problem.dtype), len(data.inputs)
        self.task, self.rule = _task(problem), _rule(problem.train)
        self.initial = _weights(params, model, self.dtype)
        targets = shaped_targets(problem, data.targets)
        none = {"targets": np.zeros((n, 0, 0), self.dtype), "classes": np.zeros((n, 0), np.int32)}
        given = (
            {"classes": targets.reshape(n, self.task.S)}
            if model.loss is Loss.CATEGORICAL_CROSS_ENTROPY
            else {"targets": targets.reshape(n, self.task.S, model.O)}
        )
        self.rows = self._rows(data.inputs, none | given)
        self.zero = np.zeros((problem.B, model.H), self.dtype)
        self.first = (self.zero, self.zero)
        self.every = np.arange(problem.B)
        self.outputs = Outputs()
        self.reset()
        self.select(0)

    def _rows(self, inputs: Inputs, answers: dict[str, Any]) -> NaiveRows:
        n = len(inputs)
        tokens, dense = np.zeros((n, 0), np.int32), np.zeros((n, 0, 0), self.dtype)
        if self.model.V is None:
            dense = np.ascontiguousarray(inputs, self.dtype)
        else:
            tokens = np.ascontiguousarray(inputs, np.int32)
        return NaiveRows(tokens, dense, **answers)

    def _select(self, batch: int) -> None:
        B = self.problem.B
        self.batch = _some(self.rows, slice(batch * B, (batch + 1) * B))

    def _start_from(self, states: dict[str, Array] | None) -> None:
        states = states or {}
        self.first = states.get("h", self.zero), states.get("c", self.zero)

    def reset(self) -> None:
        self.weights = Weights(*(array.copy() for array in self.initial))
        self.m, self.v = (Weights(*(np.zeros_like(array) for array in self.initial)) for _ in range(2))
        self.step = 1

    def forward(self) -> None:
        loss, logits, trace = forward_call(self.task, self.weights, self.batch, *self.first)
        self.outputs = self._outputs(loss, logits, trace)

    def gradient(self) -> None:
        loss, _, logits, trace, grads = self._train(self.rule._replace(updates=False), self.batch, self.every)
        self.outputs = replace(self._outputs(loss, logits, trace), grads=self._named(grads))

    def train_step(self) -> None:
        loss, _, logits, trace, _ = self._train(self.rule, self.batch, self.every)
        self.step += 1
        self.outputs = replace(self._outputs(loss, logits, trace), params=self._named(self.weights))

    def _train_epoch(self, order: NDArray[np.int64]) -> None:
        first, self.first = self.first, (self.zero, self.zero)
        loss, right, *_ = self._train(self.rule, self.rows, order)
        self.first = first
        self.step += -(-len(order) // self.problem.B)
        accuracy = right / (len(order) * self.task.S) if self.model.loss.has_accuracy else None
        self.outputs = Outputs(loss, params=self._named(self.weights), accuracy=accuracy)

    def _train(self, rule: Rule, rows: NaiveRows, order: NDArray[np.int64]) -> Any:
        return training_call(self.task, rule, self.step, self.weights, self.m, self.v, rows, order, *self.first)

    def _predict(self, inputs: Inputs, lengths: Inputs | None) -> Array:
        none = {"targets": np.zeros((len(inputs), 0, 0), self.dtype), "classes": np.zeros((len(inputs), 0), np.int32)}
        rows, found = self._rows(inputs, none), []
        for i in range(0, len(inputs), PREDICT_ROWS):
            some = _some(rows, slice(i, i + PREDICT_ROWS))
            zero = np.zeros((len(some.tokens), self.model.H), self.dtype)
            found.append(forward_call(self.task._replace(loss=naive.NO_LOSS), self.weights, some, zero, zero)[1])
        return self._shaped(np.concatenate(found))

    def _shaped(self, logits: Array) -> Array:
        return logits if self.model.head is Head.EVERY else logits[:, 0]

    def _outputs(self, loss: float, logits: Array, trace: NaiveTrace) -> Outputs:
        states = {"h": trace.h[-1]} | ({"c": trace.c[-1]} if len(trace.c) else {})
        return Outputs(loss, self._shaped(logits), states)

    def _named(self, weights: Weights) -> dict[str, Array]:
        return {name: getattr(weights, name) for name in self.model.shapes}

    def fetch(self) -> Outputs:
        return replace(self.outputs, params={name: value.copy() for name, value in self.outputs.params.items()})

    def poison(self) -> None:
        self.outputs = Outputs()  # each pass makes its arrays anew


class NumbaNaiveBackend(Backend):
    """`np.dot` in an `@njit`, as one writes it."""

    name: ClassVar[str] = "numba+naive"

    def contract(self, problem: Problem) -> Contract:
        call = "one @njit call"
        step = "np.tanh" if problem.model.cell == "rnn" else "a loop over rows and units"
        loop = f"{call}: a loop over T of np.dot and {step}, the loss"
        back = f"{loop}, the reverse loop"
        return Contract(
            threads=blas_threads(),
            subnormals="kept",
            tf32=False,
            timed={
                "forward": loop,
                "gradient": back,
                "train_step": f"{back}, {'clipping, ' if problem.train.clips else ''}the optimizer in loops",
                "epoch": f"{call}: train steps on rows taken by index; loss and correct outputs added up",
            },
            notes="a control, and no rival; threads are those of SciPy's BLAS; all else is done by one",
            staged="rows and targets as arrays; a batch is a view of them",
            waits="the call returns when its work is done",
        )

    def libraries(self) -> dict[str, str]:
        return {"numba": numba.__version__, "scipy": scipy.__version__}

    def _prepare(self, problem: Problem, params: Params, data: Data) -> Session:
        return NumbaNaiveSession(problem, params, data)
