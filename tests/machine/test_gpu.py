"""What is asked of an NVIDIA driver, and that nothing fails where it does not answer."""

from __future__ import annotations

import json
import sys

import msgspec
import pytest

from rnnbench import backends
from rnnbench.contract import CUDA
from rnnbench.harness.clock import Turn
from rnnbench.harness.plan import EFFORTS, Effort
from rnnbench.machine import gpu
from rnnbench.machine.fingerprint import fingerprint
from rnnbench.model import Pass
from rnnbench.records.record import CheckRecord, DeviceState, Mode, Record, Status, TurnRecord, turns_in
from tests.harness.test_run_loop import Listener, loop_of, plan_of, task_of
from tests.machine.fake_gpu import FakeNvml, NVMLError


@pytest.fixture
def driver(monkeypatch):
    """Put a made-up driver in the place of the real one, or none."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def install(**answers):
        monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(**answers))
        return sys.modules["pynvml"]

    return install


def test_a_state_has_what_the_driver_tells(driver):
    nvml = driver()
    state = gpu.first().state()
    assert state == DeviceState("Made-up GPU 100", "580.65.06", 1980, 2619, 41, 123.456, "")
    assert ("nvmlDeviceGetHandleByIndex", 0) in nvml.asked


@pytest.mark.parametrize(
    ("bits", "said"),
    [
        (0x0, ""),
        (0x1, ""),  # idle
        (0x4, "power cap"),
        (0x1 | 0x20 | 0x40, "software thermal slowdown, hardware thermal slowdown"),
        (NVMLError("not supported"), None),
    ],
)
def test_why_a_clock_is_held_back(driver, bits, said):
    driver(nvmlDeviceGetCurrentClocksEventReasons=bits)
    assert gpu.first().state().throttled == said


def test_older_modules_have_another_name_for_it(driver):
    driver(nvmlDeviceGetCurrentClocksEventReasons=None, nvmlDeviceGetCurrentClocksThrottleReasons=0x8)
    assert gpu.first().state().throttled == "hardware slowdown"


def test_what_a_driver_refuses_is_none_and_nothing_else_is_lost(driver):
    refused = NVMLError("not supported")
    driver(
        nvmlDeviceGetPowerUsage=refused, nvmlDeviceGetTemperature=refused, nvmlDeviceGetEccMode=refused,
        nvmlDeviceGetMemoryInfo=refused, nvmlDeviceGetMigMode=None, nvmlDeviceGetEnforcedPowerLimit=refused,
        nvmlDeviceGetCudaComputeCapability=refused, nvmlSystemGetCudaDriverVersion_v2=refused,
    )  # fmt: skip
    state, facts = gpu.first().state(), gpu.gpu_facts()
    assert (state.watts, state.celsius, state.sm_mhz) == (None, None, 1980)
    unknown = {name for name, value in facts.items() if value is None}
    assert unknown == {"memory_bytes", "ecc", "mig", "compute_capability", "cuda", "power_limit_watts"}


def test_the_facts_of_a_gpu_are_json(driver):
    driver()
    facts = gpu.gpu_facts()
    assert json.loads(json.dumps(facts)) == facts
    assert facts == {
        "name": "Made-up GPU 100", "driver": "580.65.06", "cuda": "13.1", "memory_bytes": 80 << 30,
        "compute_capability": "9.0", "ecc": True, "persistence": False, "mig": False, "most_sm_mhz": 1980,
        "power_limit_watts": 700.0, "count": 2,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("visible", "handle"), [("1,0", "gpu 1"), ("GPU-5d", "gpu GPU-5d"), ("0", "gpu 0"), (" 2 ", "gpu 2")]
)
def test_the_gpu_is_the_one_that_cuda_gives_first(driver, monkeypatch, visible, handle):
    driver()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpu.first().handle == handle


def test_without_module_driver_or_device_nothing_is_known_and_nothing_fails(driver, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert gpu.gpu_facts() is None
    without = fingerprint()
    assert without["gpu"] is None
    driver(nvmlInit=NVMLError("driver not loaded"))
    assert gpu.first() is None
    driver(nvmlDeviceGetHandleByIndex=NVMLError("invalid argument"))
    assert gpu.first() is None
    driver()
    machine = fingerprint()
    assert machine["gpu"]["name"] == "Made-up GPU 100"
    assert machine["machine_id"] != without["machine_id"]


def test_device_times_states_and_memory_reach_the_record(tmp_path, monkeypatch, faulty_backends):
    entry = backends.Entry("tests.machine.fake_gpu:PretendsAGpu", (), None, "a processor under a GPU's contract")
    monkeypatch.setitem(backends.REGISTRY, "gpu-like", entry)
    monkeypatch.setitem(EFFORTS, Mode.QUICK, Effort(launches=1, rounds=1, turn=Turn(0.01, 2, 4)))
    records: list[Record] = []
    tasks = [task_of(passes=(Pass.FORWARD,))]
    loop_of(plan_of("gpu-like", "numpy"), tasks, tmp_path, records.append, Listener(), run_id="r", machine_id="m").run()
    assert {r.status for r in records} == {Status.OK}
    check, turn = (r for r in records if r.backend == "gpu-like")
    assert isinstance(check, CheckRecord)
    assert check.contract.device == CUDA
    assert check.peak_device_bytes == turn.peak_device_bytes == 5 << 20
    assert turn.device_ns == (700,) * len(turn.samples_ns)
    assert [s.sm_mhz for s in turn.device_states] == [1980, 1980]
    assert msgspec.json.decode(msgspec.json.encode(turn), type=TurnRecord) == turn
    other = next(r for r in turns_in(records) if r.backend == "numpy")
    assert (other.device_ns, other.device_states, other.peak_device_bytes) == ((), (), None)
