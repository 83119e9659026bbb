"""JAX as its users write it: one jitted function a pass, `lax.scan` over time, optax, parameters donated.

Arrays are time first inside a function; the inputs of all steps are projected in one product before the scan.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from numpy.typing import NDArray

from rnnbench.backends.base import CPU, Backend, Contract, Data, Inputs, Outputs, Session, shaped_targets
from rnnbench.model import Case, DType, Head, Loss, ModelSpec, Optimizer, Problem, TrainSpec, Truncation, blocks_of
from rnnbench.params import Array, Params, cast

_PREDICT_ROWS = 512
_UNROLLED = 10  # scans of up to so many steps are written out: a third faster at 5 steps, no faster or slower from 50


def precision(dtype: DType) -> contextlib.AbstractContextManager[Any]:
    """A `with` block in which JAX keeps float64 where the problem has it, and is left alone where it does not."""
    if dtype is DType.FLOAT32:
        return contextlib.nullcontext()
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    from jax.experimental import enable_x64  # its place before JAX 0.8

    return enable_x64(True)


class Result(NamedTuple):
    """What a pass returns besides its loss: logits (B, O) or (B, T, O), the last state (B, H)."""

    logits: jax.Array
    state: jax.Array


def unroll_of(steps: int) -> int:
    """How many steps of a scan make one turn of its loop: all of a short one, else one."""
    return steps if steps <= _UNROLLED else 1


def scan_steps(w: jax.Array, state: jax.Array, projected: jax.Array, every: bool) -> tuple[jax.Array, Any]:
    """Run steps (T, B, H) from `state` (B, H): the last state, and all states (T, B, H) where `every`."""

    def step(h: jax.Array, p: jax.Array) -> tuple[jax.Array, Any]:
        h = jnp.tanh(p + h @ w)
        return h, h if every else None

    return lax.scan(step, state, projected, unroll=unroll_of(len(projected)))


def project(model: ModelSpec, params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    """x_t W_xh + b_h of all steps, (T, B, H), from rows (B, T) or (B, T, E)."""
    steps = jnp.swapaxes(x, 0, 1)
    steps = steps if model.V is None else params["embedding"][steps]
    return steps @ params["W_xh"] + params["b_h"]


def read(params: dict[str, jax.Array], states: jax.Array) -> jax.Array:
    """Logits of states, (..., H) to (..., O)."""
    return states @ params["W_hy"] + params["b_y"]


def emitted_losses(model: ModelSpec, z: jax.Array, y: jax.Array) -> jax.Array:
    """The loss of each emitted output: z without its last axis."""
    match model.loss:
        case Loss.BINARY_CROSS_ENTROPY:
            return optax.sigmoid_binary_cross_entropy(z, y).mean(axis=-1)
        case Loss.CATEGORICAL_CROSS_ENTROPY:
            return optax.softmax_cross_entropy_with_integer_labels(z, y)
        case Loss.SQUARED_ERROR:
            return optax.l2_loss(z, y).sum(axis=-1)
        case Loss.SIGMOID_SQUARED_ERROR:
            return optax.l2_loss(jax.nn.sigmoid(z), y).sum(axis=-1)


def hits(model: ModelSpec, z: jax.Array, y: jax.Array) -> jax.Array | None:
    """How many outputs are classified right; None for losses without classes."""
    match model.loss:
        case Loss.BINARY_CROSS_ENTROPY:
            return ((z > 0) == (y > 0.5)).all(axis=-1).sum()
        case Loss.CATEGORICAL_CROSS_ENTROPY:
            return (z.argmax(axis=-1) == y).sum()
        case _:
            return None


def optimizer_of(train: TrainSpec) -> optax.GradientTransformation:
    """Clipping and the update, chained."""
    update = (
        optax.sgd(train.learning_rate)
        if train.optimizer is Optimizer.SGD
        else optax.adam(train.learning_rate, b1=train.beta_1, b2=train.beta_2, eps=train.epsilon)
    )
    if train.clip_value is not None:
        return optax.chain(optax.clip(train.clip_value), update)
    if train.clip_norm is not None:
        return optax.chain(optax.clip_by_global_norm(train.clip_norm), update)
    return update


@dataclass(frozen=True)
class Functions:
    """The pure functions of one problem, to be jitted. `state` is (B, H) or None for zeros."""

    problem: Problem

    def loss(self, params: Any, x: jax.Array, y: jax.Array, state: Any) -> tuple[jax.Array, Result]:
        """The loss of rows x, its gradient cut as the truncation says; the value is that of the whole rows."""
        model, truncation = self.problem.model, self.problem.truncation
        if state is None:
            state = jnp.zeros((len(x), model.H), params["W_hh"].dtype)
        projected = project(model, params, x)
        if model.head is Head.LAST:
            state = self._last_state(params, projected, state)
            logits = read(params, state)
            total = emitted_losses(model, logits, y).sum()
        elif truncation is None:
            state, states = scan_steps(params["W_hh"], state, projected, every=True)
            logits = jnp.swapaxes(read(params, states), 0, 1)
            total = emitted_losses(model, logits, y).sum()
        elif truncation.window == truncation.stride and self.problem.T % truncation.stride == 0:
            state, states = chunks(params["W_hh"], state, projected, truncation.stride)
            logits = jnp.swapaxes(read(params, states), 0, 1)
            total = emitted_losses(model, logits, y).sum()
        else:
            state, logits, total = overlapping(model, truncation, params, projected, state, y)
        return total * model.loss_scale(len(x), self.problem.T), Result(logits, state)

    def _last_state(self, params: Any, projected: jax.Array, state: jax.Array) -> jax.Array:
        """The state after all steps, differentiable through the last window alone."""
        (block,) = blocks_of(self.problem.model, self.problem.truncation, self.problem.T)
        if block.start:
            w, state, before = lax.stop_gradient((params["W_hh"], state, projected[: block.start]))
            state, _ = scan_steps(w, state, before, every=False)
        return scan_steps(params["W_hh"], state, projected[block.start :], every=False)[0]

    def gradient(self, params: Any, x: jax.Array, y: jax.Array, state: Any) -> Any:
        """((loss, result), gradients by name)."""
        return jax.value_and_grad(self.loss, has_aux=True)(params, x, y, state)

    def train_step(self, params: Any, moments: Any, x: jax.Array, y: jax.Array, state: Any) -> Any:
        """(parameters, optimizer state, loss, result) after one step."""
        (loss, result), grads = self.gradient(params, x, y, state)
        updates, moments = optimizer_of(self.problem.train).update(grads, moments, params)
        return optax.apply_updates(params, updates), moments, loss, result

    def epoch(self, params: Any, moments: Any, inputs: jax.Array, targets: jax.Array, batches: jax.Array) -> Any:
        """Steps over batches (n, B) of row numbers: (parameters, optimizer state, losses (n,), hits (n,) or None)."""

        def step(carry: Any, rows: jax.Array) -> Any:
            x, y = inputs[rows], targets[rows]
            params, moments = carry
            params, moments, loss, result = self.train_step(params, moments, x, y, None)
            return (params, moments), (loss, hits(self.problem.model, result.logits, y))

        (params, moments), (losses, right) = lax.scan(step, (params, moments), batches)
        return params, moments, losses, right


def chunks(w: jax.Array, state: jax.Array, projected: jax.Array, stride: int) -> tuple[jax.Array, jax.Array]:
    """Chunk and detach: the last state, and all states (T, B, H); `stride` divides T."""

    def chunk(h: jax.Array, steps: jax.Array) -> Any:
        return scan_steps(w, lax.stop_gradient(h), steps, every=True)

    T, B, H = projected.shape
    state, states = lax.scan(chunk, state, projected.reshape(T // stride, stride, B, H))
    return state, states.reshape(T, B, H)


def overlapping(
    model: ModelSpec, truncation: Truncation, params: Any, projected: jax.Array, state: jax.Array, y: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The last state, the logits (B, T, O) and the sum of losses, where blocks reach back before their own losses.

    One scan over the blocks, all of them made `window` steps long: the steps before the row's first leave the state
    as it is, and losses that an earlier block has emitted weigh nothing.
    """
    T = len(projected)
    window, stride = min(truncation.window, T), min(truncation.stride, T)
    blocks = list(truncation.blocks(T))
    w, state, fixed = lax.stop_gradient((params["W_hh"], state, projected))
    last, states = scan_steps(w, state, fixed, every=True)
    known = jnp.concatenate([state[None], states])
    padded = jnp.pad(projected, ((window, 0), (0, 0), (0, 0)))
    targets = jnp.swapaxes(y, 0, 1)
    targets = jnp.pad(targets, ((stride, 0),) + ((0, 0),) * (targets.ndim - 1))

    def block(total: jax.Array, at: Any) -> Any:
        emit, end = at

        def step(h: jax.Array, item: Any) -> tuple[jax.Array, jax.Array]:
            p, t = item
            h = jnp.where(t >= 0, jnp.tanh(p + h @ params["W_hh"]), h)
            return h, h

        start = known[jnp.maximum(end - window, 0)]
        times = end - window + jnp.arange(window)
        _, reached = lax.scan(
            step, start, (lax.dynamic_slice_in_dim(padded, end, window), times), unroll=unroll_of(window)
        )
        z = read(params, reached[window - stride :])
        losses = emitted_losses(model, z, lax.dynamic_slice_in_dim(targets, end, stride))
        own = times[window - stride :] >= emit
        return total + jnp.where(own[:, None], losses, 0).sum(), None

    ends = (jnp.array([b.emit for b in blocks]), jnp.array([b.end for b in blocks]))
    total, _ = lax.scan(block, jnp.zeros((), projected.dtype), ends)
    logits = jnp.swapaxes(read(params, known[1:]), 0, 1)
    return last, logits, total


@dataclass(frozen=True)
class Done:
    """What a pass leaves on the device; `losses` and `right` by batch, of `rows` rows each, after an epoch."""

    losses: tuple[jax.Array, ...]
    rows: tuple[int, ...] = (1,)
    result: Result | None = None
    grads: Any = None
    params: Any = None
    right: tuple[jax.Array, ...] = ()


def exact(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as it is traced with float32 products of float32 numbers, where a device would round them first."""

    def traced(*arguments: Any) -> Any:
        with jax.default_matmul_precision("highest"):
            return function(*arguments)

    return traced


class JaxSession(Session):
    """One problem in JAX, on one device: rows, parameters and answers stay there until fetched."""

    def __init__(self, problem: Problem, params: Params, data: Data, device: jax.Device) -> None:
        self.problem, self.model, self.device = problem, problem.model, device
        functions = Functions(problem)
        uncut = Functions(replace(problem, truncation=None))  # the value is the same
        self._forward = jax.jit(exact(uncut.loss))
        self._gradient = jax.jit(exact(functions.gradient))
        self._train_step = jax.jit(exact(functions.train_step), donate_argnums=(0, 1))
        self._epoch = jax.jit(exact(functions.epoch), donate_argnums=(0, 1))
        self._predict = jax.jit(exact(partial(_logits, problem.model)))
        self.initial = cast(params, problem.dtype)
        self.rows, self.answers = self._rows(data.inputs), shaped_targets(problem, data.targets)
        with precision(problem.dtype):
            self.inputs, self.targets = self._put(self.rows), self._put(self.answers)
        self.state: jax.Array | None = None
        self.done: Done | None = None
        self.reset()
        self.select(0)

    def _rows(self, inputs: Inputs) -> Inputs:
        return np.ascontiguousarray(inputs, dtype=str(self.problem.dtype) if self.model.V is None else np.int32)

    def _put(self, value: Any) -> jax.Array:
        """A copy on the device."""
        return jnp.array(value, device=self.device)

    def select(self, batch: int) -> None:
        rows = slice(batch * self.problem.B, (batch + 1) * self.problem.B)
        with precision(self.problem.dtype):
            self.x, self.y = jax.block_until_ready((self._put(self.rows[rows]), self._put(self.answers[rows])))

    def start_from(self, state: Array | None) -> None:
        with precision(self.problem.dtype):
            self.state = None if state is None else self._put(state.astype(str(self.problem.dtype)))

    def reset(self) -> None:
        with precision(self.problem.dtype):
            self.params = {name: self._put(value) for name, value in self.initial.items()}  # copies: steps take them
            moments = optimizer_of(self.problem.train).init(self.params)
            self.moments = jax.device_put(moments, self.device)
            jax.block_until_ready((self.params, self.moments))

    def forward(self) -> None:
        with precision(self.problem.dtype):
            loss, result = self._forward(self.params, self.x, self.y, self.state)
        self.done = Done((loss,), result=result)

    def gradient(self) -> None:
        with precision(self.problem.dtype):
            (loss, result), grads = self._gradient(self.params, self.x, self.y, self.state)
        self.done = Done((loss,), result=result, grads=grads)

    def train_step(self) -> None:
        with precision(self.problem.dtype):
            self.params, self.moments, loss, result = self._train_step(
                self.params, self.moments, self.x, self.y, self.state
            )
        self.done = Done((loss,), result=result, params=self.params)

    def train_epoch(self, order: NDArray[np.int64]) -> None:
        B = self.problem.B
        rows = order.astype(np.int32)
        full = len(rows) // B * B
        losses, right, counts = [], [], []
        with precision(self.problem.dtype):
            for batches in (rows[:full].reshape(-1, B), rows[full:].reshape(1, -1)):
                if batches.size == 0:
                    continue
                self.params, self.moments, loss, hit = self._epoch(
                    self.params, self.moments, self.inputs, self.targets, batches
                )
                losses.append(loss)
                right += [] if hit is None else [hit]
                counts += [batches.shape[1]] * len(batches)
        self.done = Done(tuple(losses), tuple(counts), params=self.params, right=tuple(right))

    def predict(self, inputs: Inputs) -> Array:
        rows, parts = self._rows(inputs), []
        with precision(self.problem.dtype):
            for i in range(0, len(rows), _PREDICT_ROWS):
                part = rows[i : i + _PREDICT_ROWS]
                short = [(0, _PREDICT_ROWS - len(part))] + [(0, 0)] * (part.ndim - 1)
                parts.append(self._predict(self.params, np.pad(part, short)))  # one shape, compiled once
        predicted: Array = np.concatenate([np.asarray(part) for part in parts])[: len(rows)]
        return predicted

    def poison(self) -> None:
        self.done = None  # arrays are immutable

    def synchronize(self) -> None:
        if self.done is not None:
            done = self.done
            jax.block_until_ready((done.losses, done.result, done.grads, done.params, done.right))

    def fetch(self) -> Outputs:
        done = self.done
        if done is None:
            return Outputs()
        losses = np.concatenate([np.atleast_1d(np.asarray(loss, np.float64)) for loss in done.losses])
        outputs = sum(done.rows) * (self.problem.T if self.model.head is Head.EVERY else 1)
        return Outputs(
            loss=float(losses @ np.array(done.rows) / sum(done.rows)),
            logits=None if done.result is None else np.array(done.result.logits),
            state=None if done.result is None else np.array(done.result.state),
            grads={name: np.array(done.grads[name]) for name in self.model.shapes} if done.grads else {},
            params={name: np.array(done.params[name]) for name in self.model.shapes} if done.params else {},
            accuracy=sum(int(np.asarray(hit).sum()) for hit in done.right) / outputs if done.right else None,
        )


def _logits(model: ModelSpec, params: Any, x: jax.Array) -> jax.Array:
    """Logits of rows x from a zero state."""
    every = model.head is Head.EVERY
    state = jnp.zeros((len(x), model.H), params["W_hh"].dtype)
    last, states = scan_steps(params["W_hh"], state, project(model, params, x), every)
    return jnp.swapaxes(read(params, states), 0, 1) if every else read(params, last)


def observed_subnormals(device: jax.Device) -> str:
    """What becomes of subnormal products in a compiled function: tried, not asked.

    On a processor in so many that each thread of the pool has some; elsewhere in few, for all memory is counted there.
    """
    halve: Callable[[jax.Array], jax.Array] = jax.jit(lambda x: x * 0.5)
    count = 1 << (20 if device.platform == CPU else 10)
    products = np.asarray(halve(jax.device_put(np.full(count, 2.0**-126, np.float32), device)))
    kept = float((products.view(np.int32) != 0).mean())  # as bits: a comparison may flush too
    return {0.0: "flushed by XLA", 1.0: "kept"}.get(kept, f"flushed in {1 - kept:.0%} of the work")


def pool_threads() -> int:
    """The size that XLA gives its pool: $NPROC, else the cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return int(os.environ.get("NPROC") or cores)


def _cut(problem: Problem) -> str:
    """How a truncated gradient differs from a full one, for the contract."""
    cut, T = problem.truncation, problem.T
    if cut is None:
        return ""
    if problem.model.head is Head.LAST:
        return " of the last window"
    chunked = cut.window == cut.stride and T % cut.stride == 0
    return ", a scan over chunks" if chunked else ", a second forward in a scan over windows"


class JaxBackend(Backend):
    """JAX on the CPU, whatever else there is."""

    name: ClassVar[str] = "jax"
    platform: ClassVar[str] = CPU
    session: ClassVar[type[JaxSession]] = JaxSession

    @property
    def device(self) -> jax.Device:
        """Where everything is staged and computed; RuntimeError where there is none."""
        return jax.devices(self.platform)[0]

    def unsupported(self, case: Case) -> str | None:
        return None

    def contract(self, problem: Problem) -> Contract:
        gather = "" if problem.model.V is None else "the embedding's gather, "
        loss = f"one jitted function: {gather}one product for all inputs, lax.scan over time, the head, the loss"
        gradient = f"{loss}, jax.value_and_grad{_cut(problem)}"
        clipped = "clipping, " if problem.train.clips else ""
        return Contract(
            threads=pool_threads(),
            subnormals=observed_subnormals(self.device),
            tf32=False,
            timed={
                "forward": loss,
                "gradient": gradient,
                "train_step": f"{gradient}, {clipped}optax.{problem.train.optimizer}; parameters donated",
                "epoch": "one jitted lax.scan of train steps over the full batches, rows gathered inside, and one more"
                " for the short batch; parameters stay on the device, loss and hits of each batch beside them",
            },
            staged="rows and targets on the device; a batch is two arrays of its own there",
            waits="jax.block_until_ready on all that the pass returned",
        )

    def libraries(self) -> dict[str, str]:
        return {"jax": jax.__version__, "jaxlib": version("jaxlib"), "optax": optax.__version__}

    def _prepare(self, problem: Problem, params: Params, data: Data) -> Session:
        return self.session(problem, params, data, self.device)
