"""The plain equations in NumPy: one step a line. In float64 this is the oracle that every other backend must equal.

The equations of one step are those of the cell, in `cells.py`; here they are run over time, forward and back, in each
layer and direction, between embedding and head. Nothing here is written for speed, and nothing is shared with the
kernels that it judges.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_info

from rnnbench.backends.base import Backend, Outputs, Session, Steps
from rnnbench.cells import Arrays, logistic
from rnnbench.contract import Contract
from rnnbench.data import Data, Inputs, batches_of, real_steps, shaped_lengths, shaped_targets
from rnnbench.model import Block, Direction, Head, Loss, Model, Optimizer, Problem, Train, Truncation, blocks_of
from rnnbench.params import Array, Params, cast


@dataclass(frozen=True)
class DirectionTrace:
    """What one direction leaves for its backward pass: the x (T, B, E) that it read, by time; and in the order in which
    it took the steps its states by the cell's names, each (T + 1, B, H) from the initial ones on, the cell's tape of
    each step, and the rows that took it, those that are long enough.
    """

    x: Array
    states: dict[str, Array]
    tape: list[dict[str, Array]]
    rows: list[Any]

    def at(self, step: int) -> dict[str, Array]:
        """The states that a step, counted in the order in which they were taken, starts from."""
        return {name: value[step] for name, value in self.states.items()}


@dataclass(frozen=True)
class Trace:
    """What the forward pass leaves for the backward pass: a part for each of `Model.directions`."""

    model: Model
    parts: list[DirectionTrace]
    read: Array  # by the head: (B, D H) or (B, T, D H)
    logits: Array  # (B, O) or (B, T, O); 0 where nothing is emitted
    lengths: Inputs | None  # (B,)

    def at(self, step: int) -> dict[str, Array]:
        """The states of all directions that a step, counted in the order of each, starts from; T: the last ones."""
        pairs = zip(self.model.directions, self.parts, strict=True)
        return {name: value for direction, part in pairs for name, value in direction.named(part.at(step)).items()}


def forward_pass(
    model: Model, params: Params, inputs: Inputs, initial: Arrays | None, lengths: Inputs | None = None
) -> Trace:
    """Run all T steps. inputs (B, T) tokens or (B, T, E); initial states by name, each (B, H), or None for zeros;
    lengths (B,) or None where each row has all T steps.
    """
    dtype = params["W_hy"].dtype
    x = (inputs.astype(dtype, copy=False) if model.V is None else params["embedding"][inputs]).swapaxes(0, 1)
    T, parts, stack = len(x), list[DirectionTrace](), model.stack
    for layer in stack:
        for direction in layer:
            states = None if initial is None else direction.states_of(initial)
            parts.append(_run(direction, direction.params_of(params), x, states, lengths))
        own = parts[-len(layer) :]
        if model.head is Head.EVERY or layer is not stack[-1]:
            x = _side_by_side([_emitted(d, part, lengths) for d, part in zip(layer, own, strict=True)])
    last = model.head is Head.LAST
    read = _side_by_side([part.states["h"][T] for part in own]) if last else x.swapaxes(0, 1)
    logits = read @ params["W_hy"] + params["b_y"]
    if lengths is not None and model.head is Head.EVERY:
        logits = np.where(real_steps(lengths, T)[..., None], logits, dtype.type(0))
    return Trace(model, parts, read, logits, lengths)


def _side_by_side(each: list[Array]) -> Array:
    """Arrays of the directions of a layer in one, (..., D H)."""
    return each[0] if len(each) == 1 else np.concatenate(each, axis=-1)


def _step_order(direction: Direction, start: int, end: int) -> range:
    """The times of steps [start, end) in the order in which the direction takes them."""
    return range(end - 1, start - 1, -1) if direction.back else range(start, end)


def _run(
    direction: Direction, params: Arrays, x: Array, initial: Arrays | None, lengths: Inputs | None
) -> DirectionTrace:
    """One direction over x (T, B, E), under the cell's names. A row takes the steps before its length and no others."""
    cell, (T, B, _) = direction.cell, x.shape
    states = {name: np.zeros((T + 1, B, direction.H), x.dtype) for name in cell.states}
    for name, value in (initial or {}).items():
        states[name][0] = value
    trace = DirectionTrace(x, states, [], [])
    for k, t in enumerate(_step_order(direction, 0, T)):
        rows = slice(None) if lengths is None else np.flatnonzero(t < lengths)
        step = cell.forward(params, x[t][rows], {name: value[rows] for name, value in trace.at(k).items()})
        for name, value in step.after.items():
            if lengths is not None:
                states[name][k + 1] = states[name][k]
            states[name][k + 1][rows] = value
        trace.tape.append(step.tape)
        trace.rows.append(rows)
    return trace


def _emitted(direction: Direction, part: DirectionTrace, lengths: Inputs | None) -> Array:
    """The state h after each step, (T, B, H), by time; 0 where a row has no such step. Without lengths a view."""
    after = part.states["h"][1:]
    if lengths is None:
        return after[::-1] if direction.back else after
    h = np.zeros_like(after)
    for k, t in enumerate(_step_order(direction, 0, len(h))):
        h[t][part.rows[k]] = after[k][part.rows[k]]
    return h


def losses(model: Model, z: Array, y: Inputs) -> Array:
    """The loss of each emitted output, (B,) or (B, T), from logits z and targets y laid out by `shaped_targets`."""
    match model.loss:
        case Loss.BINARY_CROSS_ENTROPY:
            return (np.logaddexp(0, z) - y * z).mean(axis=-1)
        case Loss.CATEGORICAL_CROSS_ENTROPY:
            # log(sum(exp(z - top))) + top - z[y], of confident rows without rounding what is added to 1, or top itself
            best = z.argmax(axis=-1, keepdims=True)
            top = np.take_along_axis(z, best, axis=-1)
            others = np.where(np.arange(model.O) == best, top - top, np.exp(z - top)).sum(axis=-1)
            return np.log1p(others) + (top - np.take_along_axis(z, y[..., None], axis=-1))[..., 0]
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
    """Gradients by name, from inputs (B, T) or (B, T, E) and dz, the derivative of the loss by the logits, (B, O) or
    (B, T, O). Werbos, 1990; cut as `Truncation` says.
    """
    lengths, (T, B, _) = trace.lengths, trace.parts[0].x.shape
    grads = {name: np.zeros_like(value) for name, value in params.items()}
    if lengths is not None and model.head is Head.EVERY:
        dz = np.where(real_steps(lengths, T)[..., None], dz, dz.dtype.type(0))
    grads["W_hy"] += trace.read.reshape(-1, model.read).T @ dz.reshape(-1, model.O)
    grads["b_y"] += dz.reshape(-1, model.O).sum(axis=0)
    for block in blocks_of(model, truncation, T, lengths is not None):
        steps = block.end - block.start
        above = np.zeros((steps, B, model.read), dz.dtype)  # derivatives by what a layer emits, by time
        last = np.zeros((B, model.read), dz.dtype)  # and by its last states
        if model.head is Head.EVERY:
            above[block.emit - block.start :] = (dz[:, block.emit : block.end] @ params["W_hy"].T).swapaxes(0, 1)
        else:
            ends = slice(None) if lengths is None else (block.emit < lengths) & (lengths <= block.end)
            last[ends] = dz[ends] @ params["W_hy"].T
        parts = list(trace.parts)
        for layer in reversed(model.stack):
            is_read = layer[0].layer > 0 or model.V is not None  # dense inputs learn nothing
            below = np.zeros((steps, B, layer[0].E), dz.dtype) if is_read else None
            for direction in reversed(layer):
                own = slice(model.H, None) if direction.back else slice(model.H)
                _run_back(
                    direction, params, parts.pop(), block, above[..., own], last[:, own], grads, below,
                )  # fmt: skip
            if below is not None:
                above, last = below, np.zeros_like(last)
        if model.V is not None:
            np.add.at(grads["embedding"], inputs[:, block.start : block.end].T, above)
    return grads


def _run_back(
    direction: Direction,
    params: Params,
    part: DirectionTrace,
    block: Block,
    above: Array,
    last: Array,
    grads: dict[str, Array],
    below: Array | None,
) -> None:
    """One direction back over the steps of a block, adding to `grads` and to `below` (steps, B, E), where that is read.

    above (steps, B, H): the derivatives by what it emitted; last (B, H): by its last state h.
    """
    own, T = direction.params_of(params), len(part.x)
    dstates = {name: np.zeros_like(last) for name in direction.cell.states}
    dstates["h"] += last
    for t in reversed(_step_order(direction, block.start, block.end)):
        k = T - 1 - t if direction.back else t
        rows, i = part.rows[k], t - block.start
        before, after = ({name: value[rows] for name, value in part.at(at).items()} for at in (k, k + 1))
        dafter = {name: value[rows] for name, value in dstates.items()}
        dafter["h"] = dafter["h"] + above[i][rows]
        step = direction.cell.backward(own, part.x[t][rows], before, after, part.tape[k], dafter)
        for name, grad in direction.named(step.grads).items():
            grads[name] += grad
        if below is not None:
            below[i][rows] += step.delta @ own["W_xh"].T
        for name, value in step.before.items():
            dstates[name][rows] = value


def correct(model: Model, z: Array, y: Inputs) -> NDArray[np.bool_] | None:
    """Which outputs are classified right, (B,) or (B, T); None for losses without classes."""
    match model.loss:
        case Loss.BINARY_CROSS_ENTROPY:
            return ((z > 0) == (y > 0.5)).all(axis=-1)
        case Loss.CATEGORICAL_CROSS_ENTROPY:
            return z.argmax(axis=-1) == y
        case _:
            return None


def emitted(model: Model, values: NDArray[Any], lengths: Inputs | None) -> NDArray[Any]:
    """Of `losses`, `correct` or logits what is emitted: as they are, or with lengths and `Head.EVERY` the (n, ...) of
    real steps.
    """
    if lengths is None or model.head is Head.LAST:
        return values
    return values[real_steps(lengths, values.shape[1])]


def loss_scale(model: Model, lengths: Inputs | None, B: int, T: int) -> float:
    """`Model.loss_scale` of a batch of B rows."""
    return model.loss_scale(B, T, None if lengths is None else int(lengths.sum()))


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
        self.targets, self.lengths = shaped_targets(problem, data.targets), shaped_lengths(problem, data.lengths)
        self.states: Arrays | None = None
        self._stepped: tuple[Array, Arrays] | None = None
        self.outputs = Outputs()
        self.reset()
        self.select(0)

    @property
    def outputs(self) -> Outputs:
        """What the last pass left. Of a single step it is put together here, as that would be a tenth of the step."""
        if self._stepped is None:
            return self._outputs
        logits, states = self._stepped
        return Outputs(logits=logits, states=dict(states))

    @outputs.setter
    def outputs(self, outputs: Outputs) -> None:
        self._outputs, self._stepped = outputs, None

    def _select(self, batch: int) -> None:
        self.batch = self._rows(slice(batch * self.problem.B, (batch + 1) * self.problem.B))

    def _rows(self, rows: Any) -> Data:
        return Data(self.inputs[rows], self.targets[rows], None if self.lengths is None else self.lengths[rows])

    def _start_from(self, states: dict[str, Array] | None) -> None:
        self.states = states

    def reset(self) -> None:
        self.params = {name: value.copy() for name, value in self.initial.items()}
        self.stepper = Stepper(self.problem.train, self.params)

    def forward(self) -> None:
        self._forward(self.batch, self.states)

    def gradient(self) -> None:
        self._gradient(self.batch, self.states)

    def train_step(self) -> None:
        self._train_step(self.batch, self.states)

    def _train_epoch(self, order: NDArray[np.int64]) -> None:
        total, right, count = 0.0, 0, 0
        has_classes = True
        for rows in batches_of(order, self.problem.B):
            batch = self._rows(rows)
            self._train_step(batch, None)
            assert self.outputs.loss is not None
            assert self.outputs.logits is not None
            total += self.outputs.loss * len(rows)
            found = correct(self.model, self.outputs.logits, batch.targets)
            has_classes = found is not None
            if found is not None:
                found = emitted(self.model, found, batch.lengths)
                right, count = right + int(found.sum()), count + found.size
        accuracy = right / max(1, count) if has_classes else None
        self.outputs = Outputs(loss=total / len(order), params=self.params, accuracy=accuracy)

    def _predict(self, inputs: Inputs, lengths: Inputs | None) -> Array:
        parts = []
        for i in range(0, len(inputs), 512):
            part = None if lengths is None else lengths[i : i + 512]
            parts.append(forward_pass(self.model, self.params, inputs[i : i + 512], None, part).logits)
        return np.concatenate(parts)

    def every_step(self) -> None:
        """Logits of each step, (B, T, O), and the last states: what all steps one by one must come to."""
        if self.before_forward is not None:
            self.before_forward()
        model = replace(self.model, head=Head.EVERY)
        trace = forward_pass(model, self.params, self.batch.inputs, self.states)
        self.outputs = Outputs(logits=trace.logits, states=dict(trace.at(self.problem.T)))

    def begin_steps(self) -> Steps:
        model, params = self.model, self.params
        zeros = {name: np.zeros((self.problem.B, model.H), str(self.problem.dtype)) for name in model.states}
        states = zeros if self.states is None else dict(self.states)
        layers = [(direction, direction.params_of(params)) for direction in model.directions]

        def take(x: Inputs) -> None:
            h = x if model.V is None else params["embedding"][x]
            for direction, own in layers:
                after = direction.cell.forward(own, h, direction.states_of(states)).after
                states.update(direction.named(after))
                h = after["h"]
            self._stepped = h @ params["W_hy"] + params["b_y"], states

        return Steps(list(np.ascontiguousarray(self.batch.inputs.swapaxes(0, 1))), take)

    def fetch(self) -> Outputs:
        return self.outputs

    def poison(self) -> None:
        done = self.outputs
        for array in (done.logits, *done.states.values(), *done.grads.values()):
            if array is not None:
                array.fill(np.nan)
        self.outputs = Outputs()

    def _forward(self, batch: Data, states: Arrays | None) -> Trace:
        if self.before_forward is not None:
            self.before_forward()
        trace = forward_pass(self.model, self.params, batch.inputs, states, batch.lengths)
        with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinity come out as what they are
            scale = self._scale(batch)
            each = emitted(self.model, losses(self.model, trace.logits, batch.targets), batch.lengths)
            loss = float(each.sum() * scale)
            if self.off_loss is not None:
                loss += self.off_loss(trace.logits, scale)
        last = {name: value.copy() for name, value in trace.at(self.problem.T).items()}
        self.outputs = Outputs(loss=loss, logits=trace.logits, states=last)
        return trace

    def _scale(self, batch: Data) -> float:
        return loss_scale(self.model, batch.lengths, len(batch.inputs), self.problem.T)

    def _gradient(self, batch: Data, states: Arrays | None) -> dict[str, Array]:
        trace = self._forward(batch, states)
        dz = dlosses(self.model, trace.logits, batch.targets)
        if self.off_dlosses is not None:
            dz = dz + self.off_dlosses(dz.shape)
        dz = (dz * trace.logits.dtype.type(self._scale(batch))).astype(trace.logits.dtype)
        grads = backward_pass(self.model, self.params, batch.inputs, trace, dz, self.problem.truncation)
        done = self.outputs
        self.outputs = Outputs(done.loss, done.logits, done.states, grads)
        return grads

    def _train_step(self, batch: Data, states: Arrays | None) -> None:
        grads = clip(self.problem.train, self._gradient(batch, states))
        self.stepper.update(self.params, grads)
        done = self.outputs
        self.outputs = Outputs(done.loss, done.logits, done.states, params=self.params)


def blas_threads() -> int:
    """The threads that NumPy's BLAS may use for a product."""
    try:
        pools = threadpool_info()
    except OSError:  # a system that does not say what is loaded
        return int(os.environ.get("OPENBLAS_NUM_THREADS", 1))
    return max((pool["num_threads"] for pool in pools if pool["user_api"] == "blas"), default=1)


class NumpyBackend(Backend):
    """NumPy, one operation at a time; products by its BLAS."""

    name: ClassVar[str] = "numpy"
    streams: ClassVar[bool] = True

    def contract(self, problem: Problem) -> Contract:
        cell = problem.model.cell
        loop = f"a Python loop over T of @ and {'np.tanh' if cell == 'rnn' else f'the equations of the {cell}'}"
        loop += ", one for each layer and direction" * (len(problem.model.directions) > 1)
        loop += ", each step on the rows that are long enough" * problem.lengths
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
                "step": "@ and the equations of the cell, once for each layer; the head",
            },
            notes="threads are those of the BLAS; all else is done by one",
            staged="rows and targets as arrays; a batch is a view of them",
            waits="calls return when their work is done",
        )

    def libraries(self) -> dict[str, str]:
        return {"numpy": np.__version__}

    def _prepare(self, problem: Problem, params: Params, data: Data) -> Session:
        return NumpySession(problem, params, data)
