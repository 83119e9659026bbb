"""PyTorch as its users write it: nn.Embedding, nn.RNN, nn.Linear, torch.optim; as installed, flushed, and compiled.

A recurrence is handed time first, which nn.RNN takes as it is. nn.RNN has two biases where the model has one:
`bias_ih_l0` is b_h, `bias_hh_l0` stays zero and is not trained.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from rnnbench.backends.base import Backend, Contract, Data, Inputs, Outputs, Session, shaped_targets
from rnnbench.model import Case, DType, Head, Loss, ModelSpec, Optimizer, Problem, StepSum, TrainSpec, blocks_of
from rnnbench.params import Array, Params

_DTYPES = {DType.FLOAT32: torch.float32, DType.FLOAT64: torch.float64}
_PREDICT_ROWS = 512
_CHUNK = 10  # steps in one compiled function: the time of compiling grows with it, the time of a step hardly falls


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
    """Embedding (or dense input), nn.RNN and a dense head, in PyTorch's own layouts."""

    def __init__(self, model: ModelSpec, dtype: torch.dtype) -> None:
        super().__init__()
        self.embedding = None if model.V is None else nn.Embedding(model.V, model.E, dtype=dtype)
        self.rnn = nn.RNN(model.E, model.H, dtype=dtype)
        self.head = nn.Linear(model.H, model.O, dtype=dtype)
        self.every = model.head is Head.EVERY
        self.rnn.bias_hh_l0.requires_grad_(False).zero_()

    def named(self) -> dict[str, nn.Parameter]:
        """The trained parameters under the model's names; the three matrices are transposed here."""
        embedding = {} if self.embedding is None else {"embedding": self.embedding.weight}
        return embedding | {
            "W_xh": self.rnn.weight_ih_l0,
            "W_hh": self.rnn.weight_hh_l0,
            "b_h": self.rnn.bias_ih_l0,
            "W_hy": self.head.weight,
            "b_y": self.head.bias,
        }

    def embed(self, x: Tensor) -> Tensor:
        """Rows (B, T) or (B, T, E) as steps (T, B, E)."""
        steps = x.transpose(0, 1)
        return steps if self.embedding is None else self.embedding(steps)

    def recur(self, steps: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """States (T, B, H), only needed where the head reads every step, and the last one (B, H)."""
        states, last = self.rnn(steps, None if state is None else state[None])
        return states, last[0]

    def read(self, states: Tensor) -> Tensor:
        """Logits (B, O) from a state (B, H), or (B, T, O) from states (T, B, H)."""
        return self.head(states) if states.ndim == 2 else self.head(states).transpose(0, 1)

    def forward(self, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """Logits and the last state of rows x, from `state` (B, H) or zeros."""
        states, last = self.recur(self.embed(x), state)
        return self.read(states if self.every else last), last


def chunk_last(h: Tensor, projected: Tensor, w: Tensor) -> Tensor:
    """The state after all steps of `projected` (T, B, H), from h (B, H); w (H, H) is output x input."""
    for p in projected.unbind():
        h = torch.tanh(torch.addmm(p, h, w.t()))
    return h


def chunk_every(h: Tensor, projected: Tensor, w: Tensor) -> Tensor:
    """The same, but all states (T, B, H)."""
    states = []
    for p in projected.unbind():
        h = torch.tanh(torch.addmm(p, h, w.t()))
        states.append(h)
    return torch.stack(states)


class CompiledNet(Net):
    """The same parameters; nn.RNN, which torch.compile leaves alone, is written out in chunks of steps.

    One compiled function runs a whole chunk of a full batch, forward and backward. Shorter chunks and batches of
    another size run the same lines uncompiled: nothing compiles again inside an epoch.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.model, _DTYPES[problem.dtype])
        self.plain = chunk_every if self.every else chunk_last
        self.compiled = _compiled(self.plain)
        self.shape = (min(problem.T, _CHUNK), problem.B, problem.model.H)

    def recur(self, steps: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        projected = F.linear(steps, self.rnn.weight_ih_l0, self.rnn.bias_ih_l0)
        h = projected.new_zeros(projected.shape[1:]) if state is None else state
        if torch.is_grad_enabled() and not h.requires_grad:
            h = h.detach().requires_grad_()  # as in later chunks, which spares a second compilation
        parts = []
        for part in projected.split(self.shape[0]):
            run = self.compiled if part.shape == self.shape else self.plain
            parts.append(run(h, part, self.rnn.weight_hh_l0))
            h = parts[-1][-1] if self.every else parts[-1]
        return (torch.cat(parts) if self.every else h), h


def short_loss(
    problem: Problem, params: dict[str, Tensor], x: Tensor, y: Tensor, state: Tensor
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """The loss of rows of few steps, and (logits, last state): all of it in one graph. Parameters as `Net.named`."""
    steps = x.transpose(0, 1)
    if problem.model.V is not None:
        steps = F.embedding(steps, params["embedding"])
    projected = F.linear(steps, params["W_xh"], params["b_h"])
    if problem.model.head is Head.EVERY:
        states = chunk_every(state, projected, params["W_hh"])
        last, logits = states[-1], F.linear(states, params["W_hy"], params["b_y"]).transpose(0, 1)
    else:
        last = chunk_last(state, projected, params["W_hh"])
        logits = F.linear(last, params["W_hy"], params["b_y"])
    loss = mean_loss(problem.model, logits, y)
    if problem.model.head is Head.EVERY and problem.model.step_sum is StepSum.SUM:
        loss = loss * problem.T
    return loss, (logits, last.clone())


def _is_short(problem: Problem) -> bool:
    return problem.T <= _CHUNK and problem.truncation is None


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` under torch.compile, once for each shape; its wrapper is C++ too, as Python between kernels is slow.

    Every problem of a worker needs its own shapes: the limit on compilations is raised, and passing it is an error,
    for PyTorch would go on uncompiled.
    """
    torch._dynamo.config.recompile_limit = 1024
    torch._dynamo.config.accumulated_recompile_limit = 4096
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    return torch.compile(function, dynamic=False, fullgraph=True, options={"cpp_wrapper": True})


def mean_loss(model: ModelSpec, z: Tensor, y: Tensor) -> Tensor:
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


def hits(model: ModelSpec, z: Tensor, y: Tensor) -> Tensor | None:
    """How many outputs are classified right, a scalar; None for losses without classes."""
    match model.loss:
        case Loss.BINARY_CROSS_ENTROPY:
            return ((z > 0) == (y > 0.5)).all(dim=-1).sum()
        case Loss.CATEGORICAL_CROSS_ENTROPY:
            return (z.argmax(dim=-1) == y).sum()
        case _:
            return None


def optimizer_for(train: TrainSpec, trained: list[nn.Parameter]) -> torch.optim.Optimizer:
    """PyTorch's fused optimizers: one pass over each parameter."""
    if train.optimizer is Optimizer.SGD:
        return torch.optim.SGD(trained, lr=train.learning_rate, fused=True)
    betas = (train.beta_1, train.beta_2)
    return torch.optim.Adam(trained, lr=train.learning_rate, betas=betas, eps=train.epsilon, fused=True)


def clip(train: TrainSpec, trained: list[nn.Parameter]) -> None:
    """Clip the gradients in place. `clip_grad_norm_` would add 1e-6 to the norm; this does not."""
    if train.clip_value is not None:
        nn.utils.clip_grad_value_(trained, train.clip_value)
    elif train.clip_norm is not None:
        grads = [p.grad for p in trained if p.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
        torch._foreach_mul_(grads, train.clip_norm / norm.clamp(min=train.clip_norm))


@dataclass(frozen=True)
class Done:
    """What a pass leaves, as tensors; `right` of `outputs` classified right, over an epoch."""

    loss: Tensor
    logits: Tensor | None = None
    state: Tensor | None = None
    grads: bool = False
    params: bool = False
    right: Tensor | None = None
    outputs: int = 0


class TorchSession(Session):
    """One problem in PyTorch."""

    def __init__(self, problem: Problem, params: Params, data: Data, net: Net, subnormals: Subnormals) -> None:
        self.problem, self.model, self.net, self.subnormals = problem, problem.model, net, subnormals
        self.dtype = _DTYPES[problem.dtype]
        self.parameters = net.named()
        self.trained = list(self.parameters.values())
        self.initial = {name: self._tensor(value.T).contiguous() for name, value in params.items() if name in _TURNED}
        self.initial |= {name: self._tensor(value) for name, value in params.items() if name not in _TURNED}
        self.inputs = self._rows(data.inputs)
        self.targets = torch.from_numpy(shaped_targets(problem, data.targets))
        if self.model.loss is Loss.CATEGORICAL_CROSS_ENTROPY:
            self.targets = self.targets.long()
        self.state: Tensor | None = None
        self.done: Done | None = None
        self.reset()
        self.select(0)

    def _tensor(self, value: Array) -> Tensor:
        return torch.tensor(np.ascontiguousarray(value), dtype=self.dtype)

    def _rows(self, inputs: Inputs) -> Tensor:
        dtype = self.dtype if self.model.V is None else torch.int64
        return torch.from_numpy(np.ascontiguousarray(inputs)).to(dtype)

    def select(self, batch: int) -> None:
        rows = slice(batch * self.problem.B, (batch + 1) * self.problem.B)
        self.x, self.y = self.inputs[rows], self.targets[rows]

    def start_from(self, state: Array | None) -> None:
        self.state = None if state is None else self._tensor(state)

    def reset(self) -> None:
        with self.subnormals, torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(self.initial[name])
                parameter.grad = None
        self.optimizer = optimizer_for(self.problem.train, self.trained)

    def forward(self) -> None:
        with self.subnormals, torch.inference_mode():
            logits, state = self.net(self.x, self.state)
            self.done = Done(self._scaled(mean_loss(self.model, logits, self.y), self.problem.T), logits, state)

    def gradient(self) -> None:
        with self.subnormals:
            self.done = self._gradient(self.x, self.y, self.state)

    def train_step(self) -> None:
        with self.subnormals:
            self.done = self._train_step(self.x, self.y, self.state)

    def train_epoch(self, order: NDArray[np.int64]) -> None:
        with self.subnormals:
            total, right, outputs = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.int64), 0
            for rows in torch.from_numpy(order).split(self.problem.B):
                y = self.targets.index_select(0, rows)
                done = self._train_step(self.inputs.index_select(0, rows), y, None)
                assert done.logits is not None
                total.add_(done.loss, alpha=len(rows))
                if (hit := hits(self.model, done.logits, y)) is not None:
                    right.add_(hit)
                    outputs += done.logits[..., 0].numel()
            self.done = Done(total / len(order), params=True, right=right, outputs=outputs)

    def predict(self, inputs: Inputs) -> Array:
        with self.subnormals, torch.inference_mode():
            parts = [self.net(x, None)[0] for x in self._rows(inputs).split(_PREDICT_ROWS)]
            predicted: Array = torch.cat(parts).numpy()
        return predicted

    def fetch(self) -> Outputs:
        done = self.done
        if done is None:
            return Outputs()
        grads = {name: p.grad for name, p in self.parameters.items() if done.grads and p.grad is not None}
        return Outputs(
            loss=done.loss.item(),
            logits=None if done.logits is None else done.logits.numpy(),
            state=None if done.state is None else done.state.numpy(),
            grads={name: _array(name, g) for name, g in grads.items()},
            params={name: _array(name, p) for name, p in self.parameters.items()} if done.params else {},
            accuracy=done.right.item() / done.outputs if done.right is not None and done.outputs else None,
        )

    def _scaled(self, loss: Tensor, steps: int) -> Tensor:
        """A mean over some of the T steps as that part of the batch's loss."""
        if self.model.head is Head.LAST:
            return loss
        share = steps if self.model.step_sum is StepSum.SUM else steps / self.problem.T
        return loss if share == 1 else loss * share

    def _gradient(self, x: Tensor, y: Tensor, state: Tensor | None) -> Done:
        self.optimizer.zero_grad(set_to_none=True)
        if self.problem.truncation is None:
            logits, last = self.net(x, state)
            loss = self._scaled(mean_loss(self.model, logits, y), self.problem.T)
        elif self.model.head is Head.LAST:
            loss, logits, last = self._last_window(x, y, state)
        else:
            loss, logits, last = self._blocks(x, y, state)
        loss.backward()
        return Done(loss.detach(), logits.detach(), last.detach(), grads=True)

    def _last_window(self, x: Tensor, y: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Head.LAST, truncated: the steps before the last window are run without a graph."""
        (block,) = blocks_of(self.model, self.problem.truncation, self.problem.T)
        if block.start:
            with torch.no_grad():
                _, state = self.net.recur(self.net.embed(x[:, : block.start]), state)
        logits, last = self.net(x[:, block.start :], state)
        return mean_loss(self.model, logits, y), logits, last

    def _blocks(self, x: Tensor, y: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Head.EVERY, truncated: each block starts from a detached state; where windows overlap, steps run again."""
        truncation = self.problem.truncation
        assert truncation is not None
        blocks, steps = blocks_of(self.model, truncation, self.problem.T), self.net.embed(x)
        apart = all(block.start == block.emit for block in blocks)
        pieces = steps.split(truncation.stride) if apart else [steps[b.start : b.end] for b in blocks]
        before = [state]  # before[t] is the state that step t starts from
        losses, logits = [], []
        for block, piece in zip(blocks, pieces, strict=True):
            states, last = self.net.recur(piece, before[block.start])
            emitted = states[block.emit - block.start :]
            before.extend(emitted.detach().unbind())
            logits.append(self.net.read(emitted))
            loss = mean_loss(self.model, logits[-1], y[:, block.emit : block.end])
            losses.append(self._scaled(loss, block.end - block.emit))
        return torch.stack(losses).sum(), torch.cat(logits, dim=1), last

    def _train_step(self, x: Tensor, y: Tensor, state: Tensor | None) -> Done:
        done = self._gradient(x, y, state)
        clip(self.problem.train, self.trained)
        self.optimizer.step()
        return Done(done.loss, done.logits, done.state, params=True)


_TURNED = ("W_xh", "W_hh", "W_hy")  # nn.RNN and nn.Linear keep these as output x input


def _array(name: str, value: Tensor) -> Array:
    """A copy in the model's layout."""
    return np.array(value.detach().numpy().T if name in _TURNED else value.detach().numpy(), order="C")


class TorchBackend(Backend):
    """PyTorch as installed: subnormals are kept."""

    name: ClassVar[str] = "torch"
    subnormals: ClassVar[Subnormals] = Subnormals(flush=False)
    recurrence: ClassVar[str] = "nn.RNN, time first"

    def unsupported(self, case: Case) -> str | None:
        return None

    def contract(self, problem: Problem) -> Contract:
        net = f"{'nn.Embedding, ' if problem.model.V is not None else ''}{self.recurrence}, nn.Linear"
        optimizer = f"torch.optim.{'Adam' if problem.train.optimizer is Optimizer.ADAM else 'SGD'}(fused=True)"
        clipped = "" if problem.train.clip_value is None and problem.train.clip_norm is None else "clipping; "
        return Contract(
            threads=torch.get_num_threads(),
            subnormals=self.subnormals.observed(),
            tf32=False,
            timed={
                "forward": f"{net}; the loss; inference_mode",
                "gradient": f"zero_grad to none; {net}; the loss; backward",
                "train_step": f"zero_grad to none; {net}; the loss; backward; {clipped}{optimizer}",
                "epoch": "a Python loop of train steps; rows by index_select from tensors in memory; loss and hits"
                " added up as tensors",
            },
        )

    def libraries(self) -> dict[str, str]:
        return {"torch": torch.__version__, "mkl": str(torch.backends.mkl.is_available())}

    def _prepare(self, problem: Problem, params: Params, data: Data) -> Session:
        with self.subnormals:
            net = Net(problem.model, _DTYPES[problem.dtype])
            return TorchSession(problem, params, data, net, self.subnormals)


class TorchFlushBackend(TorchBackend):
    """The same with `torch.set_flush_denormal(True)`."""

    name: ClassVar[str] = "torch+flush"
    subnormals: ClassVar[Subnormals] = Subnormals(flush=True)

    def unsupported(self, case: Case) -> str | None:
        able = torch.set_flush_denormal(True)
        torch.set_flush_denormal(False)
        return None if able else "this processor cannot flush subnormals in PyTorch; take torch instead"


class CompiledSession(TorchSession):
    """One problem with compiled parts: the whole of loss and gradient for rows of few steps, else the recurrence.

    A whole gradient is one graph, by torch.func.grad_and_value: no autograd at run time, which for a small network
    is most of a step. The forward pass of such rows is faster as it is than through the guards of a compiled one.
    """

    def __init__(self, problem: Problem, params: Params, data: Data, net: Net, subnormals: Subnormals) -> None:
        super().__init__(problem, params, data, net, subnormals)
        self.zeros = torch.zeros((problem.B, problem.model.H), dtype=self.dtype)
        self.values = {name: p.detach() for name, p in self.parameters.items()}  # the same memory
        self.loss_gradient = _compiled(torch.func.grad_and_value(partial(short_loss, problem), has_aux=True))

    def forward(self) -> None:
        if not _is_short(self.problem):
            return super().forward()
        with self.subnormals, torch.inference_mode():
            state = self.zeros if self.state is None else self.state
            loss, (logits, last) = short_loss(self.problem, self.values, self.x, self.y, state)
            self.done = Done(loss, logits, last)
        return None

    def _gradient(self, x: Tensor, y: Tensor, state: Tensor | None) -> Done:
        if not _is_short(self.problem) or len(x) != self.problem.B:
            return super()._gradient(x, y, state)
        with torch.no_grad():
            start = self.zeros if state is None else state
            grads, (loss, (logits, last)) = self.loss_gradient(self.values, x, y, start)
        for name, parameter in self.parameters.items():
            parameter.grad = grads[name]
        return Done(loss, logits, last, grads=True)


class TorchCompileBackend(TorchFlushBackend):
    """torch.compile where it pays, subnormals flushed."""

    name: ClassVar[str] = "torch+compile"
    recurrence: ClassVar[str] = (
        f"one product for all inputs, a tanh cell in chunks of up to {_CHUNK} steps, each one compiled function"
    )

    def unsupported(self, case: Case) -> str | None:
        return super().unsupported(case) or _no_compiler()

    def contract(self, problem: Problem) -> Contract:
        if _is_short(problem):
            parts = "all of the loss and its gradient in one graph; not: clipping, optimizer,"
        else:
            parts = "the recurrence, forward and backward; not: embedding, input product, head, loss, optimizer,"
            parts += f" a last chunk below {min(problem.T, _CHUNK)} steps,"
        return replace(super().contract(problem), notes=f"compiled: {parts} a batch of other than {problem.B} rows")

    def _prepare(self, problem: Problem, params: Params, data: Data) -> Session:
        with self.subnormals:
            return CompiledSession(problem, params, data, CompiledNet(problem), self.subnormals)


def _no_compiler() -> str | None:
    """What torch.compile lacks here to build its C++, with the way out, or None."""
    compiler = os.environ.get("CXX") or {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    if shutil.which(compiler.split()[0]) is None:
        return f"torch.compile needs a C++ compiler and {compiler} is not found; install it or set CXX"
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.is_file():
        return f"torch.compile builds against {header.name}, which this Python lacks; install its development package"
    return None
