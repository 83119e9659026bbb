"""Every kernel compiles for GPUs that are not here, within its cap of registers and with nothing in local memory.

The simulator infers no types, so both checks are needed. Of entries whose names differ in numbers alone the one with
the highest cap is compiled, all of them with --every-case. `make test-compile` installs what this takes; elsewhere it
is skipped.
"""

from __future__ import annotations

import re
from collections import Counter

import numba
import pytest
from numba import cuda, types

from rnnbench.kernels.cuda import device
from rnnbench.kernels.cuda.plan import LaunchPlan
from tests.cuda.catalogue import BUDGETS, Entry, catalogue
from tests.cuda.compiling import (
    CAPABILITIES,
    SPILL,
    Compiled,
    compile_for,
    faults,
    intermediate,
    linked,
    loops_of,
    missing,
    over_budget,
    stretches_of,
)

if device.simulated():
    pytest.skip("the simulator compiles nothing", allow_module_level=True)
if reason := missing():
    pytest.skip(reason, allow_module_level=True)

FLOAT32, FLOAT64 = ({entry.name: entry for entry in catalogue(dtype, LaunchPlan())} for dtype in ("float32", "float64"))
VECTOR = types.Array(numba.float32, 1, "C")
IN_FLOAT64 = ("forward", "backward", "times_transposed", "adam")  # compiled in float64 by default: no caps there


def one_of_each(entries: dict[str, Entry]) -> list[str]:
    """Names of the entries with a budget, and of those with the highest cap where names differ in numbers alone."""
    chosen: dict[str, Entry] = {}
    for entry in entries.values():
        kind = re.sub(r"\d+", "#", entry.name)
        if kind not in chosen or entry.max_registers >= chosen[kind].max_registers:
            chosen[kind] = entry
    picked = {entry.name for entry in chosen.values()}
    return [entry.name for entry in entries.values() if entry.name in picked or entry.budget]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    every = metafunc.config.getoption("--every-case")
    if "name32" in metafunc.fixturenames:
        metafunc.parametrize("name32", list(FLOAT32) if every else one_of_each(FLOAT32))
    if "name64" in metafunc.fixturenames:
        usual = [name for name in one_of_each(FLOAT64) if name.split()[0] in IN_FLOAT64]
        metafunc.parametrize("name64", list(FLOAT64) if every else usual)


# Registers and instructions for sm_120 are others, as it makes pairs of multiply-adds: how many more it may take
MORE = {"sm_120a": (24, 0.15)}


def test_float32(name32, tmp_path):
    """For all three: what comes before machine code is the same, and takes most of the time."""
    entry = FLOAT32[name32]
    parts, found = intermediate(entry.kernel, entry.signature), []
    for arch in CAPABILITIES:
        made = linked(parts, arch, tmp_path)
        registers, each = MORE.get(arch, (0, 0.0))
        said = faults(made, min(255, entry.max_registers + registers), entry.wide)
        budget = entry.budget and entry.budget + each
        said += over_budget(made, entry.multiply_adds, budget, barriers="spread" in entry.name)
        found += [f"{arch}: {text}" for text in said]
    assert found == []


@pytest.mark.parametrize("arch", ["sm_90a", "sm_120a"])
def test_what_is_linked_for_a_later_device_is_what_is_compiled_for_it(arch, tmp_path):
    entry = FLOAT32["times_transposed"]
    made = linked(intermediate(entry.kernel, entry.signature), arch, tmp_path)
    assert made == compile_for(entry.kernel, entry.signature, arch, tmp_path)


def test_float64(name64, tmp_path):
    """Right, not fast: it compiles, and does compute in float64."""
    entry = FLOAT64[name64]
    made = compile_for(entry.kernel, entry.signature, "sm_90a", tmp_path)
    assert made.float64


def test_a_cap_stands_for_every_kernel_and_is_no_more_than_a_thread_can_have():
    assert all(0 < entry.max_registers <= 255 for entry in FLOAT32.values())
    assert len(one_of_each(FLOAT32)) < len(FLOAT32)
    assert set(BUDGETS) <= set(FLOAT32)


def made_of(body, *arguments, folder) -> Compiled:
    """A kernel of one array and these arguments, compiled for sm_90a."""
    kernel = cuda.jit(body)
    return compile_for(kernel, types.void(VECTOR, *arguments), "sm_90a", folder)


def test_a_float64_constant_is_reported(tmp_path):
    def kernel(x):
        x[cuda.grid(1)] = x[cuda.grid(1)] * 1.1

    found = faults(made_of(kernel, folder=tmp_path), 255)
    assert len(found) == 1
    assert re.search(r"DMUL.* in a float32 kernel", found[0])


def test_a_spill_is_reported(tmp_path):
    def kernel(x):
        kept = cuda.local.array(300, numba.float32)  # more than there are registers
        for k in range(300):
            kept[k] = x[k]
        cuda.syncthreads()
        for k in range(300):
            x[k] = kept[299 - k]

    made = made_of(kernel, folder=tmp_path)
    assert {name.partition(".")[0] for name in made.matching(SPILL)} == {"LDL", "STL"}
    found = faults(made, 255)
    assert re.search(r"^\d+ bytes of a thread in memory", found[0])
    assert "local memory is read or written" in found[1]


def test_registers_over_the_cap_and_narrow_loads_are_reported(tmp_path):
    def kernel(x):
        i = cuda.grid(1)
        if i < x.shape[0]:
            x[i] += numba.float32(1)

    made = made_of(kernel, folder=tmp_path)
    assert faults(made, made.registers) == []
    assert faults(made, made.registers - 1) == [f"{made.registers} registers; the cap is {made.registers - 1}"]
    assert faults(made, 255, ("LDG",))[0].startswith("no 128-bit LDG")


LISTING = """
        /*0000*/ MOV R1, R2 ;
.L_outer:
        /*0010*/ LDS R1, [R2] ;
        /*0020*/ @P0 BRA `(.L_else) ;
        /*0030*/ FADD R1, R1, R1 ;
        /*0040*/ FADD R1, R1, R1 ;
        /*0050*/ BRA `(.L_inner) ;
.L_else:
        /*0060*/ FADD R1, R1, R1 ;
.L_inner:
        /*0070*/ FFMA R1, R1, R1, R1 ;
        /*0080*/ FFMA2 R1, R1, R1, R1 ;
        /*0090*/ @P1 BRA `(.L_inner) ;
        /*00a0*/ @P2 BRA `(.L_outer) ;
.L_end:
        /*00b0*/ BRA `(.L_end);
"""


@pytest.mark.parametrize("branch", ["@P0 BRA", "@!UP0 BRA", "BRA.U UP0,", "BRA.U !UP0,", "BRA P0,"])
def test_a_branch_with_a_condition_may_go_on(branch):
    assert loops_of(LISTING.replace("@P0 BRA", branch)) == loops_of(LISTING)


def test_loops_are_read_and_counted_by_their_longest_way():
    loops = [(x.last - x.first, x.length, x.multiply_adds) for x in loops_of(LISTING)]
    assert loops == [(3, 3, 3), (10, 9, 3)]
    made = Compiled(32, 0, Counter(), loops_of(LISTING))
    assert made.per_multiply_add(3) == 3 / 3
    assert made.per_multiply_add(9) == (9 + 2 * 3) / 9  # the inner loop three times
    assert over_budget(made, 9, 1.6) == ["1.67 instructions for a multiply-add; the budget is 1.6"]
    assert over_budget(made, 9, 1.7) == []
    with pytest.raises(ValueError, match="no loop makes 4"):
        Compiled(32, 0, Counter(), made.loops[:1]).per_multiply_add(4)


def test_what_stands_between_barriers_is_counted():
    stretches = stretches_of("FADD R1, R1, R1 ;\nBAR.SYNC.DEFER_BLOCKING 0x0 ;\n" + LISTING)
    assert stretches == ((1, 0), (13, 3))
    made = Compiled(32, 0, Counter(), stretches=stretches)
    assert over_budget(made, 2, 4.4, barriers=True) == []
    assert over_budget(made, 3, 4.3, barriers=True) == ["4.33 instructions for a multiply-add; the budget is 4.3"]
    with pytest.raises(ValueError, match="no stretch between barriers has 6"):
        made.between_barriers(6)


@pytest.mark.parametrize(
    ("opcodes", "said"),
    [
        (["F2F.F64.F32"], "float32 kernel"),
        (["MUFU.RCP64H"], "float32 kernel"),
        (["DSETP.GT.AND"], "float32 kernel"),
        (["LDL.LU"], "local memory"),
        (["STL.64"], "local memory"),
        (["LDG.E.64", "LDS.64", "FMUL.FTZ", "MUFU.RCP", "IMAD.WIDE.U32"], None),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_opcodes(opcodes, said):
    found = faults(Compiled(32, 0, Counter(opcodes)), 255)
    assert len(found) == (said is not None)
    assert said is None or said in found[0]
