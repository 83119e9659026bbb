"""The plain equations in NumPy: one step a line. In float64 this is the oracle that every other backend must equal.

The equations of one step are those of the cell, in `cells.py`; here they are run over time, forward and back, between
embedding and head. Nothing here is written for speed, and nothing is shared with the kernels that it judges.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_info

from rnnbench.backends.base import Backend, Outputs, Session
from rnnbench.cells import Arrays, logistic
from rnnbench.contract import Contract
from rnnbench.data import Data, Inputs, batches_of, shaped_targets
from rnnbench.model import Head, Loss, Model, Optimizer, Problem, Train, Truncation, blocks_of
from rnnbench.params import Array, Params, cast


@dataclass(frozen=True)
class Trace:
    """What the forward pass leaves for the backward pass, time first: x (T, B, E); states by name, each (T + 1, B, H)
    from the initial ones on; the cell's tape of each step.
    """

    x: Array
    states: dict[str, Array]
    tape: list[dict[str, Array]]
    logits: Array  # (B, O) or (B, T, O)

    def at(self, t: int) -> dict[str, Array]:
        """The states that step t starts from."""
        return {name: value[t] for name, value in self.states.items()}


def forward_pass(model: Model, params: Params, inputs: Inputs, initial: Arrays | None) -> Trace:
    """Run all T steps. inputs (B, T) tokens or (B, T, E); initial states by name, each (B, H), or None for zeros."""
    cell, dtype = model.recurrence, params["W_hh"].dtype
    x = (inputs.astype(dtype, copy=False) if model.V is None else params["embedding"][inputs]).swapaxes(0, 1)
    T, B, _ = x.shape
    states = {name: np.zeros((T + 1, B, model.H), dtype) for name in cell.states}
    for name, value in (initial or {}).items():
        states[name][0] = value
    trace = Trace(x, states, [], np.empty(0))
    for t in range(T):
        step = cell.forward(params, x[t], trace.at(t))
        for name, value in step.after.items():
            states[name][t + 1] = value
        trace.tape.append(step.tape)
    read = states["h"][T] if model.head is Head.LAST else states["h"][1:].swapaxes(0, 1)
    return replace(trace, logits=read @ params["W_hy"] + params["b_y"])


def losses(model: Model, z: Array, y: Inputs) -> Array:
    """The loss of each emitted output, (B,) or (B, T), from logits z and targets y laid out by `shaped_targets`."""
    match model.loss:
        case Loss.BINARY_CROSS_ENTROPY:
            return (np.logaddexp(0, z) - y * z).mean(axis=-1)
        case Loss.CATEGORICAL_CROSS_ENTROPY:
            top = z.max(axis=-1, keepdims=True)
            log_sum = np.log(np.exp(z - top).sum(axis=-1)) + top[..., 0]
            return log_sum - np.take_along_axis(z, y[..., None], axis=-1)[..., 0]
        case Loss.SQUARED_ERROR:
            return (0.5 * (z - y) ** 2).sum(axis=-1)
        case Loss.SIGMOID_SQUARED_ERROR:
            return (0.5 * (logistic(z) - y) ** 2).sum(axis=-1)


def dlosses(model: Model, z: Array, y: Inputs) -> Array:
    """The derivative of each `losses` value by its own logits, shaped like z."""
    match model.loss:
        case Loss.BINARY_CROSS_ENTROPY:
            return (logistic(z) - y) / model.O
        case Loss.CATEGORICAL_CROSS_ENTROPY:
            e = np.exp(z - z.max(axis=-1, keepdims=True))
            return e / e.sum(axis=-1, keepdims=True) - (np.arange(model.O) == y[..., None])
        case Loss.SQUARED_ERROR:
            return z - y
        case Loss.SIGMOID_SQUARED_ERROR:
            p = logistic(z)
            return (p - y) * p * (1 - p)


def backward_pass(
    model: Model, params: Params, inputs: Inputs, trace: Trace, dz: Array, truncation: Truncation | None
) -> dict[str, Array]:
    """Gradients by name, from dz, the derivative of the loss by the logits. Werbos, 1990; cut as `Truncation` says."""
    T, B, _ = trace.x.shape
    grads = {name: np.zeros_like(value) for name, value in params.items()}
    for block in blocks_of(model, truncation, T):
        dstates = {name: np.zeros((B, model.H), dz.dtype) for name in model.recurrence.states}
        for t in reversed(range(block.start, block.end)):
            dy = _dlogits_of_step(model, dz, t, T) if t >= block.emit else None
            if dy is not None:
                grads["W_hy"] += trace.states["h"][t + 1].T @ dy
                grads["b_y"] += dy.sum(axis=0)
                dstates["h"] = dstates["h"] + dy @ params["W_hy"].T
            step = model.recurrence.backward(params, trace.x[t], trace.at(t), trace.at(t + 1), trace.tape[t], dstates)
            for name, grad in step.grads.items():
                grads[name] += grad
            if model.V is not None:
                np.add.at(grads["embedding"], inputs[:, t], step.delta @ params["W_xh"].T)
            dstates = step.before
    return grads


def _dlogits_of_step(model: Model, dz: Array, t: int, T: int) -> Array | None:
    """The (B, O) part of dz that step t emits, or None where it emits nothing."""
    if model.head is Head.EVERY:
        return dz[:, t]
    return dz if t == T - 1 else None


def correct(model: Model, z: Array, y: Inputs) -> NDArray[np.bool_] | None:
    """Which outputs are classified right, (B,) or (B, T); None for losses without classes."""
    match model.loss:
        case Loss.BINARY_CROSS_ENTROPY:
            return ((z > 0) == (y > 0.5)).all(axis=-1)
        case Loss.CATEGORICAL_CROSS_ENTROPY:
            return z.argmax(axis=-1) == y
        case _:
            return None


def clip(train: Train, grads: dict[str, Array]) -> dict[str, Array]:
    """Clipped gradients. By norm: Pascanu et al., 2013, Algorithm 1, with one norm over all parameters."""
    if train.clip_value is not None:
        return {name: g.clip(-train.clip_value, train.clip_value) for name, g in grads.items()}
    if train.clip_norm is not None:
        norm = np.sqrt(sum(float((g * g).sum()) for g in grads.values()))
        scale = train.clip_norm / max(norm, train.clip_norm)
        return {name: g * g.dtype.type(scale) for name, g in grads.items()}
    return grads


class Stepper:
    """SGD, or Adam (Kingma and Ba, 2015, Algorithm 1) with its moments."""

    def __init__(self, train: Train, params: Params) -> None:
        self.train = train
        self.step = 0
        adam = train.optimizer is Optimizer.ADAM
        self.m = {name: np.zeros_like(p) for name, p in params.items()} if adam else {}
        self.v = {name: np.zeros_like(p) for name, p in params.items()} if adam else {}

    def update(self, params: dict[str, Array], grads: Params) -> None:
        """Change the parameters in place by one step."""
        train = self.train
        self.step += 1
        for name, g in grads.items():
            if train.optimizer is Optimizer.SGD:
                params[name] -= train.learning_rate * g
                continue
            self.m[name] = train.beta_1 * self.m[name] + (1 - train.beta_1) * g
            self.v[name] = train.beta_2 * self.v[name] + (1 - train.beta_2) * g * g
            m_hat = self.m[name] / (1 - train.beta_1**self.step)
            v_hat = self.v[name] / (1 - train.beta_2**self.step)
            params[name] -= train.learning_rate * m_hat / (np.sqrt(v_hat) + train.epsilon)


class NumpySession(Session):
    """One problem in NumPy.

    The oracle has something called before each forward pass, and adds something to each loss (by its logits and scale)
    and to the derivatives of the losses (by their shape).
    """

    def __init__(
        self,
        problem: Problem,
        params: Params,
        data: Data,
        before_forward: Callable[[], None] | None = None,
        off_loss: Callable[[Array, float], float] | None = None,
        off_dlosses: Callable[[tuple[int, ...]], Array] | None = None,
    ) -> None:
        super().__init__(problem, data)
        self.before_forward, self.off_loss, self.off_dlosses = before_forward, off_loss, off_dlosses
        self.model = problem.model
        self.initial = cast(params, problem.dtype)
        self.inputs = np.ascontiguousarray(data.inputs, dtype=np.int32 if self.model.V is not None else problem.dtype)
        self.targets = shaped_targets(problem, data.targets)
        self.states: Arrays | None = None
        self.outputs = Outputs()
        self.reset()
        self.select(0)

    def _select(self, batch: int) -> None:
        rows = slice(batch * self.problem.B, (batch + 1) * self.problem.B)
        self.x, self.y = self.inputs[rows], self.targets[rows]

    def _start_from(self, states: dict[str, Array] | None) -> None:
        self.states = states

    def reset(self) -> None:
        self.params = {name: value.copy() for name, value in self.initial.items()}
        self.stepper = Stepper(self.problem.train, self.params)

    def forward(self) -> None:
        self._forward(self.x, self.y, self.states)

    def gradient(self) -> None:
        self._gradient(self.x, self.y, self.states)

    def train_step(self) -> None:
        self._train_step(self.x, self.y, self.states)

    def _train_epoch(self, order: NDArray[np.int64]) -> None:
        total, right, count = 0.0, 0, 0
        has_classes = True
        for rows in batches_of(order, self.problem.B):
            y = self.targets[rows]
            self._train_step(self.inputs[rows], y, None)
            assert self.outputs.loss is not None
            assert self.outputs.logits is not None
            total += self.outputs.loss * len(rows)
            found = correct(self.model, self.outputs.logits, y)
            has_classes = found is not None
            right += 0 if found is None else int(found.sum())
            count += 1 if found is None else found.size
        accuracy = right / count if has_classes else None
        self.outputs = Outputs(loss=total / len(order), params=self.params, accuracy=accuracy)

    def _predict(self, inputs: Inputs) -> Array:
        return np.concatenate(
            [
                forward_pass(self.model, self.params, inputs[i : i + 512], None).logits
                for i in range(0, len(inputs), 512)
            ]
        )

    def fetch(self) -> Outputs:
        return self.outputs

    def poison(self) -> None:
        done = self.outputs
        for array in (done.logits, *done.states.values(), *done.grads.values()):
            if array is not None:
                array.fill(np.nan)
        self.outputs = Outputs()

    def _forward(self, x: Inputs, y: Inputs, states: Arrays | None) -> Trace:
        if self.before_forward is not None:
            self.before_forward()
        trace = forward_pass(self.model, self.params, x, states)
        with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinity come out as what they are
            scale = self.model.loss_scale(len(x), self.problem.T)
            loss = float(losses(self.model, trace.logits, y).sum() * scale)
            if self.off_loss is not None:
                loss += self.off_loss(trace.logits, scale)
        last = {name: value[-1].copy() for name, value in trace.states.items()}
        self.outputs = Outputs(loss=loss, logits=trace.logits, states=last)
        return trace

    def _gradient(self, x: Inputs, y: Inputs, states: Arrays | None) -> dict[str, Array]:
        trace = self._forward(x, y, states)
        scale = trace.logits.dtype.type(self.model.loss_scale(len(x), self.problem.T))
        dz = dlosses(self.model, trace.logits, y)
        if self.off_dlosses is not None:
            dz = dz + self.off_dlosses(dz.shape)
        dz = dz * scale
        grads = backward_pass(self.model, self.params, x, trace, dz.astype(trace.logits.dtype), self.problem.truncation)
        done = self.outputs
        self.outputs = Outputs(done.loss, done.logits, done.states, grads)
        return grads

    def _train_step(self, x: Inputs, y: Inputs, states: Arrays | None) -> None:
        grads = clip(self.problem.train, self._gradient(x, y, states))
        self.stepper.update(self.params, grads)
        done = self.outputs
        self.outputs = Outputs(done.loss, done.logits, done.states, params=self.params)


def blas_threads() -> int:
    """The threads that NumPy's BLAS may use for a product."""
    return max((pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"), default=1)


class NumpyBackend(Backend):
    """NumPy, one operation at a time; products by its BLAS."""

    name: ClassVar[str] = "numpy"

    def contract(self, problem: Problem) -> Contract:
        cell = problem.model.cell
        loop = f"a Python loop over T of @ and {'np.tanh' if cell == 'rnn' else f'the equations of the {cell}'}"
        scatter = "" if problem.model.V is None else "; np.add.at for the embedding"
        clipped = "clipping, " if problem.train.clips else ""
        return Contract(
            threads=blas_threads(),
            subnormals="kept",
            tf32=False,
            timed={
                "forward": f"{loop}; the loss",
                "gradient": f"{loop}; the loss; the reverse loop{scatter}",
                "train_step": f"gradient, {clipped}the optimizer's equations on whole arrays",
                "epoch": "a Python loop of train steps over rows gathered by index; loss and hits added up",
            },
            notes="threads are those of the BLAS; all else is done by one",
            staged="rows and targets as arrays; a batch is a view of them",
            waits="calls return when their work is done",
        )

    def libraries(self) -> dict[str, str]:
        return {"numpy": np.__version__}

    def _prepare(self, problem: Problem, params: Params, data: Data) -> Session:
        return NumpySession(problem, params, data)
