"""What a worker says of itself."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from rnnbench.measure.worker import peak_memory


def test_peak_memory_grows_with_what_was_touched():
    before = peak_memory()
    np.ones(before, np.uint8)
    assert before > 1 << 20
    assert peak_memory() >= 2 * before - (1 << 24)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere the parent's share cannot be left out")
def test_peak_memory_of_a_worker_leaves_out_its_parent():
    kept = np.ones(1 << 29, np.uint8)
    script = "from rnnbench.measure.worker import peak_memory; print(peak_memory())"
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert int(printed) < kept.nbytes / 2
