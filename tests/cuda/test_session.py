"""What a session tells of the device: its memory, its clock."""

from __future__ import annotations

import numpy as np

from rnnbench.backends.base import Events
from rnnbench.backends.cuda import device_sizes, update_rule
from rnnbench.backends.cuda_graph import CudaGraphBackend
from rnnbench.contract import CPU, CUDA
from rnnbench.kernels.cuda import device
from rnnbench.kernels.cuda.buffers import device_bytes_needed
from rnnbench.model import DType
from tests.helpers import random_data, random_params, small_problem


def test_memory_on_the_device_is_that_of_every_array_once(one_backend):
    problem = small_problem(B=4, T=3, E=2, H=5, O=1, V=7, dtype=DType.FLOAT32)
    session = one_backend.prepare(problem, random_params(problem), random_data(problem, rows=14))
    parameters = 7 * 2 + 2 * 5 + 5 * 5 + 5 + 5 + 1
    rows = 14 * 3 * 4 + 14 * 4 + 4 + 2 * 14 * 8  # tokens, targets, no classes, rows in order and an order
    rest = 4 * parameters + 2 * 4 * 4 + 2 * 4 * 5 * 4 + 3 * 4  # initial, losses, correct, two states, three counts
    rest += session.reverse.on_device.nbytes
    known = device_bytes_needed(device_sizes(problem), one_backend.plan, update_rule(problem).adam) + rows + rest
    assert session.peak_device_bytes() == known
    session.start_from({"h": np.zeros((4, 5))})
    assert session.peak_device_bytes() == known


def test_a_graph_has_arrays_of_its_own(one_backend):
    problem = small_problem(B=4, T=2, E=2, H=5, O=1, V=7, dtype=DType.FLOAT32)
    params, data = random_params(problem), random_data(problem)
    plain, graph = (b.prepare(problem, params, data) for b in (one_backend, CudaGraphBackend(one_backend.plan)))
    own = 2 * 4 * 8 + 2 * 8 + graph.table.nbytes  # rows of a batch, the cursor, corrections
    assert graph.peak_device_bytes() == plain.peak_device_bytes() + own


def test_what_an_epoch_and_a_prediction_take_is_counted(one_backend):
    problem = small_problem(B=2, T=1, E=1, H=2, O=1, V=3, dtype=DType.FLOAT32)
    session = one_backend.prepare(problem, random_params(problem), random_data(problem, rows=3))
    before, order = session.peak_device_bytes(), session.order
    session.train_epoch(np.arange(3))
    assert session.peak_device_bytes() == before + 2 * 3 * 4  # losses and correct of 3 rows beside those of a batch
    losses = session.each[0]
    session.train_epoch(np.array([2, 0]))
    assert session.order is order
    assert session.each[0] is losses
    before = session.peak_device_bytes()
    for n in (5, 4):
        session.predict(np.zeros((n, 1), np.int32))
        numbers = 2 * 5 * 2 + 5 + 5  # h, z, dz
        assert session.peak_device_bytes() == before + 4 * (numbers + 5 * 2 + 2 * 5 + 2) + 8 * 5


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
