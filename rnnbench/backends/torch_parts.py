"""The parts of the PyTorch backends: network, losses, optimizers, and what becomes of subnormals."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rnnbench.contract import CPU
from rnnbench.model import DType, Head, Loss, Model, Optimizer, Train
from rnnbench.params import Array

DTYPES = {DType.FLOAT32: torch.float32, DType.FLOAT64: torch.float64}

States = tuple[Tensor, ...]  # each (B, H), in the order of `Cell.states`

_TURNED = ("W_xh", "W_hh", "W_hy")  # nn.RNN and its kin, and nn.Linear, keep these as output x input


class Subnormals:
    """A `with` block in which this thread, and the worker threads it starts, flush subnormals to zero; or not.

    The mode belongs to a thread. PyTorch's pool inherits that of the thread which opens it, at its first large
    operation, so all work of a flushing backend, staging included, happens in such a block.
    """

    def __init__(self, flush: bool) -> None:
        self.flush = flush

    def __enter__(self) -> None:
        if self.flush:
            torch.set_flush_denormal(True)

    def __exit__(self, *error: object) -> None:
        if self.flush:
            torch.set_flush_denormal(False)

    def observed(self) -> str:
        """What becomes of subnormal products in the threads of the pool: tried, not asked."""
        with self:
            tiny = torch.full((torch.get_num_threads() * 65536,), 2.0**-126)
            kept = (tiny * 0.5).view(torch.int32).count_nonzero().item() / tiny.numel()  # as bits: `!= 0` flushes too
        return {0.0: "flushed", 1.0: "kept"}.get(kept, f"flushed in {1 - kept:.0%} of the threads' work")


class Net(nn.Module):
    """Embedding (or dense input), nn.RNN, nn.GRU or nn.LSTM, and a dense head, in PyTorch's own layouts."""

    def __init__(self, model: Model, dtype: torch.dtype, device: str = CPU) -> None:
        super().__init__()
        kind = {"dtype": dtype, "device": device}
        self.embedding = None if model.V is None else nn.Embedding(model.V, model.E, **kind)
        self.rnn = getattr(nn, module_of(model))(model.E, model.H, **kind)
        self.head = nn.Linear(model.H, model.O, **kind)
        self.every = model.head is Head.EVERY
        self.rnn.bias_hh_l0.requires_grad_(False).zero_()
        if model.cell == "gru":
            self.rnn.bias_hh_l0.requires_grad_().register_post_accumulate_grad_hook(_train_last_third)

    def named(self) -> dict[str, nn.Parameter]:
        """The trained parameters under the model's names, as `to_torch` lays them out."""
        embedding = {} if self.embedding is None else {"embedding": self.embedding.weight}
        inner = {"b_hn": self.rnn.bias_hh_l0} if self.rnn.mode == "GRU" else {}
        return (
            embedding
            | {"W_xh": self.rnn.weight_ih_l0, "W_hh": self.rnn.weight_hh_l0, "b_h": self.rnn.bias_ih_l0}
            | inner
            | {"W_hy": self.head.weight, "b_y": self.head.bias}
        )

    def embed(self, x: Tensor) -> Tensor:
        """Rows (B, T) or (B, T, E) as steps (T, B, E)."""
        steps = x.transpose(0, 1)
        return steps if self.embedding is None else self.embedding(steps)

    def recur(self, steps: Tensor, states: States | None) -> tuple[Tensor, States]:
        """h of all steps (T, B, H), only needed where the head reads every step, and the last states."""
        if self.rnn.mode == "LSTM":
            every, last = self.rnn(steps, None if states is None else tuple(state[None] for state in states))
            return every, tuple(state[0] for state in last)
        every, last = self.rnn(steps, None if states is None else states[0][None])
        return every, (last[0],)

    def read(self, states: Tensor) -> Tensor:
        """Logits (B, O) from a state (B, H), or (B, T, O) from states (T, B, H)."""
        return self.head(states) if states.ndim == 2 else self.head(states).transpose(0, 1)

    def forward(self, x: Tensor, states: States | None) -> tuple[Tensor, States]:
        """Logits and the last states of rows x, from `states` or zeros."""
        every, last = self.recur(self.embed(x), states)
        return self.read(every if self.every else last[0]), last


def module_of(model: Model) -> str:
    """The name in torch.nn of the model's recurrence."""
    return model.cell.upper()


def _train_last_third(bias: Tensor) -> None:
    """Of nn.GRU's second bias (3 H,) the gates r and z have no use: their gradient is zero, so that they stay zero, and
    neither clipping nor the optimizer sees them.
    """
    assert bias.grad is not None
    bias.grad[: 2 * len(bias) // 3].zero_()


def to_torch(name: str, value: Tensor) -> Tensor:
    """A parameter of the model as PyTorch keeps it: matrices output x input, b_hn (H,) as the last third of (3 H,)."""
    if name in _TURNED:
        return value.T.contiguous()
    return F.pad(value, (2 * len(value), 0)) if name == "b_hn" else value


def from_torch(name: str, value: Tensor) -> Array:
    """A copy of PyTorch's parameter, or of its gradient, in the model's layout."""
    array = value.numpy(force=True)
    if name in _TURNED:
        array = array.T
    return np.array(array[2 * len(array) // 3 :] if name == "b_hn" else array, order="C")


def mean_loss(model: Model, z: Tensor, y: Tensor) -> Tensor:
    """The mean over rows, and over the steps that are in z, of each emitted output's loss."""
    match model.loss:
        case Loss.BINARY_CROSS_ENTROPY:
            return F.binary_cross_entropy_with_logits(z, y)
        case Loss.CATEGORICAL_CROSS_ENTROPY:
            return F.cross_entropy(z.flatten(0, -2), y.flatten())
        case Loss.SQUARED_ERROR:
            return F.mse_loss(z, y) * (0.5 * model.O)
        case Loss.SIGMOID_SQUARED_ERROR:
            return F.mse_loss(z.sigmoid(), y) * (0.5 * model.O)


def correct_count(model: Model, z: Tensor, y: Tensor) -> Tensor | None:
    """How many outputs are classified right, a scalar; None for losses without classes."""
    match model.loss:
        case Loss.BINARY_CROSS_ENTROPY:
            return ((z > 0) == (y > 0.5)).all(dim=-1).sum()
        case Loss.CATEGORICAL_CROSS_ENTROPY:
            return (z.argmax(dim=-1) == y).sum()
        case _:
            return None


def optimizer_for(train: Train, trained: list[nn.Parameter]) -> torch.optim.Optimizer:
    """PyTorch's fused optimizers: one pass over each parameter."""
    if train.optimizer is Optimizer.SGD:
        return torch.optim.SGD(trained, lr=train.learning_rate, fused=True)
    betas = (train.beta_1, train.beta_2)
    return torch.optim.Adam(trained, lr=train.learning_rate, betas=betas, eps=train.epsilon, fused=True)


def clip_gradients(train: Train, trained: list[nn.Parameter]) -> None:
    """Clip the gradients in place. `clip_grad_norm_` would add 1e-6 to the norm; this does not."""
    if train.clip_value is not None:
        nn.utils.clip_grad_value_(trained, train.clip_value)
    elif train.clip_norm is not None:
        grads = [p.grad for p in trained if p.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
        torch._foreach_mul_(grads, train.clip_norm / norm.clamp(min=train.clip_norm))
