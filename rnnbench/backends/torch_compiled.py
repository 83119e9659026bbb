"""torch.compile where it pays: the recurrence in chunks of steps, or the whole gradient of a short network."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from rnnbench.backends.base import Session
from rnnbench.backends.torch import TorchFlushBackend, TorchOutputs, TorchSession, update_of
from rnnbench.backends.torch_parts import DTYPES, Net, States, Subnormals, mean_loss
from rnnbench.contract import Contract
from rnnbench.data import Data
from rnnbench.model import Case, Head, Problem, StepSum
from rnnbench.params import Params

_CHUNK = 10  # steps in one compiled function: the time of compiling grows with it, the time of a step hardly falls


def chunk_last(h: Tensor, projected: Tensor, w: Tensor) -> Tensor:
    """The state after all steps of `projected` (T, B, H), from h (B, H); w (H, H) is output x input."""
    for p in projected.unbind():
        h = torch.tanh(torch.addmm(p, h, w.t()))
    return h


def chunk_every(h: Tensor, projected: Tensor, w: Tensor) -> Tensor:
    """All states (T, B, H) of the steps of `projected` (T, B, H), from h (B, H); w (H, H) is output x input."""
    states = []
    for p in projected.unbind():
        h = torch.tanh(torch.addmm(p, h, w.t()))
        states.append(h)
    return torch.stack(states)


class CompiledNet(Net):
    """`Net` whose nn.RNN, which torch.compile leaves alone, is written out in chunks of steps.

    One compiled function runs a whole chunk of a full batch, forward and backward. Shorter chunks and batches of
    another size run the same lines uncompiled: nothing compiles again inside an epoch.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.model, DTYPES[problem.dtype])
        self.plain = chunk_every if self.every else chunk_last
        self.compiled = _compiled(self.plain)
        self.shape = (min(problem.T, _CHUNK), problem.B, problem.model.H)

    def recur(self, steps: Tensor, states: States | None) -> tuple[Tensor, States]:
        projected = F.linear(steps, self.rnn.weight_ih_l0, self.rnn.bias_ih_l0)
        h = projected.new_zeros(projected.shape[1:]) if states is None else states[0]
        if torch.is_grad_enabled() and not h.requires_grad:
            h = h.detach().requires_grad_()  # as in later chunks, which spares a second compilation
        parts = []
        for part in projected.split(self.shape[0]):
            run = self.compiled if part.shape == self.shape else self.plain
            parts.append(run(h, part, self.rnn.weight_hh_l0))
            h = parts[-1][-1] if self.every else parts[-1]
        return (torch.cat(parts) if self.every else h), (h,)


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
            state = self.zeros if self.states is None else self.states[0]
            loss, (logits, last) = short_loss(self.problem, self.values, self.x, self.y, state)
            self.done = TorchOutputs(loss, logits, (last,))
        return None

    def _gradient(self, x: Tensor, y: Tensor, states: States | None) -> TorchOutputs:
        if not _is_short(self.problem) or len(x) != self.problem.B:
            return super()._gradient(x, y, states)
        with torch.no_grad():
            start = self.zeros if states is None else states[0]
            grads, (loss, (logits, last)) = self.loss_gradient(self.values, x, y, start)
        for name, parameter in self.parameters.items():
            parameter.grad = grads[name]
        return TorchOutputs(loss, logits, (last,), grads=True)


class TorchCompileBackend(TorchFlushBackend):
    """torch.compile where it pays, subnormals flushed."""

    name: ClassVar[str] = "torch+compile"
    recurrence: ClassVar[str] = (
        f"one product for all inputs, a tanh cell in chunks of up to {_CHUNK} steps, each one compiled function"
    )

    def _unsupported(self, case: Case) -> str | None:
        return super()._unsupported(case) or _no_compiler()

    def contract(self, problem: Problem) -> Contract:
        plain = super().contract(problem)
        timed = plain.timed
        if _is_short(problem):
            parts = "all of the loss and its gradient in one graph; not: forward, clipping, optimizer,"
            steps = "F.embedding, " if problem.model.V is not None else ""
            steps += "one F.linear for all inputs, T tanh cells, F.linear"
            table = "embedding, " if problem.model.V is not None else ""
            graph = f"torch.func.grad_and_value of {table}T tanh cells, head and loss, one compiled function"
            timed = timed | {"forward": f"{steps}; the loss; inference_mode; not compiled, which is faster here",
                             "gradient": graph, "train_step": f"{graph}; {update_of(problem)}"}  # fmt: skip
        else:
            parts = "the recurrence, forward and backward; not: embedding, input product, head, loss, optimizer,"
            parts += f" a last chunk below {min(problem.T, _CHUNK)} steps,"
        notes = f"compiled: {parts} a batch of other than {problem.B} rows; {plain.notes}"
        return replace(plain, timed=timed, notes=notes)

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
