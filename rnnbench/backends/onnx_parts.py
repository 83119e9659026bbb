"""What the ONNX backends share: a problem's forward pass as a graph, and the session that runs it compiled.

Parameters are constants of the graph, as those who serve a trained network have it: nothing here changes them. The loss
is part of the graph.
"""

from __future__ import annotations

import abc
import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, ClassVar, NoReturn

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from rnnbench.backends.base import Backend, Outputs, Session, Steps
from rnnbench.cells import Cell, reordered
from rnnbench.contract import Contract
from rnnbench.data import Data, Inputs, blank_logits, shaped_lengths, shaped_targets
from rnnbench.model import Case, Direction, DType, Head, Loss, Pass, Problem
from rnnbench.params import Array, Params, cast

OPSET, IR = 17, 8  # of 2022: what ONNX Runtime and OpenVINO read for years
PREDICT_ROWS = 512
GATES = {"rnn": ("h",), "gru": ("z", "r", "n"), "lstm": ("i", "o", "f", "g")}  # under our names, in the order of ONNX

# Names in the graph; of the states of a layer `before 0 h` and `after 0 h`.
INPUTS, TARGETS, LENGTHS, LOGITS, LOSS = "inputs", "targets", "lengths", "logits", "loss"


def to_onnx(cell: Cell, array: Array) -> Array:
    """(..., G H) in our order of gates as (..., G H) in that of ONNX."""
    return reordered(array, cell.gates, GATES[cell.name])


@dataclass
class OnnxGraph:
    """Nodes and constants of a graph that is being written; an operation returns the name of what it gives."""

    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)

    def constant(self, value: NDArray[Any]) -> str:
        name = f"constant {len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(value, order="C"), name))
        return name

    def add(self, kind: str, *inputs: str, to: str | None = None, **attributes: Any) -> str:
        """One node with one output."""
        name = to or f"{kind} {len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def none(self) -> str:
        """The number of steps of an empty row."""
        return self.constant(np.array(0, np.int32))

    def cast(self, value: str, dtype: np.dtype[Any]) -> str:
        self.nodes.append(helper.make_node("Cast", [value], [name := f"Cast {len(self.nodes)}"],
                                           to=helper.np_dtype_to_tensor_dtype(dtype)))  # fmt: skip
        return name

    def axis(self, number: int) -> str:
        return self.constant(np.array([number], np.int64))


def _weights(direction: Direction, params: Params) -> tuple[Array, Array, Array]:
    """W_xh (G H, E), W_hh (G H, H) and both biases (2 G H,) of a direction, gates in the order of ONNX."""
    cell, own = direction.cell, direction.params_of(params)
    inner = np.zeros_like(own["b_h"])  # the bias inside the recurrent product
    for gate in cell.inner:
        inner[cell.units_of(gate, direction.H)] = own[f"b_h{gate}"]
    bias = np.concatenate([to_onnx(cell, own["b_h"]), to_onnx(cell, inner)])
    return to_onnx(cell, own["W_xh"]).T, to_onnx(cell, own["W_hh"]).T, bias


def _layer(
    graph: OnnxGraph, layer: Sequence[Direction], params: Params, steps: str, lengths: str, zero: bool, every: bool
) -> str:
    """RNN, GRU or LSTM over steps (T, B, E) in one or two directions, from `zero` states or given ones: h of `every`
    step, (T, B, D H), or of the last one of each direction, (B, D H).
    """
    cell, number, H, D = layer[0].cell, layer[0].layer, layer[0].H, len(layer)
    weights = [graph.constant(np.stack(each)) for each in zip(*(_weights(d, params) for d in layer), strict=True)]
    before = [] if zero else [f"before {number} {name}" for name in cell.states]
    given = cell.states if not zero else () if every else ("h",)
    after = [f"after {number} {name}" for name in given]
    of_each = f"steps {number}" if every else ""  # an output without a name is not computed
    options: dict[str, Any] = {"linear_before_reset": 1} if cell.name == "gru" else {}
    options["direction"] = "forward" if D == 1 else "bidirectional"
    inputs = [steps, *weights, lengths, *before]
    last = [f"last of {name}" for name in after] if lengths and before else after
    graph.nodes.append(helper.make_node(cell.name.upper(), inputs, [of_each, *last], hidden_size=H, **options))
    if lengths and before:  # both runtimes give zeros for the states after an empty row
        empty = graph.add("Equal", graph.add("Unsqueeze", lengths, graph.constant(np.array([0, 2]))), graph.none())
        for then, computed, start in zip(after, last, before, strict=True):
            graph.add("Where", empty, start, computed, to=then)
    h = of_each if every else after[0]
    if D == 1:
        return graph.add("Squeeze", h, graph.axis(1 if every else 0))
    sides = graph.add("Transpose", h, perm=[0, 2, 1, 3] if every else [1, 0, 2])
    shape = [0, 0, D * H] if every else [0, D * H]  # 0: as it is
    return graph.add("Reshape", sides, graph.constant(np.array(shape, np.int64)))


def _loss(graph: OnnxGraph, problem: Problem, logits: str, rows: int) -> None:
    """The sum of the losses of all outputs that are emitted, over their number or the rows."""
    model, dtype = problem.model, np.dtype(str(problem.dtype))
    match model.loss:
        case Loss.BINARY_CROSS_ENTROPY:
            each = graph.add("Sub", graph.add("Softplus", logits), graph.add("Mul", logits, TARGETS))
            factor = 1 / model.O
        case Loss.CATEGORICAL_CROSS_ENTROPY:
            log = graph.add("LogSoftmax", logits, axis=-1)
            each = graph.add("GatherElements", log, graph.add("Unsqueeze", TARGETS, graph.axis(-1)), axis=-1)
            factor = -1.0
        case Loss.SQUARED_ERROR | Loss.SIGMOID_SQUARED_ERROR:
            answer = logits if model.loss is Loss.SQUARED_ERROR else graph.add("Sigmoid", logits)
            off = graph.add("Sub", answer, TARGETS)
            each, factor = graph.add("Mul", off, off), 0.5
    if not problem.lengths or model.head is Head.LAST:
        scale = graph.constant(np.array(factor * model.loss_scale(rows, problem.T), dtype))
        graph.add("Mul", graph.add("ReduceSum", each, keepdims=0), scale, to=LOSS)
        return
    times = graph.constant(np.arange(problem.T, dtype=np.int32)[None])
    real = graph.add("Less", times, graph.add("Unsqueeze", LENGTHS, graph.axis(1)))
    real = graph.add("Unsqueeze", graph.cast(real, dtype), graph.axis(-1))
    total = graph.add("ReduceSum", graph.add("Mul", each, real), keepdims=0)
    if model.averages_steps:
        emitted = graph.add("ReduceSum", real, keepdims=0)
        total = graph.add("Div", total, graph.add("Max", emitted, graph.constant(np.ones((), dtype))))
    else:
        factor /= rows
    graph.add("Mul", total, graph.constant(np.array(factor, dtype)), to=LOSS)


def graph_of(problem: Problem, params: Params, rows: int, *, only_logits: bool = False, loss: bool = True) -> bytes:
    """An ONNX model: `inputs` (rows, T) int32 or (rows, T, E), and `lengths` (rows,) where rows have such, to `logits`
    (rows, O) or (rows, T, O).

    Also from `targets` and the states before, each (D, rows, H), to the states after and `loss` (), where that is asked
    for, unless `only_logits`: then rows start from zero states. Parameters in the problem's type.
    """
    model, dtype, graph = problem.model, np.dtype(str(problem.dtype)), OnnxGraph()
    every, real = model.head is Head.EVERY, helper.np_dtype_to_tensor_dtype(dtype)
    whole, info = onnx.TensorProto.INT32, helper.make_tensor_value_info
    if model.V is None:
        steps = graph.add("Transpose", INPUTS, perm=[1, 0, 2])
    else:
        tokens = graph.add("Transpose", INPUTS, perm=[1, 0])
        steps = graph.add("Gather", graph.constant(params["embedding"]), tokens)
    lengths = LENGTHS if problem.lengths else ""
    for layer in model.stack:
        is_read = every or layer[0].layer + 1 < model.layers
        steps = _layer(graph, layer, params, steps, lengths, only_logits, is_read)
    read = graph.add("MatMul", steps, graph.constant(params["W_hy"]))
    logits = graph.add("Add", read, graph.constant(params["b_y"]), to=None if every else LOGITS)
    if every:
        graph.add("Transpose", logits, to=LOGITS, perm=[1, 0, 2])  # (T, B, O)
    row = [rows, problem.T]
    inputs = [info(INPUTS, real, [*row, model.E]) if model.V is None else info(INPUTS, whole, row)]
    inputs += [info(LENGTHS, whole, [rows])] if problem.lengths else []
    emitted = row if every else [rows]
    outputs = [info(LOGITS, real, [*emitted, model.O])]
    if not only_logits:
        if loss:
            _loss(graph, problem, LOGITS, rows)
            has_classes = model.loss is Loss.CATEGORICAL_CROSS_ENTROPY
            inputs.append(info(TARGETS, whole, emitted) if has_classes else info(TARGETS, real, [*emitted, model.O]))
            outputs.append(info(LOSS, real, []))
        shape = [len(model.stack[0]), rows, model.H]
        layers = [(number, name) for number in range(model.layers) for name in model.recurrence.states]
        inputs += [info(f"before {number} {name}", real, shape) for number, name in layers]
        outputs += [info(f"after {number} {name}", real, shape) for number, name in layers]
    made = helper.make_graph(graph.nodes, "rnnbench", inputs, outputs, graph.constants)
    found = helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
    onnx.checker.check_model(found)
    serialized: bytes = found.SerializeToString()
    return serialized


def threads_here() -> int:
    """As many as this process has cores."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Engine(abc.ABC):
    """A compiled graph with arrays bound to its inputs and outputs by name, which it reads and writes in place."""

    @abc.abstractmethod
    def __init__(self, graph: bytes, threads: int) -> None:
        """Compile."""

    @abc.abstractmethod
    def bind(self, name: str, array: Inputs) -> None:
        """Read an input from, or write an output to, this contiguous array from now on."""

    @abc.abstractmethod
    def run(self) -> None:
        """Compute all outputs."""

    @abc.abstractmethod
    def again(self) -> Engine:
        """The same compiled graph, with nothing bound yet."""


class OnnxSession(Session):
    """One problem in a compiled graph: the forward pass and predictions."""

    def __init__(self, problem: Problem, params: Params, data: Data, engine: Callable[[bytes, int], Engine]) -> None:
        super().__init__(problem, data)
        model, dtype, B = problem.model, str(problem.dtype), problem.B
        self.params, self.engine_of = cast(params, problem.dtype), engine
        self.inputs = np.ascontiguousarray(data.inputs, np.int32 if model.V is not None else dtype)
        self.targets, self.lengths = shaped_targets(problem, data.targets), shaped_lengths(problem, data.lengths)
        steps = (problem.T,) if model.head is Head.EVERY else ()
        self.logits = np.empty((B, *steps, model.O), dtype)
        self.loss = np.empty((), dtype)
        shape = (len(model.stack[0]), B, model.H)
        names = [f"{number} {name}" for number in range(model.layers) for name in model.recurrence.states]
        self.before = {f"before {name}": np.zeros(shape, dtype) for name in names}
        self.after = {f"after {name}": np.empty(shape, dtype) for name in names}
        self.engine = engine(graph_of(problem, self.params, B), threads_here())
        for name, array in {LOGITS: self.logits, LOSS: self.loss, **self.before, **self.after}.items():
            self.engine.bind(name, array)
        self.predictor: Engine | None = None  # for predictions, compiled at the first
        self.done = False
        self.stepped: tuple[Array, dict[str, Array]] | None = None  # logits, states, of a single step
        self.computed: Inputs | None = None  # lengths (B,) of the batch that was computed
        self.select(0)

    def _select(self, batch: int) -> None:
        self.batch = rows = slice(batch * self.problem.B, (batch + 1) * self.problem.B)
        self.engine.bind(INPUTS, self.inputs[rows])
        self.engine.bind(TARGETS, self.targets[rows])
        self.batch_lengths = None if self.lengths is None else self.lengths[rows]
        if self.batch_lengths is not None:
            self.engine.bind(LENGTHS, self.batch_lengths)

    def _start_from(self, states: dict[str, Array] | None) -> None:
        for direction in self.problem.model.directions:
            for name in direction.cell.states:
                of = self.before[f"before {direction.layer} {name}"]
                of[int(direction.back)] = 0 if states is None else direction.states_of(states)[name]

    def reset(self) -> None:
        """There is nothing to put back: no pass here changes a parameter."""

    def forward(self) -> None:
        self.engine.run()
        self.stepped = None
        self.done, self.computed = True, self.batch_lengths

    def begin_steps(self) -> Steps:
        problem, B = self.problem, self.problem.B
        one = replace(problem, T=1, model=replace(problem.model, head=Head.LAST))
        engine = self.engine_of(graph_of(one, self.params, B, loss=False), threads_here())
        inputs = self.inputs[self.batch].swapaxes(0, 1)[:, :, None]  # (T, B, 1) or (T, B, 1, E)
        x, logits = np.array(inputs[0], order="C"), np.empty((B, problem.model.O), self.logits.dtype)
        # Two requests of one graph: what the one leaves the other starts from, and nothing is copied
        names = [name.removeprefix("before ") for name in self.before]
        sides = [{name: self.before[f"before {name}"].copy() for name in names} for _ in range(2)]
        engines = [engine, engine.again()]
        for i, each in enumerate(engines):
            for name, array in {INPUTS: x, LOGITS: logits}.items():
                each.bind(name, array)
            for name in names:
                each.bind(f"before {name}", sides[i][name])
                each.bind(f"after {name}", sides[1 - i][name])
        turns = itertools.cycle(((engines[0].run, sides[1]), (engines[1].run, sides[0])))

        def take(step: Inputs) -> None:
            x[...] = step
            run, after = next(turns)
            run()
            self.stepped = logits, after

        return Steps(list(np.ascontiguousarray(inputs)), take)

    def gradient(self) -> NoReturn:
        raise NotImplementedError(FORWARD_ONLY)

    def train_step(self) -> NoReturn:
        raise NotImplementedError(FORWARD_ONLY)

    def _train_epoch(self, order: NDArray[np.int64]) -> NoReturn:
        raise NotImplementedError(FORWARD_ONLY)

    def _predict(self, inputs: Inputs, lengths: Inputs | None) -> Array:
        if self.predictor is None:
            graph = graph_of(self.problem, self.params, PREDICT_ROWS, only_logits=True)
            self.predictor = self.engine_of(graph, threads_here())
        some = np.zeros((PREDICT_ROWS, *inputs.shape[1:]), inputs.dtype)
        logits = np.empty((PREDICT_ROWS, *self.logits.shape[1:]), self.logits.dtype)
        ends = np.zeros(PREDICT_ROWS, np.int32)
        self.predictor.bind(INPUTS, some)
        self.predictor.bind(LOGITS, logits)
        if lengths is not None:
            self.predictor.bind(LENGTHS, ends)
        found = []
        for i in range(0, len(inputs), PREDICT_ROWS):
            n = min(PREDICT_ROWS, len(inputs) - i)
            some[:n] = inputs[i : i + n]
            if lengths is not None:
                ends[:n] = lengths[i : i + n]
            self.predictor.run()
            found.append(logits[:n].copy())
        return blank_logits(self.problem, np.concatenate(found), lengths)

    def fetch(self) -> Outputs:
        if self.stepped is not None:
            logits, after = self.stepped
            return Outputs(logits=logits.copy(), states=self._states(after))
        if not self.done:
            return Outputs()
        states = self._states({name.removeprefix("after "): array for name, array in self.after.items()})
        return Outputs(float(self.loss), blank_logits(self.problem, self.logits.copy(), self.computed), states)

    def _states(self, after: dict[str, Array]) -> dict[str, Array]:
        """Copies of states (D, B, H) by layer and name, under the names of the model."""
        return {
            f"{direction.prefix}{name}": after[f"{direction.layer} {name}"][int(direction.back)].copy()
            for direction in self.problem.model.directions
            for name in direction.cell.states
        }

    def poison(self) -> None:
        for array in (self.logits, self.loss, *self.after.values()):
            array.fill(np.nan)


FORWARD_ONLY = "forward only: it runs trained networks; take torch or jax to train"


class OnnxBackend(Backend):
    """A runtime that compiles an ONNX graph: float32, forward only."""

    streams: ClassVar[bool] = True
    engine: ClassVar[type[Engine]]
    no_float64: ClassVar[str]
    call: ClassVar[str]  # what the clock is around
    notes: ClassVar[str]

    def _unsupported(self, case: Case) -> str | None:
        if case.dtype is DType.FLOAT64:
            return self.no_float64
        return None if case.pass_ in (Pass.FORWARD, Pass.STEP) else FORWARD_ONLY

    def contract(self, problem: Problem) -> Contract:
        gather = "" if problem.model.V is None else "Gather, "
        cell = problem.model.cell.upper()
        return Contract(
            threads=threads_here(),
            subnormals=halved(self.engine),
            tf32=False,
            timed={
                "forward": f"{self.call}: {gather}{cell}, MatMul, the loss, all in one ONNX graph",
                "step": f"inputs copied to where the graph reads them; {self.call}: {gather}{cell}, MatMul; two "
                "requests of one graph in turn, each of which reads the states where the other wrote them",
                **dict.fromkeys(("gradient", "train_step", "epoch"), FORWARD_ONLY),
            },
            notes=self.notes,
            staged="the graph compiled with its parameters as constants; rows and targets as arrays, of which a batch "
            "is a view; outputs are written to arrays made before",
            waits="the call returns when its work is done",
        )

    def _prepare(self, problem: Problem, params: Params, data: Data) -> Session:
        if problem.dtype is DType.FLOAT64:
            raise RuntimeError(self.no_float64)
        return OnnxSession(problem, params, data, self.engine)


@cache
def halved(engine: Callable[[bytes, int], Engine]) -> str:
    """What becomes of subnormal products in the threads of an engine: tried, not asked."""
    count, graph, info = 1 << 20, OnnxGraph(), helper.make_tensor_value_info
    graph.add("Mul", INPUTS, graph.constant(np.array(0.5, np.float32)), to=LOGITS)
    ends = ([info(name, onnx.TensorProto.FLOAT, [count])] for name in (INPUTS, LOGITS))
    made = helper.make_graph(graph.nodes, "halved", *ends, graph.constants)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
    compiled = engine(model.SerializeToString(), threads_here())
    products = np.zeros(count, np.float32)
    compiled.bind(INPUTS, np.full(count, 2.0**-126, np.float32))
    compiled.bind(LOGITS, products)
    compiled.run()
    kept = float((products.view(np.int32) != 0).mean())  # as bits: a comparison may flush too
    return {0.0: "flushed", 1.0: "kept"}.get(kept, f"flushed in {1 - kept:.0%} of the work")
