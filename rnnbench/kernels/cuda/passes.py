"""The stages of a pass, launched one after the other on the device's stream: nothing is copied and no thread waits.

    forward       project, recurrence, head and loss
    gradient      forward, dh of the head, reverse recurrence, sums over steps (two, added up in one), tokens
    train step    gradient, norm where it is clipped, update

A launch costs microseconds whatever it does, so where a regime of the recurrence can do it there is none per time
step. Of one layer in one direction there are then 3 for forward, 8 or 10 for a gradient, one or three more for a train
step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnnbench.kernels.cuda import embedding, join, losses, optimizer, products
from rnnbench.kernels.cuda.buffers import DeviceSizes
from rnnbench.kernels.cuda.device import room
from rnnbench.kernels.cuda.launch import HostNumber, Launcher, LaunchSize
from rnnbench.kernels.cuda.plan import LaunchPlan
from rnnbench.kernels.cuda.recurrence_launches import CudaRecurrence, Reverse, settle
from rnnbench.model import Direction


@dataclass(frozen=True)
class Rows:
    """Staged rows, on the device: tokens (N, T) or inputs (N, T, E); classes (N, S); targets (N, S, O); lengths (N,).

    What a problem does not have is an array of one number, not read.
    """

    source: Any
    classes: Any
    targets: Any
    lengths: Any


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


# Which `products.reader`, its arguments from `source` on, and those of a kernel that reads by it.
Source = tuple[tuple[str, bool, bool], tuple[Any, ...]]


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
        self.learns, self.stack = "spare" in arrays, sizes.stack
        self.regime = settle(plan, sizes.H, sizes.B, sizes.dtype, room(), self.learns, sizes.cell).regime
        self.s, self.plan, self.loss, self.a, self.p, self.rows = sizes, plan, loss, arrays, params, rows
        self.recurrences = {d: self._recurrence(d) for layer in self.stack for d in layer}
        self.number = np.dtype(sizes.dtype).type
        self.has_tokens = sizes.V > 0

    def _recurrence(self, direction: Direction) -> CudaRecurrence:
        """Its arrays by their names in one direction. All states of a layer below the last are read, and rows with
        lengths end anywhere.
        """
        S = self.s.S if direction in self.stack[-1] and not self.s.lengths else self.s.T
        own = {
            name.removeprefix(direction.prefix): a for name, a in self.a.items() if name.startswith(direction.prefix)
        }
        return CudaRecurrence(replace(self.s, S=S), self.plan, self.regime, self.launch, self.a | own)

    def _tiles(self, rows: int, columns: int, parts: int = 0) -> tuple[LaunchSize, tuple[int, int, int]]:
        """Launch sizes of a product into (rows, columns), and the sizes that its kernel is made for."""
        plan = self.plan
        micro = plan.micro(rows, columns, self.s.dtype, split=parts > 0)
        grid = (*plan.tiles(rows, columns, micro), max(1, parts))
        return LaunchSize(grid, (plan.side, plan.side)), (plan.side, micro, plan.depth)

    def _source(self, direction: Direction, batch: Batch) -> Source:
        """Where a direction's inputs come from: which `reader`, and what it is given."""
        table = self.p["embedding"] if self.has_tokens else self.p[f"{direction.prefix}W_xh"]
        of_rows = (table, batch.order, batch.offset, self.rows.lengths)
        if direction.layer == 0:
            reads, h, first = "tokens" if self.has_tokens else "dense", self.rows.source, 0
        else:
            reads, (h, first) = "states", self._read(direction.layer - 1, batch.b, self.s.T)
        return (reads, direction.back, self.s.lengths), (h, first, *of_rows)

    def _of_rows(self, batch: Batch) -> tuple[Any, ...]:
        """By which a kernel finds the length of a batch's row; where rows have none nothing of it is read."""
        return batch.order, batch.offset if self.s.lengths else 0, self.rows.lengths

    def _read(self, layer: int, b: int, S: int) -> tuple[Any, int]:
        """What is above a layer reads: the last S of its states in the order of time, from which row on."""
        if f"l{layer}.read" in self.a:
            return self.a[f"l{layer}.read"], 0
        return self.a[f"{self.stack[layer][0].prefix}h"], (self.s.T - S + 1) * b

    def forward(self, batch: Batch, step_weight: float) -> None:
        """h, gates and tape, z, dz, losses and correct. `step_weight`: of one loss within its row."""
        s, a, p, b, plan = self.s, self.a, self.p, batch.b, self.plan
        for number, layer in enumerate(self.stack):
            for direction in layer:
                self._project(batch, direction)
                # T steps: each state in the place of what its input gave
                self.recurrences[direction].forward(
                    direction.params_of(p), direction.states_of(batch.initial), self._of_rows(batch), b
                )
            if f"l{number}.read" in a:
                S = s.S if number == s.layers - 1 else s.T
                states = [a[f"{direction.prefix}h"] for direction in layer]
                kernel, size = join.join_states(s.directions > 1, s.lengths), self._a_thread_each(S * b * s.read)
                read = a[f"l{number}.read"]
                self.launch(kernel, size, read, states[0], states[-1], *self._of_rows(batch), b, s.T, S, s.H)
        if s.averages:
            self.launch(join.count_emitted(), LaunchSize(1, plan.threads), a["emitted"], *self._of_rows(batch), b)
        # Logits, losses and dz of the last S states
        outputs, (h, first) = s.S * b, self._read(s.layers - 1, b, s.S)
        read_out = losses.read_out(
            s.dtype, self.loss, plan.threads, plan.outputs, s.lengths and not s.at_ends, s.averages
        )
        self.launch(
            read_out, LaunchSize(math.ceil(outputs / plan.outputs), plan.threads),
            a["z"], a["dz"], batch.losses, batch.correct, batch.at, h, first, p["W_hy"], p["b_y"],
            self.rows.classes, self.rows.targets, batch.order, batch.offset, self.rows.lengths, a["emitted"], b, s.S,
            s.read, s.O,
            self.number(1.0 if s.averages else step_weight / b),
        )  # fmt: skip

    def _a_thread_each(self, numbers: int) -> LaunchSize:
        return LaunchSize(math.ceil(numbers / self.plan.threads), self.plan.threads)

    def _project(self, batch: Batch, direction: Direction) -> None:
        """All inputs through W_xh in one product, to where the gates, or the states of the tanh cell, will stand."""
        s, a, b, prefix = self.s, self.a, batch.b, direction.prefix
        out, first = (a[f"{prefix}gates"], 0) if s.gated else (a[f"{prefix}h"], b)
        size, tile = self._tiles(s.T * b, s.gate_width)
        reads, given = self._source(direction, batch)
        self.launch(
            products.project_inputs(s.dtype, *reads, *tile), size,
            out, first, *given, b, s.T, self.p[f"{prefix}W_xh"], self.p[f"{prefix}b_h"], s.T * b, direction.E,
            s.gate_width,
        )  # fmt: skip

    def gradient(self, batch: Batch, step_weight: float, reverse: Reverse) -> None:
        """Forward, and all gradients."""
        self.forward(batch, step_weight)
        self._head_back(batch)
        # From the head's gradient of states back through time to the gradient of gates, layer by layer, and from that
        # all others, by sums over the steps that a loss reaches
        windows = reverse.apart or (reverse,)
        if self.has_tokens and len(windows) > 1:  # a product of no terms: zeros, to which each window adds
            self._times_transposed(self.a["dx"], 0, self.a["dx"], self.a["dx"], self.s.T * batch.b, self.s.E, 0, batch)
        for n, window in enumerate(windows):
            first, end = window.first * batch.b, window.end * batch.b
            for number, layer in reversed(list(enumerate(self.stack))):
                passes = window if number == self.s.layers - 1 else window.below
                assert passes is not None
                for direction in layer:
                    W = self.p[f"{direction.prefix}W_hh"]
                    self.recurrences[direction].backward(W, passes, self._of_rows(batch), batch.b)
                for k, below in enumerate(self.stack[number - 1] if number else ()):
                    rows, out = slice(k * self.s.H, (k + 1) * self.s.H), self.a[f"{below.prefix}dh"]
                    self._to_inputs(out, number, rows, below.back, (first, end), batch)
            self._sums(batch, (first, end), n)
            if self.has_tokens:
                self._to_inputs(self.a["dx"], 0, slice(None), False, (first, end), batch, int(len(windows) > 1))
        if self.has_tokens:
            self._sums_by_token(batch, reverse.first * batch.b)

    def _head_back(self, batch: Batch) -> None:
        """dh of the last layer."""
        s, a, b = self.s, self.a, batch.b
        if s.at_ends:
            self._times_transposed(a["d_read"], 0, a["dz"], self.p["W_hy"], b, s.read, s.O, batch)
        for k, direction in enumerate(self.stack[-1]):
            rows, out = slice(k * s.H, (k + 1) * s.H), a[f"{direction.prefix}dh"]
            if s.at_ends:
                kernel, size = join.place_at_ends(s.dtype), self._a_thread_each(s.T * b * s.H)
                self.launch(kernel, size, out, a["d_read"], k * s.H, *self._of_rows(batch), b, s.T, s.H)
            else:
                turned = s.S if direction.back else 0
                self._times_transposed(out, 0, a["dz"], self.p["W_hy"][rows], s.S * b, s.H, s.O, batch, turned)

    def _to_inputs(
        self, out: Any, layer: int, rows: slice, back: bool, reach: tuple[int, int], batch: Batch, add: int = 0
    ) -> None:
        """The gradient of what a layer reads, of the columns `rows` of it: `back` in the order of such a direction."""
        s, (first, end) = self.s, reach
        for n, direction in enumerate(self.stack[layer]):
            delta, W = self.a[f"{direction.prefix}delta"], self.p[f"{direction.prefix}W_xh"][rows]
            turned = s.T if direction.back != back else 0
            size = end - first, W.shape[0], s.gate_width
            self._times_transposed(out, first, delta, W, *size, batch, turned, add + n)

    def _times_transposed(
        self,
        out: Any,
        first: int,
        A: Any,
        B: Any,
        rows: int,
        n: int,
        k: int,
        batch: Batch,
        turned: int = 0,
        add: int = 0,
    ) -> None:
        size, tile = self._tiles(rows, n)
        kernel = products.times_transposed(self.s.dtype, self.s.lengths, *tile)
        self.launch(kernel, size, out, first, A, B, rows, n, k, *self._of_rows(batch), batch.b, turned, add)

    def _sums(self, batch: Batch, reach: tuple[int, int], add: int) -> None:
        """All gradients but that of the embedding, from rows [first, end) of delta; with `add` to what is there, which
        has the head's.
        """
        s, a = self.s, self.a
        at, kernel, head = s.V * s.E, products.add_parts(s.dtype), 0
        for direction in self.recurrences:
            parts, h, delta = (a[f"{direction.prefix}{name}"] for name in ("parts", "h", "delta"))
            source, widths = self._source(direction, batch), (direction.E, s.H, s.gate_width, s.inner)
            chunks = self._outer(batch, parts, delta, h, 0, *reach, source, widths)
            end = at + s.step_numbers(direction.E)
            if direction is self.stack[-1][-1] and not add:  # behind it lie the head's, added up by the same launch
                head, end = self._head_sums(batch, source), a["grads"].size
            out = a["grads"][at:end]
            self.launch(kernel, self._a_thread_each(out.size), out, parts, a["head_parts"], chunks, head, add)
            at = end

    def _head_sums(self, batch: Batch, source: Source) -> int:
        """Parts of the head's gradient, and how many: it reads the state after a step, where a layer reads that before,
        so rows of h are ahead of those of dz. There is no x, and no `source` is read; with a loss a step only steps of
        a row have one.
        """
        s, a, b = self.s, self.a, batch.b
        h, first = self._read(s.layers - 1, b, s.S)
        source = (source[0][0], False, s.lengths and not s.at_ends), source[1]
        return self._outer(batch, a["head_parts"], a["dz"], h, first, 0, s.S * b, source, (0, s.read, s.O, 0))

    def _outer(
        self, batch: Batch, parts: Any, d: Any, h: Any, ahead: int, first: int, end: int,
        source: Source, widths: tuple[int, int, int, int],
    ) -> int:  # fmt: skip
        """Parts of [x | h | 1]^T d, and how many there are. `widths`: of x, of h, of d without `inner`, and of that."""
        E, H, GH, inner = widths
        m, n = E + H + 1, GH + inner
        # Chunks of steps, so many that the device is busy, and no empty one at the end
        wanted = self.plan.chunks(end - first, m, n, self.s.dtype)
        chunk = math.ceil((end - first) / wanted)
        chunks = math.ceil((end - first) / chunk)
        size, tile = self._tiles(m, n, chunks)
        reads, given = source
        self.launch(
            products.outer_sums(self.s.dtype, *reads, *tile), size,
            parts, *given, batch.b, self.s.T, h, ahead, d, first, end, chunk, E, H, n, inner,
        )  # fmt: skip
        return chunks

    def _sums_by_token(self, batch: Batch, first: int) -> None:
        """The gradient of the embedding, all V rows of it, from dx."""
        s, a, b, plan = self.s, self.a, batch.b, self.plan
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
