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
from rnnbench.model import Case, Direction, Head, Model, Problem, StepSum
from rnnbench.params import Params

Weights = dict[str, Tensor]  # parameters as `Net.named`
Stack = tuple[tuple[Direction, ...], ...]  # `Model.stack`, which makes it anew at each access

_CHUNK = 10  # steps in one compiled function: the time of compiling grows with it, the time of a step hardly falls
_WHOLE = 64  # the most steps of one layer of the rnn whose gradient is one compiled function; docs/decisions/0031


def _rnn_step(w: Weights, states: States, p: Tensor) -> States:
    """The states (B, H) after a step, from the projected input (B, G H); weights as `Net.named`, output x input."""
    return (torch.tanh(torch.addmm(p, states[0], w["W_hh"].t())),)


def _gru_step(w: Weights, states: States, p: Tensor) -> States:
    """As `_rnn_step`; of b_hn (3 H,) the last third is read."""
    (h,) = states
    (r, z, n), (r_h, z_h, n_h) = p.chunk(3, dim=1), (h @ w["W_hh"].t()).chunk(3, dim=1)
    r, z = torch.sigmoid(r + r_h), torch.sigmoid(z + z_h)
    n = torch.tanh(n + r * (n_h + w["b_hn"].chunk(3)[2]))
    return (n + z * (h - n),)


def _lstm_step(w: Weights, states: States, p: Tensor) -> States:
    """As `_rnn_step`; states h, c."""
    h, c = states
    i, f, g, o = torch.addmm(p, h, w["W_hh"].t()).chunk(4, dim=1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


_STEPS = {"rnn": _rnn_step, "gru": _gru_step, "lstm": _lstm_step}


def steps_of(
    cell: str, every: bool, w: Weights, states: States, projected: Tensor, active: Tensor | None = None
) -> tuple[Tensor, States]:
    """Over the steps of `projected` (T, B, G H): h of all (T, B, H) where `every`, else the last h; and the last
    states. Where `active` (T, B, 1) is False a row's states stay as they are.
    """
    step, seen = _STEPS[cell], []
    for t, p in enumerate(projected.unbind()):
        after = step(w, states, p)
        if active is not None:
            after = tuple(torch.where(active[t], new, old) for new, old in zip(after, states, strict=True))
        states = after
        seen.append(states[0])
    return (torch.stack(seen) if every else states[0]), states


def stack_of(
    model: Model,
    stack: Stack,
    params: Weights,
    steps: Tensor,
    states: States,
    lengths: Tensor | None,
    run: Callable[..., Any],
) -> tuple[Tensor, States]:
    """All layers and directions over `steps` (T, B, E) with `lengths` (B,): what the head reads, (B, D H) or
    (T, B, D H), and the last states. `run` as `steps_of`.
    """
    last: list[Tensor] = []
    active = None if lengths is None else (torch.arange(len(steps))[:, None] < lengths)[:, :, None]
    for layer in stack:
        every, each = layer[0].layer < model.layers - 1 or model.head is Head.EVERY, []
        for direction in layer:
            w = direction.params_of(params)
            start = states[len(last) : len(last) + len(direction.cell.states)]
            projected = F.linear(steps, w["W_xh"], w["b_h"])
            if direction.back:
                projected = projected.flip(0)
            own = active.flip(0) if active is not None and direction.back else active
            h, after = run(direction.cell.name, every, w, start, projected, own)
            each.append(h.flip(0) if every and direction.back else h)
            last += after
        steps = each[0] if len(each) == 1 else torch.cat(each, dim=-1)
    return steps, tuple(last)


class CompiledNet(Net):
    """`Net` whose module of torch.nn, which torch.compile leaves alone, is written out in chunks of steps.

    One compiled function runs a whole chunk of a full batch, forward and backward. Shorter chunks and batches of
    another size run the same lines uncompiled: nothing compiles again inside an epoch.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.model, DTYPES[problem.dtype])
        self.weights, self.stack = self.named(), problem.model.stack
        self.compiled = _compiled(steps_of)
        self.shape = (min(problem.T, _CHUNK), problem.B)

    def recur(self, steps: Tensor, states: States | None, lengths: Tensor | None = None) -> tuple[Tensor, States]:
        if states is None:
            zeros = partial(torch.zeros, (steps.shape[1], self.model.H), dtype=self.head.weight.dtype)
            states = tuple(zeros() for _ in range(self.state_count))  # apart, as a compiler asks that
        return stack_of(self.model, self.stack, self.weights, steps, states, lengths, self._chunks)

    def _chunks(
        self, cell: str, every: bool, w: Weights, states: States, projected: Tensor, active: Tensor | None
    ) -> tuple[Tensor, States]:
        if torch.is_grad_enabled():  # as in later chunks, which spares a second compilation
            states = tuple(s if s.requires_grad else s.detach().requires_grad_() for s in states)
        parts = []
        for i, part in enumerate(projected.split(self.shape[0])):
            own = None if active is None else active[i * self.shape[0] :][: len(part)]
            run = self.compiled if part.shape[:2] == self.shape else steps_of
            h, states = run(cell, every, w, states, part, own)
            parts.append(h)
        return (torch.cat(parts) if every else h), states


def whole_loss(
    problem: Problem, stack: Stack, params: Weights, x: Tensor, y: Tensor, states: States
) -> tuple[Tensor, tuple[Tensor, States]]:
    """The loss of rows (B, T) or (B, T, E), and (logits, last states): all of it in one graph. Parameters as
    `Net.named`.
    """
    steps = x.transpose(0, 1)
    if problem.model.V is not None:
        steps = F.embedding(steps, params["embedding"])
    h, last = stack_of(problem.model, stack, params, steps, states, None, steps_of)
    logits = F.linear(h, params["W_hy"], params["b_y"])
    if problem.model.head is Head.EVERY:
        logits = logits.transpose(0, 1)
    loss = mean_loss(problem.model, logits, y)
    if problem.model.head is Head.EVERY and problem.model.step_sum is StepSum.SUM:
        loss = loss * problem.T
    return loss, (logits, tuple(state.clone() for state in last))


def _is_whole(problem: Problem) -> bool:
    """Whether loss and gradient are one compiled function: of cells with gates it takes too long to compile."""
    limit = _WHOLE if problem.model.cell == "rnn" and len(problem.model.directions) == 1 else _CHUNK
    return limit >= problem.T and problem.truncation is None and not problem.lengths


def _is_short(problem: Problem) -> bool:
    """Whether the forward pass is faster as it is than through the guards of a compiled one."""
    return _is_whole(problem) and problem.T <= _CHUNK


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
    is most of a step. The forward pass of short rows is faster as it is than through the guards of a compiled one.
    """

    def __init__(self, problem: Problem, params: Params, data: Data, net: Net, subnormals: Subnormals) -> None:
        super().__init__(problem, params, data, net, subnormals)
        self.whole, shape = _is_whole(problem), (problem.B, problem.model.H)
        self.zeros = tuple(torch.zeros(shape, dtype=self.dtype) for _ in problem.model.states)
        self.values = {name: p.detach() for name, p in self.parameters.items()}  # the same memory
        self.loss: Callable[..., Any] = partial(whole_loss, problem, problem.model.stack)
        self.loss_gradient = _compiled(torch.func.grad_and_value(self.loss, has_aux=True))
        if not _is_short(problem):
            self.loss = _compiled(self.loss)

    def forward(self) -> None:
        if not self.whole:
            return super().forward()
        with self.subnormals, torch.inference_mode():
            states = self.zeros if self.states is None else self.states
            loss, (logits, last) = self.loss(self.values, self.x, self.y, states)
            self.done = TorchOutputs(loss, logits, last)
        return None

    def _gradient(self, x: Tensor, y: Tensor, states: States | None, lengths: Tensor | None) -> TorchOutputs:
        if not self.whole or len(x) != self.problem.B:
            return super()._gradient(x, y, states, lengths)
        with torch.no_grad():
            start = self.zeros if states is None else states
            grads, (loss, (logits, last)) = self.loss_gradient(self.values, x, y, start)
        for name, parameter in self.parameters.items():
            parameter.grad = grads[name]
        return TorchOutputs(loss, logits, last, grads=True)


class TorchCompileBackend(TorchFlushBackend):
    """torch.compile where it pays, subnormals flushed."""

    name: ClassVar[str] = "torch+compile"
    streams: ClassVar[bool] = False
    recurrence: ClassVar[str] = (
        f"one product for all inputs, {{cell}} cells in chunks of up to {_CHUNK} steps, each one compiled function"
    )
    packed: ClassVar[str] = "padding is computed and masked"

    def _unsupported(self, case: Case) -> str | None:
        return super()._unsupported(case) or _no_compiler()

    def contract(self, problem: Problem) -> Contract:
        plain = super().contract(problem)
        timed = plain.timed
        if _is_whole(problem):
            table = "embedding, " if problem.model.V is not None else ""
            net = f"{table}one product for all inputs, T {problem.model.cell} cells, head and loss"
            graph = f"torch.func.grad_and_value of {net}, one compiled function"
            as_it_is = "not compiled, which is faster here" if _is_short(problem) else "one compiled function"
            timed = timed | {"forward": f"{net}; inference_mode; {as_it_is}",
                             "gradient": graph, "train_step": f"{graph}; {update_of(problem)}"}  # fmt: skip
            parts = "all of the loss and its gradient in one graph; not: clipping, optimizer,"
            parts += " forward," if _is_short(problem) else ""
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
