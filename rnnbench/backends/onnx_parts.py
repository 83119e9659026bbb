"""What the ONNX backends share: a problem's forward pass as a graph, and the session that runs it compiled.

Parameters are constants of the graph, as those who serve a trained network have it: nothing here changes them. The loss
is part of the graph.
"""

from __future__ import annotations

import abc
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, NoReturn

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from rnnbench.backends.base import Backend, Outputs, Session
from rnnbench.cells import Cell
from rnnbench.contract import Contract
from rnnbench.data import Data, Inputs, shaped_targets
from rnnbench.model import Case, DType, Head, Loss, Pass, Problem, StepSum
from rnnbench.params import Array, Params, cast

OPSET, IR = 17, 8  # of 2022: what ONNX Runtime and OpenVINO read for years
PREDICT_ROWS = 512
GATES = {"rnn": ("h",), "gru": ("z", "r", "n"), "lstm": ("i", "o", "f", "g")}  # under our names, in the order of ONNX

INPUTS, TARGETS, LOGITS, LOSS = "inputs", "targets", "logits", "loss"  # names in the graph, beside those of states


def state_in(name: str) -> str:
    """The name in the graph of the state that a pass starts from."""
    return f"{name} before"


def reordered(cell: Cell, array: Array) -> Array:
    """(..., G H) in our order of gates as (..., G H) in that of ONNX."""
    gates = dict(zip(cell.gates, np.split(array, len(cell.gates), axis=-1), strict=True))
    return np.concatenate([gates[gate] for gate in GATES[cell.name]], axis=-1)


@dataclass
class OnnxGraph:
    """Nodes and constants of a graph that is being written; an operation returns the name of what it gives."""

    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)

    def constant(self, value: Array | NDArray[np.int64]) -> str:
        name = f"constant {len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(value, order="C"), name))
        return name

    def add(self, kind: str, *inputs: str, to: str | None = None, **attributes: Any) -> str:
        """One node with one output."""
        name = to or f"{kind} {len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def axis(self, number: int) -> str:
        return self.constant(np.array([number], np.int64))


def _recurrent(graph: OnnxGraph, problem: Problem, params: Params, steps: str, first: list[str]) -> tuple[str, str]:
    """RNN, GRU or LSTM over steps (T, B, E); h of all steps (T, B, H), and of the last one (B, H)."""
    cell, H = problem.model.recurrence, problem.model.H
    inner = np.zeros_like(params["b_h"])  # the bias inside the recurrent product
    for gate in cell.inner:
        inner[cell.units_of(gate, H)] = params[f"b_h{gate}"]
    bias = np.concatenate([reordered(cell, params["b_h"]), reordered(cell, inner)])[None]
    weights = [graph.constant(reordered(cell, params[name]).T[None]) for name in ("W_xh", "W_hh")]
    after = ["all steps", *cell.states]
    reset_after = {"linear_before_reset": 1} if cell.name == "gru" else {}
    inputs = [steps, *weights, graph.constant(bias), "", *first]
    graph.nodes.append(helper.make_node(cell.name.upper(), inputs, after, hidden_size=H, **reset_after))
    return graph.add("Squeeze", after[0], graph.axis(1)), graph.add("Squeeze", "h", graph.axis(0))


def _loss(graph: OnnxGraph, problem: Problem, logits: str) -> None:
    """The mean over all outputs of each one's loss, times what makes that the batch's loss."""
    model, one = problem.model, np.ones((), str(problem.dtype))
    factor = float(problem.T) if model.head is Head.EVERY and model.step_sum is StepSum.SUM else 1.0
    match model.loss:
        case Loss.BINARY_CROSS_ENTROPY:
            each = graph.add("Sub", graph.add("Softplus", logits), graph.add("Mul", logits, TARGETS))
        case Loss.CATEGORICAL_CROSS_ENTROPY:
            log = graph.add("LogSoftmax", logits, axis=-1)
            classes = graph.add("Unsqueeze", TARGETS, graph.axis(-1))
            each, factor = graph.add("GatherElements", log, classes, axis=-1), -factor
        case Loss.SQUARED_ERROR | Loss.SIGMOID_SQUARED_ERROR:
            answer = logits if model.loss is Loss.SQUARED_ERROR else graph.add("Sigmoid", logits)
            off = graph.add("Sub", answer, TARGETS)
            each, factor = graph.add("Mul", off, off), 0.5 * model.O * factor
    if factor == 1:
        graph.add("ReduceMean", each, to=LOSS, keepdims=0)
    else:
        graph.add("Mul", graph.add("ReduceMean", each, keepdims=0), graph.constant(factor * one), to=LOSS)


def graph_of(problem: Problem, params: Params, rows: int, *, only_logits: bool = False) -> bytes:
    """An ONNX model: `inputs` (rows, T) int32 or (rows, T, E) to `logits` (rows, O) or (rows, T, O).

    Also from `targets` and the states before, each (1, rows, H), to the states after and `loss` (), unless
    `only_logits`: then rows start from zero states.
    """
    model, dtype, graph = problem.model, np.dtype(str(problem.dtype)), OnnxGraph()
    every, real = model.head is Head.EVERY, helper.np_dtype_to_tensor_dtype(dtype)
    whole, info = onnx.TensorProto.INT32, helper.make_tensor_value_info
    params = cast(params, problem.dtype)
    if model.V is None:
        steps = graph.add("Transpose", INPUTS, perm=[1, 0, 2])
    else:
        tokens = graph.add("Transpose", INPUTS, perm=[1, 0])
        steps = graph.add("Gather", graph.constant(params["embedding"]), tokens)
    states = model.recurrence.states
    first = [] if only_logits else [state_in(name) for name in states]
    h_all, h_last = _recurrent(graph, problem, params, steps, first)
    read = graph.add("MatMul", h_all if every else h_last, graph.constant(params["W_hy"]))
    logits = graph.add("Add", read, graph.constant(params["b_y"]), to=None if every else LOGITS)
    if every:
        graph.add("Transpose", logits, to=LOGITS, perm=[1, 0, 2])  # (T, B, O)
    inputs = [
        info(INPUTS, real, [rows, problem.T, model.E]) if model.V is None else info(INPUTS, whole, [rows, problem.T])
    ]
    emitted = [rows, problem.T] if every else [rows]
    outputs = [info(LOGITS, real, [*emitted, model.O])]
    if not only_logits:
        _loss(graph, problem, LOGITS)
        has_classes = model.loss is Loss.CATEGORICAL_CROSS_ENTROPY
        inputs.append(info(TARGETS, whole, emitted) if has_classes else info(TARGETS, real, [*emitted, model.O]))
        inputs += [info(name, real, [1, rows, model.H]) for name in first]
        outputs += [info(LOSS, real, []), *(info(name, real, [1, rows, model.H]) for name in states)]
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


class OnnxSession(Session):
    """One problem in a compiled graph: the forward pass and predictions."""

    def __init__(self, problem: Problem, params: Params, data: Data, engine: Callable[[bytes, int], Engine]) -> None:
        super().__init__(problem, data)
        model, dtype, B = problem.model, str(problem.dtype), problem.B
        self.params, self.engine_of = params, engine
        self.inputs = np.ascontiguousarray(data.inputs, np.int32 if model.V is not None else dtype)
        self.targets = shaped_targets(problem, data.targets)
        steps = (problem.T,) if model.head is Head.EVERY else ()
        self.logits = np.empty((B, *steps, model.O), dtype)
        self.loss = np.empty((), dtype)
        self.after = {name: np.empty((1, B, model.H), dtype) for name in model.recurrence.states}
        self.zeros = {name: np.zeros((B, model.H), dtype) for name in model.recurrence.states}
        self.engine = engine(graph_of(problem, params, B), threads_here())
        for name, array in {LOGITS: self.logits, LOSS: self.loss, **self.after}.items():
            self.engine.bind(name, array)
        self.predictor: Engine | None = None  # for predictions, compiled at the first
        self.done = False
        self.select(0)
        self.start_from(None)

    def _select(self, batch: int) -> None:
        rows = slice(batch * self.problem.B, (batch + 1) * self.problem.B)
        self.engine.bind(INPUTS, self.inputs[rows])
        self.engine.bind(TARGETS, self.targets[rows])

    def _start_from(self, states: dict[str, Array] | None) -> None:
        for name, value in (states or self.zeros).items():
            self.engine.bind(state_in(name), value[None])

    def reset(self) -> None:
        """There is nothing to put back: no pass here changes a parameter."""

    def forward(self) -> None:
        self.engine.run()
        self.done = True

    def gradient(self) -> NoReturn:
        raise NotImplementedError(FORWARD_ONLY)

    def train_step(self) -> NoReturn:
        raise NotImplementedError(FORWARD_ONLY)

    def _train_epoch(self, order: NDArray[np.int64]) -> NoReturn:
        raise NotImplementedError(FORWARD_ONLY)

    def _predict(self, inputs: Inputs) -> Array:
        if self.predictor is None:
            graph = graph_of(self.problem, self.params, PREDICT_ROWS, only_logits=True)
            self.predictor = self.engine_of(graph, threads_here())
        some = np.zeros((PREDICT_ROWS, *inputs.shape[1:]), inputs.dtype)
        logits = np.empty((PREDICT_ROWS, *self.logits.shape[1:]), self.logits.dtype)
        self.predictor.bind(INPUTS, some)
        self.predictor.bind(LOGITS, logits)
        found = []
        for i in range(0, len(inputs), PREDICT_ROWS):
            n = min(PREDICT_ROWS, len(inputs) - i)
            some[:n] = inputs[i : i + n]
            self.predictor.run()
            found.append(logits[:n].copy())
        return np.concatenate(found)

    def fetch(self) -> Outputs:
        if not self.done:
            return Outputs()
        return Outputs(
            float(self.loss), self.logits.copy(), {name: value[0].copy() for name, value in self.after.items()}
        )

    def poison(self) -> None:
        for array in (self.logits, self.loss, *self.after.values()):
            array.fill(np.nan)


FORWARD_ONLY = "it runs trained networks and has no gradients: only the forward pass; take torch or jax to train"


class OnnxBackend(Backend):
    """A runtime that compiles an ONNX graph: float32, forward only."""

    engine: ClassVar[type[Engine]]
    no_float64: ClassVar[str]

    def _unsupported(self, case: Case) -> str | None:
        if case.dtype is DType.FLOAT64:
            return self.no_float64
        return None if case.pass_ is Pass.FORWARD else FORWARD_ONLY

    @abc.abstractmethod
    def subnormals(self) -> str:
        """What becomes of subnormal numbers."""

    def _contract(self, problem: Problem, call: str, notes: str) -> Contract:
        gather = "" if problem.model.V is None else "Gather, "
        cell = problem.model.cell.upper()
        return Contract(
            threads=threads_here(),
            subnormals=self.subnormals(),
            tf32=False,
            timed={
                "forward": f"{call}: {gather}{cell}, MatMul, the loss, all in one ONNX graph",
                **dict.fromkeys(("gradient", "train_step", "epoch"), FORWARD_ONLY),
            },
            notes=notes,
            staged="the graph compiled with its parameters as constants; rows and targets as arrays, of which a batch "
            "is a view; outputs are written to arrays made before",
            waits="the call returns when its work is done",
        )

    def _prepare(self, problem: Problem, params: Params, data: Data) -> Session:
        if problem.dtype is DType.FLOAT64:
            raise RuntimeError(self.no_float64)
        return OnnxSession(problem, params, data, self.engine)


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
