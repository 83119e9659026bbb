"""Our CUDA kernels behind the protocol: all rows and numbers stay on the device, a pass is a handful of launches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from importlib import metadata
from typing import Any, ClassVar

import numba
import numpy as np
from numba import cuda
from numpy.typing import NDArray

from rnnbench.backends.base import Backend, DeviceClock, Events, Outputs, Session
from rnnbench.contract import CPU, CUDA, Contract
from rnnbench.data import Data, Inputs, blank_logits, shaped_lengths, shaped_targets
from rnnbench.kernels.cuda import device, losses
from rnnbench.kernels.cuda.buffers import DeviceSizes, device_bytes_kept, device_bytes_needed, work_arrays
from rnnbench.kernels.cuda.launch import HostNumber, Launcher, PreparedLaunches
from rnnbench.kernels.cuda.passes import Batch, CudaRunner, Rows, UpdateRule
from rnnbench.kernels.cuda.plan import LaunchPlan
from rnnbench.kernels.cuda.recurrence_launches import reverse_passes, settle
from rnnbench.model import Case, Head, Loss, Optimizer, Pass, Problem, StepSum, blocks_of
from rnnbench.params import Array, Params, cast, parts

_LOSS_CODES = {loss: getattr(losses, loss.name) for loss in Loss}
PREDICT_ROWS = 512  # at a time
STAGED = "rows, targets, work buffers, a zero state and room for an order on the device"
# By each pass that reads it, anew: of each layer and direction, and of all.
WRITTEN = (
    "h", "gates", "tape", "read", "z", "dz", "d_read", "dh", "delta", "spare", "carried", "dx", "parts", "head_parts",
    "norm_parts", "grads",
)  # fmt: skip


def device_sizes(problem: Problem) -> DeviceSizes:
    """A problem as the kernels' sizes."""
    model, T = problem.model, problem.T
    S = T if model.head is Head.EVERY else 1
    directions = 1 + model.bidirectional
    return DeviceSizes(
        problem.B, T, model.V or 0, model.E, model.H, model.O, S, str(problem.dtype), model.cell, model.layers,
        directions, problem.lengths, problem.lengths and model.head is Head.LAST,
        problem.lengths and model.averages_steps,
    )  # fmt: skip


def update_rule(problem: Problem) -> UpdateRule:
    """The update; no limit is infinity."""
    t = problem.train
    value, norm = (math.inf if limit is None else limit for limit in (t.clip_value, t.clip_norm))
    adam = t.optimizer is Optimizer.ADAM
    return UpdateRule(adam, t.learning_rate, t.beta_1, t.beta_2, t.epsilon, value, norm)


def _source(problem: Problem, inputs: Inputs) -> Any:
    kind = str(problem.dtype) if problem.model.V is None else "int32"
    return cuda.to_device(np.ascontiguousarray(inputs, kind))


def _staged(problem: Problem, sizes: DeviceSizes, data: Data) -> Rows:
    """Rows on the device; what this problem does not have is an array of one number."""
    n, targets = len(data.inputs), shaped_targets(problem, data.targets)
    classes, numbers = np.zeros((1, 1), np.int32), np.zeros((1, 1, 1), sizes.dtype)
    if problem.model.loss is Loss.CATEGORICAL_CROSS_ENTROPY:
        classes = targets.reshape(n, sizes.S)
    else:
        numbers = targets.reshape(n, sizes.S, sizes.O)
    return Rows(_source(problem, data.inputs), cuda.to_device(classes), cuda.to_device(numbers), _lengths(data.lengths))


def _lengths(lengths: Inputs | None) -> Any:
    """On the device, (N,) int32; one number where rows have none, which is not read."""
    return cuda.to_device(np.zeros(1, np.int32) if lengths is None else np.ascontiguousarray(lengths, np.int32))


class CudaSession(Session):
    """One problem on the device. Parameters, gradients and moments are flat arrays; names are views into them.

    Launches are prepared for each pass and number of rows. They read anew: `offset`, `place`, where the rows of a batch
    and of a step of an epoch begin; `corrections`, `UpdateRule.corrections` of the step.
    """

    def __init__(
        self, problem: Problem, params: Params, data: Data, plan: LaunchPlan, launch: Launcher | None = None
    ) -> None:
        model = problem.model
        super().__init__(problem, data)
        self.model, self.plan = model, plan
        self.sizes, self.rule = device_sizes(problem), update_rule(problem)
        ordered = cast({name: params[name] for name in model.shapes}, problem.dtype)
        self.initial = cuda.to_device(np.concatenate([value.ravel() for value in ordered.values()]))
        flat = {name: cuda.device_array_like(self.initial) for name in ("params", "grads")}
        moments = self.initial.size if self.rule.adam else 1
        flat |= {name: cuda.to_device(np.zeros(moments, self.sizes.dtype)) for name in ("m", "v")}
        self.params, self.grads = (parts(flat[name], model.shapes) for name in ("params", "grads"))
        self.arrays = flat | work_arrays(self.sizes, plan, learns=True)
        self.arrays |= {f"d_{name}": g for name, g in self.grads.items()}
        self.arrays["scale"].copy_to_device(np.ones(1, self.sizes.dtype))
        zero = cuda.to_device(np.zeros((problem.B, model.H), self.sizes.dtype))
        self.zero_state = dict.fromkeys(model.states, zero)
        self.state = {name: cuda.device_array_like(zero) for name in model.states}
        self.rows = _staged(problem, self.sizes, data)
        self.in_order = cuda.to_device(np.arange(self.staged, dtype=np.int64))
        blocks = blocks_of(model, problem.truncation, problem.T, problem.lengths)
        passes_back = [(b.start, b.emit, b.end) for b in blocks]
        self.lengths = shaped_lengths(problem, data.lengths)
        self.reverse = reverse_passes(passes_back, model.layers)
        self.launch, self.prepared = launch or Launcher(), dict[tuple[Pass, int], PreparedLaunches]()
        self.runner = CudaRunner(
            self.sizes, plan, _LOSS_CODES[model.loss], self.arrays, self.params, self.rows, self.launch
        )
        number = np.dtype(self.sizes.dtype).type
        self.offset, self.place = HostNumber(0), HostNumber(0)
        self.corrections = HostNumber(number(0)), HostNumber(number(0))
        self.order = cuda.device_array(self.staged, np.int64)
        self.seen = self.each = self._answers(problem.B)
        every, mean = model.head is Head.EVERY, model.step_sum is StepSum.MEAN
        self.step_weight = 1.0 / problem.T if every and mean else 1.0
        self.last: Pass | None = None
        self.lent = 0
        self.start_from(None)
        self.reset()
        self.select(0)

    def _answers(self, n: int) -> tuple[Any, Any]:
        """Losses and correct of n rows, (n, S)."""
        shape = (n, self.sizes.S)
        return cuda.device_array(shape, self.sizes.dtype), cuda.device_array(shape, np.int32)

    def _select(self, batch: int) -> None:
        self.offset.set(batch * self.problem.B)
        self._select_lengths(batch)

    def _select_lengths(self, batch: int) -> None:
        rows = slice(batch * self.problem.B, (batch + 1) * self.problem.B)
        self.own_lengths = None if self.lengths is None else self.lengths[rows]

    def _ran(self, pass_: Pass) -> None:
        """What `fetch` needs to know of a pass over a batch."""
        self.last, self.rows_in_pass, self.lengths_in_pass = pass_, self.problem.B, self.own_lengths

    def _ran_epoch(self, order: NDArray[np.int64]) -> None:
        self.last, self.rows_in_pass = Pass.EPOCH, order.size
        self.lengths_in_pass = None if self.lengths is None else self.lengths[order]

    def _start_from(self, states: dict[str, Array] | None) -> None:
        for name, state in self.state.items():
            state.copy_to_device(np.zeros(state.shape, self.sizes.dtype) if states is None else states[name])

    def reset(self) -> None:
        self.arrays["params"].copy_to_device(self.initial)
        for name in ("m", "v"):
            self.arrays[name].copy_to_device(np.zeros(self.arrays[name].size, self.sizes.dtype))
        self.step = 1

    def _batch(self) -> Batch:
        return Batch(self.in_order, self.offset, self.problem.B, self.state, *self.seen)

    def _run(self, pass_: Pass, launches: Callable[[], None], rows: int | None = None) -> None:
        """Prepare the launches of a pass over so many rows, the first time, and launch them."""
        key = pass_, rows or self.problem.B
        if key not in self.prepared:
            # Of epochs that end with fewer rows than a batch has, those of the last are kept
            for other in [k for k in self.prepared if k[0] is pass_ and self.problem.B not in (k[1], key[1])]:
                self.prepared.pop(other).close()
            self.prepared[key] = self.launch.prepare(launches)
        self.prepared[key].replay()

    def _gradient(self, batch: Batch) -> None:
        self.runner.gradient(batch, self.step_weight, self.reverse)

    def _train(self, batch: Batch) -> None:
        self._gradient(batch)
        self.runner.update(self.rule, self.corrections)

    def _correct_for(self, step: int) -> None:
        """Set what of the update depends on the step."""
        if self.rule.adam:
            for held, value in zip(self.corrections, self.rule.corrections(step), strict=True):
                held.set(value)

    def forward(self) -> None:
        self._run(Pass.FORWARD, lambda: self.runner.forward(self._batch(), self.step_weight))
        self._ran(Pass.FORWARD)

    def gradient(self) -> None:
        self._run(Pass.GRADIENT, lambda: self._gradient(self._batch()))
        self._ran(Pass.GRADIENT)

    def train_step(self) -> None:
        self._correct_for(self.step)
        self._run(Pass.TRAIN_STEP, lambda: self._train(self._batch()))
        self.step += 1
        self._ran(Pass.TRAIN_STEP)

    def _train_epoch(self, order: NDArray[np.int64]) -> None:
        """The order goes to the device once; the steps are launched one after the other, with nothing copied."""
        n, B = order.size, self.problem.B
        self._place_order(order)
        for at in range(0, n, B):
            self._train_rows(at, min(B, n - at))
        self._ran_epoch(order)

    def _train_rows(self, at: int, b: int) -> None:
        """A step of an epoch: rows order[at : at + b]."""
        self.place.set(at)
        self._correct_for(self.step)
        batch = Batch(self.order, self.place, b, self.zero_state, *self.each, self.place)
        self._run(Pass.EPOCH, lambda: self._train(batch), b)
        self.step += 1

    def _place_order(self, rows: NDArray[np.int64]) -> None:
        """Copy an order to where steps read it. Only one of more rows than any before makes new arrays."""
        before = self.order, self.each
        if self.order.size < rows.size:
            self.order = cuda.device_array(rows.size, np.int64)
        if self.each[0].shape[0] < rows.size:
            self.each = self._answers(rows.size)
        if any(now is not old for now, old in zip((self.order, self.each), before, strict=True)):
            self._drop(Pass.EPOCH)
        self.order[: rows.size].copy_to_device(rows)

    def _drop(self, pass_: Pass) -> None:
        """Forget launches whose arrays are no longer the session's."""
        for key in [key for key in self.prepared if key[0] is pass_]:
            self.prepared.pop(key).close()

    def _predict(self, inputs: Inputs, lengths: Inputs | None) -> Array:
        """In blocks of rows, in buffers of their own."""
        n, S, O = len(inputs), self.sizes.S, self.sizes.O
        sizes = replace(self.sizes, B=min(n, PREDICT_ROWS))
        buffers = work_arrays(sizes, self.plan, learns=False)
        runner = CudaRunner(sizes, self.plan, losses.NO_LOSS, buffers, self.params, self.rows)
        zero = cuda.to_device(np.zeros((sizes.B, sizes.H), sizes.dtype))
        initial = dict.fromkeys(self.model.states, zero)
        order, seen = cuda.to_device(np.arange(sizes.B, dtype=np.int64)), self._answers(sizes.B)
        steps = self.rows.lengths if lengths is None else cuda.device_array(sizes.B, np.int32)
        own = [] if lengths is None else [steps]
        self.lent = max(self.lent, _bytes([*buffers.values(), zero, order, *seen, *own]))
        logits = np.empty((n, S, O), sizes.dtype)
        for at in range(0, n, sizes.B):
            rows = inputs[at : at + sizes.B]
            if lengths is not None:
                steps[: len(rows)].copy_to_device(lengths[at : at + sizes.B])
            runner.rows = replace(self.rows, source=_source(self.problem, rows), lengths=steps)
            runner.forward(Batch(order, 0, len(rows), initial, *seen), 1.0)
            logits[at : at + len(rows)] = self._time_first(buffers["z"], len(rows))
        return blank_logits(self.problem, self._shaped(logits), lengths)

    def _time_first(self, z: Any, b: int) -> Array:
        """Rows s b + i of z (., O) as (b, S, O)."""
        S, O = self.sizes.S, self.sizes.O
        logits: Array = z.copy_to_host()[: S * b].reshape(S, b, O).swapaxes(0, 1)
        return logits

    def _shaped(self, logits: Array) -> Array:
        """(n, S, O) as the protocol has it: (n, O) for the last step alone."""
        return logits if self.model.head is Head.EVERY else logits[:, 0]

    def fetch(self) -> Outputs:
        if self.last is None:
            return Outputs()
        n, lengths = self.rows_in_pass, self.lengths_in_pass
        each, correct = (a.copy_to_host()[:n] for a in (self.each if self.last is Pass.EPOCH else self.seen))
        loss = float(each.sum(axis=1, dtype=np.float64) @ self._weights(n))
        params = _fetched(self.params) if self.last in (Pass.TRAIN_STEP, Pass.EPOCH) else {}
        if self.last is Pass.EPOCH:
            outputs = n * self.sizes.S if lengths is None or self.sizes.at_ends else int(lengths.sum())
            accuracy = int(correct.sum()) / outputs if self.model.loss.has_accuracy and outputs else None
            return Outputs(loss=loss, params=params, accuracy=accuracy)
        grads = _fetched(self.grads) if self.last is Pass.GRADIENT else {}
        # The states of lstm are h and the tape
        names = [(d.prefix, name) for d in self.model.directions for name in d.cell.states]
        last = {f"{p}{name}": self._last(f"{p}{'h' if name == 'h' else 'tape'}") for p, name in names}
        logits = self._shaped(self._time_first(self.arrays["z"], n))
        return Outputs(loss, blank_logits(self.problem, logits, lengths), last, grads, params)

    def _weights(self, n: int) -> NDArray[np.float64]:
        """What a loss of each of n rows counts in that of a pass: of batches that average over all that they emit,
        each of its own.
        """
        if not self.sizes.averages:
            return np.full(n, self.step_weight / n)
        assert self.lengths_in_pass is not None
        weights = np.empty(n)
        for at in range(0, n, self.problem.B):
            own = self.lengths_in_pass[at : at + self.problem.B]
            weights[at : at + own.size] = own.size / (n * max(1, int(own.sum())))
        return weights

    def _last(self, name: str) -> Array:
        """The states (B, H) after each row's last step, of h or tape."""
        B, T = self.problem.B, self.problem.T
        states: Array = self.arrays[name].copy_to_host().reshape(T + 1, B, -1)
        steps = T if self.lengths_in_pass is None else self.lengths_in_pass
        return states[steps, np.arange(B)]

    def poison(self) -> None:
        numbers = [array for name, array in self.arrays.items() if name.rpartition(".")[2] in WRITTEN]
        for array in (*numbers, self.seen[0], self.each[0]):
            array.copy_to_device(np.full(array.shape, np.nan, self.sizes.dtype))
        for array in (self.seen[1], self.each[1]):
            array.copy_to_device(np.full(array.shape, -1, np.int32))

    def synchronize(self) -> None:
        cuda.synchronize()

    def device_clock(self) -> DeviceClock | None:
        return None if device.simulated() else Events(*(cuda.event(timing=True) for _ in range(2)))

    def peak_device_bytes(self) -> int:
        """What this session holds there and the largest amount that a prediction took besides, by its own count."""
        return _bytes(self._held()) - _bytes(self.grads.values()) + self.lent

    def _held(self) -> list[Any]:
        """Its arrays there, some of them twice; gradients by name are views."""
        states = [*self.zero_state.values(), *self.state.values()]
        reverse = [self.reverse, *self.reverse.apart]
        passes_back = [p.on_device for each in reverse for p in (each, each.below) if p is not None]
        others = (self.initial, *states, self.in_order, self.order, *passes_back)
        return [*self.arrays.values(), *vars(self.rows).values(), *self.seen, *self.each, *others]

    def close(self) -> None:
        """Drop what is on the device; numba frees it in time."""
        for pass_ in Pass:
            self._drop(pass_)
        self.arrays, self.params, self.grads = {}, {}, {}
        del self.runner, self.rows, self.seen


def _bytes(arrays: Iterable[Any]) -> int:
    """Of arrays on the device, each counted once."""
    return sum({id(array): array.nbytes for array in arrays}.values())


def _fetched(arrays: dict[str, Any]) -> dict[str, Array]:
    return {name: value.copy_to_host() for name, value in arrays.items()}


class CudaBackend(Backend):
    """Our kernels on one NVIDIA GPU: a block owns rows of the batch and runs all T steps of them in one launch."""

    name: ClassVar[str] = "cuda"

    def __init__(self, plan: LaunchPlan | None = None) -> None:
        self.plan = plan or LaunchPlan()

    def unavailable(self) -> str | None:
        return None if device.simulated() else device.unusable(device.probe())

    def _unsupported(self, case: Case) -> str | None:
        if device.simulated():
            return None
        sizes, adam = device_sizes(case), update_rule(case).adam
        return device.exceeds_memory(
            device.probe(), device_bytes_needed(sizes, self.plan, adam), device_bytes_kept(sizes, adam)
        )

    def contract(self, problem: Problem) -> Contract:
        where = self._weights(problem)
        launches = "launches on one stream"
        tokens = ", sums over tokens" if problem.model.V is not None else ""
        clipped = "clipping, " if problem.train.clips else ""
        return Contract(
            threads=1,
            subnormals="kept",
            tf32=False,
            timed={
                "forward": f"{launches}: project the inputs, T steps, head and the loss of each output",
                "gradient": f"{launches}: forward, gradient of the states, BPTT, sums over steps{tokens}",
                "train_step": f"{launches}: gradient, {clipped}the optimizer on all parameters",
                "epoch": "the order to the device; train steps on rows taken there by index, nothing copied back",
            },
            notes=f"W_hh {where}; losses are added up when they are fetched; "
            + ("Numba's simulator" if device.simulated() else "an NVIDIA GPU"),
            device=CPU if device.simulated() else CUDA,
            staged=f"{STAGED}; a batch is an offset",
            waits="cuda.synchronize",
        )

    def _weights(self, problem: Problem) -> str:
        """Where W_hh is, and what becomes of padding; what is asked of a device that is not there cannot be known."""
        if not device.simulated() and device.probe().error:
            return "as the device allows"
        H, B, cell = problem.model.H, problem.B, problem.model.cell
        found = settle(self.plan, H, B, str(problem.dtype), device.room(), cell=cell)
        if not problem.lengths:
            return found.said
        rows = "a block stops where the last of its rows ends" if found.regime.lanes else "padding is computed"
        return f"{found.said}; {rows}"

    def libraries(self) -> dict[str, str]:
        found = {"numba": numba.__version__}
        if getattr(cuda, "implementation", "") == "NVIDIA":
            found["numba-cuda"] = metadata.version("numba-cuda")
        return found

    def _prepare(self, problem: Problem, params: Params, data: Data) -> Session:
        return CudaSession(problem, params, data, self.plan)
