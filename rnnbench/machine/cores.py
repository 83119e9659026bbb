"""The cores that a process may use, and the environment of a worker, which tells libraries how many."""

from __future__ import annotations

import os
from pathlib import Path

THREAD_COUNTS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
)


def allowed_cores() -> list[int]:
    """The cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def safe_environment() -> dict[str, str]:
    """This process's environment, in which no Python imports from the current folder unless PYTHONPATH names it."""
    env = os.environ | {"PYTHONSAFEPATH": "1"}
    folders = [os.path.abspath(folder) for folder in env.pop("PYTHONPATH", "").split(os.pathsep) if folder]
    if folders:  # without the empty ones, which stand for the current folder
        env["PYTHONPATH"] = os.pathsep.join(folders)
    return env


def environment(threads: int, cache: Path | None) -> dict[str, str]:
    """The worker's environment: thread counts and cores, known before anything is imported, and where compilers cache.

    `cache` None leaves the compilers their own folders.
    """
    env = safe_environment()
    for name in THREAD_COUNTS:
        env[name] = str(threads)
    env["RNNBENCH_CORES"] = ",".join(str(core) for core in allowed_cores()[:threads])
    env["PYTHONUNBUFFERED"] = "1"
    env.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # else JAX takes three quarters of a GPU from the others
    env.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # that of the driver's own tools, by which its clocks are read
    if cache is not None:
        env["NUMBA_CACHE_DIR"] = str(cache / "numba")
        env["TORCHINDUCTOR_CACHE_DIR"] = str(cache / "inductor")
        xla = cache / "xla"
        xla.mkdir(parents=True, exist_ok=True)  # TensorFlow, unlike the others, makes no folder
        flag = f"--tf_xla_persistent_cache_directory={xla}"
        env["TF_XLA_FLAGS"] = f"{env.get('TF_XLA_FLAGS', '')} {flag}".strip()
        env["JAX_COMPILATION_CACHE_DIR"] = str(cache / "jax")
        env["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        env["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    return env
