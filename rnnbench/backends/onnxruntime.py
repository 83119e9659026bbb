"""ONNX Runtime on the CPU: forward only (its training API ended with version 1.19)."""

from __future__ import annotations

import copy
from typing import ClassVar

import onnxruntime

from rnnbench.backends.onnx_parts import Engine, OnnxBackend
from rnnbench.data import Inputs


class OnnxruntimeEngine(Engine):
    """One inference session and its arrays, by IO binding: nothing is allocated or copied in a call."""

    def __init__(self, graph: bytes, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        self.session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self.outputs = {output.name for output in self.session.get_outputs()}
        self._unbind()

    def _unbind(self) -> None:
        self.binding = self.session.io_binding()
        self.bound: dict[str, Inputs] = {}  # a binding holds addresses alone

    def again(self) -> Engine:
        other = copy.copy(self)
        other._unbind()
        return other

    def bind(self, name: str, array: Inputs) -> None:
        self.bound[name] = array
        put = self.binding.bind_output if name in self.outputs else self.binding.bind_input
        put(name, "cpu", 0, array.dtype, list(array.shape), array.ctypes.data)

    def run(self) -> None:
        self.session.run_with_iobinding(self.binding)


class OnnxruntimeBackend(OnnxBackend):
    """ONNX Runtime as installed: its own CPU kernels."""

    name: ClassVar[str] = "onnxruntime"
    engine: ClassVar[type[Engine]] = OnnxruntimeEngine
    no_float64: ClassVar[str] = "ONNX Runtime has no float64 kernel of a recurrence on the CPU; ask for float32"
    call: ClassVar[str] = "InferenceSession.run_with_iobinding"
    notes: ClassVar[str] = "CPUExecutionProvider, its defaults"

    def libraries(self) -> dict[str, str]:
        return {"onnxruntime": onnxruntime.__version__}
