"""OpenVINO on the CPU, whose plugin hands a recurrence to oneDNN: forward only."""

from __future__ import annotations

import copy
from typing import ClassVar

import openvino as ov

from rnnbench.backends.onnx_parts import Engine, OnnxBackend
from rnnbench.data import Inputs

_CORE = ov.Core()


class OpenvinoEngine(Engine):
    """One compiled model and its one request."""

    def __init__(self, graph: bytes, threads: int) -> None:
        self.compiled = _CORE.compile_model(
            _CORE.read_model(graph),
            "CPU",
            {
                "PERFORMANCE_HINT": "LATENCY",
                "NUM_STREAMS": 1,
                "INFERENCE_NUM_THREADS": threads,
                "INFERENCE_PRECISION_HINT": "f32",  # else bfloat16, where the processor has it
            },
        )
        ports = (*self.compiled.inputs, *self.compiled.outputs)  # one has several names where a node left its own to it
        self.ports = {name: port for port in ports for name in port.names}
        self._unbind()

    def _unbind(self) -> None:
        self.request = self.compiled.create_infer_request()
        self.bound: dict[str, Inputs] = {}  # tensors do not keep what they share alive

    def again(self) -> Engine:
        other = copy.copy(self)
        other._unbind()
        return other

    def bind(self, name: str, array: Inputs) -> None:
        self.bound[name] = array
        self.request.set_tensor(self.ports[name], ov.Tensor(array, shared_memory=True))

    def run(self) -> None:
        # In this thread: `start_async` hands over to one that may have to wake up first
        self.request.infer(share_outputs=True)


class OpenvinoBackend(OnnxBackend):
    """OpenVINO, set to answer one request soon, in float32."""

    name: ClassVar[str] = "openvino"
    engine: ClassVar[type[Engine]] = OpenvinoEngine
    no_float64: ClassVar[str] = "OpenVINO takes float64 and computes it in float32; ask for float32"
    call: ClassVar[str] = "InferRequest.infer(share_outputs=True)"
    notes: ClassVar[str] = "PERFORMANCE_HINT=LATENCY, INFERENCE_PRECISION_HINT=f32"

    def libraries(self) -> dict[str, str]:
        return {"openvino": ov.__version__}
