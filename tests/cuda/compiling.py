"""Compile a kernel for a GPU that is not here, and read what came out: registers, spills, float64 instructions."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

# Of SASS: double-precision arithmetic, comparisons, conversions, and the two halves of its reciprocals.
FLOAT64 = re.compile(r"\b(D(?:ADD|MUL|FMA|SETP|MNMX|MMA)\b\S*|\S+\.F64\b\S*|MUFU\.(?:RCP|RSQ)64H)")


@dataclass(frozen=True)
class Compiled:
    """What the assembler made of a kernel."""

    registers: int
    local_bytes: int  # of a thread, in memory: arrays that are not in registers, and spills
    float64: tuple[str, ...]  # instructions


def missing() -> str | None:
    """Why nothing can be compiled here, or None."""
    from numba import cuda

    if getattr(cuda, "implementation", "") != "NVIDIA":
        return "numba-cuda is not installed"
    absent = [name for name in ("cuobjdump", "nvdisasm") if tool(name) is None]
    return f"{', '.join(absent)} not found; pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm" if absent else None


def tool(name: str) -> str | None:
    """A program of the toolkit, on the path or among the installed packages."""
    installed = [path for entry in sys.path for path in Path(entry or ".").glob(f"nvidia/*/bin/{name}")]
    return shutil.which(name) or (str(installed[0]) if installed else None)


@contextmanager
def device_of(cc: tuple[int, int]) -> Iterator[None]:
    """Device functions are compiled for the current device: answer for it."""
    from numba.cuda import compiler, dispatcher

    device = SimpleNamespace(compute_capability=cc)
    with ExitStack() as stack:
        for module in (compiler, dispatcher):
            stack.enter_context(mock.patch.object(module, "get_current_device", return_value=device))
        yield


def compile_for(kernel, signature, cc: tuple[int, int, str] | tuple[int, int], folder: Path) -> Compiled:
    """A dispatcher's kernel for one signature and compute capability, through to the cubin."""
    from cuda.core import Linker, LinkerOptions, ObjectCode
    from numba import cuda

    arch = f"sm_{''.join(str(part) for part in cc)}"
    with device_of(cc):
        codes, _ = cuda.compile_all(
            kernel.py_func,
            signature,
            device=False,
            abi="numba",
            cc=cc,
            output="ltoir",
            launch_bounds=kernel.targetoptions.get("launch_bounds"),
        )
    parts = [code if isinstance(code, ObjectCode) else ObjectCode.from_ltoir(code) for code in codes]
    linked = Linker(*parts, options=LinkerOptions(arch=arch, link_time_optimization=True)).link("cubin")
    path = folder / f"{arch}.cubin"
    path.write_bytes(linked.code)
    return read(path)


def read(cubin: Path) -> Compiled:
    """Registers, local memory and float64 instructions of the one kernel in a cubin."""
    usage = _said("cuobjdump", "--dump-resource-usage", str(cubin))
    numbers = {name: int(value) for name, value in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", usage)}
    code = _said("nvdisasm", "-c", str(cubin))
    assert "EXIT" in code, "no instructions were read"
    return Compiled(numbers["REG"], numbers["STACK"] + numbers["LOCAL"], tuple(sorted(set(FLOAT64.findall(code)))))


def _said(name: str, *arguments: str) -> str:
    program = tool(name)
    assert program is not None
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=True).stdout
