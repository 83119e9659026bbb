"""The stages of a pass, launched one after the other on the device's stream: nothing is copied and nobody waits.

    forward       project, recurrence, head and loss
    gradient      forward, slope, reverse recurrence, sums over steps (two, added up in one), words
    train step    gradient, norm where it is clipped, update

A launch costs microseconds whatever it does, so there is none per time step: 3 for forward, 8 or 10 for a gradient,
one more for a train step, or three.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnnbench.kernels.cuda import backward, forward, head, optimizer, products, words
from rnnbench.kernels.cuda.buffers import Sizes
from rnnbench.kernels.cuda.plan import Plan


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
    """Rows order[offset : offset + b]; their losses and hits (., S) go to rows from `at` on. initial (>= b, H)."""

    order: Any
    offset: int
    b: int
    initial: Any
    losses: Any
    hits: Any
    at: int = 0


@dataclass(frozen=True)
class Rule:
    """An update. No limit is infinity."""

    adam: bool
    learning_rate: float
    beta_1: float
    beta_2: float
    epsilon: float
    clip_value: float = math.inf
    clip_norm: float = math.inf


class Runner:
    """Launches passes of one problem. `arrays`: buffers, flat `params`, `grads`, `m`, `v`; `params`: views by name."""

    def __init__(
        self, sizes: Sizes, plan: Plan, loss: int, arrays: dict[str, Any], params: dict[str, Any], rows: Rows
    ) -> None:
        self.s, self.plan, self.loss, self.a, self.p, self.rows = sizes, plan, loss, arrays, params, rows
        self.number = np.dtype(sizes.dtype).type
        self.tile = (plan.side, plan.micro, plan.depth)
        self.words = sizes.V > 0
        self.table = params["embedding"] if self.words else params["W_xh"]

    def _tiles(self, rows: int, columns: int, parts: int = 1) -> Any:
        """Launch sizes of a product into (rows, columns)."""
        plan = self.plan
        grid = (math.ceil(rows / plan.edge), math.ceil(columns / plan.edge), parts)
        return grid, (plan.side, plan.side)

    def _recurrence(self, kernels: Any, b: int) -> Any:
        """The kernel of the regime for this H, with its launch sizes."""
        plan, dtype = self.plan, self.s.dtype
        width = plan.width(self.s.H, dtype)
        rows = plan.block_rows(b, width)
        if width:
            return kernels.in_registers(dtype, width, rows)[math.ceil(b / rows), width]
        return kernels.general(dtype, plan.threads, rows)[math.ceil(b / rows), plan.threads]

    def forward(self, batch: Batch, step_weight: float) -> None:
        """h, z, dz, losses and hits. `step_weight`: of one loss within its row."""
        s, a, p, b, plan = self.s, self.a, self.p, batch.b, self.plan
        n, rows = s.T * b, self.rows
        kernel = products.project(s.dtype, self.words, *self.tile)
        kernel[self._tiles(n, s.H)](
            a["h"], b, rows.source, self.table, batch.order, batch.offset, b, p["W_xh"], p["b_h"], n, s.E, s.H
        )
        self._recurrence(forward, b)(a["h"], p["W_hh"], batch.initial, b, s.T, s.H)
        outputs = s.S * b
        read_out = head.read_out(s.dtype, self.loss, plan.threads, plan.outputs)
        read_out[math.ceil(outputs / plan.outputs), plan.threads](
            a["z"], a["dz"], batch.losses, batch.hits, batch.at, a["h"], (s.T - s.S + 1) * b, p["W_hy"], p["b_y"],
            rows.classes, rows.targets, batch.order, batch.offset, b, s.S, s.H, s.O, self.number(step_weight / b),
        )  # fmt: skip

    def gradient(self, batch: Batch, step_weight: float, blocks: Any, first: int) -> None:
        """Forward, and all gradients. blocks (., 3): reverse passes in order of time, the first from step `first`."""
        s, a, p, b = self.s, self.a, self.p, batch.b
        self.forward(batch, step_weight)
        self._times_transposed(a["slope"], 0, a["dz"], p["W_hy"], s.S * b, s.H, s.O)
        self._recurrence(backward, b)(a["delta"], a["spare"], a["h"], a["slope"], p["W_hh"], blocks, b, s.T, s.S, s.H)
        self._sums(batch, first * b)
        if self.words:
            self._word_sums(batch, first * b)

    def _times_transposed(self, out: Any, first: int, A: Any, B: Any, rows: int, n: int, k: int) -> None:
        kernel = products.times_transposed(self.s.dtype, *self.tile)
        kernel[self._tiles(rows, n)](out, first, A, B, rows, n, k)

    def _sums(self, batch: Batch, first: int) -> None:
        """All gradients but that of the embedding, from rows of delta from `first` on."""
        s, a, b = self.s, self.a, batch.b
        chunks = self._outer(batch, 0, a["delta"], 0, first, s.T * b, s.E, s.H)
        head_first = (s.T - s.S + 1) * b
        head_chunks = self._outer(batch, s.step_numbers, a["dz"], head_first, 0, s.S * b, 0, s.O)
        out = a["grads"][s.V * s.E :]
        kernel, threads = products.add_parts(s.dtype), self.plan.threads
        kernel[math.ceil(out.size / threads), threads](out, a["parts"], s.step_numbers, chunks, head_chunks)

    def _outer(self, batch: Batch, base: int, D: Any, ahead: int, first: int, end: int, E: int, n: int) -> int:
        """Parts of [x | h | 1]^T D, and how many there are."""
        s, a = self.s, self.a
        m = E + s.H + 1
        wanted = self.plan.chunks(end - first, m, n)
        chunk = math.ceil((end - first) / wanted)
        chunks = math.ceil((end - first) / chunk)
        kernel = products.outer_sums(s.dtype, self.words, *self.tile)
        kernel[self._tiles(m, n, chunks)](
            a["parts"], base, self.rows.source, self.table, batch.order, batch.offset, batch.b, a["h"], ahead, D,
            first, end, chunk, E, s.H, n,
        )  # fmt: skip
        return chunks

    def _word_sums(self, batch: Batch, first: int) -> None:
        """The gradient of the embedding, all V rows of it."""
        s, a, b, plan = self.s, self.a, batch.b, self.plan
        self._times_transposed(a["dx"], first, a["delta"], self.p["W_xh"], s.T * b - first, s.E, s.H)
        kernel = words.sum_by_word(s.dtype, plan.threads, plan.words)
        kernel[math.ceil(s.V / plan.words), plan.threads](
            a["d_embedding"], a["dx"], self.rows.source, batch.order, batch.offset, b, first, s.T * b, s.V, s.E
        )

    def update(self, rule: Rule, step: int) -> None:
        """Clip the gradients and take one step; `step` counts from 1. `scale` must be 1 where no norm is limited."""
        a, number, threads, dtype = self.a, self.number, self.plan.threads, self.s.dtype
        if not math.isinf(rule.clip_norm):
            optimizer.norm_parts(dtype, threads)[self.plan.blocks, threads](a["norm_parts"], a["grads"])
            optimizer.clip_scale(dtype)[1, 1](a["scale"], a["norm_parts"], number(rule.clip_norm))
        limit, grid = number(rule.clip_value), math.ceil(a["params"].size / threads)
        if not rule.adam:
            kernel = optimizer.sgd(dtype)
            kernel[grid, threads](a["params"], a["grads"], a["scale"], limit, number(rule.learning_rate))
            return
        numbers = (
            rule.learning_rate / (1 - rule.beta_1**step), 1 / math.sqrt(1 - rule.beta_2**step),
            rule.beta_1, 1 - rule.beta_1, rule.beta_2, 1 - rule.beta_2, rule.epsilon,
        )  # fmt: skip
        kernel = optimizer.adam(dtype)
        kernel[grid, threads](
            a["params"], a["grads"], a["m"], a["v"], a["scale"], limit, *(number(value) for value in numbers)
        )


def block_array(blocks: list[tuple[int, int, int]]) -> NDArray[np.int64]:
    """(start, emit, end) of each reverse pass, as kernels read them: (., 3)."""
    return np.array(blocks, np.int64).reshape(-1, 3)
