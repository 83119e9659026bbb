"""What a session tells of the device: its memory, its clock."""

from __future__ import annotations

from rnnbench.backends.base import CPU, CUDA, Events
from rnnbench.backends.cuda import rule_of, sizes_of
from rnnbench.kernels.cuda import device
from rnnbench.kernels.cuda.buffers import bytes_needed
from rnnbench.model import DType
from tests.helpers import random_data, random_params, small_problem


def test_memory_on_the_device_is_that_of_every_array_once(one_backend):
    problem = small_problem(B=4, T=3, E=2, H=5, O=1, V=7, dtype=DType.FLOAT32)
    session = one_backend.prepare(problem, random_params(problem), random_data(problem, rows=14))
    parameters = 7 * 2 + 2 * 5 + 5 * 5 + 5 + 5 + 1
    rows = 14 * 3 * 4 + 14 * 4 + 4 + 14 * 8  # tokens, targets, no classes, the order
    rest = 4 * parameters + 2 * 4 * 4 + 4 * 5 * 4 + 4  # initial, losses and hits, zero state, the barrier's count
    rest += session.reverse.on_device.nbytes
    known = bytes_needed(sizes_of(problem), one_backend.plan, rule_of(problem).adam) + rows + rest
    assert session.peak_device_bytes() == known


def test_the_simulator_has_no_clock_and_no_gpu(one_backend):
    problem = small_problem(dtype=DType.FLOAT32)
    session = one_backend.prepare(problem, random_params(problem), random_data(problem))
    simulated = device.simulated()
    assert (session.device_clock() is None) is simulated
    assert one_backend.contract(problem).device == (CPU if simulated else CUDA)


def test_events_stand_around_the_call_and_are_read_in_nanoseconds(monkeypatch):
    recorded = []

    class Event:
        def record(self):
            recorded.append(self)

        def elapsed_time(self, end):
            return 0.125 if recorded == [self, end] else -1.0  # ms

    clock = Events(Event(), Event())
    clock.start()
    clock.stop()
    assert clock.nanoseconds() == 125_000
