"""The lines of a Keras user: `Embedding`, `SimpleRNN`, `GRU` or `LSTM`, `Dense`, `compile`, `fit`, on the framework
that Keras was imported with (`keras_import` comes first).

Gates lie in Keras's order. Two things are not as its users have them, so that an update is the one that all others
make: Adam's epsilon, and what of the gradients the optimizer is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from rnnbench.backends.base import Outputs, Session
from rnnbench.backends.keras_import import floatx
from rnnbench.cells import Cell, reordered
from rnnbench.data import Data, Inputs, shaped_targets
from rnnbench.model import Head, Loss, Model, Optimizer, Problem, StepSum, Train
from rnnbench.params import Array, Params, cast

PREDICT_ROWS = 512
GATES = {"rnn": ("h",), "gru": ("z", "r", "n"), "lstm": ("i", "f", "g", "o")}  # under our names, in Keras's order
LAYERS = {"rnn": "SimpleRNN", "gru": "GRU", "lstm": "LSTM"}
NO_GRADIENT = "Keras gives no gradients: it trains by fit and train_on_batch; take tensorflow, jax or torch"
NO_TRUNCATION = "Keras's layers back-propagate through all steps; take numba, jax or torch, or leave the truncation out"

Tensor = Any


def to_keras(cell: Cell, array: Array) -> Array:
    """(..., G H) in our order of gates as (..., G H) in Keras's."""
    return reordered(array, cell.gates, GATES[cell.name])


def from_keras(cell: Cell, array: Array) -> Array:
    """The way back."""
    return reordered(array, GATES[cell.name], cell.gates)


def _array(variable: Any) -> Array:
    """A copy of a Keras variable's value."""
    return np.array(ops.convert_to_numpy(variable))


class Remember(keras.layers.Layer):
    """Gives the first of some values, and keeps them all in variables."""

    def build(self, shapes: Sequence[Sequence[int]]) -> None:
        self.kept = [self.add_weight(shape=shape, initializer="zeros", trainable=False) for shape in shapes]

    def call(self, values: Sequence[Tensor]) -> Tensor:
        for variable, value in zip(self.kept, values, strict=True):
            variable.assign(value)
        return values[0]


class GivenGradients:
    """An optimizer that first makes gradients what the other backends have.

    TensorFlow's for an embedding come row by row: those of a token that occurs more than once are added up, as Keras
    squares and clips them one by one. `masks` are zero where a weight is none of the model's: the second bias of `GRU`
    for the gates z and r.
    """

    masks: dict[int, Any]

    def apply(self, grads: Sequence[Tensor], trainable_variables: Sequence[Any] | None = None) -> None:
        variables = trainable_variables or self._trainable_variables  # type: ignore[attr-defined]
        if keras.config.backend() == "tensorflow":
            import tensorflow as tf

            grads = [tf.convert_to_tensor(g) for g in grads]
        masks = [self.masks.get(id(variable)) for variable in variables]
        grads = [g if mask is None else g * mask for g, mask in zip(grads, masks, strict=True)]
        super().apply(grads, trainable_variables)  # type: ignore[misc]


# On PyTorch these are Keras's own that update all parameters at once.
_SGD, _ADAM = (type(kind()) for kind in (keras.optimizers.SGD, keras.optimizers.Adam))


class GivenSGD(GivenGradients, _SGD):  # type: ignore[misc, valid-type]
    """`keras.optimizers.SGD`."""


class GivenAdam(GivenGradients, _ADAM):  # type: ignore[misc, valid-type]
    """`keras.optimizers.Adam` as Kingma and Ba's Algorithm 1.

    Keras adds epsilon to the root before the bias correction. With epsilon times the correction it is Algorithm 1:
    a sqrt(c) m / (sqrt(v) + e sqrt(c)) = a m / (sqrt(v / c) + e), for c = 1 - beta_2^t.
    """

    @property
    def epsilon(self) -> Tensor:
        """What Keras adds to the root in this step."""
        kind = keras.config.floatx()
        power = ops.power(ops.cast(self.beta_2, kind), ops.cast(self.iterations + 1, kind))
        return ops.cast(self.given, kind) * ops.sqrt(1 - power)

    @epsilon.setter
    def epsilon(self, value: float) -> None:
        self.given = value


def given_optimizer(train: Train) -> Any:
    """The Keras optimizer of a train spec, made where `floatx` is the problem's type.

    TensorFlow takes a Python float for float32 before it is cast to float64.
    """
    exact = np.float64 if keras.config.floatx() == "float64" else float
    clip = {"clipvalue": train.clip_value, "global_clipnorm": train.clip_norm}
    rate = float(train.learning_rate)
    if train.optimizer is Optimizer.SGD:
        return GivenSGD(rate, **clip)
    return GivenAdam(rate, beta_1=exact(train.beta_1), beta_2=exact(train.beta_2), epsilon=exact(train.epsilon), **clip)


def loss_of(model: Model) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss of each output, (B,) or (B, T), from targets and logits; (B,) with `StepSum.SUM` over time."""
    summed = model.head is Head.EVERY and model.step_sum is StepSum.SUM

    def each(y: Tensor, z: Tensor) -> Tensor:
        match model.loss:
            case Loss.BINARY_CROSS_ENTROPY:
                return keras.losses.binary_crossentropy(y, z, from_logits=True)
            case Loss.CATEGORICAL_CROSS_ENTROPY:
                return keras.losses.sparse_categorical_crossentropy(y, z, from_logits=True)
            case Loss.SQUARED_ERROR:
                return 0.5 * ops.sum(ops.square(z - y), axis=-1)
            case Loss.SIGMOID_SQUARED_ERROR:
                return 0.5 * ops.sum(ops.square(ops.sigmoid(z) - y), axis=-1)

    return (lambda y, z: ops.sum(each(y, z), axis=-1)) if summed else each


def metrics_of(model: Model) -> list[Any]:
    """The accuracy, where the loss has classes."""

    def accuracy(y: Tensor, z: Tensor) -> Tensor:
        if model.loss is Loss.CATEGORICAL_CROSS_ENTROPY:
            return keras.metrics.sparse_categorical_accuracy(y, z)
        return ops.all(ops.equal(z > 0, y > 0.5), axis=-1)

    return [accuracy] if model.loss.has_accuracy else []


class KerasLinesSession(Session):
    """One problem in a Keras user's lines. Two models share layers and optimizer.

    `fitted` is theirs, for `fit` and `predict`. `stepped` takes states too and keeps logits and states, for
    `test_on_batch` and `train_on_batch`, which give the loss alone.
    """

    def __init__(self, problem: Problem, params: Params, data: Data) -> None:
        super().__init__(problem, data)
        model = problem.model
        self.model, self.cell, self.dtype = model, model.recurrence, str(problem.dtype)
        self.inputs = np.ascontiguousarray(data.inputs, np.int32 if model.V is not None else self.dtype)
        self.targets = shaped_targets(problem, data.targets)
        if model.loss is Loss.CATEGORICAL_CROSS_ENTROPY:
            self.targets = self.targets[..., None]  # as many axes as logits have: else Keras guesses which to drop
        self.zeros = [np.zeros((problem.B, model.H), self.dtype) for _ in self.model.states]
        self.first = self.zeros
        self.loss: float | None = None
        self.accuracy: float | None = None
        self.stepped_last = self.trained = False
        with floatx(self.dtype):
            self._build(params)
        self.select(0)

    def _build(self, params: Params) -> None:
        problem, model = self.problem, self.model
        shape = (problem.T,) if model.V is not None else (problem.T, model.E)
        layers = [self._recurrent(layer) for layer in range(model.layers)]
        embed = None if model.V is None else keras.layers.Embedding(model.V, model.E, dtype=self.dtype)
        dense = keras.layers.Dense(model.O, dtype=self.dtype)
        kind = self.dtype if model.V is None else "int32"

        x = keras.Input(shape, dtype=kind)
        h = x if embed is None else embed(x)
        for layer in layers:
            h, *_ = layer(h)
        self.fitted = keras.Model(x, dense(h))

        x = keras.Input(batch_shape=(problem.B, *shape), dtype=kind)
        first = [keras.Input(batch_shape=(problem.B, model.H), dtype=self.dtype) for _ in model.states]
        last, each = [], len(first) // model.layers
        h = x if embed is None else embed(x)
        for i, layer in enumerate(layers):
            h, *after = layer(h, initial_state=first[i * each : (i + 1) * each])
            last += after
        remember = Remember(dtype=self.dtype)
        self.stepped = keras.Model([x, *first], remember([dense(h), *last]))

        self.variables = self.fitted.trainable_variables
        names = [] if embed is None else ["embedding"]
        names += [f"{d.prefix}{name}" for d in model.directions for name in ("W_xh", "W_hh", "b_h")]
        self.named = dict(zip([*names, "W_hy", "b_y"], self.variables, strict=True))
        for name, value in self._to_keras(params).items():
            self.named[name].assign(value)
        optimizer = given_optimizer(problem.train)
        optimizer.masks = {}
        if model.cell == "gru":
            mask = np.ones((2, 3 * model.H), self.dtype)
            mask[1, : 2 * model.H] = 0
            optimizer.masks = {id(self.named[f"{d.prefix}b_h"]): ops.convert_to_tensor(mask) for d in model.directions}
        self.fitted.compile(optimizer=optimizer, loss=loss_of(model), metrics=metrics_of(model))
        self.stepped.compile(optimizer=optimizer, loss=loss_of(model))
        optimizer.build(self.variables)
        self.kept = remember.kept
        changed = [*self.variables, *optimizer.variables]
        self.initial = [(variable, _array(variable)) for variable in changed]

    def _recurrent(self, number: int) -> Any:
        """A layer that gives its output and its states: of all steps where the next one, or the head, reads them."""
        model = self.model
        every = model.head is Head.EVERY or number + 1 < model.layers
        kind = getattr(keras.layers, LAYERS[model.cell])
        layer = kind(model.H, return_sequences=every, return_state=True, dtype=self.dtype)
        return keras.layers.Bidirectional(layer, dtype=self.dtype) if model.bidirectional else layer

    def _to_keras(self, params: Params) -> dict[str, Array]:
        """Parameters as Keras has them, its `bias` under the name of our `b_h`."""
        named, cell = cast(params, self.problem.dtype), self.cell
        for d in self.model.directions:
            own = d.params_of(named)
            bias = to_keras(cell, own["b_h"])
            if cell.inner:  # the second row is inside the recurrent product; of the gates z and r it stays zero
                bias = np.stack([bias, np.zeros_like(bias)])
                bias[1, 2 * d.H :] = named.pop(f"{d.prefix}b_hn")
            named |= d.named({"W_xh": to_keras(cell, own["W_xh"]), "W_hh": to_keras(cell, own["W_hh"]), "b_h": bias})
        return named

    def _params(self) -> dict[str, Array]:
        """The way back."""
        found, cell = {name: _array(variable) for name, variable in self.named.items()}, self.cell
        for d in self.model.directions:
            bias = found[f"{d.prefix}b_h"]
            if cell.inner:
                found[f"{d.prefix}b_hn"] = bias[1, 2 * d.H :].copy()
                bias = bias[0]
            kernels = {name: from_keras(cell, found[f"{d.prefix}{name}"]) for name in ("W_xh", "W_hh")}
            found |= d.named({**kernels, "b_h": from_keras(cell, bias)})
        return {name: found[name] for name in self.model.shapes}

    def _select(self, batch: int) -> None:
        rows = slice(batch * self.problem.B, (batch + 1) * self.problem.B)
        self.x, self.y = self.inputs[rows], self.targets[rows]

    def _start_from(self, states: dict[str, Array] | None) -> None:
        self.first = self.zeros if states is None else [states[name] for name in self.model.states]

    def reset(self) -> None:
        with floatx(self.dtype):
            for variable, value in self.initial:
                variable.assign(value)

    def forward(self) -> None:
        with floatx(self.dtype):
            self._done(self.stepped.test_on_batch([self.x, *self.first], self.y), trained=False)

    def gradient(self) -> None:
        raise NotImplementedError(NO_GRADIENT)

    def train_step(self) -> None:
        self._refuse_truncation()
        with floatx(self.dtype):
            self._done(self.stepped.train_on_batch([self.x, *self.first], self.y), trained=True)

    def _done(self, loss: float, trained: bool) -> None:
        self.loss, self.accuracy, self.stepped_last, self.trained = loss, None, True, trained

    def _refuse_truncation(self) -> None:
        if self.problem.truncation is not None:
            raise NotImplementedError(NO_TRUNCATION)

    def _train_epoch(self, order: NDArray[np.int64]) -> None:
        self._refuse_truncation()
        x, y = self.inputs[order], self.targets[order]
        with floatx(self.dtype):
            history = self.fitted.fit(x, y, batch_size=self.problem.B, epochs=1, shuffle=False, verbose=0).history
        (self.loss,), (self.accuracy,) = history["loss"], history.get("accuracy", [None])
        self.stepped_last, self.trained = False, True

    def _predict(self, inputs: Inputs, lengths: Inputs | None) -> Array:
        with floatx(self.dtype):
            predicted: Array = self.fitted.predict(inputs, batch_size=PREDICT_ROWS, verbose=0)
        return predicted

    def fetch(self) -> Outputs:
        if self.loss is None:
            return Outputs()
        params = self._params() if self.trained else {}
        if not self.stepped_last:
            return Outputs(self.loss, params=params, accuracy=self.accuracy)
        logits, *last = map(_array, self.kept)
        return Outputs(float(self.loss), logits, dict(zip(self.model.states, last, strict=True)), params=params)

    def poison(self) -> None:
        self.loss = None
        with floatx(self.dtype):
            for variable in self.kept:
                variable.assign(np.full(variable.shape, np.nan, self.dtype))
