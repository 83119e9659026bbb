"""What is computed: the model, how it is trained, where back-propagation is cut. Data only, no arithmetic.

Letters: B batch rows, T time steps, V vocabulary, E input width, H hidden units, O outputs, G gates of the cell,
D directions of a layer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from rnnbench.cells import Cell, cell_of
from rnnbench.names import unknown

Value = TypeVar("Value")
Choice = TypeVar("Choice", bound=StrEnum)


class Head(StrEnum):
    """Where the dense head reads the hidden states of the last layer, all directions side by side."""

    LAST = "last"  # logits (B, O), from the last state of each direction
    EVERY = "every"  # logits (B, T, O), from the states of each step


class Loss(StrEnum):
    """The loss of one emitted output. It is averaged over the batch; `StepSum` says what happens over time.

    With z the logits (O,) and y the target:

    - `BINARY_CROSS_ENTROPY`: mean over O of `log(1 + exp(z)) - y z`; y float (O,), 0 or 1.
    - `CATEGORICAL_CROSS_ENTROPY`: `log(sum(exp(z))) - z[y]`; y a class number in [0, O).
    - `SQUARED_ERROR`: `sum over O of 0.5 (z - y)^2`; y float (O,).
    - `SIGMOID_SQUARED_ERROR`: `sum over O of 0.5 (sigmoid(z) - y)^2`; y float (O,).
    """

    BINARY_CROSS_ENTROPY = "binary_cross_entropy"
    CATEGORICAL_CROSS_ENTROPY = "categorical_cross_entropy"
    SQUARED_ERROR = "squared_error"
    SIGMOID_SQUARED_ERROR = "sigmoid_squared_error"

    @property
    def has_accuracy(self) -> bool:
        """Whether an output is right or wrong: it names a class."""
        return self in (Loss.BINARY_CROSS_ENTROPY, Loss.CATEGORICAL_CROSS_ENTROPY)


class StepSum(StrEnum):
    """How the losses of the outputs of one sequence are added up. Without effect on `Head.LAST`.

    The mean of rows with lengths is over all outputs that the batch emits, as the frameworks' masks have it: the steps
    of a short row weigh as much as those of a long one.
    """

    MEAN = "mean"
    SUM = "sum"


class Optimizer(StrEnum):
    """The update rule."""

    SGD = "sgd"
    ADAM = "adam"


class DType(StrEnum):
    """The floating-point type of parameters, states and gradients."""

    FLOAT32 = "float32"
    FLOAT64 = "float64"

    @property
    def bytes(self) -> int:
        """The size of one number."""
        return 4 if self is DType.FLOAT32 else 8


def one_of(kind: str, name: str, known: type[Choice]) -> Choice:
    """The member of this name, so that a plain string does. ValueError for a name that is not known."""
    if name not in list(known):
        raise ValueError(unknown(kind, name, known))
    return known(name)


def _require_positive(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name} is {value}; it must be greater than 0")


@dataclass(frozen=True)
class Direction:
    """One layer in one direction: a recurrence over all steps, with parameters and states of its own.

    `layer` counts from 0. `back` goes from a row's last step to its first. `E` is the width of what is read: the
    inputs of the model, or the states h of the layer below. `prefix` stands before the cell's names of parameters and
    states: `l0.W_xh`, `l0.back.h`; it is empty where the model has no other layer or direction.
    """

    cell: Cell
    layer: int
    back: bool
    E: int
    H: int
    prefix: str

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of its parameters, the prefix before each name."""
        return {f"{self.prefix}{name}": shape for name, shape in self.cell.shapes(self.E, self.H).items()}

    @property
    def states(self) -> tuple[str, ...]:
        """The names of its states, the prefix before each."""
        return tuple(f"{self.prefix}{name}" for name in self.cell.states)

    def params_of(self, arrays: Mapping[str, Value]) -> dict[str, Value]:
        """Of the parameters of a model, or their gradients, its own under the cell's names."""
        return {name.removeprefix(self.prefix): arrays[name] for name in self.shapes}

    def states_of(self, arrays: Mapping[str, Value]) -> dict[str, Value]:
        """Of the states of a model its own under the cell's names."""
        return {name.removeprefix(self.prefix): arrays[name] for name in self.states}

    def named(self, arrays: Mapping[str, Value]) -> dict[str, Value]:
        """What stands under the cell's names under those of the model."""
        return {f"{self.prefix}{name}": array for name, array in arrays.items()}


@dataclass(frozen=True)
class Model:
    """Embedding (or dense input) -> layers of a recurrence -> dense head -> loss.

    `V` is the vocabulary size of the embedding, or None for dense input of width E. `cell` names the recurrence, an
    entry of `cells.CELLS`. A layer reads the states h of the layer below, both directions side by side where there are
    two (`bidirectional`); the head reads those of the last layer, (B, D H): y_t = h_t W_hy + b_y.
    Raises ValueError for a size or a number of layers below 1 and for an unknown cell.
    """

    E: int
    H: int
    O: int
    V: int | None = None
    head: Head = Head.LAST
    loss: Loss = Loss.BINARY_CROSS_ENTROPY
    step_sum: StepSum = StepSum.MEAN
    cell: str = "rnn"
    layers: int = 1
    bidirectional: bool = False

    def __post_init__(self) -> None:
        _require_positive(E=self.E, H=self.H, O=self.O, layers=self.layers)
        if self.V is not None:
            _require_positive(V=self.V)
        cell_of(self.cell)
        for name, known in (("head", Head), ("loss", Loss), ("step_sum", StepSum)):
            object.__setattr__(self, name, one_of(name, getattr(self, name), known))

    @property
    def recurrence(self) -> Cell:
        """What the cell carries, learns and computes."""
        return cell_of(self.cell)

    @property
    def read(self) -> int:
        """D H: the width of what the head, or the next layer, reads."""
        return (1 + self.bidirectional) * self.H

    @property
    def stack(self) -> tuple[tuple[Direction, ...], ...]:
        """The layers from the inputs up, each with its one or two directions, the one forward in time first."""
        plain = self.layers == 1 and not self.bidirectional
        return tuple(
            tuple(
                Direction(
                    self.recurrence,
                    layer,
                    back,
                    self.read if layer else self.E,
                    self.H,
                    "" if plain else f"l{layer}.back." if back else f"l{layer}.",
                )
                for back in (False, True)[: 1 + self.bidirectional]
            )
            for layer in range(self.layers)
        )

    @property
    def directions(self) -> list[Direction]:
        """All directions of all layers, in the order of `stack`."""
        return [direction for layer in self.stack for direction in layer]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of every parameter, in the order that everything keeps: row-major, input x output."""
        shapes: dict[str, tuple[int, ...]] = {} if self.V is None else {"embedding": (self.V, self.E)}
        for direction in self.directions:
            shapes |= direction.shapes
        return shapes | {"W_hy": (self.read, self.O), "b_y": (self.O,)}

    @property
    def states(self) -> tuple[str, ...]:
        """The names of all states, each (B, H), in the order of `stack`: `h`, or `l0.h`, `l0.back.h`, `l1.h`, ..."""
        return tuple(name for direction in self.directions for name in direction.states)

    @property
    def averages_steps(self) -> bool:
        """Whether the loss is a mean over the steps of a row as well."""
        return self.head is Head.EVERY and self.step_sum is StepSum.MEAN

    def loss_scale(self, B: int, T: int, emitted: int | None = None) -> float:
        """The factor that turns the sum of all emitted losses of a batch into the reported loss.

        `emitted`: with `Head.EVERY` how many outputs the batch has, where rows have lengths: their sum.
        """
        if not self.averages_steps:
            return 1.0 / B
        return 1.0 / (B * T if emitted is None else max(1, emitted))


@dataclass(frozen=True)
class Train:
    """One update: clip the gradient, then SGD or Adam.

    Adam is Algorithm 1 of Kingma and Ba, "Adam", 2015: epsilon is added to the bias-corrected root, as PyTorch and
    optax do. (Keras adds it before the correction, so its own backend here overrides that one line.)
    `clip_value` limits each element to [-c, c]; `clip_norm` scales all gradients together so that their common
    Euclidean norm is at most c. At most one of the two may be set; ValueError otherwise.
    """

    optimizer: Optimizer = Optimizer.ADAM
    learning_rate: float = 1e-3
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-7
    clip_value: float | None = None
    clip_norm: float | None = None

    @property
    def clips(self) -> bool:
        """Whether gradients are clipped before the update."""
        return self.clip_value is not None or self.clip_norm is not None

    def __post_init__(self) -> None:
        object.__setattr__(self, "optimizer", one_of("optimizer", self.optimizer, Optimizer))
        _require_positive(learning_rate=self.learning_rate, epsilon=self.epsilon)
        for name, beta in (("beta_1", self.beta_1), ("beta_2", self.beta_2)):
            if not 0 <= beta < 1:
                raise ValueError(f"{name} is {beta}; it must lie in [0, 1)")
        if self.clip_value is not None and self.clip_norm is not None:
            raise ValueError(
                f"clip_value={self.clip_value} and clip_norm={self.clip_norm} are both set; choose one of them"
            )
        for name, limit in (("clip_value", self.clip_value), ("clip_norm", self.clip_norm)):
            if limit is not None:
                _require_positive(**{name: limit})


@dataclass(frozen=True)
class Block:
    """One reverse pass of truncated BPTT, over steps [start, end); the losses of steps [emit, end) enter it."""

    start: int
    emit: int
    end: int


@dataclass(frozen=True)
class Truncation:
    """Truncated BPTT with 1 <= stride <= window (Williams and Peng, 1990: BPTT(h; h')).

    Blocks of steps end at stride, 2 stride, ... and at T. The losses emitted in a block that ends at t flow back
    through the last `window` steps before t and no further; the gradients of all blocks add up. `window == stride`
    is chunk-and-detach; `window >= T` with one block is full BPTT. With a loss at the last step alone only the last
    block has a loss, so the gradient reaches the last `window` steps and no others. Of a row with a length that is the
    block in which the row ends. A block cuts all layers at the same step.
    """

    window: int
    stride: int

    def __post_init__(self) -> None:
        if not 1 <= self.stride <= self.window:
            raise ValueError(
                f"truncation window={self.window}, stride={self.stride}; it must hold that 1 <= stride <= window"
            )

    def __str__(self) -> str:
        return f"{self.window}:{self.stride}"

    def blocks(self, T: int) -> Iterator[Block]:
        """The reverse passes for T steps, in order of time."""
        emit = 0
        for end in (*range(self.stride, T, self.stride), T):
            yield Block(start=max(0, end - self.window), emit=emit, end=end)
            emit = end


def blocks_of(model: Model, truncation: Truncation | None, T: int, lengths: bool = False) -> list[Block]:
    """The reverse passes that carry a loss: one for full BPTT, one a block if truncated, the last for `Head.LAST`.

    With `lengths` rows end in any block, and with `Head.LAST` the loss of a row enters the one in which it ends.
    """
    blocks = [Block(0, 0, T)] if truncation is None else list(truncation.blocks(T))
    return blocks[-1:] if model.head is Head.LAST and not lengths else blocks


class Pass(StrEnum):
    """What is timed. The names are the methods of `backends.base.Session`, but for `epoch`, which is `train_epoch`,
    and `step`, one time step of inference whose states stay: `begin_steps`.
    """

    FORWARD = "forward"
    GRADIENT = "gradient"
    TRAIN_STEP = "train_step"
    EPOCH = "epoch"
    STEP = "step"


USUAL_PASSES = (Pass.FORWARD, Pass.GRADIENT, Pass.TRAIN_STEP, Pass.EPOCH)  # those that are meant where none is named

DENSE = "dense"  # the workload of a sweep: problems of many sizes share it


def words_of(model: Model) -> list[str]:
    """What names the recurrence in a key: nothing of one layer of the plain rnn forward in time, `lstm L2
    bidirectional` of two of the lstm in both directions.
    """
    cell = [] if model.cell == "rnn" else [model.cell]
    layers = [] if model.layers == 1 else [f"L{model.layers}"]
    return cell + layers + (["bidirectional"] if model.bidirectional else [])


@dataclass(frozen=True)
class Problem:
    """All that fixes the arithmetic of a session: the same for every backend, written into every record.

    `mean_length`: of the rows, in steps, where they have lengths (`Data.lengths`); None where each has all T.
    Raises ValueError for sizes below 1, a mean outside [0, T], and a truncation of a model that is bidirectional: its
    backward direction begins at the end, so no block is done before the whole row is there (decision 0029).
    """

    workload: str
    dtype: DType
    model: Model
    train: Train
    B: int
    T: int
    truncation: Truncation | None = None
    mean_length: float | None = None

    def __post_init__(self) -> None:
        _require_positive(B=self.B, T=self.T)
        if self.mean_length is not None and not 0 <= self.mean_length <= self.T:
            raise ValueError(f"the mean length is {self.mean_length}; it must lie in [0, T = {self.T}]")
        if self.model.bidirectional and self.truncation is not None:
            raise ValueError(
                f"a bidirectional model reads rows from their end too, and truncation {self.truncation} cuts them "
                "before that; leave one of the two out"
            )

    @property
    def lengths(self) -> bool:
        """Whether rows have lengths."""
        return self.mean_length is not None

    @property
    def name(self) -> str:
        """The workload; its cell unless that is the plain rnn, its layers and directions unless there is one of each,
        and whether rows have lengths, unless the workload's name has these; and its sizes where many share it: what
        the cases of one problem are shown and grouped by.
        """
        own = re.split(r"[ -]", self.workload)
        words = [*words_of(self.model), *(["lengths"] if self.lengths else [])]
        if self.workload == DENSE:
            words += [f"E{self.model.E}", f"H{self.model.H}", f"B{self.B}", f"T{self.T}"]
        return " ".join([self.workload, *(word for word in words if word not in own)])


class Feature(StrEnum):
    """What a problem may have besides one layer, forward in time, over rows of T steps each; not every backend does."""

    LAYERS = "layers"  # more than one
    BIDIRECTIONAL = "bidirectional"
    LENGTHS = "lengths"


def features_of(problem: Problem) -> list[Feature]:
    """The features that a problem has."""
    model = problem.model
    has = {
        Feature.LAYERS: model.layers > 1,
        Feature.BIDIRECTIONAL: model.bidirectional,
        Feature.LENGTHS: problem.lengths,
    }
    return [feature for feature, there in has.items() if there]


@dataclass(frozen=True)
class Case(Problem):
    """A problem and the pass that is asked of it. `steps` is the number of batches of the `epoch` pass, else 1."""

    pass_: Pass = Pass.TRAIN_STEP
    steps: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_positive(steps=self.steps)

    @property
    def key(self) -> str:
        """A short readable name, unique within a run; for showing and for grouping, never to be split."""
        truncation = "" if self.truncation is None else f" truncated {self.truncation}"
        return f"{self.name} {self.pass_} {self.dtype}{truncation}"
