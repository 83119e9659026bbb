"""Who computes. A registry of names: nothing here imports a framework until `load` is called in a worker."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rnnbench.backends.base import Backend


@dataclass(frozen=True)
class Entry:
    """A registry line: where the class is, what it needs, and one sentence on what it is."""

    target: str  # module:class
    needs: tuple[str, ...]  # importable modules
    extra: str | None  # the extra of pyproject.toml that installs them
    summary: str
    compiles: bool = False  # for tens of seconds, before the first answer
    on_request: bool = False  # left out where backends are not named
    gpu: bool = False  # computes on an NVIDIA GPU; whether there is one, its worker finds out


REGISTRY: dict[str, Entry] = {
    "numpy": Entry("rnnbench.backends.numpy:NumpyBackend", (), None, "plain equations; in float64 the oracle"),
    "numba": Entry(
        "rnnbench.backends.numba:NumbaBackend", (), None, "our kernels: batch over threads, time inside", True
    ),
    "numba+subnormal": Entry(
        "rnnbench.backends.numba:NumbaSubnormalBackend",
        (),
        None,
        "our kernels, subnormals kept",
        compiles=True,
        on_request=True,
    ),
    "cuda": Entry(
        "rnnbench.backends.cuda:CudaBackend",
        ("numba_cuda",),
        "cuda",
        "our kernels on one NVIDIA GPU",
        compiles=True,
        on_request=True,
        gpu=True,
    ),
    "cuda+graph": Entry(
        "rnnbench.backends.cuda_graph:CudaGraphBackend",
        ("numba_cuda",),
        "cuda",
        "our kernels on one NVIDIA GPU, a pass captured in a CUDA graph",
        compiles=True,
        on_request=True,
        gpu=True,
    ),
    "torch": Entry("rnnbench.backends.torch:TorchBackend", ("torch",), "torch", "nn.RNN as installed"),
    "torch+flush": Entry(
        "rnnbench.backends.torch:TorchFlushBackend", ("torch",), "torch", "nn.RNN, subnormals flushed"
    ),
    "torch+compile": Entry(
        "rnnbench.backends.torch_compiled:TorchCompileBackend",
        ("torch",),
        "torch",
        "torch.compile, subnormals flushed",
        True,
    ),
    "torch-cuda": Entry(
        "rnnbench.backends.torch_cuda:TorchCudaBackend",
        ("torch",),
        "torch",
        "nn.RNN by cuDNN on one NVIDIA GPU, strict float32",
        on_request=True,
        gpu=True,
    ),
    "torch-cuda+tf32": Entry(
        "rnnbench.backends.torch_cuda:TorchCudaTf32Backend",
        ("torch",),
        "torch",
        "the same, products in TF32",
        on_request=True,
        gpu=True,
    ),
    "tensorflow": Entry(
        "rnnbench.backends.tensorflow:TensorflowBackend", ("tensorflow", "keras"), "tensorflow", "Keras in tf.function"
    ),
    "tensorflow+xla": Entry(
        "rnnbench.backends.tensorflow:TensorflowXlaBackend",
        ("tensorflow", "keras"),
        "tensorflow",
        "Keras with jit_compile=True",
        True,
    ),
    "jax": Entry("rnnbench.backends.jax:JaxBackend", ("jax", "optax"), "jax", "jitted lax.scan and optax"),
    "jax-cuda": Entry(
        "rnnbench.backends.jax_cuda:JaxCudaBackend",
        ("jax", "optax"),
        "jax",
        "jitted lax.scan on one NVIDIA GPU",
        on_request=True,
        gpu=True,
    ),
}


TWIN = "#2"  # after the name of a backend: the same, in processes of its own


def entry_of(name: str) -> Entry:
    """The registry line of a backend or of its twin."""
    return REGISTRY[name.removesuffix(TWIN)]


def usual() -> list[str]:
    """The backends that are meant where none is named."""
    return [name for name, entry in REGISTRY.items() if not entry.on_request]


def missing(name: str) -> str | None:
    """Why a backend cannot be had in this environment and how to get it, or None. Imports nothing."""
    entry = entry_of(name)
    absent = [module for module in entry.needs if importlib.util.find_spec(module) is None]
    if not absent:
        return None
    return f"{', '.join(absent)} not installed; pip install 'rnnbench[{entry.extra}]' or '.[{entry.extra}]' in a clone"


def load(name: str) -> Backend:
    """Import the backend's library and make the backend. Only workers and tests call this."""
    module, _, attribute = entry_of(name).target.partition(":")
    backend: Backend = getattr(importlib.import_module(module), attribute)()
    return backend
