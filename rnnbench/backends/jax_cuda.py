"""JAX on one NVIDIA GPU: the functions of the processor, compiled by XLA for its cuda platform, in strict float32.

A scan over time is a loop of launches: XLA hands no recurrence to cuDNN. JAX has no events either, so there is wall
time and no device time.
"""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import ClassVar

import jax

from rnnbench.backends.jax import JaxBackend, JaxSession
from rnnbench.contract import CUDA, Contract
from rnnbench.model import Problem

_PLUGINS = ("jax-cuda13-plugin", "jax-cuda12-plugin")


class JaxCudaSession(JaxSession):
    """One problem on the GPU."""

    def peak_device_bytes(self) -> int | None:
        """The most that JAX's allocator had given out since the process began: JAX has no way to count anew."""
        stats = self.device.memory_stats() or {}
        return stats.get("peak_bytes_in_use")


def plugin() -> tuple[str, str] | None:
    """Name and version of what gives JAX its cuda platform, or None."""
    for name in _PLUGINS:
        try:
            return name, version(name)
        except PackageNotFoundError:
            continue
    return None


class JaxCudaBackend(JaxBackend):
    """JAX on its cuda platform, products in float32."""

    name: ClassVar[str] = "jax-cuda"
    streams: ClassVar[bool] = False
    platform: ClassVar[str] = CUDA
    session: ClassVar[type[JaxSession]] = JaxCudaSession

    def unavailable(self) -> str | None:
        try:
            jax.devices(self.platform)
        except RuntimeError as error:
            if plugin() is None:
                return f"JAX {jax.__version__} is built without CUDA; pip install -U 'jax[cuda13]'"
            said = next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason given")
            return f"JAX {jax.__version__} finds no NVIDIA GPU: {said}; see nvidia-smi and JAX_PLATFORMS"
        return None

    def contract(self, problem: Problem) -> Contract:
        common = super().contract(problem)
        return replace(
            common,
            threads=1,  # launches; the work is the device's
            timed={**common.timed, "epoch": f"the order to the device; {common.timed['epoch']}"},
            notes=f"{common.notes}; jax_default_matmul_precision highest; all rows on the device; no device clock; the"
            " peak of the device's memory is the process's, of all problems that it has prepared",
            device=CUDA,
        )

    def libraries(self) -> dict[str, str]:
        found = plugin()
        return super().libraries() | (dict([found]) if found else {})
