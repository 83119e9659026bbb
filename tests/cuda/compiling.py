"""Compile a kernel for a GPU that is not here, read what came out, and say what is wrong with it.

What is read: registers, memory of a thread (arrays that are not in registers, spills), opcodes, loops.
"""

from __future__ import annotations

import math
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

OPCODE = re.compile(r"^\s*(?:/\*[0-9a-f]+\*/)?\s*(?:\{\s*)?(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_]*(?:\.\w+)*)", re.MULTILINE)
# Of SASS: double-precision arithmetic, comparisons, conversions, and the two halves of its reciprocals.
FLOAT64 = re.compile(r"D(?:ADD|MUL|FMA|SETP|MNMX|MMA)\b|\S+\.F64\b|MUFU\.(?:RCP|RSQ)64H")
LABEL = re.compile(r"^(\.L\w+):", re.MULTILINE)
BRANCH = re.compile(r"\bBRA\S*\s.*?`\((\.L\w+)\)")
MULTIPLY_ADD = re.compile(r"[FD]FMA\b|FFMA2\b")
SPILL = re.compile(r"(?:LDL|STL)\b")
WIDE = re.compile(r"(LDS|LDG|STS|STG)(?:\.\w+)*\.128\b")


@dataclass(frozen=True)
class Loop:
    """What stands between a label and the branch back to it, other loops included: places, and opcodes at each."""

    first: int
    last: int
    opcodes: tuple[str, ...]

    @property
    def multiply_adds(self) -> int:
        """Those of a thread; one instruction of Blackwell's makes two."""
        return sum(2 if name.startswith("FFMA2") else 1 for name in self.opcodes if MULTIPLY_ADD.match(name))

    def instructions(self, multiply_adds: int, loops: Sequence[Loop]) -> int:
        """Of one turn that makes so many multiply-adds. A loop inside is taken as often as their number needs.

        Both sides of a branch count, so it is a little more than a warp issues.
        """
        within = [x for x in loops if self.first <= x.first and x.last < self.last and x.multiply_adds]
        if not within:
            return len(self.opcodes)
        inner = max(within, key=lambda x: x.multiply_adds)
        rest = self.multiply_adds - inner.multiply_adds
        turns = max(1, math.ceil((multiply_adds - rest) / inner.multiply_adds))
        return len(self.opcodes) + (turns - 1) * len(inner.opcodes)


@dataclass(frozen=True)
class Compiled:
    """What the assembler made of a kernel. `opcodes`: how often each stands in the code."""

    registers: int
    local_bytes: int  # of a thread, in memory: arrays that are not in registers, and spills
    opcodes: Counter[str]
    loops: tuple[Loop, ...] = ()  # the shortest first

    def per_multiply_add(self, multiply_adds: int) -> float:
        """Instructions of the loop that makes so many multiply-adds in a turn, for each of them.

        That is the shortest loop with as many, or with a loop inside that can have made them.
        """
        for loop in self.loops:
            inside = any(loop.first <= x.first and x.last < loop.last and x.multiply_adds for x in self.loops)
            if loop.multiply_adds >= multiply_adds or (inside and loop.multiply_adds):
                return loop.instructions(multiply_adds, self.loops) / multiply_adds
        raise ValueError(f"no loop makes {multiply_adds} multiply-adds; it was unrolled, or its label was not read")

    def matching(self, pattern: re.Pattern[str]) -> list[str]:
        """The opcodes that begin so, in order."""
        return sorted(name for name in self.opcodes if pattern.match(name))

    @property
    def float64(self) -> list[str]:
        """Opcodes that compute in double precision."""
        return self.matching(FLOAT64)

    @property
    def wide(self) -> frozenset[str]:
        """Which of LDS, LDG, STS and STG move 128 bits at least once."""
        return frozenset(found[1] for name in self.opcodes if (found := WIDE.match(name)))


def faults(made: Compiled, max_registers: int, wide: Sequence[str] = ()) -> list[str]:
    """What is wrong with a float32 kernel, a sentence each. `wide`: of LDS, LDG, those that must move 128 bits."""
    found = []
    if made.registers > max_registers:
        found.append(f"{made.registers} registers; the cap is {max_registers}")
    if made.local_bytes:
        found.append(f"{made.local_bytes} bytes of a thread in memory; arrays and spills are to take none")
    if spills := made.matching(SPILL):
        found.append(f"{', '.join(spills)}: local memory is read or written; it is to be registers")
    if made.float64:
        found.append(f"{', '.join(made.float64)} in a float32 kernel; write its constants as float32")
    if narrow := sorted(set(wide) - made.wide):
        found.append(f"no 128-bit {', '.join(narrow)}; look at the alignment, and at the type of the index")
    return found


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
    """Registers, local memory and opcodes of the one kernel in a cubin."""
    usage = _said("cuobjdump", "--dump-resource-usage", str(cubin))
    numbers = {name: int(value) for name, value in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", usage)}
    code = _said("nvdisasm", "-c", str(cubin))
    opcodes = Counter(OPCODE.findall(code))
    assert "EXIT" in opcodes, "no instructions were read"
    return Compiled(numbers["REG"], numbers["STACK"] + numbers["LOCAL"], opcodes, loops_of(code))


def loops_of(code: str) -> tuple[Loop, ...]:
    """The loops of a listing: a branch to a label above it ends one. Of several to the same label the last does."""
    opcodes: list[str] = []
    labels: dict[str, int] = {}
    found: dict[int, int] = {}
    for line in code.splitlines():
        if label := LABEL.match(line):
            labels[label[1]] = len(opcodes)
        elif opcode := OPCODE.match(line):
            opcodes.append(opcode[1])
            if (branch := BRANCH.search(line)) and branch[1] in labels:
                found[labels[branch[1]]] = len(opcodes)
    loops = [Loop(first, last, tuple(opcodes[first:last])) for first, last in found.items()]
    return tuple(sorted((x for x in loops if len(x.opcodes) > 1), key=lambda x: len(x.opcodes)))


def _said(name: str, *arguments: str) -> str:
    program = tool(name)
    assert program is not None
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=True).stdout
