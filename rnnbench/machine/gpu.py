"""What the NVIDIA driver says of a GPU: facts for the fingerprint, and its state before and after each turn.

By NVML, through nvidia-ml-py of the extra `cuda`. Where that, the driver or the device is absent, nothing is known and
nothing fails: neither is needed to compute.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from rnnbench.records.record import DeviceState

# Bits of the reasons why clocks are held back (NVML, nvmlClocksEventReasons). That the GPU is idle is not among them.
_HELD_BACK = {
    0x2: "clocks set by an application",
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x10: "synchronised with other GPUs",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
    0x100: "display clocks",
}


def _nvml() -> Any:
    """The module, its library opened once for this process; None where there is no driver."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml


def _text(value: Any) -> Any:
    """Text of NVML, whose older versions give bytes."""
    return value.decode() if isinstance(value, bytes) else value


def _handle(nvml: Any) -> Any:
    """The GPU that CUDA gives a process first: device 0, unless CUDA_VISIBLE_DEVICES names another by number or UUID.

    Numbers are NVML's, as long as CUDA_DEVICE_ORDER is PCI_BUS_ID, which it is in workers.
    """
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    if first.isdecimal():
        return nvml.nvmlDeviceGetHandleByIndex(int(first))
    return nvml.nvmlDeviceGetHandleByUUID(first)


class Gpu:
    """One GPU. What its driver does not say is None."""

    def __init__(self, nvml: Any, handle: Any) -> None:
        self.nvml, self.handle = nvml, handle

    def ask(self, name: str, *arguments: Any) -> Any:
        """The answer of an NVML function about this GPU."""
        return self._tried(lambda: getattr(self.nvml, name)(self.handle, *arguments))

    def _tried(self, call: Callable[[], Any]) -> Any:
        """What a call of NVML gives; None where this driver or this version of the module does not have it."""
        try:
            return _text(call())
        except (self.nvml.NVMLError, AttributeError):
            return None

    def system(self, name: str) -> Any:
        """The answer of an NVML function about the machine."""
        return self._tried(lambda: getattr(self.nvml, name)())

    def state(self) -> DeviceState:
        """Clocks, temperature, power and why the clock is held back, now."""
        milliwatts = self.ask("nvmlDeviceGetPowerUsage")
        return DeviceState(
            name=self.ask("nvmlDeviceGetName") or "unknown",
            driver=self.system("nvmlSystemGetDriverVersion"),
            sm_mhz=self.ask("nvmlDeviceGetClockInfo", self.nvml.NVML_CLOCK_SM),
            memory_mhz=self.ask("nvmlDeviceGetClockInfo", self.nvml.NVML_CLOCK_MEM),
            celsius=self.ask("nvmlDeviceGetTemperature", self.nvml.NVML_TEMPERATURE_GPU),
            watts=None if milliwatts is None else milliwatts / 1000,
            throttled=self._held_back(),
        )

    def _held_back(self) -> str | None:
        """Why the clock is below what it could be: "" for no reason, None where that is unknown."""
        bits = self.ask("nvmlDeviceGetCurrentClocksEventReasons")
        if bits is None:
            bits = self.ask("nvmlDeviceGetCurrentClocksThrottleReasons")  # its name before driver 535
        return None if bits is None else ", ".join(why for bit, why in _HELD_BACK.items() if bits & bit)

    def facts(self) -> dict[str, Any]:
        """What it is and how it is set up, for the fingerprint."""
        capability = self.ask("nvmlDeviceGetCudaComputeCapability")
        cuda = self.system("nvmlSystemGetCudaDriverVersion_v2")
        memory = self.ask("nvmlDeviceGetMemoryInfo")
        return {
            "name": self.ask("nvmlDeviceGetName"),
            "driver": self.system("nvmlSystemGetDriverVersion"),
            "cuda": None if cuda is None else f"{cuda // 1000}.{cuda % 1000 // 10}",
            "memory_bytes": None if memory is None else memory.total,
            "compute_capability": None if capability is None else f"{capability[0]}.{capability[1]}",
            "ecc": self._on(self.ask("nvmlDeviceGetEccMode")),
            "persistence": self._on(self.ask("nvmlDeviceGetPersistenceMode")),
            "mig": self._on(self.ask("nvmlDeviceGetMigMode")),
            "most_sm_mhz": self.ask("nvmlDeviceGetMaxClockInfo", self.nvml.NVML_CLOCK_SM),
            "power_limit_watts": self._watts(self.ask("nvmlDeviceGetEnforcedPowerLimit")),
            "count": self.system("nvmlDeviceGetCount"),
        }

    @staticmethod
    def _on(mode: Any) -> bool | None:
        """A mode that is on; of a pair, the current one and not the one after the next start."""
        current = mode[0] if isinstance(mode, list | tuple) else mode
        return None if current is None else bool(current)

    @staticmethod
    def _watts(milliwatts: int | None) -> float | None:
        return None if milliwatts is None else milliwatts / 1000


def first() -> Gpu | None:
    """The GPU that backends of this process compute on, or None where no driver knows of one."""
    nvml = _nvml()
    if nvml is None:
        return None
    try:
        return Gpu(nvml, _handle(nvml))
    except nvml.NVMLError:
        return None


def gpu_facts() -> dict[str, Any] | None:
    """The facts of that GPU, or None where there is none."""
    found = first()
    return None if found is None else found.facts()
