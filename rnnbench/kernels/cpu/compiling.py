"""How every CPU kernel is compiled: one decorator, the floating-point flags by name, and the disk cache."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba.misc.appdirs import AppDirs

# LLVM may fuse and regroup sums. Never nnan or ninf: NaN and infinity come out as what they are.
FAST = frozenset({"contract", "reassoc", "nsz"})
# LLVM may fuse a multiply and an add and nothing else: for error-compensated arithmetic.
EXACT = frozenset({"contract"})

# For tests of other machines: plain loops in place of vectors that are written by hand, or vectors of so many bytes.
PLAIN_LOOPS = bool(os.environ.get("RNNBENCH_PLAIN_KERNELS"))
FORCED_BYTES = int(os.environ.get("RNNBENCH_REGISTER_BYTES", "0"))

# What kernels pass to kernels: NumPy integers, for Numba would compile a kernel again for each Python literal.
NONE, ONE = np.int64(0), np.int64(1)

_HERE = Path(__file__).parent


def source_digest() -> str:
    """Twelve hexadecimal digits that change with any source of this package."""
    sources = hashlib.sha256()
    for path in sorted(_HERE.glob("*.py")):
        sources.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return sources.hexdigest()[:12]


def cache_folder() -> Path:
    """Where compiled kernels are kept: under NUMBA_CACHE_DIR, else beside the sources, else in the user's cache.

    Numba recompiles a function whose own file has changed, but not the functions that call it from other files. One
    folder for each state of all the sources closes that hole.
    """
    if numba.config.CACHE_DIR:
        base = Path(numba.config.CACHE_DIR)
    elif os.access(_HERE, os.W_OK):
        base = _HERE / "__pycache__"
    else:
        base = Path(AppDirs("rnnbench", appauthor=False).user_cache_dir)
    return (
        base / f"kernels-{source_digest()}{'-plain' if PLAIN_LOOPS else ''}{f'-{FORCED_BYTES}' if FORCED_BYTES else ''}"
    )


_CACHE_FOLDER = str(cache_folder())


@contextmanager
def _caching_in(folder: str) -> Iterator[None]:
    """Numba reads its cache folder while it decorates: change it for that moment, for no one else."""
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = folder
    try:
        yield
    finally:
        numba.config.CACHE_DIR = before


def cpu_kernel(*, flags: frozenset[str] = FAST, inline: str = "never") -> Callable[[Callable[..., Any]], Any]:
    """Compile on first call, once for each dtype; keep on disk; divide by zero as IEEE says; let go of the GIL."""

    def decorate(function: Callable[..., Any]) -> Any:
        with _caching_in(_CACHE_FOLDER):
            return numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=set(flags), inline=inline)(function)

    return decorate


def inlined(function: Callable[..., Any]) -> Any:
    """A few lines that one or two kernels call: part of each, and not compiled apart. Of many, `cpu_kernel`: each copy
    is compiled anew.
    """
    return cpu_kernel(inline="always")(function)


def native(signature: Any, function: Callable[..., Any]) -> int:
    """Compile `function` now, to be called from kernels by its address, which is returned; see `calls`."""
    with _caching_in(_CACHE_FOLDER):
        compiled = numba.cfunc(signature, cache=True, error_model="numpy", fastmath=set(FAST))(function)
    _KEPT.append(compiled)
    return int(compiled.address)


_KEPT: list[Any] = []  # a compiled function goes with its object
