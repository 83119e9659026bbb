"""JAX as its users write it: one jitted function a pass, `lax.scan` over time, optax, parameters donated."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray

from rnnbench.backends.base import Backend, Outputs, Session, Steps
from rnnbench.backends.jax_parts import (
    SCAN,
    ForwardOutputs,
    Functions,
    Layers,
    exact,
    logits_of,
    one_step,
    optimizer_of,
    zero_states,
)
from rnnbench.contract import CPU, Contract
from rnnbench.data import Data, Inputs, blank_logits, shaped_lengths, shaped_targets
from rnnbench.model import DType, Head, Problem
from rnnbench.params import Array, Params, cast, parts

_PREDICT_ROWS = 512
_NOTES = {
    "gru": "forward alone has three products a step and tanh for the logistic function; ",
    "lstm": "forward alone has one tanh over all gates; ",
}


def precision(dtype: DType) -> contextlib.AbstractContextManager[Any]:
    """A `with` block in which JAX keeps float64 where the problem has it, and is left alone where it does not."""
    if dtype is DType.FLOAT32:
        return contextlib.nullcontext()
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    from jax.experimental import enable_x64  # its place before JAX 0.8

    return enable_x64(True)


@dataclass(frozen=True)
class JaxOutputs:
    """What a pass leaves on the device; `losses` and `correct` by batch, of `rows` rows each, after an epoch.

    `lengths` (B,) of the rows of a pass; `emitted`: outputs of an epoch.
    """

    losses: tuple[jax.Array, ...]
    rows: tuple[int, ...] = (1,)
    lengths: Inputs | None = None
    emitted: int = 1
    result: ForwardOutputs | None = None
    grads: Any = None
    params: Any = None
    correct: tuple[jax.Array, ...] = ()


class JaxSession(Session):
    """One problem in JAX, on one device: rows, parameters and answers stay there until fetched."""

    def __init__(self, problem: Problem, params: Params, data: Data, device: jax.Device, layers: Layers = SCAN) -> None:
        super().__init__(problem, data)
        self.model, self.device = problem.model, device
        functions = Functions(problem, layers=layers)
        # The value is the same. What makes a forward pass of its own faster on a processor are more products a step
        uncut = Functions(replace(problem, truncation=None), trained=device.platform != CPU, layers=layers)
        self._forward = jax.jit(exact(uncut.forward))
        self._gradient = jax.jit(exact(functions.gradient))
        self._train_step = jax.jit(exact(functions.train_step), donate_argnums=(0, 1))
        self._epoch = jax.jit(exact(functions.epoch), donate_argnums=(0, 1))
        self._logits = jax.jit(exact(partial(logits_of, problem.model, layers)))
        values = cast(params, problem.dtype)
        self.initial = np.concatenate([values[name].ravel() for name in self.model.shapes])
        self.rows, self.answers = self._rows(data.inputs), shaped_targets(problem, data.targets)
        self.steps = shaped_lengths(problem, data.lengths)
        with precision(problem.dtype):
            self.inputs, self.targets = self._put(self.rows), self._put(self.answers)
            self.lengths = None if self.steps is None else self._put(self.steps)
        self.states: dict[str, jax.Array] | None = None
        self._done: JaxOutputs | None = None
        self.stepped: tuple[jax.Array, dict[str, jax.Array]] | None = None  # logits, states, of a single step
        self.reset()
        self.select(0)

    @property
    def done(self) -> JaxOutputs | None:
        """What the last pass left; none where that was a single step."""
        return self._done

    @done.setter
    def done(self, outputs: JaxOutputs | None) -> None:
        self._done, self.stepped = outputs, None

    def _rows(self, inputs: Inputs) -> Inputs:
        return np.ascontiguousarray(inputs, dtype=str(self.problem.dtype) if self.model.V is None else np.int32)

    def _put(self, value: Any) -> jax.Array:
        """A copy on the device."""
        return jnp.array(value, device=self.device)

    def _select(self, batch: int) -> None:
        rows = slice(batch * self.problem.B, (batch + 1) * self.problem.B)
        self.own_steps = None if self.steps is None else self.steps[rows]
        with precision(self.problem.dtype):
            chosen = self.rows[rows], self.answers[rows], self.own_steps
            self.x, self.y, self.n = jax.block_until_ready(jax.tree.map(self._put, chosen))

    def _start_from(self, states: dict[str, Array] | None) -> None:
        with precision(self.problem.dtype):
            self.states = None if states is None else {name: self._put(value) for name, value in states.items()}

    def reset(self) -> None:
        with precision(self.problem.dtype):
            self.params = self._put(self.initial)  # a copy: steps take it
            moments = optimizer_of(self.problem.train).init(self.params)
            self.moments = jax.device_put(moments, self.device)
            jax.block_until_ready((self.params, self.moments))

    def forward(self) -> None:
        with precision(self.problem.dtype):
            loss, result = self._forward(self.params, self.x, self.y, self.states, self.n)
        self.done = JaxOutputs((loss,), lengths=self.own_steps, result=result)

    def gradient(self) -> None:
        with precision(self.problem.dtype):
            (loss, result), grads = self._gradient(self.params, self.x, self.y, self.states, self.n)
        self.done = JaxOutputs((loss,), lengths=self.own_steps, result=result, grads=grads)

    def train_step(self) -> None:
        with precision(self.problem.dtype):
            self.params, self.moments, loss, result = self._train_step(
                self.params, self.moments, self.x, self.y, self.states, self.n
            )
        self.done = JaxOutputs((loss,), lengths=self.own_steps, result=result, params=self.params)

    def begin_steps(self) -> Steps:
        with precision(self.problem.dtype):
            params = parts(np.array(self.params), self.model.shapes)
            # All but the table of tokens are constants of what is compiled: products of constants are done beforehand
            embedding = self._put(params.pop("embedding")) if self.model.V is not None else None
            step = jax.jit(exact(partial(one_step, self.model, params)), donate_argnums=1)
            zeros = zero_states(self.model, self.problem.B, str(self.problem.dtype))
            begun = zeros if self.states is None else self.states
            # Put on the device as a step leaves them there: for others it would be compiled once more
            trial, states = ({name: self._put(np.array(s)) for name, s in begun.items()} for _ in range(2))
            inputs = [self._put(x) for x in np.asarray(self.x).swapaxes(0, 1)]
            jax.block_until_ready((step(embedding, trial, inputs[0]), states, inputs))

        def take(x: jax.Array) -> None:
            nonlocal states
            logits, states = step(embedding, states, x)
            self.stepped = logits, states

        def take_exactly(x: jax.Array) -> None:
            with precision(self.problem.dtype):
                take(x)

        return Steps(inputs, take if self.problem.dtype is DType.FLOAT32 else take_exactly)

    def _train_epoch(self, order: NDArray[np.int64]) -> None:
        B = self.problem.B
        rows = order.astype(np.int32)
        full = len(rows) // B * B
        losses, right, counts = [], [], []
        with precision(self.problem.dtype):
            for batches in (rows[:full].reshape(-1, B), rows[full:].reshape(1, -1)):
                if batches.size == 0:
                    continue
                self.params, self.moments, loss, hit = self._epoch(
                    self.params, self.moments, self.inputs, self.targets, batches, self.lengths
                )
                losses.append(loss)
                right += [] if hit is None else [hit]
                counts += [batches.shape[1]] * len(batches)
        emitted = len(order)
        if self.model.head is Head.EVERY:
            emitted = len(order) * self.problem.T if self.steps is None else int(self.steps[order].sum())
        self.done = JaxOutputs(
            tuple(losses), tuple(counts), emitted=emitted, params=self.params, correct=tuple(right)
        )  # fmt: skip

    def _predict(self, inputs: Inputs, lengths: Inputs | None) -> Array:
        def filled(rows: Inputs) -> Inputs:
            """As many rows as make one shape, compiled once."""
            return np.pad(rows, [(0, _PREDICT_ROWS - len(rows))] + [(0, 0)] * (rows.ndim - 1))

        predicted = []
        with precision(self.problem.dtype):
            for i in range(0, len(inputs), _PREDICT_ROWS):
                part = slice(i, i + _PREDICT_ROWS)
                own = None if lengths is None else filled(lengths[part])
                predicted.append(self._logits(self.params, filled(inputs[part]), own))
        logits: Array = np.concatenate([np.asarray(part) for part in predicted])[: len(inputs)]
        return blank_logits(self.problem, logits, lengths)

    def poison(self) -> None:
        self.done = None  # arrays are immutable

    def synchronize(self) -> None:
        if self.stepped is not None:
            self.stepped[0].block_until_ready()  # and with it all that the same call computes
        elif self.done is not None:
            done = self.done
            jax.block_until_ready((done.losses, done.result, done.grads, done.params, done.correct))

    def fetch(self) -> Outputs:
        if self.stepped is not None:
            logits, states = self.stepped
            return Outputs(logits=np.array(logits), states={name: np.array(s) for name, s in states.items()})
        done = self.done
        if done is None:
            return Outputs()
        losses = np.concatenate([np.atleast_1d(np.asarray(loss, np.float64)) for loss in done.losses])
        logits = None if done.result is None else blank_logits(self.problem, np.array(done.result.logits), done.lengths)
        return Outputs(
            loss=float(losses @ np.array(done.rows) / sum(done.rows)),
            logits=logits,
            states={} if done.result is None else {name: np.array(s) for name, s in done.result.states.items()},
            grads={} if done.grads is None else parts(np.array(done.grads), self.model.shapes),
            params={} if done.params is None else parts(np.array(done.params), self.model.shapes),
            accuracy=sum(int(np.asarray(hit).sum()) for hit in done.correct) / max(1, done.emitted)
            if done.correct
            else None,
        )


def subnormals_in_xla(device: jax.Device) -> str:
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
    if problem.model.head is Head.LAST and not problem.lengths:
        return " of the last window"
    chunked = cut.window == cut.stride and T % cut.stride == 0
    return ", a scan over chunks" if chunked else ", a second forward in a scan over windows"


class JaxBackend(Backend):
    """JAX on the CPU, whatever else there is."""

    name: ClassVar[str] = "jax"
    streams: ClassVar[bool] = True
    platform: ClassVar[str] = CPU
    session: ClassVar[type[JaxSession]] = JaxSession
    recurrence: ClassVar[str] = "lax.scan over time"

    @property
    def device(self) -> jax.Device:
        """Where everything is staged and computed; RuntimeError where there is none."""
        return jax.devices(self.platform)[0]

    def contract(self, problem: Problem) -> Contract:
        gather = "" if problem.model.V is None else "the embedding's gather, "
        scans = self.recurrence == JaxBackend.recurrence
        scan = "one product for all inputs, " * scans + self.recurrence
        scan += ", one for each layer and direction" * (len(problem.model.directions) > 1)
        scan += ", padding computed and masked" * (problem.lengths and scans)
        loss = f"one jitted function: {gather}{scan}, the head, the loss"
        gradient = f"{loss}, jax.value_and_grad{_cut(problem)}"
        clipped = "clipping, " if problem.train.clips else ""
        step = "one jitted function of a step: the cell once for each layer, the head; parameters are its constants"
        return Contract(
            threads=pool_threads(),
            subnormals=subnormals_in_xla(self.device),
            tf32=False,
            timed={
                "forward": loss,
                "gradient": gradient,
                "train_step": f"{gradient}, {clipped}optax.{problem.train.optimizer}; parameters donated",
                "epoch": "one jitted lax.scan of train steps over the full batches, rows gathered inside, and one more"
                " for the short batch; parameters stay on the device, loss and hits of each batch beside them",
                **({"step": f"{step}, states donated"} if self.streams else {}),
            },
            notes=_NOTES.get(problem.model.cell, "") * (self.platform == CPU and scans)
            + "parameters, their gradient and each moment are one vector",
            staged="rows and targets on the device; a batch is two arrays of its own there",
            waits="jax.block_until_ready on all that the pass returned",
        )

    def libraries(self) -> dict[str, str]:
        return {"jax": jax.__version__, "jaxlib": version("jaxlib"), "optax": optax.__version__}

    def _prepare(self, problem: Problem, params: Params, data: Data) -> Session:
        return self.session(problem, params, data, self.device)
