"""What is computed: the model, how it is trained, where back-propagation is cut. Data only, no arithmetic.

Letters: B batch rows, T time steps, V vocabulary, E input width, H hidden units, O outputs, G gates of the cell.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from rnnbench.cells import Cell, cell_of


class Head(StrEnum):
    """Where the dense head reads the hidden states."""

    LAST = "last"  # logits (B, O), from the last state
    EVERY = "every"  # logits (B, T, O), from each state


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
    """How the losses of the T outputs of one sequence are added up. Without effect on `Head.LAST`."""

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


def _require_positive(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name} is {value}; it must be greater than 0")


@dataclass(frozen=True)
class Model:
    """Embedding (or dense input) -> recurrence -> dense head -> loss.

    `V` is the vocabulary size of the embedding, or None for dense input of width E. `cell` names the recurrence, an
    entry of `cells.CELLS`; the head reads its state h: y_t = h_t W_hy + b_y.
    Raises ValueError for a size below 1 and for an unknown cell.
    """

    E: int
    H: int
    O: int
    V: int | None = None
    head: Head = Head.LAST
    loss: Loss = Loss.BINARY_CROSS_ENTROPY
    step_sum: StepSum = StepSum.MEAN
    cell: str = "rnn"

    def __post_init__(self) -> None:
        _require_positive(E=self.E, H=self.H, O=self.O)
        if self.V is not None:
            _require_positive(V=self.V)
        cell_of(self.cell)

    @property
    def recurrence(self) -> Cell:
        """What the cell carries, learns and computes."""
        return cell_of(self.cell)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of every parameter, in the order that everything keeps: row-major, input x output."""
        embedding = {} if self.V is None else {"embedding": (self.V, self.E)}
        head = {"W_hy": (self.H, self.O), "b_y": (self.O,)}
        return embedding | self.recurrence.shapes(self.E, self.H) | head

    def loss_scale(self, B: int, T: int) -> float:
        """The factor that turns the sum of all emitted losses of a batch into the reported loss."""
        averaged_over_time = self.head is Head.EVERY and self.step_sum is StepSum.MEAN
        return 1.0 / (B * T) if averaged_over_time else 1.0 / B


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
    block has a loss, so the gradient reaches the last `window` steps and no others.
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


def blocks_of(model: Model, truncation: Truncation | None, T: int) -> list[Block]:
    """The reverse passes that carry a loss: one for full BPTT, one a block if truncated, the last for `Head.LAST`."""
    blocks = [Block(0, 0, T)] if truncation is None else list(truncation.blocks(T))
    return blocks[-1:] if model.head is Head.LAST else blocks


class Pass(StrEnum):
    """What is timed. The names are the methods of `backends.base.Session`, but for `epoch`, which is `train_epoch`."""

    FORWARD = "forward"
    GRADIENT = "gradient"
    TRAIN_STEP = "train_step"
    EPOCH = "epoch"


DENSE = "dense"  # the workload of a sweep: problems of many sizes share it


@dataclass(frozen=True)
class Problem:
    """All that fixes the arithmetic of a session: the same for every backend, written into every record."""

    workload: str
    dtype: DType
    model: Model
    train: Train
    B: int
    T: int
    truncation: Truncation | None = None

    def __post_init__(self) -> None:
        _require_positive(B=self.B, T=self.T)

    @property
    def name(self) -> str:
        """The workload, its cell unless that is the plain rnn or the workload's name has it, and its sizes where many
        share it: what the cases of one problem are shown and grouped by.
        """
        named = self.model.cell == "rnn" or self.model.cell in self.workload.split()
        cell = "" if named else f" {self.model.cell}"
        sizes = f" E{self.model.E} H{self.model.H} B{self.B} T{self.T}" if self.workload == DENSE else ""
        return f"{self.workload}{cell}{sizes}"


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
