"""What the TensorFlow backend is made of: Keras 3 layers, the network, its losses, and the optimizers.

The recurrence is `keras.layers.RNN` over a cell of its own: the inputs of all steps are projected by one Dense layer,
and the recurrent matrix is read once, before the loop. `SimpleRNN`, `GRU` and `LSTM` read and project in every step, so
that TensorFlow keeps a copy of both matrices for each step of the reverse loop. Gates lie in the order of the model and
not in that of Keras; the gru has no second bias for r and z, which `GRU` has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rnnbench.backends.keras_import import floatx, imported
from rnnbench.cells import Cell
from rnnbench.model import Block, Head, Loss, Model, Optimizer, Problem, StepSum, Train, blocks_of

imported("tensorflow")
import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

tf.get_logger().setLevel("ERROR")  # many sessions, each with functions of the same name, look like retracing to it

__all__ = ["LOOP_CELLS", "Network", "States", "Tensor", "chains", "floatx", "keras", "metrics", "optimizer", "tf"]

Tensor = Any
States = tuple[Tensor, ...]  # in the order of the cell, each (B, H)
CHAIN_BLOCKS = 8  # at most so many blocks run one after the other; more are stacked


class LoopCell(keras.layers.Layer):
    """One step from the projected input of all gates with its bias, (B, G H), and states, each (B, H).

    `call` returns the output and the states after the step, in the order of the model. `kind` is what the contract
    calls the cell, `compared` what it says of Keras's own layer for the same recurrence.
    """

    kind: ClassVar[str]
    compared: ClassVar[str]

    def __init__(self, cell: Cell, H: int, **options: Any) -> None:
        super().__init__(**options)
        self.output_size, self.width = H, cell.width(H)
        self.state_size = [H] * len(cell.states)

    def build(self, input_shape: Sequence[int | None]) -> None:
        self.recurrent_kernel = self.add_weight(shape=(self.output_size, self.width), name="recurrent_kernel")

    def recurrent_weights(self) -> dict[str, Any]:
        """The Keras variables of the recurrent product under the project's names, without `b_h`."""
        return {"W_hh": self.recurrent_kernel}


class TanhCell(LoopCell):
    """h_t = tanh(p_t + h_{t-1} W_hh)."""

    kind, compared = "tanh", "faster than keras.layers.SimpleRNN"

    def call(self, inputs: Tensor, states: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        h = keras.ops.tanh(inputs + keras.ops.matmul(states[0], self.recurrent_kernel))
        return h, [h]


class GRUCell(LoopCell):
    """r, z = sigmoid(p + h W_hh); n = tanh(p_n + r (h W_n + b_hn)); h_t = (1 - z) n + z h, with one product a step."""

    kind, compared = "GRU", "faster to train than keras.layers.GRU"

    def build(self, input_shape: Sequence[int | None]) -> None:
        super().build(input_shape)
        self.recurrent_bias = self.add_weight(shape=(self.output_size,), initializer="zeros", name="recurrent_bias")

    def recurrent_weights(self) -> dict[str, Any]:
        return {**super().recurrent_weights(), "b_hn": self.recurrent_bias}

    def call(self, inputs: Tensor, states: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        h, parts = states[0], [2 * self.output_size, self.output_size]
        rz, n = tf.split(inputs, parts, axis=-1)
        rz_h, n_h = tf.split(keras.ops.matmul(h, self.recurrent_kernel), parts, axis=-1)
        r, z = tf.split(keras.ops.sigmoid(rz + rz_h), 2, axis=-1)
        n = keras.ops.tanh(n + r * (n_h + self.recurrent_bias))
        h = n + z * (h - n)
        return h, [h]


class LSTMCell(LoopCell):
    """i, f, o = sigmoid(p + h W_hh), g = tanh(p + h W_hh); c_t = f c + i g; h_t = o tanh(c_t); states h, c."""

    kind, compared = "LSTM", "with a wide state faster to train than keras.layers.LSTM"

    def call(self, inputs: Tensor, states: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        h, c = states
        i, f, g, o = tf.split(inputs + keras.ops.matmul(h, self.recurrent_kernel), 4, axis=-1)
        c = keras.ops.sigmoid(f) * c + keras.ops.sigmoid(i) * keras.ops.tanh(g)
        h = keras.ops.sigmoid(o) * keras.ops.tanh(c)
        return h, [h, c]


LOOP_CELLS: dict[str, type[LoopCell]] = {"rnn": TanhCell, "gru": GRUCell, "lstm": LSTMCell}


class AllStates(keras.layers.Layer):
    """A cell that puts out all states of another, side by side: (B, S H) for S states."""

    def __init__(self, cell: LoopCell, **options: Any) -> None:
        super().__init__(**options)
        self.cell, self.state_size = cell, cell.state_size
        self.output_size = sum(cell.state_size)

    def call(self, inputs: Tensor, states: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        _, after = self.cell(inputs, states)
        return keras.ops.concatenate(after, axis=-1), after


class HoistedRNN(keras.layers.RNN):
    """`keras.layers.RNN` whose cell sees weights that were read once, before the loop over T."""

    def inner_loop(self, sequences: Tensor, initial_state: Tensor, mask: Tensor, training: bool = False) -> Any:
        weights = [(v, tf.convert_to_tensor(v.value)) for v in self.cell.trainable_variables]
        with keras.StatelessScope(state_mapping=weights):
            return super().inner_loop(sequences, initial_state, mask, training=training)


@dataclass(frozen=True)
class Windows:
    """Blocks of truncated BPTT stacked as rows: `starts` (n,), their common length, and where each step is emitted.

    A block shorter than the others runs on past its end; what it computes there is not picked. `pick` (T,) are
    positions in the n blocks laid end to end.
    """

    starts: NDArray[np.int32]
    length: int
    pick: NDArray[np.int32]

    @classmethod
    def of(cls, blocks: Sequence[Block]) -> Windows:
        """The windows of consecutive blocks that emit steps 0 to T between them."""
        length = max(b.end - b.start for b in blocks)
        pick = [k * length + np.arange(b.emit - b.start, b.end - b.start) for k, b in enumerate(blocks)]
        return cls(np.array([b.start for b in blocks], np.int32), length, np.concatenate(pick).astype(np.int32))


def chains(blocks: Sequence[Block]) -> bool:
    """Whether the blocks run one after the other, each from the last one's detached state."""
    return len(blocks) <= CHAIN_BLOCKS and all(b.start == b.emit for b in blocks)


def detached(states: States) -> States:
    """The states as constants: no gradient flows through them."""
    return tuple(tf.stop_gradient(state) for state in states)


class Network(keras.Model):
    """Embedding (or dense input) -> projection -> recurrence -> Dense: logits (B, O), or (B, T, O) with `Head.EVERY`.

    In training, back-propagation is cut as the problem says. The loss is `compute_loss`, so that `fit` trains on it.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(dtype=str(problem.dtype))
        model, dtype = problem.model, str(problem.dtype)
        self.spec, self.T = model, problem.T
        self.truncated = problem.truncation is not None
        self.blocks = tuple(blocks_of(model, problem.truncation, problem.T))
        every = model.head is Head.EVERY
        self.embed = None if model.V is None else keras.layers.Embedding(model.V, model.E, dtype=dtype)
        self.project = keras.layers.Dense(model.recurrence.width(model.H), dtype=dtype)
        cell = LOOP_CELLS[model.cell](model.recurrence, model.H, dtype=dtype)
        several = len(cell.state_size) > 1
        self.recur = HoistedRNN(cell, return_sequences=every, return_state=several, dtype=dtype)
        self.dense = keras.layers.Dense(model.O, dtype=dtype)

    def zero_states(self, rows: Any) -> States:
        """What rows start from where no states are given."""
        return tuple(tf.zeros((rows, self.spec.H), self.compute_dtype) for _ in self.spec.recurrence.states)

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        return self.run(inputs, self.zero_states(tf.shape(inputs)[0]), training)[0]

    def run(self, inputs: Tensor, states: States, training: bool) -> tuple[Tensor, States]:
        """Logits and last states from first states."""
        p = self.project(inputs if self.embed is None else self.embed(inputs))
        h, last = (self._truncated if training and self.truncated else self._steps)(p, states)
        return self.dense(h), last

    def _steps(self, p: Tensor, states: States) -> tuple[Tensor, States]:
        """The last h (B, H), or h after each step (B, T, H) with `Head.EVERY`, and the last states."""
        reached = self.recur(p, initial_state=list(states))
        if self.recur.return_state:
            h, *last = reached
            return h, tuple(last)
        return reached, (reached[:, -1] if self.spec.head is Head.EVERY else reached,)

    def _truncated(self, p: Tensor, states: States) -> tuple[Tensor, States]:
        if self.spec.head is Head.LAST:
            start = self.blocks[0].start
            if start:
                _, states = self._steps(p[:, :start], states)
            return self._steps(p[:, start:], detached(states))
        return self._chained(p, states) if chains(self.blocks) else self._stacked(p, states)

    def _chained(self, p: Tensor, states: States) -> tuple[Tensor, States]:
        parts = []
        for block in self.blocks:
            h, states = self._steps(p[:, block.start : block.end], detached(states))
            parts.append(h)
        return tf.concat(parts, axis=1), states

    def _all_states(self, p: Tensor, states: States) -> Tensor:
        """All states after each step, side by side: (B, T, S H) for S states. With `Head.EVERY`."""
        recur = self.recur
        if recur.return_state:
            cell = AllStates(recur.cell, dtype=self.compute_dtype)
            recur = HoistedRNN(cell, return_sequences=True, dtype=self.compute_dtype)
        return recur(p, initial_state=list(states))

    def _stacked(self, p: Tensor, states: States) -> tuple[Tensor, States]:
        """All blocks at once, as n B rows, from the states of a forward pass that is not differentiated."""
        windows, n = Windows.of(self.blocks), len(states)
        known = tf.stop_gradient(self._all_states(tf.stop_gradient(p), states))
        before = states[0] if n == 1 else tf.concat(states, axis=-1)
        first = tf.gather(tf.concat([before[:, None], known], axis=1), windows.starts, axis=1)
        first = tf.reshape(first, (-1, before.shape[-1]))
        steps = windows.starts[:, None] + np.arange(windows.length, dtype=np.int32)
        rows = tf.reshape(tf.gather(p, steps, axis=1), (-1, windows.length, p.shape[-1]))
        h, _ = self._steps(rows, (first,) if n == 1 else tuple(tf.split(first, n, axis=-1)))
        h = tf.gather(tf.reshape(h, (-1, steps.size, self.spec.H)), windows.pick, axis=1)
        others = tf.split(known[:, -1], n, axis=-1)[1:] if n > 1 else ()
        return h, (h[:, -1], *others)

    def compute_loss(
        self,
        x: Tensor = None,
        y: Tensor = None,
        y_pred: Tensor = None,
        sample_weight: Tensor = None,
        training: bool = True,
    ) -> Tensor:
        """The mean over rows of `keras_losses`."""
        return tf.reduce_mean(keras_losses(self.spec, y_pred, y))

    def weights_by_name(self) -> dict[str, Any]:
        """The Keras variables under the project's names, in its order."""
        embedding = {} if self.embed is None else {"embedding": self.embed.embeddings}
        recurrent = self.recur.cell.recurrent_weights()
        return embedding | {
            "W_xh": self.project.kernel,
            "W_hh": recurrent.pop("W_hh"),
            "b_h": self.project.bias,
            **recurrent,
            "W_hy": self.dense.kernel,
            "b_y": self.dense.bias,
        }


def keras_losses(model: Model, z: Tensor, y: Tensor) -> Tensor:
    """The loss of each output, (B,) or (B, T), from logits z and targets y; (B,) with `StepSum.SUM` over time."""
    match model.loss:
        case Loss.BINARY_CROSS_ENTROPY:
            each = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(y, z), axis=-1)
        case Loss.CATEGORICAL_CROSS_ENTROPY:
            each = tf.nn.sparse_softmax_cross_entropy_with_logits(y, z)
        case Loss.SQUARED_ERROR:
            each = 0.5 * tf.reduce_sum(tf.math.squared_difference(z, y), axis=-1)
        case Loss.SIGMOID_SQUARED_ERROR:
            each = 0.5 * tf.reduce_sum(tf.math.squared_difference(tf.sigmoid(z), y), axis=-1)
    summed = model.head is Head.EVERY and model.step_sum is StepSum.SUM
    return tf.reduce_sum(each, axis=-1) if summed else each


def is_correct(model: Model, y: Tensor, z: Tensor) -> Tensor:
    """Which outputs are classified right, (B,) or (B, T)."""
    if model.loss is Loss.CATEGORICAL_CROSS_ENTROPY:
        return tf.argmax(z, axis=-1, output_type=tf.int32) == y
    return tf.reduce_all((z > 0) == (y > 0.5), axis=-1)


def metrics(model: Model, dtype: str) -> list[Any]:
    """What `fit` reports beside the loss: the accuracy, where the loss has classes."""
    if model.loss not in (Loss.BINARY_CROSS_ENTROPY, Loss.CATEGORICAL_CROSS_ENTROPY):
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
