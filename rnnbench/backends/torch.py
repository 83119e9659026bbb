"""PyTorch as its users write it: nn.Embedding, nn.RNN, nn.GRU or nn.LSTM, nn.Linear, torch.optim; as installed, and
flushed.

A recurrence is handed time first, which these modules take as it is. They have two biases where the model has one:
`bias_ih_l0` is b_h, `bias_hh_l0` stays zero and is not trained, but for the n gate's part in nn.GRU, which is b_hn.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rnnbench.backends.base import Backend, Outputs, Session, Steps
from rnnbench.backends.torch_parts import (
    DTYPES,
    Net,
    States,
    StepNet,
    Subnormals,
    clip_gradients,
    correct_count,
    from_torch,
    mean_loss,
    module_of,
    optimizer_for,
    pads_rows,
    to_torch,
)
from rnnbench.contract import Contract
from rnnbench.data import Data, Inputs, blank_logits, shaped_lengths, shaped_targets
from rnnbench.model import Block, Case, DType, Head, Loss, Optimizer, Problem, blocks_of
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
    lengths: Tensor | None = None  # of the rows of a pass


class TorchSession(Session):
    """One problem in PyTorch, on the device of its network: rows, parameters and answers stay there until fetched."""

    def __init__(self, problem: Problem, params: Params, data: Data, net: Net, subnormals: Subnormals) -> None:
        super().__init__(problem, data)
        self.model, self.net, self.subnormals, self.in_parts = problem.model, net, subnormals, _in_parts(problem)
        self.dtype = DTYPES[problem.dtype]
        self.parameters = net.named()
        self.device = self.parameters["W_hy"].device
        self.trained = list(self.parameters.values())
        self.initial = {name: to_torch(name, self._tensor(value)) for name, value in params.items()}
        self.inputs = self._rows(data.inputs)
        self.targets = torch.from_numpy(shaped_targets(problem, data.targets)).to(self.device)
        if self.model.loss is Loss.CATEGORICAL_CROSS_ENTROPY:
            self.targets = self.targets.long()
        steps = shaped_lengths(problem, data.lengths)
        self.lengths = None if steps is None else torch.from_numpy(steps).long()  # on the processor: packing asks there
        self.states: States | None = None
        self._done: TorchOutputs | None = None
        self.stepped: States | None = None  # logits and states after a single step, where that was the last pass
        self.reset()
        self.select(0)

    @property
    def done(self) -> TorchOutputs | None:
        """What the last pass left; none where that was a single step."""
        return self._done

    @done.setter
    def done(self, outputs: TorchOutputs | None) -> None:
        self._done, self.stepped = outputs, None

    def _tensor(self, value: Array) -> Tensor:
        return torch.tensor(np.ascontiguousarray(value), dtype=self.dtype, device=self.device)

    def _rows(self, inputs: Inputs) -> Tensor:
        dtype = self.dtype if self.model.V is None else torch.int64
        return torch.from_numpy(np.ascontiguousarray(inputs)).to(self.device, dtype)

    def _select(self, batch: int) -> None:
        rows = slice(batch * self.problem.B, (batch + 1) * self.problem.B)
        self.x, self.y = self.inputs[rows], self.targets[rows]
        self.n = None if self.lengths is None else self.lengths[rows]

    def _start_from(self, states: dict[str, Array] | None) -> None:
        names = self.model.states
        self.states = None if states is None else tuple(self._tensor(states[name]) for name in names)

    def reset(self) -> None:
        with self.subnormals, torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(self.initial[name])
                parameter.grad = None
        self.optimizer = optimizer_for(self.problem.train, self.trained)

    def forward(self) -> None:
        with self.subnormals, torch.inference_mode():
            logits, last = self.net(self.x, self.states, self.n)
            self.done = TorchOutputs(self._loss(logits, self.y, self.n), logits, last, lengths=self.n)

    def gradient(self) -> None:
        with self.subnormals:
            self.done = self._gradient(self.x, self.y, self.states, self.n)

    def train_step(self) -> None:
        with self.subnormals:
            self.done = self._train_step(self.x, self.y, self.states, self.n)

    def begin_steps(self) -> Steps:
        """The cell traced, frozen and optimised for inference: of what users have the fastest (decision 0056)."""
        x = self.x.transpose(0, 1).contiguous()
        zeros = (torch.zeros(self.problem.B, self.model.H, dtype=self.dtype),) * self.net.state_count
        states = zeros if self.states is None else self.states
        net = copy.deepcopy(self.net).requires_grad_(False)  # what is frozen here stays as it was for other passes
        with self.subnormals, warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of TorchScript, whose successors take longer a call
            traced = torch.jit.trace(StepNet(net).eval(), (x[0], *states))
            step = torch.jit.optimize_for_inference(torch.jit.freeze(traced))

        def take(x: Tensor) -> None:
            nonlocal states
            self.stepped = _, *states = step(x, *states)

        def take_flushed(x: Tensor) -> None:
            with self.subnormals:
                take(x)

        return Steps(list(x), take_flushed if self.subnormals.flush else take)

    def _train_epoch(self, order: NDArray[np.int64]) -> None:
        with self.subnormals:
            total = torch.zeros((), dtype=torch.float64, device=self.device)
            correct, outputs = torch.zeros((), dtype=torch.int64, device=self.device), 0
            taken = torch.from_numpy(order)
            batches = (rows.split(self.problem.B) for rows in (taken, taken.to(self.device)))
            for here, rows in zip(*batches, strict=True):
                y = self.targets.index_select(0, rows)
                lengths = None if self.lengths is None else self.lengths.index_select(0, here)
                done = self._train_step(self.inputs.index_select(0, rows), y, None, lengths)
                assert done.logits is not None
                total.add_(done.loss, alpha=len(rows))
                z, y = self._emitted(done.logits, y, lengths)
                if (found := correct_count(self.model, z, y)) is not None:
                    correct.add_(found)
                    outputs += z[..., 0].numel()
            self.done = TorchOutputs(total / len(order), params=True, correct=correct, outputs=outputs)

    def _predict(self, inputs: Inputs, lengths: Inputs | None) -> Array:
        with self.subnormals, torch.inference_mode():
            rows, parts = self._rows(inputs).split(_PREDICT_ROWS), []
            for i, x in enumerate(rows):
                part = slice(i * _PREDICT_ROWS, i * _PREDICT_ROWS + len(x))
                own = None if lengths is None else torch.from_numpy(lengths[part]).long()
                parts.append(self.net(x, None, own)[0])
            predicted: Array = torch.cat(parts).numpy(force=True)
        return blank_logits(self.problem, predicted, lengths)

    def fetch(self) -> Outputs:
        if self.stepped is not None:
            logits, *last = (tensor.numpy(force=True) for tensor in self.stepped)
            return Outputs(logits=logits, states=dict(zip(self.model.states, last, strict=True)))
        done = self.done
        if done is None:
            return Outputs()
        grads = {name: p.grad for name, p in self.parameters.items() if done.grads and p.grad is not None}
        return Outputs(
            loss=done.loss.item(),
            logits=None if done.logits is None else self._blanked(done.logits, done.lengths),
            states={name: s.numpy(force=True) for name, s in zip(self.model.states, done.states, strict=False)},
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

    def _blanked(self, logits: Tensor, lengths: Tensor | None) -> Array:
        array: Array = logits.numpy(force=True)
        return array if lengths is None else blank_logits(self.problem, array, lengths.numpy())

    def _emitted(self, z: Tensor, y: Tensor, lengths: Tensor | None, first: int = 0) -> tuple[Tensor, Tensor]:
        """Of logits (B, t, O) and targets, of steps from `first` on, the (n, O) that rows with lengths (B,) emit; all
        where there are no lengths, and with Head.LAST.
        """
        if lengths is None or self.model.head is Head.LAST:
            return z, y
        real = torch.arange(first, first + z.shape[1]) < lengths[:, None]
        at = tuple(index.to(z.device) for index in real.nonzero(as_tuple=True))
        return z[at], y[at]

    def _loss(self, z: Tensor, y: Tensor, lengths: Tensor | None, first: int = 0) -> Tensor:
        """From logits (B, O), or (B, t, O) of steps from `first` on, and targets: that part of the batch's loss."""
        model, T = self.model, self.problem.T
        if model.head is Head.LAST:
            return mean_loss(model, z, y)
        if lengths is None:
            loss, steps = mean_loss(model, z, y), z.shape[1]
            share = steps / T if model.averages_steps else steps
            return loss if share == 1 else loss * share
        z, y = self._emitted(z, y, lengths, first)
        if len(z) == 0:
            return z.sum()
        return mean_loss(model, z, y) * (len(z) / (int(lengths.sum()) if model.averages_steps else len(lengths)))

    def _gradient(self, x: Tensor, y: Tensor, states: States | None, lengths: Tensor | None) -> TorchOutputs:
        self.optimizer.zero_grad(set_to_none=True)
        model, truncation = self.model, self.problem.truncation
        if truncation is None:
            logits, last = self.net(x, states, lengths)
            loss = self._loss(logits, y, lengths)
        elif model.head is Head.LAST and lengths is None:
            loss, logits, last = self._last_window(x, y, states)
        else:
            loss, logits, last = self._blocks(x, y, states, lengths)
        loss.backward()
        if lengths is not None:  # rows that are all empty reach no recurrence, whose gradient is zero then
            for parameter in self.trained:
                parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        return TorchOutputs(loss.detach(), logits.detach(), _detached(last), grads=True, lengths=lengths)

    def _last_window(self, x: Tensor, y: Tensor, states: States | None) -> tuple[Tensor, Tensor, States]:
        """Head.LAST, truncated: the steps before the last window are run without a graph."""
        (block,) = blocks_of(self.model, self.problem.truncation, self.problem.T)
        if block.start:
            with torch.no_grad():
                _, states = self.net.recur(self.net.embed(x[:, : block.start]), states)
        logits, last = self.net(x[:, block.start :], states)
        return mean_loss(self.model, logits, y), logits, last

    def _blocks(
        self, x: Tensor, y: Tensor, states: States | None, lengths: Tensor | None
    ) -> tuple[Tensor, Tensor, States]:
        """Loss, logits and last states of rows (B, T) or (B, T, E), truncated: each block starts from a detached state;
        where windows overlap, steps run again.

        With Head.LAST rows have lengths: the head reads each where it ends, all of them at once.
        """
        truncation, last_step = self.problem.truncation, self.model.head is Head.LAST
        assert truncation is not None
        blocks = blocks_of(self.model, truncation, self.problem.T, lengths is not None)
        steps = self.net.embed(x)
        apart = all(block.start == block.emit for block in blocks)
        pieces = steps.split(truncation.stride) if apart else [steps[b.start : b.end] for b in blocks]
        starts = {block.start for block in blocks}
        before = {0: states}  # before[t] are the states that step t starts from
        losses, logits = [], []
        ends = None if states is None else self.net.last_read(states)
        for block, piece in zip(blocks, pieces, strict=True):
            emitted, last = self._recur(piece, block, starts, before, lengths)
            if last_step:
                assert lengths is not None
                own = ((lengths > block.emit) & (lengths <= block.end))[:, None].to(self.device)
                h = self.net.last_read(last)
                ends = torch.where(own, h, torch.zeros_like(h) if ends is None else ends)
                continue
            logits.append(self.net.read(emitted))
            losses.append(self._loss(logits[-1], y[:, block.emit : block.end], lengths, block.emit))
        if last_step:
            assert ends is not None
            z = self.net.read(ends)
            return mean_loss(self.model, z, y), z, last
        return torch.stack(losses).sum(), torch.cat(logits, dim=1), last

    def _recur(
        self,
        piece: Tensor,
        block: Block,
        starts: set[int],
        before: dict[int, States | None],
        lengths: Tensor | None,
    ) -> tuple[Tensor, States]:
        """h of the emitted steps of a block (t, B, H) and its last states, over `piece`, its steps.

        `before` gains, detached, the states that later blocks start from. Where h of one layer is all that is carried,
        and through all steps, the answer has them; else the net, which gives states after its last step only, is called
        in parts that end where a block starts.
        """
        skipped = block.emit - block.start
        if not self.in_parts:
            every, last = self.net.recur(piece, before[block.start])
            emitted = every[skipped:]
            before.update(enumerate(((h,) for h in emitted.detach().unbind()), block.emit + 1))
            return emitted, last
        ends = [t for t in range(block.emit + 1, block.end) if t in starts] + [block.end]
        states, parts, at = before[block.start], [], block.start
        for end, part in zip(ends, piece.split(np.diff(ends, prepend=block.start).tolist()), strict=True):
            own = None if lengths is None else (lengths - at).clamp(0, end - at)
            every, states = self.net.recur(part, states, own)
            before[end], at = _detached(states), end
            parts.append(every)
        assert states is not None
        if self.model.head is Head.LAST:
            return parts[-1], states
        return (parts[0] if len(parts) == 1 else torch.cat(parts))[skipped:], states

    def _train_step(self, x: Tensor, y: Tensor, states: States | None, lengths: Tensor | None) -> TorchOutputs:
        done = self._gradient(x, y, states, lengths)
        clip_gradients(self.problem.train, self.trained)
        self.optimizer.step()
        return TorchOutputs(done.loss, done.logits, done.states, params=True, lengths=lengths)


def _in_parts(problem: Problem) -> bool:
    """Whether what later blocks start from is more than the h of all steps, which is what the modules give."""
    return problem.model.states != ("h",) or problem.lengths


def _detached(states: States) -> States:
    return tuple(state.detach() for state in states)


def update_of(problem: Problem) -> str:
    """What follows the gradient in a train step, for the contract."""
    optimizer = f"torch.optim.{'Adam' if problem.train.optimizer is Optimizer.ADAM else 'SGD'}(fused=True)"
    return f"clipping; {optimizer}" if problem.train.clips else optimizer


def _notes(problem: Problem, padded: str, packed: str) -> Iterator[str]:
    if problem.model.cell == "gru":
        yield "of the second bias the n gate's part is trained: in each gradient the other parts are made zero"
    truncation = problem.truncation
    if _in_parts(problem) and truncation is not None and truncation.window > truncation.stride:
        yield "the recurrence is called in parts that end where a later window starts: it gives all states only there"
    if problem.lengths:
        yield padded if pads_rows(problem.model) else packed
    yield "the optimizer makes its state in its first step after it was put back"


class TorchBackend(Backend):
    """PyTorch as installed: subnormals are kept."""

    name: ClassVar[str] = "torch"
    streams: ClassVar[bool] = True
    subnormals: ClassVar[Subnormals] = Subnormals(flush=False)
    recurrence: ClassVar[str] = "{module}, time first"
    padded: ClassVar[str] = "padding is computed, and the state of each row's end read, faster than packed sequences"
    packed: ClassVar[str] = (
        "rows are packed by pack_padded_sequence(enforce_sorted=False), those of length 0 left out, inside the clock"
    )

    def contract(self, problem: Problem) -> Contract:
        recurrence = self.recurrence.format(module=self._module(problem), cell=problem.model.cell)
        net = f"{'nn.Embedding, ' if problem.model.V is not None else ''}{recurrence}, nn.Linear"
        cell = f"nn.{module_of(problem.model)}Cell, nn.Linear, by torch.jit.trace, freeze and optimize_for_inference"
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
                **({"step": cell} if self.streams else {}),
            },
            notes="; ".join(_notes(problem, self.padded, self.packed)),
            staged="rows (tokens as int64) and targets as tensors; a batch is a view of them",
            waits="calls return when their work is done",
        )

    def _module(self, problem: Problem) -> str:
        """The recurrence's module, and what PyTorch hands it to on a processor: oneDNN has an lstm in float32."""
        one = problem.model.cell == "lstm" and problem.dtype is DType.FLOAT32 and torch.backends.mkldnn.is_available()
        return f"nn.{module_of(problem.model)}{' (oneDNN)' if one else ''}"

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
