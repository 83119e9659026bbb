"""Keras 3 on TensorFlow, with and without XLA: one `tf.function` per pass, and `fit` for an epoch."""

from __future__ import annotations

import os
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rnnbench.backends.base import Backend, Outputs, Session
from rnnbench.backends.keras_parts import (
    Network,
    States,
    Tensor,
    chains,
    floatx,
    has_gates,
    is_written_out,
    keras,
    metrics,
    optimizer,
    recurrence_of,
    tf,
)
from rnnbench.cells import reordered
from rnnbench.contract import Contract
from rnnbench.data import Data, Inputs, blank_logits, shaped_lengths, shaped_targets
from rnnbench.model import Case, Head, Optimizer, Problem, blocks_of
from rnnbench.params import Array, Params, cast

PREDICT_ROWS = 512
STEPS_PER_EXECUTION = 16
WINDOW_BYTES = 4 << 30  # the most that the stacked windows of truncated BPTT may take
WINDOW_ARRAYS = 6  # arrays of that size that live at once: projections, states and what the reverse loop keeps

KerasOutputs = tuple[Tensor, Tensor, States]  # loss (), logits, last states


class Traced:
    """A `tf.function` for arguments of one shape: traced at its first call, and then called without the search for the
    trace that fits the arguments, which takes longer than a small network.
    """

    def __init__(self, function: Any, arguments: tuple[Any, ...]) -> None:
        self.function, self.arguments = function, arguments
        self.concrete: Any = None

    def __call__(self, *arguments: Any) -> Any:
        if self.concrete is None:
            self.concrete = self.function.get_concrete_function(*self.arguments)
        return self.concrete(*arguments)


class KerasSession(Session):
    """One problem in Keras. Each pass is one function, traced at its first call; `reset` assigns in place."""

    def __init__(self, problem: Problem, params: Params, data: Data, jit: bool) -> None:
        super().__init__(problem, data)
        self.dtype, self.gates = str(problem.dtype), problem.model.recurrence.gates
        self.inputs = np.ascontiguousarray(data.inputs, np.int32 if problem.model.V is not None else self.dtype)
        self.targets = shaped_targets(problem, data.targets)
        self.lengths = shaped_lengths(problem, data.lengths)
        self.first: States | None = None
        self.result: KerasOutputs | None = None
        self.grads: list[Tensor] = []
        self.epoch: dict[str, list[float]] = {}
        self.computed: Inputs | None = None
        self.stepped = False
        with floatx(self.dtype):
            self._build(params, jit)
        # No Python here branches on a tensor: reading it for such branches takes longer than most traces
        compiled = partial(tf.function, jit_compile=jit, autograph=False)
        self._logits_of = compiled(self._logits)
        self.select(0)
        self._forward, self._gradient, self._train_step = (
            Traced(compiled(function), self._batch()) for function in (self._run, self._differentiate, self._update)
        )

    def _build(self, params: Params, jit: bool) -> None:
        problem = self.problem
        self.network = Network(problem, jit)
        self.network(self._staged(slice(1)))  # makes the variables
        self.weights = self.network.weights_by_name()
        for name, value in cast(params, problem.dtype).items():
            theirs = reordered(value, self.gates, self.network.recur[0].gates) if has_gates(name) else value
            self.weights[name].assign(theirs)
        self.network.compile(
            optimizer=optimizer(problem.train),
            weighted_metrics=metrics(problem.model, self.dtype),
            jit_compile=jit,
            steps_per_execution=STEPS_PER_EXECUTION,
        )
        self.network.optimizer.build(self.network.trainable_variables)
        variables = [*self.network.trainable_variables, *self.network.optimizer.variables]
        self.initial = [(variable, variable.numpy()) for variable in variables]

    def _run(self, x: Tensor, y: Tensor, states: States) -> KerasOutputs:
        return self._loss(x, y, states, training=False)

    def _loss(self, x: Tensor, y: Tensor, states: States, training: bool) -> KerasOutputs:
        logits, last = self.network.run(x, states, training)
        return self.network.compute_loss(x, y, logits), logits, last

    def _slopes(self, x: Tensor, y: Tensor, states: States) -> tuple[KerasOutputs, list[Tensor]]:
        with tf.GradientTape() as tape:
            result = self._loss(x, y, states, training=True)
        return result, tape.gradient(result[0], [weight.value for weight in self.weights.values()])

    def _differentiate(self, x: Tensor, y: Tensor, states: States) -> tuple[KerasOutputs, list[Tensor]]:
        result, grads = self._slopes(x, y, states)
        return result, [tf.convert_to_tensor(g) for g in grads]

    def _update(self, x: Tensor, y: Tensor, states: States) -> KerasOutputs:
        result, grads = self._slopes(x, y, states)
        self.network.optimizer.apply(grads, list(self.weights.values()))
        return result

    def _logits(self, x: Tensor) -> Tensor:
        return self.network(x)

    def _select(self, batch: int) -> None:
        rows = slice(batch * self.problem.B, (batch + 1) * self.problem.B)
        self.x, self.y = self._staged(rows), tf.constant(self.targets[rows])
        self.n = None if self.lengths is None else self.lengths[rows]
        self.zeros = self.network.zero_states(len(self.y))

    def _staged(self, rows: slice) -> Any:
        """Rows as the network takes them."""
        x = tf.constant(self.inputs[rows])
        return x if self.lengths is None else (x, tf.constant(self.lengths[rows]))

    def _start_from(self, states: dict[str, Array] | None) -> None:
        names = self.problem.model.states
        self.first = None if states is None else tuple(tf.constant(states[name], self.dtype) for name in names)

    def reset(self) -> None:
        for variable, value in self.initial:
            variable.assign(value)

    def forward(self) -> None:
        self._done(self._forward(*self._batch()))

    def gradient(self) -> None:
        self._done(*self._gradient(*self._batch()))

    def train_step(self) -> None:
        self._done(self._train_step(*self._batch()), stepped=True)

    def _batch(self) -> KerasOutputs:
        return self.x, self.y, self.zeros if self.first is None else self.first

    def _done(self, result: KerasOutputs | None, grads: list[Tensor] | None = None, stepped: bool = False) -> None:
        self.result, self.grads, self.stepped, self.epoch = result, grads or [], stepped, {}
        self.computed = self.n  # of the batch that was computed

    def _train_epoch(self, order: NDArray[np.int64]) -> None:
        inputs = self.inputs[order] if self.lengths is None else (self.inputs[order], self.lengths[order])
        rows = tf.data.Dataset.from_tensor_slices((inputs, self.targets[order]))
        batches = rows.batch(self.problem.B).prefetch(tf.data.AUTOTUNE)
        with floatx(self.dtype):
            history = self.network.fit(batches, epochs=1, shuffle=False, verbose=0)
        self._done(None, stepped=True)
        self.epoch = history.history

    def _predict(self, inputs: Inputs, lengths: Inputs | None) -> Array:
        parts = []
        for i in range(0, len(inputs), PREDICT_ROWS):
            part = slice(i, i + PREDICT_ROWS)
            x = self._filled(inputs[part])
            parts.append(self._logits_of(x if lengths is None else (x, self._filled(lengths[part]))).numpy())
        return blank_logits(self.problem, np.concatenate(parts)[: len(inputs)], lengths)

    def _filled(self, rows: Inputs) -> Tensor:
        """At most `PREDICT_ROWS` rows, padded to that many: XLA would compile each other number anew."""
        return tf.constant(np.pad(rows, ((0, PREDICT_ROWS - len(rows)), *((0, 0),) * (rows.ndim - 1))))

    def poison(self) -> None:
        self._done(None)  # tensors are immutable

    def synchronize(self) -> None:
        if self.result is not None:
            self.result[0].numpy()

    def fetch(self) -> Outputs:
        params = {name: self._array(name, weight) for name, weight in self.weights.items()} if self.stepped else {}
        if self.result is None:
            loss, accuracy = (self.epoch.get(name, [None])[0] for name in ("loss", "accuracy"))
            return Outputs(loss=loss, accuracy=accuracy, params=params)
        loss, logits, last = self.result
        states = {name: state.numpy() for name, state in zip(self.problem.model.states, last, strict=True)}
        grads = zip(self.weights, self.grads, strict=True) if self.grads else ()
        logits = blank_logits(self.problem, logits.numpy(), self.computed)
        return Outputs(float(loss), logits, states, {name: self._array(name, g) for name, g in grads}, params)

    def _array(self, name: str, value: Tensor) -> Array:
        """A parameter or its gradient, its gates in the model's order."""
        array = value.numpy()
        return reordered(array, self.network.recur[0].gates, self.gates) if has_gates(name) else array


def threads_inside() -> int:
    """The threads that work inside one operation, as TensorFlow chooses them."""
    chosen = tf.config.threading.get_intra_op_parallelism_threads()
    return int(chosen or os.environ.get("TF_NUM_INTRAOP_THREADS") or os.cpu_count() or 1)


def _window_bytes(problem: Problem) -> int:
    """What the stacked windows of truncated BPTT take in memory; 0 where no windows are stacked."""
    blocks = blocks_of(problem.model, problem.truncation, problem.T, problem.lengths)
    only_last = problem.model.head is Head.LAST and not problem.lengths
    if problem.truncation is None or only_last or chains(blocks):
        return 0
    width = problem.model.recurrence.width(problem.model.H) * problem.model.layers
    steps = sum(max(b.end - b.start for b in blocks) for _ in blocks)
    return WINDOW_ARRAYS * steps * problem.B * width * np.dtype(str(problem.dtype)).itemsize


class TensorflowBackend(Backend):
    """Keras layers, optimizers and `fit`, in TensorFlow graphs."""

    name: ClassVar[str] = "tensorflow"
    jit: ClassVar[bool] = False

    def _unsupported(self, case: Case) -> str | None:
        size = _window_bytes(case)
        if size <= WINDOW_BYTES:
            return None
        return (
            f"the windows of truncation {case.truncation} would take {size / 2**30:.1f} GiB at once, the limit is "
            f"{WINDOW_BYTES / 2**30:.0f} GiB; take a larger stride, a smaller window or a smaller batch"
        )

    def contract(self, problem: Problem) -> Contract:
        one = f"one concrete function{' with jit_compile=True' if self.jit else ''}"
        layers = "Embedding, " if problem.model.V is not None else ""
        cell = recurrence_of(problem, self.jit)
        run = "written out step by step" if is_written_out(problem, self.jit) else "by tf.while_loop"
        one_each = (
            f"Dense over all steps and a {cell.kind} recurrence {run}" if cell.projected else "tf.raw_ops.BlockLSTM"
        )
        one_each += " for each layer and direction" * (len(problem.model.directions) > 1)
        layers += f"{one_each}{', padding computed and masked' * problem.lengths}, Dense (Keras layers)"
        tape = f"{one}: {layers}; the loss; GradientTape"
        repeated = "" if problem.model.V is None else "repeated tokens summed first, "
        repeated += "clipping, " if problem.train.clips else ""
        rule = "Adam by ResourceApplyAdam" if problem.train.optimizer is Optimizer.ADAM else "SGD"
        dense = "" if problem.model.V is None else "; the embedding's gradient summed into a (V, E) array"
        inputs = "the recurrent matrix is read once and all inputs projected before the first step"
        inputs += ", in a forward pass half of each for gates of the logistic function, which is taken by tanh" * bool(
            self.jit and cell.logistic
        )
        inputs = inputs if cell.projected else "inputs are projected by the kernel of the recurrence, in each step"
        return Contract(
            threads=threads_inside(),
            subnormals="flushed by TensorFlow's threads",
            tf32=False,
            timed={
                "forward": f"{one}: {layers}; the loss",
                "gradient": f"{tape}{dense}",
                "train_step": f"{tape}; keras optimizer.apply, {repeated}{rule}",
                "epoch": f"NumPy gathers the rows; tf.data batch, prefetch; Keras fit, jit_compile={self.jit}, "
                f"steps_per_execution={STEPS_PER_EXECUTION}, loss and accuracy tracked",
            },
            notes=f"oneDNN as TensorFlow has it by default; {inputs}, time first: {cell.compared}",
            staged="a batch as two tensors, a zero state; for an epoch, rows and targets as arrays",
            waits="calls return when their work is done; the loss is read back",
        )

    def libraries(self) -> dict[str, str]:
        return {"tensorflow": tf.__version__, "keras": keras.__version__}

    def _prepare(self, problem: Problem, params: Params, data: Data) -> Session:
        return KerasSession(problem, params, data, self.jit)


class TensorflowXlaBackend(TensorflowBackend):
    """Keras layers, optimizers and `fit`, compiled by XLA."""

    name: ClassVar[str] = "tensorflow+xla"
    jit: ClassVar[bool] = True
