"""`benchmarks/gpu.py` as on a machine with a GPU, over the stub driver: found, run in order, told and packed.

Kernels of the stub do nothing, so the first step must find every answer wrong, and say so.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from rnnbench.kernels.cuda import device
from tests.cuda import stub

if device.simulated() or stub.STUB is None:
    pytest.skip("over the stub driver alone: make test-compile", allow_module_level=True)

COMMAND = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu.py"


def test_wrong_answers_fail_the_first_step_and_all_is_packed(tmp_path):
    folder = tmp_path / "results"
    command = [sys.executable, str(COMMAND), "-o", str(folder), "--only", "memcheck,smoke"]
    env = os.environ | {"PATH": str(tmp_path)}  # where there is no compute-sanitizer
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    said = done.stdout.splitlines()
    assert said[0].startswith("stub of an H200: results in ")
    assert [line.split()[0] for line in said if line.startswith(("smoke ", "memcheck "))] == ["smoke", "memcheck"]
    assert "AssertionError" in (folder / "logs" / "smoke.log").read_text()
    with tarfile.open(tmp_path / "results.tar.gz") as archive:
        kept = json.load(archive.extractfile("results/steps.json"))
        assert "results/logs/smoke.log" in archive.getnames()
    assert kept["device"]["name"] == "stub of an H200"
    assert {name: step["ending"] for name, step in kept["steps"].items()} == {"smoke": "failed", "memcheck": "left out"}
