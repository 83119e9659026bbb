"""A run on a machine with no device: `cuda` is unavailable, for a reason, and the others are measured."""

from __future__ import annotations

import pytest

from rnnbench import backends
from rnnbench.kernels.cuda import device
from rnnbench.records import store
from rnnbench.records.record import Status, turns_in
from tests.calling import called


@pytest.mark.skipif(device.simulated(), reason="the simulator is a device")
def test_a_run_goes_on_without_a_device(tmp_path):
    reason = device.unusable(device.probe())
    if reason is None:
        pytest.skip("there is a device")
    folder = tmp_path / "run"
    called("run", "-b", "numpy,cuda", "-w", "parity", "--quick", "--pass", "forward", "-o", folder, code=0)
    records = store.load_run(folder).records
    assert {r.status for r in turns_in(records) if r.backend == "numpy"} == {Status.OK}
    assert any(r.samples_ns for r in turns_in(records) if r.backend == "numpy")
    (absent,) = (r for r in records if r.backend == "cuda")
    assert absent.status is Status.UNAVAILABLE
    assert absent.reason == (backends.missing("cuda") or reason)
    assert "\n" not in absent.reason
    assert "(cuda unavailable)" in (folder / "report.md").read_text()
