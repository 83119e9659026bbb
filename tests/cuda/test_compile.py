"""Every kernel compiles for GPUs that are not here: registers under a cap, no spills, no float64 in float32 kernels.

The simulator infers no types, so both checks are needed. Skipped where numba-cuda and its tools are not installed:
pip install -e '.[cuda]' nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm.
"""

from __future__ import annotations

import pytest

from rnnbench.kernels.cuda import device
from rnnbench.kernels.cuda.plan import Plan
from tests.cuda.catalogue import catalogue
from tests.cuda.compiling import compile_for, missing

if device.simulated():
    pytest.skip("the simulator compiles nothing", allow_module_level=True)
if reason := missing():
    pytest.skip(reason, allow_module_level=True)

FLOAT32, FLOAT64 = ({entry.name: entry for entry in catalogue(dtype, Plan())} for dtype in ("float32", "float64"))


@pytest.mark.parametrize("cc", [(8, 0), (9, 0, "a")], ids=["sm_80", "sm_90a"])
@pytest.mark.parametrize("name", FLOAT32)
def test_float32(name, cc, tmp_path):
    entry = FLOAT32[name]
    made = compile_for(entry.kernel, entry.signature, cc, tmp_path)
    assert made.float64 == ()
    assert made.local_bytes == 0
    assert made.registers <= entry.most_registers


@pytest.mark.parametrize("name", FLOAT64)
def test_float64(name, tmp_path):
    """Right, not fast: it compiles, and does compute in float64."""
    entry = FLOAT64[name]
    made = compile_for(entry.kernel, entry.signature, (9, 0, "a"), tmp_path)
    assert made.float64
