"""What is known of a device: who runs there, its state over the turns, and what its facts are compared with."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rnnbench.analysis.comparable import Side, differences
from rnnbench.analysis.devices import Span, held_back, on_gpu, span_of
from rnnbench.analysis.roofline import Peak, Rates, with_work
from rnnbench.analysis.stats import device_turn_seconds, turn_seconds
from rnnbench.contract import CUDA
from rnnbench.model import DType
from rnnbench.records.record import DeviceState
from tests.report.fake import case, check, contract, record

STATE = DeviceState("Made-up GPU 100", sm_mhz=1980, throttled="")


def test_a_contract_or_a_turn_tells_where_it_ran():
    asked = case("parity")
    on_cpu = check(asked, "numba", contract=contract("numba"))
    assert not on_gpu([on_cpu, record(asked, "numba", [1.0])])
    assert on_gpu([replace(on_cpu, contract=replace(on_cpu.contract, device=CUDA))])
    for seen in ({"device_ns": (5,)}, {"device_states": (STATE,)}, {"peak_device_bytes": 1}):
        assert on_gpu([record(asked, "cuda", [1.0], **seen)])


def test_device_time_leaves_out_the_same_warmups():
    turn = record(case("parity"), "cuda", [9e-6, 2e-6, 4e-6, 3e-6], warmup=1, device_ns=(8000, 1000, 3000, 2000))
    assert turn_seconds(turn) == pytest.approx(3e-6)
    assert device_turn_seconds(turn) == pytest.approx(2e-6)
    assert device_turn_seconds(replace(turn, device_ns=())) is None


def test_states_over_turns():
    states = [STATE, replace(STATE, sm_mhz=None, throttled=None), replace(STATE, sm_mhz=1500, throttled="power cap")]
    assert span_of(states, "sm_mhz") == Span(1500, 1980)
    assert span_of(states, "celsius") == Span(None, None)
    assert held_back(states) == {"power cap": 1}


def test_a_gpu_has_no_share_of_the_processors_peak():
    peak = Peak("made up", {DType.FLOAT32: (Rates(1, 1e9, 1e9, 1e9),)})
    asked = case("parity")
    assert with_work(record(asked, "numba", [1e-3]), peak).share_of_peak > 0
    turn = with_work(record(asked, "cuda", [1e-3], device_ns=(900_000,)), peak)
    assert turn.share_of_peak is None
    assert turn.flops > 0


def test_another_driver_makes_two_gpus_unlike_and_no_two_processors():
    def side(driver, **fields):
        turn = record(case("parity"), "some", [1e-3], machine_id=driver, **fields)
        return Side([turn], {"cpu": {"model": "one"}, "gpu": {"driver": driver}})

    assert differences("some", side("580"), side("590")) == []
    found = differences("some", side("580", device_ns=(900_000,)), side("590", device_ns=(900_000,)))
    assert found == ["gpu driver 580 / 590"]
