"""How every CPU kernel is compiled: one decorator, the floating-point flags by name, and the disk cache."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba.core import sigutils
from numba.core.ccallback import CFunc

from rnnbench.kernels import code_cache

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
    for path in sorted([*_HERE.glob("*.py"), Path(code_cache.__file__)]):
        sources.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return sources.hexdigest()[:12]


# Numba recompiles a function whose own file has changed, but not the functions that call it from other files. One
# folder for each state of all the sources closes that hole.
_NAME = f"kernels-{source_digest()}{'-plain' if PLAIN_LOOPS else ''}{f'-{FORCED_BYTES}' if FORCED_BYTES else ''}"
KEPT_IN = code_cache.code_folder(_NAME, Path(__file__))


def cpu_kernel(
    *, flags: frozenset[str] = FAST, inline: str = "never", nogil: bool = True
) -> Callable[[Callable[..., Any]], Any]:
    """Compile on first call, once for each dtype; keep on disk; divide by zero as IEEE says; let go of the GIL."""

    def decorate(function: Callable[..., Any]) -> Any:
        compiled = numba.njit(nogil=nogil, error_model="numpy", fastmath=set(flags), inline=inline)(function)
        return code_cache.keep(compiled, function, KEPT_IN)

    return decorate


def inlined(function: Callable[..., Any]) -> Any:
    """A few lines that one or two kernels call: part of each, and not compiled apart. Of many, `cpu_kernel`: each copy
    is compiled anew.
    """
    return cpu_kernel(inline="always")(function)


def native(signature: Any, function: Callable[..., Any]) -> int:
    """Compile `function` now, to be called from kernels by its address, which is returned; see `calls`."""
    options = {"error_model": "numpy", "fastmath": set(FAST)}
    compiled: Any = CFunc(function, sigutils.normalize_signature(signature), locals={}, options=options)
    code_cache.keep(compiled, function, KEPT_IN).compile()
    _KEPT.append(compiled)
    return int(compiled.address)


_KEPT: list[Any] = []  # a compiled function goes with its object
