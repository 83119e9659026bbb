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
from typing import Any
from unittest import mock

OPCODE = re.compile(r"^\s*(?:/\*[0-9a-f]+\*/)?\s*(?:\{\s*)?(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_]*(?:\.\w+)*)", re.MULTILINE)
# Of SASS: double-precision arithmetic, comparisons, conversions, and the two halves of its reciprocals.
FLOAT64 = re.compile(r"D(?:ADD|MUL|FMA|SETP|MNMX|MMA)\b|\S+\.F64\b|MUFU\.(?:RCP|RSQ)64H")
LABEL = re.compile(r"^(\.L\w+):", re.MULTILINE)
BRANCH = re.compile(r"\bBRA\S*\s.*?`\((\.L\w+)\)")
CONDITION = re.compile(r"@.*\bBRA|\bBRA\S*\s+!?U?P\d")  # of a branch: before it, or behind, as that of `BRA.U` is
MULTIPLY_ADD = re.compile(r"[FD]FMA\b|FFMA2\b")
SPILL = re.compile(r"(?:LDL|STL)\b")
WIDE = re.compile(r"(LDS|LDG|STS|STG)(?:\.\w+)*\.128\b")


@dataclass(frozen=True)
class Loop:
    """What stands between a label and the branch back to it, other loops included: first place and the one behind.

    `length`: instructions of the longest way through, on which a loop inside is taken once.
    """

    first: int
    last: int
    length: int
    multiply_adds: int  # of a thread, on all ways

    def holds(self, other: Loop) -> bool:
        """Whether the other one is inside."""
        return self.first <= other.first and other.last < self.last


@dataclass(frozen=True)
class Compiled:
    """What the assembler made of a kernel. `opcodes`: how often each stands in the code."""

    registers: int
    local_bytes: int  # of a thread, in memory: arrays that are not in registers, and spills
    opcodes: Counter[str]
    loops: tuple[Loop, ...] = ()  # the shortest first
    stretches: tuple[tuple[int, int], ...] = ()  # instructions and multiply-adds between two barriers in the code

    def between_barriers(self, multiply_adds: int) -> float:
        """Instructions for a multiply-add, the most in any stretch that has so many of them or more."""
        found = [length / made for length, made in self.stretches if made >= multiply_adds]
        if not found:
            raise ValueError(f"no stretch between barriers has {multiply_adds} multiply-adds")
        return max(found)

    def per_multiply_add(self, multiply_adds: int) -> float:
        """Instructions of the loop that makes so many multiply-adds in a turn, for each of them.

        The shortest loop with as many, or one with a loop inside, which is taken as often as is needed for them.
        """
        for loop in self.loops:
            inner = max((x for x in self.loops if loop.holds(x)), key=lambda x: x.multiply_adds, default=None)
            if loop.multiply_adds >= multiply_adds:
                return loop.length / multiply_adds
            if inner and inner.multiply_adds:
                more = math.ceil((multiply_adds - loop.multiply_adds) / inner.multiply_adds)
                return (loop.length + more * inner.length) / multiply_adds
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


def over_budget(made: Compiled, multiply_adds: int, budget: float, *, barriers: bool = False) -> list[str]:
    """What is wrong with the loop that makes so many multiply-adds in a turn, where there is a budget for it.

    `barriers`: with what has so many of them between two barriers, as a loop or written out.
    """
    if not budget:
        return []
    each = made.between_barriers(multiply_adds) if barriers else made.per_multiply_add(multiply_adds)
    return [f"{each:.2f} instructions for a multiply-add; the budget is {budget}"] if each > budget else []


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


CAPABILITIES = {"sm_80": (8, 0), "sm_90a": (9, 0, "a"), "sm_120a": (12, 0, "a")}


def intermediate(kernel, signature, arch: str = "sm_80") -> list[Any]:
    """What a dispatcher's kernel is for one signature before it is machine code of this architecture or a later one."""
    from cuda.core import ObjectCode
    from numba import cuda

    with device_of(CAPABILITIES[arch][:2]):
        codes, _ = cuda.compile_all(
            kernel.py_func,
            signature,
            device=False,
            abi="numba",
            cc=CAPABILITIES[arch],
            output="ltoir",
            launch_bounds=kernel.targetoptions.get("launch_bounds"),
        )
    return [code if isinstance(code, ObjectCode) else ObjectCode.from_ltoir(code) for code in codes]


def linked(parts: list[Any], arch: str, folder: Path) -> Compiled:
    """Through to the cubin, in which the machine code is made; it is left in the folder."""
    from cuda.core import Linker, LinkerOptions

    made = Linker(*parts, options=LinkerOptions(arch=arch, link_time_optimization=True)).link("cubin")
    path = folder / f"{arch}.cubin"
    path.write_bytes(made.code)
    return read(path)


def compile_for(kernel, signature, arch: str, folder: Path) -> Compiled:
    """A dispatcher's kernel for one signature and architecture, as a device has it."""
    return linked(intermediate(kernel, signature, arch), arch, folder)


def read(cubin: Path) -> Compiled:
    """Registers, local memory and opcodes of the one kernel in a cubin."""
    usage = _said("cuobjdump", "--dump-resource-usage", str(cubin))
    numbers = {name: int(value) for name, value in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", usage)}
    code = _said("nvdisasm", "-c", str(cubin))
    opcodes = Counter(OPCODE.findall(code))
    assert "EXIT" in opcodes, "no instructions were read"
    local = numbers["STACK"] + numbers["LOCAL"]
    return Compiled(numbers["REG"], local, opcodes, loops_of(code), stretches_of(code))


def stretches_of(code: str) -> tuple[tuple[int, int], ...]:
    """Instructions and multiply-adds of a listing between each two barriers of a block."""
    found = [(0, 0)]
    for opcode in OPCODE.findall(code):
        length, made = (0, 0) if opcode.startswith("BAR") else found.pop()
        found.append((length + 1, made + _multiply_adds(opcode)))
    return tuple(found)


def loops_of(code: str) -> tuple[Loop, ...]:
    """The loops of a listing: a branch to a label above it ends one. Of several to the same label the last does."""
    opcodes, labels, branches = list[str](), dict[str, int](), dict[int, tuple[str, bool]]()
    for line in code.splitlines():
        if label := LABEL.match(line):
            labels[label[1]] = len(opcodes)
        elif opcode := OPCODE.match(line):
            if branch := BRANCH.search(line):
                branches[len(opcodes)] = branch[1], CONDITION.search(line) is not None
            opcodes.append(opcode[1])
    ends = {labels[label]: at + 1 for at, (label, _) in branches.items() if labels[label] < at}
    loops = [
        Loop(first, last, length, sum(map(_multiply_adds, opcodes[first:last])))
        for first, last in ends.items()
        if (length := _longest(first, last, labels, branches))
    ]
    return tuple(sorted(loops, key=lambda loop: loop.last - loop.first))


def _multiply_adds(opcode: str) -> int:
    """Of a thread; one instruction of Blackwell's makes two."""
    return (2 if opcode.startswith("FFMA2") else 1) if MULTIPLY_ADD.match(opcode) else 0


def _longest(first: int, last: int, labels: dict[str, int], branches: dict[int, tuple[str, bool]]) -> int | None:
    """Instructions on the longest way from first to the branch at last - 1, by branches that lead on; None where there
    is no way, as the loop goes through code that stands elsewhere.
    """
    length = {last: 0}
    for at in range(last - 1, first - 1, -1):
        label, may_stay = branches.get(at, ("", True))
        ways = [length.get(at + 1)] if may_stay else []
        if label and at < labels[label] < last:
            ways.append(length.get(labels[label]))
        if at == last - 1:
            ways.append(0)
        if lengths := [way for way in ways if way is not None]:
            length[at] = 1 + max(lengths)
    return length.get(first)


def _said(name: str, *arguments: str) -> str:
    program = tool(name)
    assert program is not None
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=True).stdout
