"""Our CPU kernels behind the protocol: a problem becomes arrays and codes, a pass becomes one compiled call."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import ClassVar, NamedTuple

import llvmlite
import numba
import numpy as np
from numba.np.ufunc import parallel
from numpy.typing import NDArray

from rnnbench.backends.base import Backend, Outputs, Session, Steps
from rnnbench.contract import Contract
from rnnbench.data import Data, Inputs, blank_logits, shaped_lengths, shaped_targets
from rnnbench.kernels.cpu import losses
from rnnbench.kernels.cpu.compiling import KEPT_IN
from rnnbench.kernels.cpu.flush import CAN_FLUSH
from rnnbench.kernels.cpu.model import FORWARD_STEPS, PREDICT_ROWS
from rnnbench.kernels.cpu.pass_record import (
    FORWARD,
    GRADIENT,
    GRU,
    LSTM,
    OWN_TOKENS_WEIGHTS,
    PARAMETERS,
    PREDICT,
    RNN,
    TRAIN_STEP,
    WIDE_TABLE,
    BufferSizes,
    PassRecord,
    aligned,
    layer_buffers,
    model_buffers,
)
from rnnbench.kernels.cpu.passes import CpuRunner, compile_all
from rnnbench.kernels.cpu.simd import padded, register_bytes
from rnnbench.kernels.cpu.stream_step import compile_streams
from rnnbench.kernels.cpu.thread_pool import MAX_SHARES, thread_pool
from rnnbench.model import Direction, DType, Head, Loss, Optimizer, Pass, Problem, StepSum, blocks_of
from rnnbench.params import Array, Params, cast, parts
from rnnbench.stream import Stream

_LOSS_CODES = {loss: getattr(losses, loss.name) for loss in Loss}
_RECURRENCE_CODES = {"rnn": RNN, "gru": GRU, "lstm": LSTM}


class _State(NamedTuple):
    """The arrays of the record that a state begins at and ends in."""

    initial: str
    last: str


_STATES = {"h": _State("initial", "state"), "c": _State("initial_cell", "state_cell")}

# Where a pass is cut into segments: so many new steps in each, as far as the stride allows.
SEGMENT_STEPS = 128


def numba_threads() -> int:
    """How many threads kernels of this process may have: NUMBA_NUM_THREADS, unless `numba.set_num_threads` said less.

    Numba loads a threading layer to answer, and OpenMP with it, which may pin this thread to one core: it is asked only
    where it has one already.
    """
    return int(numba.get_num_threads() if parallel._is_initialized else numba.config.NUMBA_NUM_THREADS)


def values_of(problem: Problem, sizes: BufferSizes, flush: bool) -> dict[str, float]:
    """A problem as the numbers that kernels read; no limit is infinity."""
    model, train, dtype = problem.model, problem.train, str(problem.dtype)
    every, mean = model.head is Head.EVERY, model.step_sum is StepSum.MEAN
    blocks = blocks_of(model, problem.truncation, problem.T, problem.lengths)
    return {
        "B": sizes.B, "T": sizes.T, "V": sizes.V, "E": sizes.E, "H": sizes.H, "G": sizes.G, "O": sizes.O,
        "recurrence": sizes.recurrence, **sizes.widths(dtype),
        "S": sizes.T if every else 1, "layers_n": len(model.directions), "directions": sizes.directions,
        "R": model.read, "kept": sizes.kept,
        "kept_outputs": sizes.kept if every else 1,
        "P": sum(math.prod(shape) for shape in model.shapes.values()),
        "above_width": sizes.O, "above_row": padded(sizes.O, dtype), "workers": sizes.workers,
        "blocks_n": len(blocks), "first": blocks[0].start,
        "has_tokens": model.V is not None, "can_own_tokens": sizes.own_tokens,
        "has_token_rows": sizes.token_rows,
        "learns_inputs": model.V is not None, "learns_tokens": model.V is not None, "emits": every,
        "loss": _LOSS_CODES[model.loss], "flush": flush,
        "has_lengths": problem.lengths, "averages_steps": model.averages_steps,
        "adam": train.optimizer is Optimizer.ADAM, "learning_rate": train.learning_rate, "beta_1": train.beta_1,
        "beta_2": train.beta_2, "epsilon": train.epsilon,
        "step_weight": 1.0 / problem.T if every and mean else 1.0,
        "clip_value": math.inf if train.clip_value is None else train.clip_value,
        "clip_norm": math.inf if train.clip_norm is None else train.clip_norm,
    }  # fmt: skip


def data_of(problem: Problem, data: Data) -> dict[str, Array]:
    """Rows as kernels read them; what this problem does not have is left out."""
    n, T, O = len(data.inputs), problem.T, problem.model.O
    S = T if problem.model.head is Head.EVERY else 1
    targets = shaped_targets(problem, data.targets)
    has_classes = problem.model.loss is Loss.CATEGORICAL_CROSS_ENTROPY
    found = {"classes": targets.reshape(n, S).copy()} if has_classes else {"targets": targets.reshape(n, S, O)}
    return found | inputs_of(problem, data.inputs, shaped_lengths(problem, data.lengths))


def inputs_of(problem: Problem, inputs: Inputs, lengths: Inputs | None) -> dict[str, Array]:
    """`tokens` (N, T) int32 or `inputs` (N, T, E); and `lengths` (N,) int32 where rows have such.

    Of numbers that say where to read the kernels have copies: the caller may change its own after they were checked.
    """
    found: dict[str, Array] = {} if lengths is None else {"lengths": lengths.copy()}
    if problem.model.V is not None:
        return found | {"tokens": np.array(inputs, np.int32, order="C")}
    return found | {"inputs": np.ascontiguousarray(inputs, str(problem.dtype))}


class NumbaSession(Session):
    """One problem in our kernels. Parameters, gradients and moments are flat arrays; names are views into them.

    One Python thread at a time is in it: its buffers are those of one call, and another thread waits for its end.
    """

    def __init__(self, problem: Problem, params: Params, data: Data, flush: bool) -> None:
        model = problem.model
        super().__init__(problem, data)
        self.in_use = threading.RLock()
        self.model, self.dtype, self.flush = model, str(problem.dtype), flush
        ordered = cast({name: params[name] for name in model.shapes}, problem.dtype)
        self.initial = np.concatenate([value.ravel() for value in ordered.values()])
        moments = self.initial.size if problem.train.optimizer is Optimizer.ADAM else 0
        sizes = {"params": self.initial.size, "grads": self.initial.size, "m": moments, "v": moments}
        self.flat = {name: aligned((size,), self.dtype) for name, size in sizes.items()}
        self.params, self.grads = (parts(self.flat[name], model.shapes) for name in ("params", "grads"))
        own = model.shapes.keys() - {name for direction in model.directions for name in direction.shapes}
        self.arrays = self.flat | {name: self.params[name] for name in own}
        self.arrays |= {f"d_{name}": self.grads[name] for name in own}
        blocks = [(b.start, b.emit, b.end) for b in blocks_of(model, problem.truncation, problem.T, problem.lengths)]
        self.arrays["blocks"] = np.array(blocks, np.int64)
        self.zero_state = np.zeros((problem.B, model.H), self.dtype)
        threads = numba_threads()
        thread_pool().grow(threads)
        self.record, self.layers = self._records(
            self._sizes(B=problem.B, rows=problem.B, workers=threads, kept=segment_of(problem)), data_of(problem, data)
        )
        self._start_from(None)
        self.runner = CpuRunner(self.record, self.dtype)
        self.last: Pass | None = None
        self.stream: Stream | None = None  # of single steps
        self.computed = np.arange(0, dtype=np.int64)  # the rows of the last pass
        self.reset()
        self.select(0)

    def _sizes(
        self, *, B: int, rows: int, workers: int, kept: int, whole_table: bool = False, V: int | None = None
    ) -> BufferSizes:
        """`V`: of a part of the vocabulary, else of all."""
        problem, model = self.problem, self.model
        G = len(model.recurrence.gates)
        few_weights = model.V is not None and model.E * G * model.H <= OWN_TOKENS_WEIGHTS
        wide = min(model.V or 0, B * problem.T) * G * model.H > WIDE_TABLE
        return BufferSizes(
            B=B, T=problem.T, V=V or model.V or 0, E=model.E, H=model.H, G=G, O=model.O,
            emits=model.head is Head.EVERY, recurrence=_RECURRENCE_CODES[model.cell], workers=workers, kept=kept,
            rows=rows, has_lengths=problem.lengths, directions=model.read // model.H, whole_table=whole_table,
            own_tokens=few_weights and workers > 1 and not whole_table, token_rows=wide and not whole_table,
        )  # fmt: skip

    def _records(self, sizes: BufferSizes, data: dict[str, Array]) -> tuple[PassRecord, list[PassRecord]]:
        """The record of the model, and those of its layers: of one layer it is the same."""
        values, shared = values_of(self.problem, sizes, self.flush), model_buffers(sizes, self.dtype)
        layers: list[PassRecord] = []
        for direction in self.model.directions:
            of_layer = sizes if direction.layer == 0 else replace(sizes, V=0, E=direction.E, own_tokens=False)
            own = {"layer": len(layers)} | of_layer.widths(self.dtype) | {"E": direction.E}
            if direction.layer > 0:
                own |= {"has_tokens": 0, "learns_inputs": 1}
            if direction.layer + 1 < self.model.layers:
                own |= {"under_layer": 1, "emits": 1, "kept_outputs": sizes.kept}
                own |= {"above_width": own["delta_width"], "above_row": own["Ds"]}
                if self.model.bidirectional:
                    own |= {"under_layer": 0, "under_rows": 1, "above_row": own["Hs"]}
            params = direction.params_of(self.params)
            grads = {f"d_{name}": grad for name, grad in direction.params_of(self.grads).items()}
            buffers = layer_buffers(of_layer, self.dtype)
            layers.append(PassRecord(values | own, self.arrays | data | shared | params | grads | buffers))
        for below, above in pairwise(layers if not self.model.bidirectional else []):
            names = {"above": "delta", "above_spare": "spare_delta", "W_above_T_panels": "W_xh_T_panels"}
            below.point({name: above.arrays[of] for name, of in names.items()})
        for direction, layer in zip(self.model.directions, layers, strict=True):
            if direction.layer + 1 == self.model.layers:
                layer.point({"above": shared["dz"], "W_above_T_panels": shared["W_hy_T_panels"]})
                if direction.back:
                    layer.point({"W_above_T_panels": aligned(shared["W_hy_T_panels"].shape, self.dtype)})
                if direction.back and self.model.head is Head.EVERY:  # whose steps it takes in its own order
                    layer.point({"above": aligned(shared["dz"].shape, self.dtype)})
            elif self.model.bidirectional:
                layer.point({"above": aligned(layer.arrays["h"].shape, self.dtype)})
        # Beside several layers the model has a record of its own, with what of the first layer is of tokens
        model = layers[0] if len(layers) == 1 else PassRecord(values, layers[0].arrays)
        model.point({"layers": np.array([layer.address for layer in layers], np.int64)})
        for layer in layers:
            layer.fields["root"][0] = model.address
        return model, layers

    def _select(self, batch: int) -> None:
        B = self.problem.B
        self.rows = np.arange(batch * B, (batch + 1) * B, dtype=np.int64)

    def _start_from(self, states: dict[str, Array] | None) -> None:
        with self.in_use:
            self.given = states
            self._point_to(states)

    def _point_to(self, states: dict[str, Array] | None) -> None:
        found = dict.fromkeys(self.model.states, self.zero_state) if states is None else states
        for direction, layer in self._directions():
            layer.point({_STATES[name].initial: state for name, state in direction.states_of(found).items()})

    def _directions(self) -> Iterator[tuple[Direction, PassRecord]]:
        """Each direction of each layer, and its record."""
        return zip(self.model.directions, self.layers, strict=True)

    def _last_states(self) -> dict[str, Array]:
        found: dict[str, Array] = {}
        for direction, layer in self._directions():
            own = {name: layer.arrays[_STATES[name].last] for name in direction.cell.states}
            found |= direction.named(own)
        return found

    def reset(self) -> None:
        with self.in_use:
            self.flat["params"][:] = self.initial
            self.flat["m"][:] = 0
            self.flat["v"][:] = 0
            self.record.fields["step"][0] = 1
            self.record.fields["packed"][0] = 0

    def forward(self) -> None:
        self._run(FORWARD, Pass.FORWARD, self.rows)

    def gradient(self) -> None:
        self._run(GRADIENT, Pass.GRADIENT, self.rows)

    def train_step(self) -> None:
        self._run(TRAIN_STEP, Pass.TRAIN_STEP, self.rows)

    def begin_steps(self) -> Steps:
        with self.in_use:
            stream = Stream(self.model, self.params, B=self.problem.B, dtype=self.dtype, flush=self.flush)
            if self.given is not None:
                stream.start_from(self.given)
            self.stream, self.last = stream, Pass.STEP
        name = "inputs" if self.model.V is None else "tokens"
        inputs = self.record.arrays[name][self.rows].swapaxes(0, 1)
        return Steps(list(np.ascontiguousarray(inputs)), stream.step)

    def _run(self, goal: int, pass_: Pass, rows: NDArray[np.int64]) -> None:
        self.in_use.acquire()  # `with` takes 0.2 us longer, of a call that may take 8
        try:
            self.runner.run(goal, rows)
            self.last, self.computed = pass_, rows
        finally:
            self.in_use.release()

    def _train_epoch(self, order: NDArray[np.int64]) -> None:
        with self.in_use:
            if self.given is not None:
                self._point_to(None)
            try:
                self._run(TRAIN_STEP, Pass.EPOCH, order)
            finally:
                if self.given is not None:
                    self._point_to(self.given)

    def _predict(self, inputs: Inputs, lengths: Inputs | None) -> Array:
        """Each token of the vocabulary, or of rows that have fewer, is projected once; then rows run in blocks, in
        buffers of their own.

        More rows than a stage has shares for are predicted part by part.
        """
        most = int(PREDICT_ROWS) * MAX_SHARES
        if len(inputs) > most:
            parts = [slice(i, i + most) for i in range(0, len(inputs), most)]
            return np.concatenate([self._predict(inputs[p], None if lengths is None else lengths[p]) for p in parts])
        with self.in_use:
            logits = self._predicted(inputs, lengths)
        return blank_logits(self.problem, self._shaped(logits), lengths)

    def _predicted(self, inputs: Inputs, lengths: Inputs | None) -> Array:
        """Logits (n, S, O), whatever stands past the lengths."""
        V, embedding, threads = self.model.V, self.params.get("embedding"), numba_threads()
        if V is not None and embedding is not None and inputs.size < V:
            unique, slots = np.unique(inputs, return_inverse=True)
            V, embedding, inputs = len(unique), embedding[unique], slots.reshape(inputs.shape)
        steps = (
            self.problem.T
            if self.model.V is not None or self.model.bidirectional
            else min(self.problem.T, int(FORWARD_STEPS))
        )
        B = int(PREDICT_ROWS) * threads  # each has rows of its own
        sizes = self._sizes(B=B, rows=len(inputs), workers=threads, kept=steps, whole_table=True, V=V)
        record, _layers = self._records(sizes, inputs_of(self.problem, inputs, lengths))
        S = self.problem.T if self.model.head is Head.EVERY else 1
        logits = np.empty((len(inputs), S, self.model.O), self.dtype)
        record.point({"logits": logits} | ({} if embedding is None else {"embedding": embedding}))
        record.fields["loss"][0] = losses.NO_LOSS
        CpuRunner(record, self.dtype).run(PREDICT, np.arange(len(inputs), dtype=np.int64))
        return logits

    def _shaped(self, logits: Array) -> Array:
        """(n, S, O) as the protocol has it: (n, O) for the last step alone."""
        return logits if self.model.head is Head.EVERY else logits[:, 0]

    def fetch(self) -> Outputs:
        """Copies, so that the next pass does not change what was fetched."""
        with self.in_use:
            if self.last is Pass.STEP and self.stream is not None:
                return Outputs(logits=self.stream.outputs.copy(), states=self.stream.states())
            return Outputs() if self.last is None else self._fetched()

    def _fetched(self) -> Outputs:
        fields, arrays = self.record.fields, self.record.arrays
        loss = float(fields["loss_sum"][0]) / self.computed.size
        if not self.problem.lengths:  # else each batch has its own weight, which is in the sum
            loss = float(fields["loss_sum"][0]) * float(fields["step_weight"][0]) / self.computed.size
        params = _copies(self.params) if self.last in (Pass.TRAIN_STEP, Pass.EPOCH) else {}
        if self.last is Pass.EPOCH:
            outputs = self.computed.size * arrays["logits"].shape[1]
            if self.problem.lengths and self.model.head is Head.EVERY:
                outputs = max(1, int(arrays["lengths"][self.computed].sum()))
            accuracy = int(fields["correct"][0]) / outputs if self.model.loss.has_accuracy else None
            return Outputs(loss=loss, params=params, accuracy=accuracy)
        grads = _copies(self.grads) if self.last is Pass.GRADIENT else {}
        states = _copies(self._last_states())
        lengths = arrays["lengths"][self.computed] if self.problem.lengths else None
        logits = blank_logits(self.problem, self._shaped(arrays["logits"].copy()), lengths)
        return Outputs(loss, logits, states, grads, params)

    def poison(self) -> None:
        """Answers, packed weights, states, sums; of the embedding's gradient the tokens of the last call."""
        with self.in_use:
            self._poison()

    def _poison(self) -> None:
        read = {"zeros", "unit", *PARAMETERS, "params", "m", "v", "inputs", "targets", "initial", "initial_cell"}
        for arrays in [layer.arrays for layer in self.layers]:
            for name in arrays.keys() - read - {"grads", "d_embedding"}:
                if arrays[name].dtype.kind == "f":
                    arrays[name].fill(np.nan)
        arrays, fields = self.record.arrays, self.record.fields
        if self.model.V is not None and self.last is not None:
            arrays["d_embedding"][arrays["unique"][: fields["unique_n"][0]]] = np.nan
            fields["embedding_learnt"][0] = True
        fields["loss_sum"][0], fields["correct"][0], fields["packed"][0] = np.nan, -1, 0


def _copies(arrays: dict[str, Array]) -> dict[str, Array]:
    return {name: value.copy() for name, value in arrays.items()}


def segment_of(problem: Problem) -> int:
    """Steps whose states are kept at once: all T, or, where losses are truncated and inputs dense, a few windows."""
    cut = problem.truncation
    if cut is None or problem.model.V is not None or problem.model.head is Head.LAST:
        return problem.T
    return min(problem.T, cut.window + cut.stride * max(1, SEGMENT_STEPS // cut.stride))


class NumbaBackend(Backend):
    """Our kernels: threads share the rows of a batch for all T steps, or, where rows are few, the columns of a step."""

    name: ClassVar[str] = "numba"
    streams: ClassVar[bool] = True
    flush: ClassVar[bool] = True

    def contract(self, problem: Problem) -> Contract:
        flushed = "flushed, per thread, inside the kernels"
        call = "CpuRunner.run, one compiled call"
        tokens = "find and project unique tokens" if problem.model.V else "project the inputs"
        rows = ", the embedding's in the rows of this call's tokens and the last one's" if problem.model.V else ""
        clipped = "clipping, " if problem.train.clips else ""
        return Contract(
            threads=numba_threads(),
            subnormals=flushed if self.flush and CAN_FLUSH else "kept",
            tf32=False,
            timed={
                "forward": f"{call}: {tokens}, T steps, head, loss; weights are packed where they have changed",
                "gradient": f"{call}: pack weights, forward, BPTT, weight gradients{rows}",
                "train_step": f"{call}: gradient, {clipped}the optimizer on all parameters",
                "step": "rnnbench.Stream.step, one compiled call by one thread; weights are packed, and tokens "
                "projected where that is not too large, when the stream is made",
                "epoch": f"{call}: train steps on rows taken by index; loss and correct outputs added up",
            },
            notes=f"at most {numba_threads()} threads of our own, one where work is small; "
            f"{8 * register_bytes()}-bit vectors",
            staged="rows, targets, work buffers, a zero state; a batch is its row numbers",
            waits="the call returns when all threads are done",
            step_threads=1,
        )

    def warm(self, dtype: DType) -> Iterator[tuple[int, int, str]]:
        yield from compile_all(str(dtype))
        yield from compile_streams(str(dtype))

    def libraries(self) -> dict[str, str]:
        return {"numba": numba.__version__, "llvmlite": llvmlite.__version__}

    def built_for(self) -> dict[str, str]:
        features = llvmlite.binding.get_host_cpu_features()
        return {
            "llvm_cpu": numba.config.CPU_NAME or llvmlite.binding.get_host_cpu_name(),
            "llvm_features": numba.config.CPU_FEATURES or " ".join(sorted(name for name, on in features.items() if on)),
        } | ({} if KEPT_IN else {"compiled_code": "kept nowhere: no folder for it can be written"})

    def _prepare(self, problem: Problem, params: Params, data: Data) -> Session:
        return NumbaSession(problem, params, data, self.flush)


class NumbaSubnormalBackend(NumbaBackend):
    """Our kernels with subnormals kept: as exact as they are slow."""

    name: ClassVar[str] = "numba+subnormal"
    flush: ClassVar[bool] = False
