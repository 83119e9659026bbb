"""The parts of the PyTorch backends: network, losses, optimizers, and what becomes of subnormals."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rnnbench.contract import CPU
from rnnbench.model import Direction, DType, Head, Loss, Model, Optimizer, Train
from rnnbench.params import Array

DTYPES = {DType.FLOAT32: torch.float32, DType.FLOAT64: torch.float64}

States = tuple[Tensor, ...]  # each (B, H), in the order of `Cell.states`


class StepNet(nn.Module):
    """One time step of a `Net`, by nn.RNNCell, nn.GRUCell or nn.LSTMCell with its parameters."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.embedding, self.head = net.embedding, net.head
        kind = getattr(nn, f"{net.rnn.mode.removesuffix('_TANH')}Cell")
        self.cells = nn.ModuleList()
        for layer in range(net.model.layers):
            weights = {name: getattr(net.rnn, f"{name}_l{layer}") for name in _OF_A_CELL}
            cell = kind(weights["weight_ih"].shape[1], net.model.H, dtype=weights["weight_ih"].dtype)
            for name, value in weights.items():
                setattr(cell, name, value)
            self.cells.append(cell)
        self.is_lstm = net.rnn.mode == "LSTM"

    def forward(self, x: Tensor, *states: Tensor) -> States:
        """Logits, then states, from x (B,) or (B, E) and states (B, H) in the order of `Model.states`."""
        h, after = x if self.embedding is None else self.embedding(x), list[Tensor]()
        for layer, cell in enumerate(self.cells):
            if self.is_lstm:
                h, c = cell(h, (states[2 * layer], states[2 * layer + 1]))
                after += [h, c]
            else:
                h = cell(h, states[layer])
                after.append(h)
        return (self.head(h), *after)


_OF_A_CELL = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
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
    """Embedding (or dense input), nn.RNN, nn.GRU or nn.LSTM, and a dense head, in PyTorch's own layouts.

    States go in and out as a tuple, each (B, H), in the order of `Model.states`.
    """

    def __init__(self, model: Model, dtype: torch.dtype, device: str = CPU) -> None:
        super().__init__()
        kind = {"dtype": dtype, "device": device}
        self.model = model
        self.embedding = None if model.V is None else nn.Embedding(model.V, model.E, **kind)
        recurrence = getattr(nn, module_of(model))
        self.rnn = recurrence(model.E, model.H, model.layers, bidirectional=model.bidirectional, **kind)
        self.head = nn.Linear(model.read, model.O, **kind)
        self.every, self.pads_rows = model.head is Head.EVERY, pads_rows(model)
        names = model.states  # made anew at each access, so not inside the clock
        self.state_count, self.read_states = len(names), [names.index(f"{d.prefix}h") for d in model.stack[-1]]
        for direction in model.directions:
            bias = self._of(direction, "bias_hh").requires_grad_(False).zero_()
            if model.cell == "gru":
                bias.requires_grad_().register_post_accumulate_grad_hook(_train_last_third)

    def _of(self, direction: Direction, kind: str) -> nn.Parameter:
        parameter: nn.Parameter = getattr(self.rnn, f"{kind}_l{direction.layer}{'_reverse' * direction.back}")
        return parameter

    def named(self) -> dict[str, nn.Parameter]:
        """The trained parameters under the model's names, as `to_torch` lays them out."""
        named = {} if self.embedding is None else {"embedding": self.embedding.weight}
        for direction in self.model.directions:
            kinds = {"W_xh": "weight_ih", "W_hh": "weight_hh", "b_h": "bias_ih"}
            kinds |= {"b_hn": "bias_hh"} if self.model.cell == "gru" else {}
            named |= direction.named({name: self._of(direction, kind) for name, kind in kinds.items()})
        return named | {"W_hy": self.head.weight, "b_y": self.head.bias}

    def embed(self, x: Tensor) -> Tensor:
        """Rows (B, T) or (B, T, E) as steps (T, B, E)."""
        steps = x.transpose(0, 1)
        return steps if self.embedding is None else self.embedding(steps)

    def recur(self, steps: Tensor, states: States | None, lengths: Tensor | None = None) -> tuple[Tensor, States]:
        """h of all steps (T, B, D H), only needed where the head reads every step, and the last states.

        With `lengths` (B,) rows are packed; those of length 0, which PyTorch does not pack, keep their states. Where h
        of all steps holds all states there are, they are read at each row's end: packing costs more than padding.
        """
        if lengths is None:
            every, last = self.rnn(steps, self._stacked(states))
            return every, self._apart(last)
        device = steps.device  # `lengths` are on the processor, where packing asks
        if self.pads_rows:
            every, _ = self.rnn(steps, self._stacked(states))
            at = (lengths - 1).clamp(min=0).to(device)
            ends = every[at, torch.arange(len(lengths), device=device)]
            start = torch.zeros_like(ends) if states is None else states[0]
            return every, (torch.where((lengths[:, None] > 0).to(device), ends, start),)
        taken = lengths > 0
        if taken.all():
            return self._packed(steps, states, lengths)
        shape, like = (len(steps), len(lengths), self.model.read), self.head.weight
        if states is None:
            states = (like.new_zeros((len(lengths), self.model.H)),) * self.state_count
        every, own = like.new_zeros(shape), lengths[taken]
        rows = taken.nonzero()[:, 0].to(device)
        if len(rows) == 0:
            return every, states
        h, last = self._packed(steps[:, rows], tuple(state[rows] for state in states), own)
        if self.every:
            every = every.index_copy(1, rows, h)
        return every, tuple(all_.index_copy(0, rows, of) for all_, of in zip(states, last, strict=True))

    def _packed(self, steps: Tensor, states: States | None, lengths: Tensor) -> tuple[Tensor, States]:
        """`recur` of rows that all have a step; where the head reads the last one, h of all steps stays packed."""
        packed = nn.utils.rnn.pack_padded_sequence(steps, lengths, enforce_sorted=False)
        every, last = self.rnn(packed, self._stacked(states))
        if not self.every:
            return every.data, self._apart(last)
        return nn.utils.rnn.pad_packed_sequence(every, total_length=len(steps))[0], self._apart(last)

    def _stacked(self, states: States | None) -> Any:
        """States as PyTorch takes them: (L D, B, H), of the lstm h and c."""
        if states is None:
            return None
        kinds = [states[i :: len(self.model.recurrence.states)] for i in range(len(self.model.recurrence.states))]
        stacked = tuple(kind[0][None] if len(kind) == 1 else torch.stack(kind) for kind in kinds)
        return stacked if len(stacked) > 1 else stacked[0]

    def _apart(self, last: Any) -> States:
        """PyTorch's last states in the order of the model."""
        kinds = last if isinstance(last, tuple) else (last,)
        return tuple(state for direction in zip(*kinds, strict=True) for state in direction)

    def last_read(self, states: States) -> Tensor:
        """Of all last states what the head reads: h of the last layer's directions side by side, (B, D H)."""
        each = [states[i] for i in self.read_states]
        return each[0] if len(each) == 1 else torch.cat(each, dim=-1)

    def read(self, states: Tensor) -> Tensor:
        """Logits (B, O) from what the head reads (B, D H), or (B, T, O) from (T, B, D H)."""
        return self.head(states) if states.ndim == 2 else self.head(states).transpose(0, 1)

    def forward(self, x: Tensor, states: States | None, lengths: Tensor | None = None) -> tuple[Tensor, States]:
        """Logits and the last states of rows x, from `states` or zeros."""
        every, last = self.recur(self.embed(x), states, lengths)
        return self.read(every if self.every else self.last_read(last)), last


def pads_rows(model: Model) -> bool:
    """Whether rows with lengths are computed to the end of their padding: h is the one state of one direction."""
    return model.states == ("h",)


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
    name = name.rpartition(".")[2]
    if name in _TURNED:
        return value.T.contiguous()
    return F.pad(value, (2 * len(value), 0)) if name == "b_hn" else value


def from_torch(name: str, value: Tensor) -> Array:
    """A copy of PyTorch's parameter, or of its gradient, in the model's layout."""
    name, array = name.rpartition(".")[2], value.numpy(force=True)
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
