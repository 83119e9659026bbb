"""What a worker says of itself, and what comes back from it."""

from __future__ import annotations

import subprocess
import sys
import time
import weakref

import msgspec
import numpy as np
import pytest

from rnnbench.backends.base import Outputs
from rnnbench.backends.numpy import NumpySession
from rnnbench.correctness.tolerances import arrays_of
from rnnbench.harness import arrays
from rnnbench.harness.operations import Operations
from tests.faulty import made_of
from tests.helpers import random_data, random_params, small_problem


def in_a_process(script: str) -> list[int]:
    script = f"import numpy as np; from rnnbench.harness.operations import peak_memory; {script}"
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    return [int(number) for number in printed.split()]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere the parent's share cannot be left out")
def test_peak_memory_grows_with_what_was_touched_and_does_not_shrink():
    before, full, freed = in_a_process(
        "print(peak_memory()); x = np.ones(1 << 27, np.uint8); print(peak_memory()); del x; print(peak_memory())"
    )
    loose = 1 << 22  # how the system counts pages
    assert (1 << 27) - loose <= full - before < (1 << 28)
    assert abs(freed - full) < loose


def test_states_come_back_from_a_worker_by_their_names(tmp_path):
    states = {name: np.full((2, 3), value) for name, value in (("h", 1.0), ("c", 2.0))}
    arrays.save_outputs(tmp_path / "outputs.npz", Outputs(loss=0.5, states=states))
    found = arrays.load_outputs(tmp_path / "outputs.npz")
    assert found.states.keys() == {"h", "c"}
    assert [name for name, _ in arrays_of(found)] == ["loss", "state", "state c"]
    np.testing.assert_array_equal(found.states["c"], states["c"])


def test_peak_memory_of_a_worker_leaves_out_its_parent():
    kept = np.ones(1 << 29, np.uint8)
    (peak,) = in_a_process("print(peak_memory())")
    assert peak < kept.nbytes / 2


READERS = """
import gc, sys, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from rnnbench.harness.arrays import load_outputs

sys.setswitchinterval(1e-6)
gc.set_threshold(1)
gc.callbacks.append(lambda phase, info: time.sleep(0))  # the others run in the middle of whatever allocates
with ThreadPoolExecutor(8) as threads:
    list(threads.map(lambda _: load_outputs(Path(sys.argv[1])), range(1000)))
"""


def test_several_threads_read_outputs_at_once(tmp_path):
    """Checks side by side do; NumPy's own reading fails there on Python 3.11, now and then."""
    outputs = Outputs(loss=0.5, grads={f"dW_{i}": np.zeros((2, 2)) for i in range(10)})
    arrays.save_outputs(tmp_path / "outputs.npz", outputs)
    command = [sys.executable, "-c", READERS, str(tmp_path / "outputs.npz")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_session_in_a_cycle_is_gone_once_another_is_prepared(tmp_path):
    """Its objects were frozen, so that no collection of a turn would have found it."""
    problem = small_problem()
    arrays.save_problem(tmp_path / "rows.npz", random_params(problem), random_data(problem))

    class InACycle(NumpySession):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.own = self

    for session in (NumpySession, InACycle):
        operations = Operations(made_of(session)(), 0)
        operations.prepare(msgspec.to_builtins(problem), str(tmp_path / "rows.npz"))
        operations.first("forward", None, str(tmp_path / "out.npz"))
        before = weakref.ref(operations.session)
        assert before() is not None
        operations.close()
        assert before() is None


def test_the_first_call_of_single_steps_holds_their_staging(tmp_path):
    """There weights are packed, and what is compiled is: nobody has a first step without it."""
    staging = 0.02
    problem = small_problem()
    arrays.save_problem(tmp_path / "rows.npz", random_params(problem), random_data(problem))

    class Stages(NumpySession):
        def begin_steps(self):
            time.sleep(staging)
            return super().begin_steps()

    operations = Operations(made_of(Stages)(), 0)
    operations.prepare(msgspec.to_builtins(problem), str(tmp_path / "rows.npz"))
    assert operations.first("step", None, str(tmp_path / "out.npz"))["first_call_ns"] >= staging * 1e9
    operations.close()
