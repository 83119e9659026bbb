"""What the TensorFlow backend is made of: Keras 3 layers, the network, its losses, and the optimizers.

The recurrence is a layer of its own: the inputs of all steps are projected by one Dense layer, time first, and the
recurrent matrix is read once, before the first step. `SimpleRNN`, `GRU` and `LSTM` read and project in every step, so
that TensorFlow keeps a copy of both matrices for each step of the reverse loop, and turn rows to time first and back.
The gru has no second bias for r and z, which `GRU` has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rnnbench.backends.keras_import import floatx, imported
from rnnbench.model import Block, Direction, DType, Head, Loss, Model, Optimizer, Problem, Train, blocks_of

imported("tensorflow")
import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

tf.get_logger().setLevel("ERROR")  # many sessions, each with functions of the same name, look like retracing to it

__all__ = [
    "Network",
    "States",
    "Tensor",
    "chains",
    "floatx",
    "has_gates",
    "is_written_out",
    "keras",
    "metrics",
    "optimizer",
    "recurrence_of",
    "tf",
]

Tensor = Any
States = tuple[Tensor, ...]  # in the order of the cell, each (B, H)
WRITTEN_OUT, WRITTEN_OUT_GATED, WRITTEN_OUT_XLA = 256, 100, 10  # the most steps; docs/decisions/0031
CHAIN_BLOCKS = 8  # at most so many blocks run one after the other; more are stacked


class Recurrence(keras.layers.Layer):
    """One direction over the projected inputs of all steps, time first, from states (B, H) in the order of the cell.

    `kind` is what the contract calls it, `compared` what it says of Keras's own layer, `order` that of the gates in the
    columns of the weights, where it is not the model's.
    """

    kind: ClassVar[str]
    compared: ClassVar[str]
    order: ClassVar[str] = ""
    logistic: ClassVar[str] = ""  # the gates of that function
    projected: ClassVar[bool] = True  # its inputs, by a layer of their own

    def __init__(self, direction: Direction, written_out: bool, jit: bool, **options: Any) -> None:
        super().__init__(**options)
        self.E, self.H, self.back, self.written_out = direction.E, direction.H, direction.back, written_out
        self.gates = tuple(self.order) or direction.cell.gates
        self.jit = jit

    def build(self, *shapes: Any) -> None:
        self.recurrent_kernel = self.add_weight(shape=(self.H, len(self.gates) * self.H), name="recurrent_kernel")

    def recurrent_weights(self) -> dict[str, Any]:
        """The Keras variables of the recurrent product under the cell's names, without `b_h`."""
        return {"W_hh": self.recurrent_kernel}

    def step(self, w: dict[str, Tensor], p: Tensor, states: States, by_tanh: bool) -> States:
        """The states after a step, from the projected input (B, G H) of all gates; `by_tanh` as in `call`."""
        raise NotImplementedError

    def call(
        self, steps: Tensor, states: States, active: Tensor | None = None, kept: int = 0, trained: bool = True
    ) -> tuple[States, States]:
        """Over steps (T, B, G H): the last states, and the first `kept` of them after each step, (T, B, H), by time.

        Where `active` (T, B, 1) is False a row's states stay as they are. XLA's tanh is faster than its logistic
        function, which is (1 + tanh(x / 2)) / 2, but not where it is `trained`: gates get half of their x beforehand.
        """
        w = {name: tf.convert_to_tensor(variable.value) for name, variable in self.recurrent_weights().items()}
        by_tanh = self.jit and not trained and bool(self.logistic)
        if by_tanh:
            factors = [0.5 if gate in self.logistic else 1.0 for gate in self.gates]
            half = tf.constant(np.repeat(factors, self.H), steps.dtype)
            w["W_hh"], steps = w["W_hh"] * half, steps * half

        def turn(p: Tensor, taken: Tensor | None, states: States) -> States:
            after = self.step(w, p, states, by_tanh)
            if taken is None:
                return after
            return tuple(tf.where(taken, new, old) for new, old in zip(after, states, strict=True))

        run = self._written_out if self.written_out else self._looped
        return run(turn, steps, tuple(states), active, kept)

    def _written_out(
        self, turn: Any, steps: Tensor, states: States, active: Tensor | None, kept: int
    ) -> tuple[States, States]:
        inputs, after = tf.unstack(steps), []
        taken = [None] * len(inputs) if active is None else tf.unstack(active)
        order = slice(None, None, -1 if self.back else 1)
        for p, own in zip(inputs[order], taken[order], strict=True):
            states = turn(p, own, states)
            after.append(states[:kept])
        return states, tuple(tf.stack(each) for each in zip(*after[order], strict=True))

    def _looped(
        self, turn: Any, steps: Tensor, states: States, active: Tensor | None, kept: int
    ) -> tuple[States, States]:
        T = steps.shape[0]
        inputs = tf.TensorArray(steps.dtype, T).unstack(steps)
        every = tuple(tf.TensorArray(s.dtype, T, element_shape=s.shape) for s in states[:kept])

        def body(k: Tensor, states: States, every: Any) -> Any:
            t = T - 1 - k if self.back else k
            after = turn(inputs.read(t), None if active is None else active[t], states)
            return k + 1, after, tuple(a.write(t, s) for a, s in zip(every, after, strict=False))

        first = (tf.constant(0), states, every)
        _, last, every = tf.while_loop(lambda k, *_: k < T, body, first, maximum_iterations=T)
        return last, tuple(a.stack() for a in every)


class TanhRecurrence(Recurrence):
    """h_t = tanh(p_t + h_{t-1} W_hh)."""

    kind, compared = "tanh", "faster than keras.layers.SimpleRNN"

    def step(self, w: dict[str, Tensor], p: Tensor, states: States, by_tanh: bool) -> States:
        return (tf.tanh(p + states[0] @ w["W_hh"]),)


class GRURecurrence(Recurrence):
    """r, z = logistic(p + h W_hh); n = tanh(p_n + r (h W_n + b_hn)); h_t = (1 - z) n + z h, with one product a step."""

    kind, compared = "GRU", "faster to train than keras.layers.GRU"
    logistic = "rz"

    def build(self, *shapes: Any) -> None:
        super().build(*shapes)
        self.recurrent_bias = self.add_weight(shape=(self.H,), initializer="zeros", name="recurrent_bias")

    def recurrent_weights(self) -> dict[str, Any]:
        return {**super().recurrent_weights(), "b_hn": self.recurrent_bias}

    def step(self, w: dict[str, Tensor], p: Tensor, states: States, by_tanh: bool) -> States:
        (h,), parts = states, [2 * self.H, self.H]
        rz, n = tf.split(p, parts, axis=-1)
        rz_h, n_h = tf.split(h @ w["W_hh"], parts, axis=-1)
        r, z = tf.split(0.5 + 0.5 * tf.tanh(rz + rz_h) if by_tanh else tf.sigmoid(rz + rz_h), 2, axis=-1)
        n = tf.tanh(n + r * (n_h + w["b_hn"]))
        return (n + z * (h - n),)


class LSTMRecurrence(Recurrence):
    """i, f, o = logistic(p + h W_hh), g = tanh(p + h W_hh); c_t = f c + i g; h_t = o tanh(c_t); states h, c."""

    kind, compared = "LSTM", "at 50 steps about as fast as keras.layers.LSTM, at 200 slower"
    logistic = "ifo"

    def step(self, w: dict[str, Tensor], p: Tensor, states: States, by_tanh: bool) -> States:
        h, c = states
        gates = p + h @ w["W_hh"]
        if by_tanh:
            i, f, g, o = tf.split(tf.tanh(gates), 4, axis=-1)
            i, f, o = (0.5 + 0.5 * gate for gate in (i, f, o))
        else:
            i, f, g, o = tf.split(gates, 4, axis=-1)
            i, f, g, o = tf.sigmoid(i), tf.sigmoid(f), tf.tanh(g), tf.sigmoid(o)
        c = f * c + i * g
        return o * tf.tanh(c), c


class BlockLSTM(Recurrence):
    """`LSTMRecurrence` by TensorFlow's one kernel for all steps, which reads inputs that are not projected.

    It knows float32 alone and no XLA. `BlockLSTMV2`, with the gates in our order, has a wrong gradient in TensorFlow
    2.21: that of `BlockLSTM`, whose gates lie in another one.
    """

    kind, compared = "LSTM", "faster than keras.layers.LSTM"
    order = "igfo"
    projected = False

    def build(self, *shapes: Any) -> None:
        super().build(*shapes)
        width = len(self.gates) * self.H
        self.kernel = self.add_weight(shape=(self.E, width), name="kernel")
        self.bias = self.add_weight(shape=(width,), initializer="zeros", name="bias")

    def recurrent_weights(self) -> dict[str, Any]:
        return {"W_xh": self.kernel, **super().recurrent_weights(), "b_h": self.bias}

    def call(
        self, steps: Tensor, states: States, active: Tensor | None = None, kept: int = 0, trained: bool = True
    ) -> tuple[States, States]:
        assert active is None
        steps = tf.reverse(steps, [0]) if self.back else steps
        none = tf.zeros((self.H,))  # no peephole
        done = tf.raw_ops.BlockLSTM(
            seq_len_max=tf.constant(steps.shape[0], tf.int64),
            x=steps,
            cs_prev=states[1],
            h_prev=states[0],
            w=tf.concat([self.kernel.value, self.recurrent_kernel.value], axis=0),
            wci=none,
            wcf=none,
            wco=none,
            b=self.bias.value,
            forget_bias=0.0,
            cell_clip=-1.0,
        )
        every = (done.h, done.cs)[:kept]
        return (done.h[-1], done.cs[-1]), tuple(tf.reverse(e, [0]) for e in every) if self.back else every


RECURRENCES: dict[str, type[Recurrence]] = {"rnn": TanhRecurrence, "gru": GRURecurrence, "lstm": LSTMRecurrence}


def recurrence_of(problem: Problem, jit: bool) -> type[Recurrence]:
    """The layer of each direction."""
    if problem.model.cell == "lstm" and problem.dtype is DType.FLOAT32 and not (jit or problem.lengths):
        return BlockLSTM
    return RECURRENCES[problem.model.cell]


def has_gates(name: str) -> bool:
    """Whether the columns of a parameter are gates side by side, (..., G H)."""
    return name.rpartition(".")[2] in ("W_xh", "W_hh", "b_h")


@dataclass(frozen=True)
class Windows:
    """Blocks of truncated BPTT stacked as rows: `starts` (n,), their common length, and where each step is emitted.

    A block shorter than the others runs on past its end; what it computes there is not picked. `pick` (T,) are
    positions in the steps of all blocks, (length, n) in one line.
    """

    starts: NDArray[np.int32]
    length: int
    pick: NDArray[np.int32]

    @classmethod
    def of(cls, blocks: Sequence[Block]) -> Windows:
        """The windows of consecutive blocks that emit steps 0 to T between them."""
        length = max(b.end - b.start for b in blocks)
        pick = [k + len(blocks) * np.arange(b.emit - b.start, b.end - b.start) for k, b in enumerate(blocks)]
        return cls(np.array([b.start for b in blocks], np.int32), length, np.concatenate(pick).astype(np.int32))


def chains(blocks: Sequence[Block]) -> bool:
    """Whether the blocks run one after the other, each from the last one's detached state."""
    return len(blocks) <= CHAIN_BLOCKS and all(b.start == b.emit for b in blocks)


def detached(states: Any) -> Any:
    """States, however nested, as constants: no gradient flows through them."""
    return tf.nest.map_structure(tf.stop_gradient, states)


def split_inputs(inputs: Any) -> tuple[Tensor, Tensor | None]:
    """Rows, and their lengths where they have such."""
    return inputs if isinstance(inputs, tuple) else (inputs, None)


def side_by_side(each: Sequence[Tensor]) -> Tensor:
    """Arrays of the directions of a layer in one, (..., D H)."""
    return each[0] if len(each) == 1 else tf.concat(each, axis=-1)


def time_first(rows: Tensor) -> Tensor:
    """(B, T, ...) as (T, B, ...), and back."""
    return tf.transpose(rows, (1, 0, *range(2, len(rows.shape))))


def is_written_out(problem: Problem, jit: bool) -> bool:
    """Whether recurrences are written out step by step, and not loops: faster for any T, but longer to trace."""
    steps = problem.T * len(problem.model.directions)
    if jit:
        return steps <= WRITTEN_OUT_XLA
    if problem.model.cell == "rnn":
        return steps <= WRITTEN_OUT
    return steps <= WRITTEN_OUT_GATED


class Network(keras.Model):
    """Embedding (or dense input) -> layers of projection and recurrence -> Dense: logits (B, O), or (B, T, O) with
    `Head.EVERY`.

    Inputs are rows, or rows and lengths (B,). In training, back-propagation is cut as the problem says. The loss is
    `compute_loss`, so that `fit` trains on it. States are a tuple, each (B, H), in the order of `Model.states`.
    """

    def __init__(self, problem: Problem, jit: bool) -> None:
        super().__init__(dtype=str(problem.dtype))
        model, dtype = problem.model, str(problem.dtype)
        self.spec, self.T = model, problem.T
        self.truncated = problem.truncation is not None
        self.blocks = tuple(blocks_of(model, problem.truncation, problem.T, problem.lengths))
        self.every = model.head is Head.EVERY
        self.embed = None if model.V is None else keras.layers.Embedding(model.V, model.E, dtype=dtype)
        width, written_out = model.recurrence.width(model.H), is_written_out(problem, jit)
        recurrence = recurrence_of(problem, jit)
        self.recur = [recurrence(direction, written_out, jit, dtype=dtype) for direction in model.directions]
        dense = [keras.layers.Dense(width, dtype=dtype) for _ in model.directions]
        self.project = dense if recurrence.projected else []
        self.dense = keras.layers.Dense(model.O, dtype=dtype)

    def zero_states(self, rows: Any) -> States:
        """What rows start from where no states are given."""
        return tuple(tf.zeros((rows, self.spec.H), self.compute_dtype) for _ in self.spec.states)

    def call(self, inputs: Any, training: bool = False) -> Tensor:
        return self.run(inputs, self.zero_states(tf.shape(split_inputs(inputs)[0])[0]), training)[0]

    def run(self, inputs: Any, states: States, training: bool) -> tuple[Tensor, States]:
        """Logits and last states from first states. All between is time first."""
        rows, lengths = split_inputs(inputs)
        steps = time_first(rows)
        steps = steps if self.embed is None else self.embed(steps)
        start = 0  # of what is differentiable: with one loss, at the last step, its window
        if training and self.truncated and not self.every and lengths is None:
            start = self.blocks[0].start
        p = self._inputs(steps[start:], 0, len(self.spec.stack[0]))
        if start:
            _, states = self._steps(self._inputs(steps[:start], 0, len(p)), states, None, False)
            states = detached(states)
        active = None if lengths is None else (tf.range(self.T)[:, None] < lengths)[:, :, None]
        if training and self.truncated:
            h, last = self._truncated(p, states, active, lengths)
        else:
            h, last = self._steps(p, states, active, self.every, training)
        logits = self.dense(h)
        return (time_first(logits) if self.every else logits), last

    def _inputs(self, steps: Tensor, start: int, count: int) -> list[Tensor]:
        """What so many recurrences from number `start` on take for steps that they read."""
        return [project(steps) for project in self.project[start : start + count]] or [steps] * count

    def _stack(
        self, p: list[Tensor], states: States, active: Tensor | None, kept: int, below: int, trained: bool = True
    ) -> tuple[Any, Any]:
        """All layers from the projected inputs of the first, one for each direction: the last states, and for each
        direction the first `kept` states after each step; of layers that another one reads, `below`.
        """
        last: list[Tensor] = []
        every: list[States] = []
        model = self.spec
        size = len(model.recurrence.states)
        for layer in model.stack:
            start = layer[0].layer * len(layer)
            if start:
                h = side_by_side([after[0] for after in every[-len(layer) :]])
                p = self._inputs(h, start, len(layer))
            top = layer[0].layer == model.layers - 1
            for i, own in enumerate(p, start):
                own_states, count = states[i * size : (i + 1) * size], kept if top else below
                final, seen = self.recur[i](own, own_states, active=active, kept=count, trained=trained)
                last += final
                every.append(seen)
        return tuple(last), every

    def _steps(
        self, p: list[Tensor], states: States, active: Tensor | None, every: bool, trained: bool = True
    ) -> tuple[Tensor, States]:
        """What the head reads of the last states (B, D H), or after each step (T, B, D H); and the last states."""
        last, seen = self._stack(p, states, active, int(every), 1, trained)
        top = len(self.spec.stack[-1])
        if every:
            return side_by_side([after[0] for after in seen[-top:]]), last
        return side_by_side(last[:: len(self.spec.recurrence.states)][-top:]), last

    def _truncated(
        self, p: list[Tensor], states: States, active: Tensor | None, lengths: Tensor | None
    ) -> tuple[Tensor, States]:
        """From the projected inputs of the first layer, each (T, B, G H), with `active` (T, B, 1): what the head reads,
        and the last states. `_chained` and `_stacked` give it of every step, (T, B, H).
        """
        if self.every or lengths is not None:
            h, last = (self._chained if chains(self.blocks) else self._stacked)(p, states, active)
            return (h if self.every else self._ends(h, states, lengths)), last
        return self._steps(p, states, None, False)

    def _ends(self, h: Tensor, states: States, lengths: Tensor) -> Tensor:
        """Of what the head may read after each step (T, B, H) what stands at the end of each row, (B, H)."""
        at = tf.stack([tf.maximum(lengths - 1, 0), tf.range(tf.shape(lengths)[0])], axis=1)
        start = states[-len(self.spec.recurrence.states)]
        return tf.where(lengths[:, None] > 0, tf.gather_nd(h, at), start)

    def _chained(self, p: list[Tensor], states: States, active: Tensor | None) -> tuple[Tensor, States]:
        """As `_truncated`: blocks one after the other, each from the last states of the one before."""
        parts = []
        for block in self.blocks:
            own = slice(block.start, block.end)
            taken = None if active is None else active[own]
            h, states = self._steps([steps[own] for steps in p], detached(states), taken, True)
            parts.append(h)
        return tf.concat(parts, axis=0), states

    def _stacked(self, p: list[Tensor], states: States, active: Tensor | None) -> tuple[Tensor, States]:
        """As `_truncated`: all blocks at once, as n B rows, from states of a forward pass without a gradient."""
        windows, size = Windows.of(self.blocks), len(self.spec.recurrence.states)
        last, every = detached(self._stack(tf.nest.map_structure(tf.stop_gradient, p), states, active, size, size))
        pairs = zip(states, [after for each in every for after in each], strict=True)
        known = [tf.concat([state[None], after], axis=0) for state, after in pairs]
        first = tuple(tf.reshape(tf.gather(each, windows.starts), (-1, self.spec.H)) for each in known)
        steps = windows.starts + np.arange(windows.length, dtype=np.int32)[:, None]

        def stacked(each: Tensor) -> Tensor:
            return tf.reshape(tf.gather(each, steps), (windows.length, -1, each.shape[-1]))

        h, _ = self._steps([stacked(own) for own in p], first, None if active is None else stacked(active), True)
        h = tf.gather(tf.reshape(h, (steps.size, -1, self.spec.H)), windows.pick)
        return h, last

    def compute_loss(
        self,
        x: Any = None,
        y: Tensor = None,
        y_pred: Tensor = None,
        sample_weight: Tensor = None,
        training: bool = True,
    ) -> Tensor:
        """From inputs, targets and logits: as `Model.loss_scale` has it."""
        each, (_, lengths) = keras_losses(self.spec, y_pred, y), split_inputs(x)
        if not self.every:
            return tf.reduce_mean(each)
        if lengths is not None:
            each = tf.where(self._emitted(lengths), each, tf.zeros((), each.dtype))
        if not self.spec.averages_steps:
            return tf.reduce_mean(tf.reduce_sum(each, axis=-1))
        if lengths is None:
            return tf.reduce_mean(each)
        return tf.reduce_sum(each) / tf.cast(tf.maximum(tf.reduce_sum(lengths), 1), each.dtype)

    def compute_metrics(self, x: Any, y: Tensor, y_pred: Tensor, sample_weight: Tensor = None) -> Any:
        """Accuracy over the outputs that are emitted."""
        _, lengths = split_inputs(x)
        if self.every and lengths is not None:
            sample_weight = tf.cast(self._emitted(lengths), self.compute_dtype)
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def _emitted(self, lengths: Tensor) -> Tensor:
        """(B, T), with `Head.EVERY`."""
        return tf.range(self.T) < lengths[:, None]

    def weights_by_name(self) -> dict[str, Any]:
        """The Keras variables under the project's names, in its order."""
        named = {} if self.embed is None else {"embedding": self.embed.embeddings}
        for i, (direction, recur) in enumerate(zip(self.spec.directions, self.recur, strict=True)):
            own = recur.recurrent_weights()
            if self.project:
                own |= {"W_xh": self.project[i].kernel, "b_h": self.project[i].bias}
            named |= direction.named({name: own[name] for name in direction.cell.shapes(1, 1)})
        return named | {"W_hy": self.dense.kernel, "b_y": self.dense.bias}


def keras_losses(model: Model, z: Tensor, y: Tensor) -> Tensor:
    """The loss of each output, (B,) or (B, T), from logits z and targets y."""
    match model.loss:
        case Loss.BINARY_CROSS_ENTROPY:
            return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(y, z), axis=-1)
        case Loss.CATEGORICAL_CROSS_ENTROPY:
            return tf.nn.sparse_softmax_cross_entropy_with_logits(y, z)
        case Loss.SQUARED_ERROR:
            return 0.5 * tf.reduce_sum(tf.math.squared_difference(z, y), axis=-1)
        case Loss.SIGMOID_SQUARED_ERROR:
            return 0.5 * tf.reduce_sum(tf.math.squared_difference(tf.sigmoid(z), y), axis=-1)


def is_correct(model: Model, y: Tensor, z: Tensor) -> Tensor:
    """Which outputs are classified right, (B,) or (B, T)."""
    if model.loss is Loss.CATEGORICAL_CROSS_ENTROPY:
        return tf.argmax(z, axis=-1, output_type=tf.int32) == y
    return tf.reduce_all((z > 0) == (y > 0.5), axis=-1)


def metrics(model: Model, dtype: str) -> list[Any]:
    """What `fit` reports beside the loss: the accuracy, where the loss has classes."""
    if not model.loss.has_accuracy:
        return []
    return [keras.metrics.MeanMetricWrapper(lambda y, z: is_correct(model, y, z), name="accuracy", dtype=dtype)]


class SummedGradients:
    """An optimizer that first adds up the gradients of a token that occurs more than once.

    Keras squares and clips the rows of `tf.IndexedSlices` one by one, which is another update where rows repeat.
    """

    def apply(self, grads: Sequence[Tensor], trainable_variables: Sequence[Any] | None = None) -> None:
        super().apply([tf.convert_to_tensor(g) for g in grads], trainable_variables)  # type: ignore[misc]


class ClippedSGD(SummedGradients, keras.optimizers.SGD):
    """`keras.optimizers.SGD`, clipping what each row gets in all."""


class Adam(SummedGradients, keras.optimizers.Adam):
    """Kingma and Ba's Algorithm 1 by TensorFlow's fused kernel, one pass over each variable.

    The kernel adds epsilon to the root before the bias correction. With epsilon times the correction it is Algorithm 1:
    a sqrt(c) m / (sqrt(v) + e sqrt(c)) = a m / (sqrt(v / c) + e), for c = 1 - beta_2^t.
    """

    def update_step(self, gradient: Tensor, variable: Tensor, learning_rate: Tensor) -> None:
        i, dtype = self._get_variable_index(variable), variable.dtype
        beta_1, beta_2, epsilon = (tf.constant(c, dtype) for c in (self.beta_1, self.beta_2, self.epsilon))
        t = tf.cast(self.iterations.value + 1, dtype)
        beta_2_power = tf.pow(beta_2, t)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[i].value.handle,
            v=self._velocities[i].value.handle,
            beta1_power=tf.pow(beta_1, t),
            beta2_power=beta_2_power,
            lr=tf.cast(learning_rate, dtype),
            beta1=beta_1,
            beta2=beta_2,
            epsilon=epsilon * tf.sqrt(1 - beta_2_power),
            grad=gradient,
        )


def optimizer(train: Train) -> Any:
    """The Keras optimizer of a train spec. Its learning rate takes the type that `floatx` says."""
    clip = {"clipvalue": train.clip_value, "global_clipnorm": train.clip_norm}
    rate = float(train.learning_rate)
    if train.optimizer is Optimizer.ADAM:
        return Adam(rate, beta_1=train.beta_1, beta_2=train.beta_2, epsilon=train.epsilon, **clip)
    clipped = train.clip_value is not None or train.clip_norm is not None
    return ClippedSGD(rate, **clip) if clipped else keras.optimizers.SGD(rate)
