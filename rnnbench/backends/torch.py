"""PyTorch as its users write it: nn.Embedding, nn.RNN, nn.GRU or nn.LSTM, nn.Linear, torch.optim; as installed, and
flushed.

A recurrence is handed time first, which these modules take as it is. They have two biases where the model has one:
`bias_ih_l0` is b_h, `bias_hh_l0` stays zero and is not trained, but for the n gate's part in nn.GRU, which is b_hn.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rnnbench.backends.base import Backend, Outputs, Session
from rnnbench.backends.torch_parts import (
    DTYPES,
    Net,
    States,
    Subnormals,
    clip_gradients,
    correct_count,
    from_torch,
    mean_loss,
    module_of,
    optimizer_for,
    to_torch,
)
from rnnbench.contract import Contract
from rnnbench.data import Data, Inputs, shaped_targets
from rnnbench.model import Block, Case, DType, Head, Loss, Optimizer, Problem, StepSum, blocks_of
from rnnbench.params import Array, Params

_PREDICT_ROWS = 512


@dataclass(frozen=True)
class TorchOutputs:
    """What a pass leaves, as tensors; `correct` of `outputs` are classified right, over an epoch."""

    loss: Tensor
    logits: Tensor | None = None
    states: States = ()
    grads: bool = False
    params: bool = False
    correct: Tensor | None = None
    outputs: int = 0


class TorchSession(Session):
    """One problem in PyTorch, on the device of its network: rows, parameters and answers stay there until fetched."""

    def __init__(self, problem: Problem, params: Params, data: Data, net: Net, subnormals: Subnormals) -> None:
        super().__init__(problem, data)
        self.model, self.net, self.subnormals = problem.model, net, subnormals
        self.dtype = DTYPES[problem.dtype]
        self.parameters = net.named()
        self.device = self.parameters["W_hh"].device
        self.trained = list(self.parameters.values())
        self.initial = {name: to_torch(name, self._tensor(value)) for name, value in params.items()}
        self.inputs = self._rows(data.inputs)
        self.targets = torch.from_numpy(shaped_targets(problem, data.targets)).to(self.device)
        if self.model.loss is Loss.CATEGORICAL_CROSS_ENTROPY:
            self.targets = self.targets.long()
        self.states: States | None = None
        self.done: TorchOutputs | None = None
        self.reset()
        self.select(0)

    def _tensor(self, value: Array) -> Tensor:
        return torch.tensor(np.ascontiguousarray(value), dtype=self.dtype, device=self.device)

    def _rows(self, inputs: Inputs) -> Tensor:
        dtype = self.dtype if self.model.V is None else torch.int64
        return torch.from_numpy(np.ascontiguousarray(inputs)).to(self.device, dtype)

    def _select(self, batch: int) -> None:
        rows = slice(batch * self.problem.B, (batch + 1) * self.problem.B)
        self.x, self.y = self.inputs[rows], self.targets[rows]

    def _start_from(self, states: dict[str, Array] | None) -> None:
        names = self.model.recurrence.states
        self.states = None if states is None else tuple(self._tensor(states[name]) for name in names)

    def reset(self) -> None:
        with self.subnormals, torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(self.initial[name])
                parameter.grad = None
        self.optimizer = optimizer_for(self.problem.train, self.trained)

    def forward(self) -> None:
        with self.subnormals, torch.inference_mode():
            logits, last = self.net(self.x, self.states)
            self.done = TorchOutputs(self._scaled(mean_loss(self.model, logits, self.y), self.problem.T), logits, last)

    def gradient(self) -> None:
        with self.subnormals:
            self.done = self._gradient(self.x, self.y, self.states)

    def train_step(self) -> None:
        with self.subnormals:
            self.done = self._train_step(self.x, self.y, self.states)

    def _train_epoch(self, order: NDArray[np.int64]) -> None:
        with self.subnormals:
            total = torch.zeros((), dtype=torch.float64, device=self.device)
            correct, outputs = torch.zeros((), dtype=torch.int64, device=self.device), 0
            for rows in torch.from_numpy(order).to(self.device).split(self.problem.B):
                y = self.targets.index_select(0, rows)
                done = self._train_step(self.inputs.index_select(0, rows), y, None)
                assert done.logits is not None
                total.add_(done.loss, alpha=len(rows))
                if (found := correct_count(self.model, done.logits, y)) is not None:
                    correct.add_(found)
                    outputs += done.logits[..., 0].numel()
            self.done = TorchOutputs(total / len(order), params=True, correct=correct, outputs=outputs)

    def _predict(self, inputs: Inputs, lengths: Inputs | None) -> Array:
        with self.subnormals, torch.inference_mode():
            parts = [self.net(x, None)[0] for x in self._rows(inputs).split(_PREDICT_ROWS)]
            predicted: Array = torch.cat(parts).numpy(force=True)
        return predicted

    def fetch(self) -> Outputs:
        done = self.done
        if done is None:
            return Outputs()
        grads = {name: p.grad for name, p in self.parameters.items() if done.grads and p.grad is not None}
        return Outputs(
            loss=done.loss.item(),
            logits=None if done.logits is None else done.logits.numpy(force=True),
            states={
                name: s.numpy(force=True) for name, s in zip(self.model.recurrence.states, done.states, strict=False)
            },
            grads={name: from_torch(name, g) for name, g in grads.items()},
            params={name: from_torch(name, p) for name, p in self.parameters.items()} if done.params else {},
            accuracy=done.correct.item() / done.outputs if done.correct is not None and done.outputs else None,
        )

    def poison(self) -> None:
        done = self.done
        with torch.inference_mode():
            for tensor in (*(p.grad for p in self.trained), *((done.loss, done.logits, *done.states) if done else ())):
                if tensor is not None:
                    tensor.fill_(torch.nan)
        self.done = None

    def _scaled(self, loss: Tensor, steps: int) -> Tensor:
        """A mean over some of the T steps as that part of the batch's loss."""
        if self.model.head is Head.LAST:
            return loss
        share = steps if self.model.step_sum is StepSum.SUM else steps / self.problem.T
        return loss if share == 1 else loss * share

    def _gradient(self, x: Tensor, y: Tensor, states: States | None) -> TorchOutputs:
        self.optimizer.zero_grad(set_to_none=True)
        if self.problem.truncation is None:
            logits, last = self.net(x, states)
            loss = self._scaled(mean_loss(self.model, logits, y), self.problem.T)
        elif self.model.head is Head.LAST:
            loss, logits, last = self._last_window(x, y, states)
        else:
            loss, logits, last = self._blocks(x, y, states)
        loss.backward()
        return TorchOutputs(loss.detach(), logits.detach(), _detached(last), grads=True)

    def _last_window(self, x: Tensor, y: Tensor, states: States | None) -> tuple[Tensor, Tensor, States]:
        """Head.LAST, truncated: the steps before the last window are run without a graph."""
        (block,) = blocks_of(self.model, self.problem.truncation, self.problem.T)
        if block.start:
            with torch.no_grad():
                _, states = self.net.recur(self.net.embed(x[:, : block.start]), states)
        logits, last = self.net(x[:, block.start :], states)
        return mean_loss(self.model, logits, y), logits, last

    def _blocks(self, x: Tensor, y: Tensor, states: States | None) -> tuple[Tensor, Tensor, States]:
        """Head.EVERY, truncated: each block starts from a detached state; where windows overlap, steps run again."""
        truncation = self.problem.truncation
        assert truncation is not None
        blocks, steps = blocks_of(self.model, truncation, self.problem.T), self.net.embed(x)
        apart = all(block.start == block.emit for block in blocks)
        pieces = steps.split(truncation.stride) if apart else [steps[b.start : b.end] for b in blocks]
        starts = {block.start for block in blocks}
        before = {0: states}  # before[t] are the states that step t starts from
        losses, logits = [], []
        for block, piece in zip(blocks, pieces, strict=True):
            emitted, last = self._recur(piece, block, starts, before)
            logits.append(self.net.read(emitted))
            loss = mean_loss(self.model, logits[-1], y[:, block.emit : block.end])
            losses.append(self._scaled(loss, block.end - block.emit))
        return torch.stack(losses).sum(), torch.cat(logits, dim=1), last

    def _recur(
        self, piece: Tensor, block: Block, starts: set[int], before: dict[int, States | None]
    ) -> tuple[Tensor, States]:
        """h of the emitted steps of a block (t, B, H) and its last states, over `piece`, its steps.

        `before` gains, detached, the states that later blocks start from. Where h is all that is carried, the answer
        has them; nn.LSTM gives c after its last step only, and so is called in parts that end where a block starts.
        """
        skipped = block.emit - block.start
        if self.model.recurrence.states == ("h",):
            every, last = self.net.recur(piece, before[block.start])
            emitted = every[skipped:]
            before.update(enumerate(((h,) for h in emitted.detach().unbind()), block.emit + 1))
            return emitted, last
        ends = [t for t in range(block.emit + 1, block.end) if t in starts] + [block.end]
        states, parts = before[block.start], []
        for end, part in zip(ends, piece.split(np.diff(ends, prepend=block.start).tolist()), strict=True):
            every, states = self.net.recur(part, states)
            before[end] = _detached(states)
            parts.append(every)
        assert states is not None
        return (parts[0] if len(parts) == 1 else torch.cat(parts))[skipped:], states

    def _train_step(self, x: Tensor, y: Tensor, states: States | None) -> TorchOutputs:
        done = self._gradient(x, y, states)
        clip_gradients(self.problem.train, self.trained)
        self.optimizer.step()
        return TorchOutputs(done.loss, done.logits, done.states, params=True)


def _detached(states: States) -> States:
    return tuple(state.detach() for state in states)


def update_of(problem: Problem) -> str:
    """What follows the gradient in a train step, for the contract."""
    optimizer = f"torch.optim.{'Adam' if problem.train.optimizer is Optimizer.ADAM else 'SGD'}(fused=True)"
    return f"clipping; {optimizer}" if problem.train.clips else optimizer


def _module_as_run(problem: Problem) -> str:
    """The recurrence's module, and what PyTorch hands it to on a processor: oneDNN has an lstm in float32."""
    one = problem.model.cell == "lstm" and problem.dtype is DType.FLOAT32 and torch.backends.mkldnn.is_available()
    return f"nn.{module_of(problem.model)}{' (oneDNN)' if one else ''}"


def _notes(problem: Problem) -> Iterator[str]:
    if problem.model.cell == "gru":
        yield "of the second bias the n gate's part is trained: in each gradient the other parts are made zero"
    truncation = problem.truncation
    if problem.model.cell == "lstm" and truncation is not None and truncation.window > truncation.stride:
        yield "nn.LSTM is called in parts that end where a later window starts, as it gives c after its last step only"
    yield "the optimizer makes its state in its first step after it was put back"


class TorchBackend(Backend):
    """PyTorch as installed: subnormals are kept."""

    name: ClassVar[str] = "torch"
    subnormals: ClassVar[Subnormals] = Subnormals(flush=False)
    recurrence: ClassVar[str] = "{module}, time first"

    def contract(self, problem: Problem) -> Contract:
        recurrence = self.recurrence.format(module=_module_as_run(problem))
        net = f"{'nn.Embedding, ' if problem.model.V is not None else ''}{recurrence}, nn.Linear"
        return Contract(
            threads=torch.get_num_threads(),
            subnormals=self.subnormals.observed(),
            tf32=False,
            timed={
                "forward": f"{net}; the loss; inference_mode",
                "gradient": f"zero_grad to none; {net}; the loss; backward",
                "train_step": f"zero_grad to none; {net}; the loss; backward; {update_of(problem)}",
                "epoch": "a Python loop of train steps; rows by index_select from tensors in memory; loss and hits"
                " added up as tensors",
            },
            notes="; ".join(_notes(problem)),
            staged="rows (tokens as int64) and targets as tensors; a batch is a view of them",
            waits="calls return when their work is done",
        )

    def libraries(self) -> dict[str, str]:
        return {"torch": torch.__version__, "mkl": str(torch.backends.mkl.is_available())}

    def _prepare(self, problem: Problem, params: Params, data: Data) -> Session:
        with self.subnormals:
            net = Net(problem.model, DTYPES[problem.dtype])
            return TorchSession(problem, params, data, net, self.subnormals)


class TorchFlushBackend(TorchBackend):
    """PyTorch with `torch.set_flush_denormal(True)`."""

    name: ClassVar[str] = "torch+flush"
    subnormals: ClassVar[Subnormals] = Subnormals(flush=True)

    def _unsupported(self, case: Case) -> str | None:
        able = torch.set_flush_denormal(True)
        torch.set_flush_denormal(False)
        return None if able else "this processor cannot flush subnormals in PyTorch; take torch instead"
