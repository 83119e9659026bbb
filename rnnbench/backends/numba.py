"""Our CPU kernels behind the protocol: a problem becomes arrays and codes, a pass becomes one compiled call."""

from __future__ import annotations

import math
from typing import ClassVar

import llvmlite
import numba
import numpy as np
from numpy.typing import NDArray

from rnnbench.backends.base import Backend, Contract, Data, Inputs, Outputs, Session, batches_of, shaped_targets
from rnnbench.kernels.cpu import losses, passes
from rnnbench.kernels.cpu.buffers import Batch, Buffers, Optimizer, Sizes, Task, Update, aligned, make_buffers, views
from rnnbench.kernels.cpu.buffers import Params as KernelParams
from rnnbench.kernels.cpu.flush import CAN_FLUSH
from rnnbench.kernels.cpu.simd import padded, register_bytes
from rnnbench.model import Case, Head, Loss, Pass, Problem, StepSum, TrainSpec, blocks_of
from rnnbench.model import Optimizer as Rule
from rnnbench.params import Array, Params, cast

_LOSS_CODES = {
    Loss.BINARY_CROSS_ENTROPY: losses.BINARY_CROSS_ENTROPY,
    Loss.CATEGORICAL_CROSS_ENTROPY: losses.CATEGORICAL_CROSS_ENTROPY,
    Loss.SQUARED_ERROR: losses.SQUARED_ERROR,
    Loss.SIGMOID_SQUARED_ERROR: losses.SIGMOID_SQUARED_ERROR,
}
_WITH_CLASSES = (Loss.BINARY_CROSS_ENTROPY, Loss.CATEGORICAL_CROSS_ENTROPY)

# `predict` takes this many rows at a time, or as many as keep their states within this many bytes.
PREDICT_ROWS = 256
PREDICT_BYTES = 64 * 2**20


def task_of(problem: Problem, flush: bool) -> Task:
    """A problem as the numbers that kernels switch on."""
    every, mean = problem.model.head is Head.EVERY, problem.model.step_sum is StepSum.MEAN
    return Task(
        T=problem.T,
        S=problem.T if every else 1,
        has_words=problem.model.V is not None,
        loss=_LOSS_CODES[problem.model.loss],
        step_weight=1.0 / problem.T if every and mean else 1.0,
        flush=flush,
    )


def update_of(train: TrainSpec) -> Update:
    """An optimizer step as numbers; no limit is infinity."""
    return Update(
        adam=train.optimizer is Rule.ADAM,
        learning_rate=float(train.learning_rate),
        beta_1=float(train.beta_1),
        beta_2=float(train.beta_2),
        epsilon=float(train.epsilon),
        clip_value=math.inf if train.clip_value is None else float(train.clip_value),
        clip_norm=math.inf if train.clip_norm is None else float(train.clip_norm),
    )


def batch_of(problem: Problem, data: Data) -> Batch:
    """Rows as kernels read them; what this problem does not have is there with length 0."""
    n, T, O = len(data.inputs), problem.T, problem.model.O
    S = T if problem.model.head is Head.EVERY else 1
    targets = shaped_targets(problem, data.targets)
    has_classes = problem.model.loss is Loss.CATEGORICAL_CROSS_ENTROPY
    tokens, inputs = _tokens_and_inputs(problem, data.inputs)
    return Batch(
        tokens=tokens,
        inputs=inputs,
        classes=targets.reshape(n, S) if has_classes else np.zeros((n, 0), np.int32),
        targets=np.zeros((n, 0, O), str(problem.dtype)) if has_classes else targets.reshape(n, S, O),
    )


def _tokens_and_inputs(problem: Problem, inputs: Inputs) -> tuple[Inputs, Inputs]:
    """(N, T) int32 and (N, 0, E), or (N, 0) and (N, T, E)."""
    n, E = len(inputs), problem.model.E
    if problem.model.V is not None:
        return np.ascontiguousarray(inputs, np.int32), np.zeros((n, 0, E), str(problem.dtype))
    return np.zeros((n, 0), np.int32), np.ascontiguousarray(inputs, str(problem.dtype))


class NumbaSession(Session):
    """One problem in our kernels. Parameters, gradients and moments are flat arrays; names are views into them."""

    def __init__(self, problem: Problem, params: Params, data: Data, flush: bool) -> None:
        model = problem.model
        self.problem, self.model, self.dtype = problem, model, str(problem.dtype)
        self.task, self.update = task_of(problem, flush), update_of(problem.train)
        self.batch = batch_of(problem, data)
        self.blocks = np.array(
            [(b.start, b.emit, b.end) for b in blocks_of(model, problem.truncation, problem.T)], np.int64
        )
        ordered = cast({name: params[name] for name in model.shapes}, problem.dtype)
        self.initial = np.concatenate([value.ravel() for value in ordered.values()])
        moments = self.initial.size if self.update.adam else 0
        self.flat = Optimizer(*(aligned((n,), self.dtype) for n in (self.initial.size,) * 2 + (moments,) * 2))
        self.params = views(self.flat.params, model.shapes, model.E)
        self.grads = views(self.flat.grads, model.shapes, model.E)
        self.buffers = self._make_buffers(problem.B)
        self.zero_state = np.zeros((problem.B, model.H), self.dtype)
        self.state = self.zero_state
        self.last: Pass | None = None
        self.loss, self.hits = 0.0, 0
        self.reset()
        self.select(0)

    def _make_buffers(self, B: int, whole_table: bool = False) -> Buffers:
        model = self.model
        sizes = Sizes(B, self.task.T, self.task.S, model.V or 0, model.E, model.H, model.O, numba.get_num_threads())
        return make_buffers(sizes, self.dtype, whole_table)

    def select(self, batch: int) -> None:
        B = self.problem.B
        self.rows = np.arange(batch * B, (batch + 1) * B, dtype=np.int64)

    def start_from(self, state: Array | None) -> None:
        self.state = self.zero_state if state is None else np.ascontiguousarray(state, self.dtype)

    def reset(self) -> None:
        self.flat.params[:] = self.initial
        self.flat.m[:] = 0
        self.flat.v[:] = 0
        self.step = 0

    def forward(self) -> None:
        self._run(passes.FORWARD, self.rows, self.state)
        self.last = Pass.FORWARD

    def gradient(self) -> None:
        self._run(passes.GRADIENT, self.rows, self.state)
        self.last = Pass.GRADIENT

    def train_step(self) -> None:
        self._run(passes.TRAIN_STEP, self.rows, self.state)
        self.step += 1
        self.last = Pass.TRAIN_STEP

    def train_epoch(self, order: NDArray[np.int64]) -> None:
        rows = np.ascontiguousarray(order, np.int64)
        self._run(passes.TRAIN_STEP, rows, self.zero_state)
        self.step += -(-len(rows) // self.problem.B)
        self.last, self.outputs_in_epoch = Pass.EPOCH, len(rows) * self.task.S

    def _run(self, goal: int, rows: NDArray[np.int64], state: Array) -> None:
        self.loss, self.hits = passes.run(
            goal, self.step + 1, rows, self.task, self.update, self.batch, state, self.blocks,
            self.params, self.grads, self.flat, self.buffers,
        )  # fmt: skip

    def predict(self, inputs: Inputs) -> Array:
        """The whole vocabulary is projected once; then rows run in blocks, in buffers of their own."""
        tokens, dense = _tokens_and_inputs(self.problem, inputs)
        batch = Batch(tokens, dense, self.batch.classes[:0], self.batch.targets[:0])
        task = self.task._replace(loss=losses.NO_LOSS)
        row_bytes = 3 * (self.task.T + 1) * padded(self.model.H, self.dtype) * self.flat.params.itemsize
        size = max(1, min(PREDICT_ROWS, len(inputs), PREDICT_BYTES // row_bytes))
        buffers = self._make_buffers(size, whole_table=True)
        state = np.zeros((size, self.model.H), self.dtype)
        rest = (task, self.update, batch, state, self.blocks, self.params, self.grads, self.flat, buffers)
        every = np.arange(len(inputs), dtype=np.int64)
        passes.run(passes.TABLE, 0, every, *rest)
        logits = np.empty((len(inputs), self.task.S, self.model.O), self.dtype)
        for rows in batches_of(every, size):
            passes.run(passes.PREDICT, 0, rows, *rest)
            logits[rows] = buffers.answer.logits[: len(rows)]
        return self._shaped(logits)

    def _shaped(self, logits: Array) -> Array:
        """(n, S, O) as the protocol has it: (n, O) for the last step alone."""
        return logits if self.model.head is Head.EVERY else logits[:, 0]

    def _named(self, parts: KernelParams) -> dict[str, Array]:
        return {name: getattr(parts, name).copy() for name in self.model.shapes}

    def fetch(self) -> Outputs:
        """Copies, so that the next pass does not change what was fetched."""
        if self.last is None:
            return Outputs()
        params = self._named(self.params) if self.last in (Pass.TRAIN_STEP, Pass.EPOCH) else {}
        if self.last is Pass.EPOCH:
            accuracy = self.hits / self.outputs_in_epoch if self.model.loss in _WITH_CLASSES else None
            return Outputs(loss=self.loss, params=params, accuracy=accuracy)
        answer = self.buffers.answer
        grads = self._named(self.grads) if self.last is Pass.GRADIENT else {}
        return Outputs(self.loss, self._shaped(answer.logits.copy()), answer.state.copy(), grads, params)


def _threading_layer() -> str:
    """Its name, known after the first parallel call."""
    try:
        return str(numba.threading_layer())
    except ValueError:
        return "not started yet"


class NumbaBackend(Backend):
    """Our kernels: the batch is split over threads once per pass, every thread runs all T steps of its rows."""

    name: ClassVar[str] = "numba"
    flush: ClassVar[bool] = True

    def unsupported(self, case: Case) -> str | None:
        return None

    def contract(self, problem: Problem) -> Contract:
        flushed = "flushed, per thread, inside the kernels"
        call = "passes.run, one compiled call"
        return Contract(
            threads=numba.get_num_threads(),
            subnormals=flushed if self.flush and CAN_FLUSH else "kept",
            tf32=False,
            timed={
                "forward": f"{call}: pack weights, find and project distinct words, T steps, head, loss",
                "gradient": f"{call}: forward, BPTT, weight gradients",
                "train_step": f"{call}: gradient, clipping, the optimizer on all parameters",
                "epoch": "passes.run, one compiled call: train steps on rows taken by index",
            },
            notes=f"at most {numba.get_num_threads()} workers, one where work is small; {8 * register_bytes()}-bit "
            f"vectors; Numba threading layer: {_threading_layer()}",
        )

    def libraries(self) -> dict[str, str]:
        return {"numba": numba.__version__, "llvmlite": llvmlite.__version__}

    def _prepare(self, problem: Problem, params: Params, data: Data) -> Session:
        return NumbaSession(problem, params, data, self.flush)
