"""The loops that ceilings are measured with do the work that they are credited with."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from rnnbench.kernels.cpu import peak
from rnnbench.kernels.cpu.simd import EXPLICIT

DTYPES = ("float32", "float64")


def every_sum_has_every_step() -> None:
    for dtype in DTYPES:
        for n in (1, 2, 7, 20):
            out = np.zeros(peak.numbers(dtype) + 1, dtype)
            out[-1] = np.nan  # behind the last sum
            peak.multiply_adds(out, n)
            assert (out[:-1] == 1 - 0.5**n).all(), (dtype, n, out)
            assert np.isnan(out[-1])
            assert peak.trial(dtype, n) == 2 * n * (out.size - 1)


@pytest.mark.skipif(not EXPLICIT, reason="there are no vectors by hand on this processor")
def test_every_sum_has_every_step():
    every_sum_has_every_step()


@pytest.mark.skipif(not EXPLICIT, reason="there are no vectors by hand on this processor")
@pytest.mark.parametrize("bytes_", ["16", "32", "64"])
def test_vectors_of_other_widths(bytes_, tmp_path):
    env = {**os.environ, "RNNBENCH_REGISTER_BYTES": bytes_, "NUMBA_CACHE_DIR": str(tmp_path)}
    code = "from tests.kernels.test_peak import every_sum_has_every_step as check; check()"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 31, 1000])
def test_memory_loops_touch_every_number(dtype, size):
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 100, size).astype(dtype) for _ in range(2))
    assert peak.read_all(a) == a.sum()
    out = np.empty(size, dtype)
    peak.fill(out, out.dtype.type(3))
    assert (out == 3).all()
    peak.triad(out, a, b, out.dtype.type(0.5))
    assert (out == a + b / 2).all()
