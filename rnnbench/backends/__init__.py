"""Who computes. A registry of names: nothing here imports a framework until `load` is called in a worker.

An entry holds all that the project knows of a backend besides its code: what it needs and how to get that, what a run
records of it, what its worker's environment is, how it is drawn.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnnbench.model import Feature

if TYPE_CHECKING:
    from rnnbench.backends.base import Backend


@dataclass(frozen=True)
class Look:
    """How a backend is drawn. `marker` and `line` are as matplotlib has them, the marker a filled one; `hatch` fills
    bars.
    """

    colour: str
    marker: Any
    line: Any
    hatch: str


@dataclass(frozen=True)
class Entry:
    """All about one backend. `environment` and `caches` are read by `machine.environment.environment`."""

    target: str  # module:class
    needs: tuple[str, ...] = ()  # importable modules
    extra: str | None = None  # the extra of pyproject.toml that installs them
    summary: str = ""  # one sentence on what it is
    libraries: tuple[str, ...] = ()  # distributions whose versions a run records
    environment: Mapping[str, str] = field(default_factory=dict)  # of workers, known before anything is imported
    caches: Mapping[str, str] = field(default_factory=dict)  # more of them: where compilers put code, for a run
    look: Look | None = None  # None: made from its name
    compiles: bool = False  # for tens of seconds, before the first answer
    on_request: bool = False  # left out where backends are not named
    own: bool = False  # from a file of the user's
    gpu: bool = False  # computes on an NVIDIA GPU; whether there is one, its worker finds out
    features: tuple[Feature, ...] = ()  # that it implements; any other problem that has one is `unsupported`
    compiler: str = ""  # what compiles its passes, all steps of a row in one piece; an audit looks whether it does
    contradicted: Mapping[str, str] = field(default_factory=dict)  # variable -> values that make its name untrue


_BLAS = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "{threads}")
# Devices in the order of the driver's own tools, by which its clocks are read.
_GPU = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
_NOT_0, _YES = r"0*[1-9]\d*", r"(?i:1|y|yes|t|true|on)"  # as Numba and JAX read their switches
_NUMBA: dict[str, Any] = {
    "libraries": ("numba", "llvmlite", "scipy"),
    "environment": {"NUMBA_NUM_THREADS": "{threads}"},
    "caches": {"NUMBA_CACHE_DIR": "{folder}/numba"},
    "compiles": True,
    "compiler": "Numba",
    "contradicted": {"NUMBA_DISABLE_JIT": _NOT_0},
}
_CUDA: dict[str, Any] = _NUMBA | {
    "needs": ("numba_cuda",),
    "extra": "cuda",
    "libraries": ("numba", "llvmlite", "numba-cuda"),
    "environment": _NUMBA["environment"] | _GPU,
    "on_request": True,
    "gpu": True,
    "compiler": "",  # it launches a kernel for each step
    "features": tuple(Feature),
}
_TORCH: dict[str, Any] = {
    "needs": ("torch",),
    "extra": "torch",
    "libraries": ("torch",),
    "environment": _BLAS,
    "caches": {"TORCHINDUCTOR_CACHE_DIR": "{folder}/inductor"},
}
_EVERY = tuple(Feature)
_TENSORFLOW: dict[str, Any] = {
    "needs": ("tensorflow", "keras"),
    "extra": "tensorflow",
    "libraries": ("tensorflow", "tensorflow-cpu", "keras"),
    "environment": {"TF_NUM_INTRAOP_THREADS": "{threads}", "TF_NUM_INTEROP_THREADS": "{threads}"},
    "caches": {"TF_XLA_FLAGS": "--tf_xla_persistent_cache_directory={folder}/xla"},
}
_WITH_XLA = {"TF_XLA_FLAGS": r".*--tf_xla_auto_jit=(?!-1\b|0\b).*", "TF_FUNCTION_JIT_COMPILE_DEFAULT": r"(?i:1|true)"}
_JAX: dict[str, Any] = {
    "needs": ("jax", "optax"),
    "extra": "jax",
    "libraries": ("jax", "jaxlib", "optax"),
    "features": _EVERY,
    "compiler": "XLA",
    "contradicted": {"JAX_DISABLE_JIT": _YES, "JAX_PLATFORMS": r"(?!.*\bcpu\b).+"},
    "caches": {
        "JAX_COMPILATION_CACHE_DIR": "{folder}/jax",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    },
}
# On which framework, the class says: workers have the variables of all backends.
_KERAS: dict[str, Any] = {
    "on_request": True, "compiles": True, "features": (Feature.LAYERS, Feature.BIDIRECTIONAL),
}  # fmt: skip
_ON_GPU: dict[str, Any] = {"on_request": True, "gpu": True}

# Colours: Okabe and Ito (2002), with its yellow, too pale for lines on white, replaced by a dark brown, and an indigo
# added; told apart by the colour-blind, and by line and hatch in grey print.
REGISTRY: dict[str, Entry] = {
    "numpy": Entry(
        "rnnbench.backends.numpy:NumpyBackend",
        needs=(),
        extra=None,
        summary="plain equations; in float64 the oracle",
        libraries=("numpy",),
        environment=_BLAS,
        features=_EVERY,
        look=Look("#8C8C8C", "s", (0, (1, 1)), "..."),
    ),
    "numba": Entry(
        "rnnbench.backends.numba:NumbaBackend",
        needs=(),
        extra=None,
        summary="our kernels: batch over threads, time inside",
        features=_EVERY,
        look=Look("#D55E00", "o", "-", ""),
        **_NUMBA,
    ),
    "numba+subnormal": Entry(
        "rnnbench.backends.numba:NumbaSubnormalBackend",
        needs=(),
        extra=None,
        summary="our kernels, subnormals kept",
        features=_EVERY,
        look=Look("#CC79A7", "<", (0, (3, 1)), "**"),
        on_request=True,
        **_NUMBA,
    ),
    "numba+naive": Entry(
        "rnnbench.backends.numba_naive:NumbaNaiveBackend",
        summary="the loop as one writes it in Numba: np.dot in an @njit",
        look=Look("#44AA99", (4, 1, 0), (0, (4, 3)), "oo"),
        on_request=True,
        **_NUMBA,
    ),
    "cuda": Entry(
        "rnnbench.backends.cuda:CudaBackend",
        summary="our kernels on one NVIDIA GPU",
        look=Look("#000000", "P", (0, (8, 1)), "xx"),
        **_CUDA,
    ),
    "cuda+graph": Entry(
        "rnnbench.backends.cuda_graph:CudaGraphBackend",
        summary="our kernels on one NVIDIA GPU, a pass captured in a CUDA graph",
        **_CUDA,
    ),
    "torch": Entry(
        "rnnbench.backends.torch:TorchBackend",
        features=_EVERY,
        summary="nn.RNN, nn.GRU or nn.LSTM as installed",
        look=Look("#0072B2", "^", "--", "//"),
        **_TORCH,
    ),
    "torch+flush": Entry(
        "rnnbench.backends.torch:TorchFlushBackend",
        features=_EVERY,
        summary="nn.RNN, nn.GRU or nn.LSTM, subnormals flushed",
        look=Look("#56B4E9", "v", (0, (5, 1, 1, 1)), "\\\\"),
        **_TORCH,
    ),
    "torch+compile": Entry(
        "rnnbench.backends.torch_compiled:TorchCompileBackend",
        features=_EVERY,
        summary="torch.compile, subnormals flushed",
        look=Look("#332288", ">", "-.", "||"),
        compiles=True,
        compiler="torch.compile",
        contradicted={"TORCHDYNAMO_DISABLE": "1", "TORCH_COMPILE_DISABLE": "1", "TORCHDYNAMO_SUPPRESS_ERRORS": ".+"},
        **_TORCH,
    ),
    "torch+rnnbench": Entry(
        "rnnbench.backends.torch_rnnbench:TorchRnnbenchBackend",
        features=_EVERY,
        summary="the network of torch with our layer in it, by rnnbench.torch.replace",
        look=Look("#661100", (5, 1, 0), (0, (8, 2, 2, 2)), "**"),
        compiles=True,
        compiler="Numba",
        on_request=True,
        contradicted=_NUMBA["contradicted"],
        **_TORCH | {"libraries": ("torch", "numba", "llvmlite"), "caches": _TORCH["caches"] | _NUMBA["caches"]},
    ),
    "torch-cuda": Entry(
        "rnnbench.backends.torch_cuda:TorchCudaBackend",
        features=_EVERY,
        summary="nn.RNN, nn.GRU or nn.LSTM by cuDNN on one NVIDIA GPU, strict float32",
        look=Look("#AA3377", "p", (0, (9, 2)), "//"),
        **_TORCH | _ON_GPU | {"environment": _BLAS | _GPU},
    ),
    "torch-cuda+tf32": Entry(
        "rnnbench.backends.torch_cuda:TorchCudaTf32Backend",
        features=_EVERY,
        summary="the same with products in TF32",
        look=Look("#EE6677", "h", (0, (9, 2, 1, 2)), "\\\\"),
        **_TORCH | _ON_GPU | {"environment": _BLAS | _GPU},
    ),
    "tensorflow": Entry(
        "rnnbench.backends.tensorflow:TensorflowBackend",
        features=_EVERY,
        summary="Keras layers of our own in tf.function",
        look=Look("#E69F00", "D", (0, (4, 2, 1, 2, 1, 2)), "--"),
        compiler="tf.function",
        contradicted=_WITH_XLA,
        **_TENSORFLOW,
    ),
    "tensorflow+xla": Entry(
        "rnnbench.backends.tensorflow:TensorflowXlaBackend",
        features=_EVERY,
        summary="Keras with jit_compile=True",
        look=Look("#6B4A00", "X", (0, (2, 2)), "++"),
        compiles=True,
        compiler="XLA",
        **_TENSORFLOW,
    ),
    "jax": Entry(
        "rnnbench.backends.jax:JaxBackend",
        summary="jitted lax.scan and optax",
        look=Look("#009E73", "*", (0, (6, 2)), "oo"),
        **_JAX,
    ),
    "jax+rnnbench": Entry(
        "rnnbench.backends.jax_rnnbench:JaxRnnbenchBackend",
        summary="the network of jax with our layer in it, by rnnbench.jax",
        look=Look("#88CCEE", (7, 1, 0), (0, (8, 2, 1, 2)), "//"),
        compiles=True,
        on_request=True,
        **_JAX
        | {
            "libraries": ("jax", "jaxlib", "optax", "numba", "llvmlite"),
            "contradicted": _JAX["contradicted"] | _NUMBA["contradicted"],
            "caches": _JAX["caches"] | _NUMBA["caches"],
        },
    ),
    "openvino": Entry(
        "rnnbench.backends.openvino:OpenvinoBackend",
        needs=("openvino", "onnx"),
        extra="openvino",
        summary="an ONNX graph in OpenVINO, whose recurrence is oneDNN's; forward only",
        libraries=("openvino", "onnx"),
        features=_EVERY,
        look=Look("#882255", "d", (0, (7, 2, 1, 2)), "\\\\//"),
    ),
    "onnxruntime": Entry(
        "rnnbench.backends.onnxruntime:OnnxruntimeBackend",
        needs=("onnxruntime", "onnx"),
        extra="onnxruntime",
        summary="the same graph in ONNX Runtime; forward only",
        libraries=("onnxruntime", "onnx"),
        features=_EVERY,
        look=Look("#999933", "8", (0, (2, 1, 1, 1)), "..."),
        on_request=True,
    ),
    "keras": Entry(
        "rnnbench.backends.keras:KerasBackend",
        summary="SimpleRNN, GRU or LSTM and fit, as users write them, on TensorFlow",
        look=Look("#DDAA33", (6, 1, 0), (0, (5, 1, 2, 1)), "--"),
        **_TENSORFLOW | _KERAS | {"compiler": "tf.function"},
    ),
    "keras+jax": Entry(
        "rnnbench.backends.keras:KerasJaxBackend",
        summary="the same lines on JAX",
        look=Look("#117733", (8, 1, 0), (0, (3, 2, 1, 2)), "++"),
        **_JAX | _KERAS | {"needs": ("keras", "jax", "optax"), "extra": "frameworks"},
    ),
    "keras+torch": Entry(
        "rnnbench.backends.keras:KerasTorchBackend",
        summary="the same lines on PyTorch",
        look=Look("#4477AA", (4, 1, 45), (0, (6, 1, 1, 1)), "||"),
        **_TORCH | _KERAS | {"needs": ("keras", "torch"), "extra": "frameworks"},
    ),
    "jax-cuda": Entry(
        "rnnbench.backends.jax_cuda:JaxCudaBackend",
        summary="jitted lax.scan on one NVIDIA GPU",
        look=Look("#A67C00", "H", (0, (5, 3)), "oo"),
        # Else JAX takes three quarters of a GPU from the others.
        environment=_GPU | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"},
        **_JAX | _ON_GPU | {"contradicted": {"JAX_DISABLE_JIT": _YES}},
    ),
}


REPLICA = "#2"  # after the name of a backend: its code once more, in processes of its own


def add(name: str) -> str:
    """Register a backend of the user's own, `FILE.py:CLASS`; the name that it has in this process: `FILE.CLASS`.

    Nothing of the file is run here. Raises ValueError where it is no such name, and where there is no such file.
    """
    file, colon, attribute = name.partition(".py:")
    path = Path(f"{file}.py").resolve()
    if not colon or not attribute.isidentifier():
        raise ValueError(f"{name} does not name a class; give FILE.py:CLASS, a rnnbench.Backend that the file defines")
    if not path.is_file():
        raise ValueError(f"{file}.py is not there; give the file of a backend")
    known = f"{path.stem}.{attribute}"
    REGISTRY[known] = Entry(f"{path}:{attribute}", summary=f"{attribute} of {path.name}", own=True)
    return known


def class_of(target: str) -> Any:
    """The class of an entry, its module or file imported."""
    module, _, attribute = target.rpartition(":")
    if not module.endswith(".py"):
        return getattr(importlib.import_module(module), attribute)
    spec = importlib.util.spec_from_file_location(f"rnnbench_own_{Path(module).stem}", module)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return getattr(loaded, attribute)


def entry_of(name: str) -> Entry:
    """The registry line of a backend or of its replica."""
    return REGISTRY[name.removesuffix(REPLICA)]


def usual() -> list[str]:
    """The backends that are meant where none is named."""
    return [name for name, entry in REGISTRY.items() if not (entry.on_request or entry.own)]


def missing(name: str, env: Mapping[str, str] | None = None) -> str | None:
    """Why a backend cannot be had in this environment and how to get it, or None. Imports nothing.

    `env`: variables that its worker gets besides those of this process.
    """
    entry, variables = entry_of(name), {**os.environ, **(env or {})}
    for variable, values in entry.contradicted.items():
        if (value := variables.get(variable)) is not None and re.fullmatch(values, value.strip()):
            return f"with {variable}={value} what runs is not what the name {name} says; unset it"
    absent = [module for module in entry.needs if importlib.util.find_spec(module) is None]
    if not absent:
        return None
    return f"{', '.join(absent)} not installed; pip install 'rnnbench[{entry.extra}]' or '.[{entry.extra}]' in a clone"


def load(name: str) -> Backend:
    """Import the backend's library and make the backend. Only workers and tests call this."""
    backend: Backend = class_of(entry_of(name).target)()
    return backend
