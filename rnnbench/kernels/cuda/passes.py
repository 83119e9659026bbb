"""The stages of a pass, launched one after the other on the device's stream: nothing is copied and no thread waits.

    forward       project, recurrence, head and loss
    gradient      forward, dh of the head, reverse recurrence, sums over steps (two, added up in one), tokens
    train step    gradient, norm where it is clipped, update

A launch costs microseconds whatever it does, so where a regime of the recurrence can do it there is none per time
step: 3 for forward, 8 or 10 for a gradient, one more for a train step, or three.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnnbench.kernels.cuda import embedding, losses, optimizer, products
from rnnbench.kernels.cuda.buffers import DeviceSizes
from rnnbench.kernels.cuda.device import room
from rnnbench.kernels.cuda.launch import HostNumber, Launcher, LaunchSize
from rnnbench.kernels.cuda.plan import LaunchPlan
from rnnbench.kernels.cuda.recurrence_launches import CudaRecurrence, Reverse, settle


@dataclass(frozen=True)
class Rows:
    """Staged rows, on the device: tokens (N, T) or inputs (N, T, E); classes (N, S); targets (N, S, O).

    What a problem does not have is an array of one number, not read.
    """

    source: Any
    classes: Any
    targets: Any


@dataclass(frozen=True)
class Batch:
    """Rows order[offset : offset + b]; their losses and correct (., S) go to rows from `at` on. initial: states
    by name, each (>= b, H).
    """

    order: Any
    offset: int | HostNumber
    b: int
    initial: dict[str, Any]
    losses: Any
    correct: Any
    at: int | HostNumber = 0


@dataclass(frozen=True)
class UpdateRule:
    """An update. No limit is infinity."""

    adam: bool
    learning_rate: float
    beta_1: float
    beta_2: float
    epsilon: float
    clip_value: float = math.inf
    clip_norm: float = math.inf

    def corrections(self, step: int) -> tuple[float, float]:
        """What of Adam's update depends on the step, which counts from 1: the rate, and 1 / sqrt(1 - beta_2^step)."""
        return self.learning_rate / (1 - self.beta_1**step), 1 / math.sqrt(1 - self.beta_2**step)

    def steps_that_differ(self, dtype: str) -> int:
        """From this step on, what depends on the step is what it will always be, in this type."""
        if not self.adam:
            return 1
        slowest = max(self.beta_1, self.beta_2)
        return 1 + math.ceil(math.log(np.finfo(dtype).eps / 8) / math.log(slowest)) if slowest > 0 else 1

    def table(self, dtype: str) -> NDArray[Any]:
        """`corrections` of all steps that differ, (n, 2)."""
        n = self.steps_that_differ(dtype) if self.adam else 0
        return np.array([self.corrections(step) for step in range(1, n + 1)], dtype).reshape(-1, 2)


class CudaRunner:
    """Launches passes of one problem. `arrays`: buffers, flat `params`, `grads`, `m`, `v`; `params`: views by name."""

    def __init__(
        self,
        sizes: DeviceSizes,
        plan: LaunchPlan,
        loss: int,
        arrays: dict[str, Any],
        params: dict[str, Any],
        rows: Rows,
        launch: Launcher | None = None,
    ) -> None:
        self.launch = launch or Launcher()
        settled = settle(plan, sizes.H, sizes.B, sizes.dtype, room(), "delta" in arrays, sizes.cell)
        self.recurrence = CudaRecurrence(sizes, plan, settled.regime, self.launch, arrays)
        self.s, self.plan, self.loss, self.a, self.p, self.rows = sizes, plan, loss, arrays, params, rows
        self.number = np.dtype(sizes.dtype).type
        self.has_tokens = sizes.V > 0
        self.table = params["embedding"] if self.has_tokens else params["W_xh"]

    def _tiles(self, rows: int, columns: int, parts: int = 0) -> tuple[LaunchSize, tuple[int, int, int]]:
        """Launch sizes of a product into (rows, columns), and the sizes that its kernel is made for."""
        plan = self.plan
        micro = plan.micro(rows, columns, self.s.dtype, split=parts > 0)
        grid = (*plan.tiles(rows, columns, micro), max(1, parts))
        return LaunchSize(grid, (plan.side, plan.side)), (plan.side, micro, plan.depth)

    def forward(self, batch: Batch, step_weight: float) -> None:
        """h, gates and tape, z, dz, losses and correct. `step_weight`: of one loss within its row."""
        s, a, p, b, plan = self.s, self.a, self.p, batch.b, self.plan
        # All inputs through W_xh in one product, to where the gates, or the states of the tanh cell, will stand
        n, rows = s.T * b, self.rows
        out, first = (a["gates"], 0) if s.gated else (a["h"], b)
        size, tile = self._tiles(n, s.gate_width)
        kernel = products.project_inputs(s.dtype, self.has_tokens, *tile)
        self.launch(
            kernel, size,
            out, first, rows.source, self.table, batch.order, batch.offset, b, p["W_xh"], p["b_h"],
            n, s.E, s.gate_width,
        )  # fmt: skip
        # T steps: each state in the place of what its input gave
        self.recurrence.forward(p, batch.initial, b)
        # Logits, losses and dz of the last S states
        outputs = s.S * b
        read_out = losses.read_out(s.dtype, self.loss, plan.threads, plan.outputs)
        self.launch(
            read_out, LaunchSize(math.ceil(outputs / plan.outputs), plan.threads),
            a["z"], a["dz"], batch.losses, batch.correct, batch.at, a["h"], (s.T - s.S + 1) * b, p["W_hy"], p["b_y"],
            rows.classes, rows.targets, batch.order, batch.offset, b, s.S, s.H, s.O, self.number(step_weight / b),
        )  # fmt: skip

    def gradient(self, batch: Batch, step_weight: float, reverse: Reverse) -> None:
        """Forward, and all gradients."""
        s, a, p, b, first = self.s, self.a, self.p, batch.b, reverse.first
        self.forward(batch, step_weight)
        # The head's gradient of those states, then back through time to the gradient of the gates
        self._times_transposed(a["dh"], 0, a["dz"], p["W_hy"], s.S * b, s.H, s.O)
        self.recurrence.backward(p["W_hh"], reverse, b)
        # From that all gradients, by sums over the steps that a loss reaches
        self._sums(batch, first * b)
        if self.has_tokens:
            self._sums_by_token(batch, first * b)

    def _times_transposed(self, out: Any, first: int, A: Any, B: Any, rows: int, n: int, k: int) -> None:
        size, tile = self._tiles(rows, n)
        self.launch(products.times_transposed(self.s.dtype, *tile), size, out, first, A, B, rows, n, k)

    def _sums(self, batch: Batch, first: int) -> None:
        """All gradients but that of the embedding, from rows of delta from `first` on."""
        s, a, b = self.s, self.a, batch.b
        chunks = self._outer(batch, a["parts"], a["delta"], 0, first, s.T * b, s.E, s.gate_width, s.inner)
        # The head reads the state after a step, the layer the one before: rows of h are so far ahead of those of dz
        head_first = (s.T - s.S + 1) * b
        head_chunks = self._outer(batch, a["head_parts"], a["dz"], head_first, 0, s.S * b, 0, s.O, 0)
        out = a["grads"][s.V * s.E :]
        kernel, threads = products.add_parts(s.dtype), self.plan.threads
        size = LaunchSize(math.ceil(out.size / threads), threads)
        self.launch(kernel, size, out, a["parts"], a["head_parts"], chunks, head_chunks)

    def _outer(
        self, batch: Batch, parts: Any, d: Any, ahead: int, first: int, end: int, E: int, GH: int, inner: int
    ) -> int:
        """Parts of [x | h | 1]^T d, and how many there are."""
        s, a = self.s, self.a
        m, n = E + s.H + 1, GH + inner
        # Chunks of steps, so many that the device is busy, and no empty one at the end
        wanted = self.plan.chunks(end - first, m, n, s.dtype)
        chunk = math.ceil((end - first) / wanted)
        chunks = math.ceil((end - first) / chunk)
        size, tile = self._tiles(m, n, chunks)
        kernel = products.outer_sums(s.dtype, self.has_tokens, *tile)
        self.launch(
            kernel, size,
            parts, self.rows.source, self.table, batch.order, batch.offset, batch.b, a["h"], ahead, d,
            first, end, chunk, E, s.H, n, inner,
        )  # fmt: skip
        return chunks

    def _sums_by_token(self, batch: Batch, first: int) -> None:
        """The gradient of the embedding, all V rows of it."""
        s, a, b, plan = self.s, self.a, batch.b, self.plan
        self._times_transposed(a["dx"], first, a["delta"], self.p["W_xh"], s.T * b - first, s.E, s.gate_width)
        owned = plan.tokens_owned(s.dtype)
        kernel = embedding.sum_by_token(s.dtype, plan.threads, plan.token_columns, owned)
        self.launch(
            kernel, LaunchSize((plan.token_blocks(s.V, s.dtype), math.ceil(s.E / plan.token_columns)), plan.threads),
            a["d_embedding"], a["dx"], self.rows.source, batch.order, batch.offset, b, first, s.T * b, s.V, s.E,
        )  # fmt: skip

    def update(self, rule: UpdateRule, corrections: tuple[HostNumber, HostNumber]) -> None:
        """Clip the gradients and take one step, by `UpdateRule.corrections` of it. `scale` must be 1 where no norm is
        limited.
        """
        if rule.adam:
            self._update(rule, optimizer.adam(self.s.dtype), *corrections)
        else:
            self._update(rule, None)

    def update_counted(self, rule: UpdateRule, table: Any, cursor: Any) -> None:
        """`update` for the step that the cursor names, with the rows of `UpdateRule.table`."""
        if rule.adam:
            self._update(rule, optimizer.adam_counted(self.s.dtype), table, cursor)
        else:
            self._update(rule, None)

    def _update(self, rule: UpdateRule, adam: Any, *of_step: Any) -> None:
        a, number, threads, dtype = self.a, self.number, self.plan.threads, self.s.dtype
        if not math.isinf(rule.clip_norm):
            size = LaunchSize(self.plan.blocks, threads)
            self.launch(optimizer.norm_parts(dtype, threads), size, a["norm_parts"], a["grads"])
            scale = optimizer.clip_scale(dtype, threads)
            self.launch(scale, LaunchSize(1, threads), a["scale"], a["norm_parts"], number(rule.clip_norm))
        limit, size = number(rule.clip_value), LaunchSize(math.ceil(a["params"].size / threads), threads)
        if adam is None:
            kernel, rate = optimizer.sgd(dtype), number(rule.learning_rate)
            self.launch(kernel, size, a["params"], a["grads"], a["scale"], limit, rate)
            return
        of_rule = (rule.beta_1, 1 - rule.beta_1, rule.beta_2, 1 - rule.beta_2, rule.epsilon)
        arrays = (a["params"], a["grads"], a["m"], a["v"], a["scale"])
        self.launch(adam, size, *arrays, limit, *of_step, *(number(value) for value in of_rule))
