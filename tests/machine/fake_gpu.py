"""A driver that is not there, as `pynvml` answers for it; a backend with the contract of a GPU that is not there."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

from rnnbench.backends.base import DeviceClock
from rnnbench.backends.numpy import NumpyBackend, NumpySession
from rnnbench.contract import CUDA


class NVMLError(Exception):
    pass


class FakeNvml(ModuleType):
    """`answers`: function -> what it returns, or an error that it raises. Functions that are not there are absent."""

    NVMLError = NVMLError
    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0

    def __init__(self, **answers):
        super().__init__("pynvml")
        self.asked = []
        self.answers = ANSWERS | answers

    def __getattr__(self, name):
        answers = self.__dict__.get("answers", {})
        if name not in answers or answers[name] is None:
            raise AttributeError(name)

        def call(*arguments):
            self.asked.append((name, *arguments))
            answer = answers[name]
            if isinstance(answer, Exception):
                raise answer
            return answer(*arguments) if callable(answer) else answer

        return call


ANSWERS = {
    "nvmlInit": lambda: None,
    "nvmlDeviceGetHandleByIndex": lambda index: f"gpu {index}",
    "nvmlDeviceGetHandleByUUID": lambda uuid: f"gpu {uuid}",
    "nvmlDeviceGetName": b"Made-up GPU 100",
    "nvmlSystemGetDriverVersion": "580.65.06",
    "nvmlSystemGetCudaDriverVersion_v2": 13010,
    "nvmlDeviceGetCount": 2,
    "nvmlDeviceGetClockInfo": lambda handle, kind: {1: 1980, 2: 2619}[kind],
    "nvmlDeviceGetMaxClockInfo": lambda handle, kind: 1980,
    "nvmlDeviceGetTemperature": lambda handle, kind: 41,
    "nvmlDeviceGetPowerUsage": 123_456,
    "nvmlDeviceGetEnforcedPowerLimit": 700_000,
    "nvmlDeviceGetCurrentClocksEventReasons": 0x1,
    "nvmlDeviceGetMemoryInfo": SimpleNamespace(total=80 << 30),
    "nvmlDeviceGetCudaComputeCapability": (9, 0),
    "nvmlDeviceGetEccMode": [1, 1],
    "nvmlDeviceGetPersistenceMode": 0,
    "nvmlDeviceGetMigMode": [0, 1],
}


class Ticking(DeviceClock):
    """Every call takes 700 ns."""

    def start(self):
        self.marks = ["start"]

    def stop(self):
        self.marks.append("stop")

    def nanoseconds(self):
        assert self.marks == ["start", "stop"]
        return 700


class OnAGpu(NumpySession):
    def device_clock(self):
        return Ticking()

    def peak_device_bytes(self):
        return 5 << 20


class PretendsAGpu(NumpyBackend):
    """Computes on the processor; in its worker there is the driver above."""

    def __init__(self):
        sys.modules["pynvml"] = FakeNvml()

    def contract(self, problem):
        return replace(super().contract(problem), device=CUDA)

    def _prepare(self, problem, params, data):
        return OnAGpu(problem, params, data)
