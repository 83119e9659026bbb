"""The environment of a worker: what passes through to it of the user's, what is set for it, what may change a number.

Everything else is dropped: what a shell, a notebook or a scheduler happens to have set reaches no worker.
"""

from __future__ import annotations

import atexit
import os
import pwd
import re
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path

from rnnbench import backends
from rnnbench.files import temporary_place
from rnnbench.machine.cores import cores_for
from rnnbench.machine.known import known

# Where things are, in which language they are printed, how the network is reached: no number depends on them.
PLACES = (
    "PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "TEMP", "TMP", "XDG_*", "CONDA_*", "VIRTUAL_ENV",
    "LD_LIBRARY_PATH", "DYLD_*", "LIBRARY_PATH", "CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "SDKROOT",
    "PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE", "PYTHONNOUSERSITE", "PYTHONPYCACHEPREFIX",
    "PYTHONDONTWRITEBYTECODE", "PYTHONUTF8", "PYTHONIOENCODING", "PYTHONCOERCECLOCALE", "PYTHONHASHSEED",
    "LANG", "LANGUAGE", "LC_*", "TZ",
    "http_proxy", "https_proxy", "no_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY",
    "SSL_CERT_*", "RNNBENCH_*",
)  # fmt: skip
# Of the libraries that compute, of their compilers and of the allocator. Not all that begins with TF_ or NVIDIA_:
# Terraform and services have variables of such names, tokens and passwords among them, and a run writes these down.
SWITCHES = (
    "OMP_*", "GOMP_*", "KMP_*", "MKL_*", "OPENBLAS_*", "BLIS_*", "VECLIB_*", "ONEDNN_*", "DNNL_*", "TBB_*",
    "MALLOC_*", "GLIBC_TUNABLES", "LD_PRELOAD", "CC", "CXX", "CFLAGS", "CXXFLAGS", "LLVM_*",
    "NUMBA_*", "NPY_*", "TORCH*", "PYTORCH_*", "ATEN_*", "TRITON_*", "XLA_*", "JAX_*", "NPROC", "KERAS_*",
    "TF_AUTO_*", "TF_CPP_*", "TF_CUBLAS_*", "TF_CUDNN_*", "TF_DETERMINISTIC_*", "TF_DISABLE_*", "TF_ENABLE_*",
    "TF_FORCE_*", "TF_FUNCTION_*", "TF_GPU_*", "TF_JIT_*", "TF_MKL_*", "TF_NUM_*", "TF_ONEDNN_*", "TF_SET_*",
    "TF_USE_*", "TF_XLA_*",
    "OV_*", "OPENVINO_*", "ORT_*", "CUDA_*", "CUDNN_*", "CUBLAS_*", "NVIDIA_TF32_OVERRIDE", "NVIDIA_VISIBLE_DEVICES",
    "RNNBENCH_PLAIN_KERNELS", "RNNBENCH_REGISTER_BYTES",
)  # fmt: skip
# Switches that name a folder or what is printed; the last two threadpoolctl sets wherever it is imported.
_HARMLESS = (
    "*_DIR", "*_HOME", "*_PATH", "*_LOG_LEVEL", "*_LOGGING_LEVEL", "TORCH_LOGS*", "KMP_DUPLICATE_LIB_OK",
    "KMP_INIT_AT_FORK",
)  # fmt: skip
# What a worker cannot do without, and what says how it works: not for --env.
_OURS = {"RNNBENCH_CORES", "RNNBENCH_CHANNEL", "RNNBENCH_TIMES_IMPORT", "PYTHONSAFEPATH", "PYTHONUNBUFFERED"}


def _is_of(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def thread_counts() -> list[str]:
    """The variables that tell the libraries of the backends how many threads they have."""
    return list(
        dict.fromkeys(
            name
            for entry in backends.REGISTRY.values()
            for name, value in entry.environment.items()
            if value == "{threads}"
        )
    )


def variables_of(asked: Iterable[str]) -> dict[str, str]:
    """The variables of `--env NAME[=VALUE]`: without a value, as they are here. ValueError for what cannot be had."""
    found = {}
    for text in asked:
        name, equals, value = text.partition("=")
        if not name or "\0" in text:
            raise ValueError(f"--env {text!r} names no variable; give NAME or NAME=VALUE")
        if name in _OURS or name in thread_counts():
            way_out = "choose threads with --threads" if name in thread_counts() else "leave it out"
            raise ValueError(f"--env {name}: workers have one of rnnbench's own; {way_out}")
        if not equals and name not in os.environ:
            raise ValueError(f"--env {name} is not set here; give {name}=VALUE")
        found[name] = value if equals else os.environ[name]
    return found


def switches(asked: Mapping[str, str]) -> dict[str, str]:
    """The variables that workers get from here and that can change a number; all that were `asked` for by name."""
    own = {name for entry in backends.REGISTRY.values() for name in entry.environment}
    mine = {name: value for name, value in os.environ.items() if name in own or _is_of(name, SWITCHES)}
    kept = {name: value for name, value in mine.items() if not _is_of(name, _HARMLESS)} | dict(asked)
    return {name: kept[name] for name in sorted(kept)}


def passed(asked: Mapping[str, str], folder: Path | None = None) -> dict[str, str]:
    """What passes through, and `asked`; Python then imports nothing from the current folder, unless PYTHONPATH names
    it. Where there is no home, libraries that write there get one in `folder`.
    """
    own = {name for entry in backends.REGISTRY.values() for name in (*entry.environment, *entry.caches)}
    every = (*PLACES, *SWITCHES)
    env = {name: value for name, value in os.environ.items() if name in own or _is_of(name, every)} | dict(asked)
    env["PYTHONSAFEPATH"] = "1"
    folders = [os.path.abspath(folder) for folder in env.pop("PYTHONPATH", "").split(os.pathsep) if folder]
    if folders:  # without the empty ones, which stand for the current folder
        env["PYTHONPATH"] = os.pathsep.join(folders)
    with suppress(KeyError):
        env.setdefault("HOME", pwd.getpwuid(os.getuid()).pw_dir)
    if folder is not None and not os.path.isdir(env.get("HOME") or ""):
        env["HOME"] = str(folder / "home")
        os.makedirs(env["HOME"], exist_ok=True)
    if not {"USER", "LOGNAME"} & env.keys():  # a user of no name is an error to PyTorch
        env["USER"] = str(os.getuid())
    return env


_PLAIN = re.compile(r"[A-Za-z0-9_./+-]+")


@lru_cache(maxsize=64)
def plainly_named(folder: Path) -> Path:
    """A folder by a name that needs no quotes: its own, or that of a link to it among the temporary files.

    PyTorch's compiler cannot cope with a blank or a quote in the name of its cache, and XLA's flags end there. The link
    goes with this process.
    """
    folder = folder.absolute()
    if _PLAIN.fullmatch(str(folder)):
        return folder
    places = [place for place in (known(temporary_place), "/tmp", "/var/tmp") if place and _PLAIN.fullmatch(place)]
    try:
        link = Path(tempfile.mkdtemp(prefix="rnnbench-", dir=places[0]), "cache")
        link.symlink_to(folder)
    except (IndexError, OSError):  # no place for a link
        return folder
    atexit.register(_remove, link, os.getpid())
    return link


def _remove(link: Path, process: int) -> None:
    if os.getpid() == process:  # and not a fork of it
        with suppress(OSError):
            link.unlink()
            link.parent.rmdir()


def environment(
    threads: int, cache: Path | None, asked: Mapping[str, str] | None = None, folder: Path | None = None
) -> dict[str, str]:
    """A worker's environment: thread counts and cores, known before anything is imported, and where compilers cache.

    Every worker has the variables of all backends. What the user set stays, but for thread counts and caches; `cache`
    None leaves the compilers their own folders. `asked` are the variables of `--env`; `folder` as in `passed`.
    """
    env, entries = passed(asked or {}, folder), backends.REGISTRY.values()
    for name, value in [item for entry in entries for item in entry.environment.items()]:
        env.setdefault(name, value)
    for name in thread_counts():
        env[name] = str(threads)
    env["RNNBENCH_CORES"] = ",".join(map(str, cores_for(threads)))
    env["PYTHONUNBUFFERED"] = "1"
    if cache is not None:
        cache.mkdir(parents=True, exist_ok=True)
        cache = plainly_named(cache)
        for name, value in {name: value for entry in entries for name, value in entry.caches.items()}.items():
            text = value.format(folder=cache)
            env[name] = f"{env.get(name, '')} {text}".strip() if name.endswith("FLAGS") else text
            if "{folder}" in value:  # TensorFlow, unlike the others, makes no folder
                (cache / value.partition("{folder}/")[2]).mkdir(parents=True, exist_ok=True)
    return env
