"""The network of `jax` with `rnnbench.jax` in the place of its scan.

What it says beside `jax` is what that brings; beside `numba`, what JAX costs around the recurrence.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from importlib.metadata import version
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from rnnbench import jax as ours
from rnnbench.backends.base import Session
from rnnbench.backends.jax import JaxBackend, JaxSession
from rnnbench.backends.jax_parts import Layers, States, read_by_next
from rnnbench.contract import Contract
from rnnbench.data import Data
from rnnbench.kernels.cpu.xla_call import compile_call
from rnnbench.model import Case, DType, Head, Model, Pass, Problem
from rnnbench.params import Params

_CELLS = {"rnn": ours.rnn, "gru": ours.gru, "lstm": ours.lstm}


def _read(model: Model, params: Any, x: jax.Array) -> list[jax.Array]:
    """What the first layer reads, (T, B, E): our kernels project it."""
    steps = jnp.swapaxes(x, 0, 1)
    return [steps if model.V is None else params["embedding"][steps]]


def _run(
    model: Model, params: Any, states: States, read: list[jax.Array], active: jax.Array | None = None,
    kept: Iterable[str] = (), trained: bool = True,
) -> tuple[States, States]:  # fmt: skip
    """As `scan_stack`; rows are `active` from the first of these steps on, without a gap, and of all steps only h is
    there.
    """
    (h,), last, every = read, dict[str, jax.Array](), dict[str, jax.Array]()
    lengths = None if active is None else active.sum(axis=0, dtype=jnp.int32)
    layer_of = _CELLS[model.cell]
    for layer in model.stack:
        for direction in layer:
            name, own = "back" if direction.back else "forward", direction.states_of(states)
            start = tuple(own[state] for state in direction.cell.states)
            y, found = layer_of(
                {name: direction.params_of(params)}, h, {name: start if len(start) == 2 else start[0]},
                lengths=lengths, time_major=True,
            )  # fmt: skip
            ends = found[name] if len(start) == 2 else (found[name],)
            last |= direction.named(dict(zip(direction.cell.states, ends, strict=True)))
            every |= direction.named({"h": y})
        h = read_by_next(layer, every)
    return last, every


class JaxRnnbenchBackend(JaxBackend):
    """JAX with our recurrence: subnormals are flushed inside it."""

    name: ClassVar[str] = "jax+rnnbench"
    streams: ClassVar[bool] = False
    recurrence: ClassVar[str] = "a custom call of rnnbench.jax, which packs its weights each time"

    def contract(self, problem: Problem) -> Contract:
        common = super().contract(problem)
        return replace(common, subnormals=f"flushed in the recurrence; around it {common.subnormals}")

    def libraries(self) -> dict[str, str]:
        return super().libraries() | {name: version(name) for name in ("numba", "llvmlite")}

    def warm(self, dtype: DType) -> Iterator[tuple[int, int, str]]:
        yield from compile_call(str(dtype))

    def _unsupported(self, case: Case) -> str | None:
        cut = case.truncation
        if cut is None or case.pass_ is Pass.FORWARD or (case.model.head is Head.LAST and not case.lengths):
            return None
        if cut.window == cut.stride and case.T % cut.stride == 0:
            return None
        return (
            f"truncation {cut} of {case.T} steps has windows that overlap or are cut short; take window = stride, a "
            "divisor of the steps, or jax"
        )

    def _prepare(self, problem: Problem, params: Params, data: Data) -> Session:
        return JaxSession(problem, params, data, self.device, Layers(_read, _run))
