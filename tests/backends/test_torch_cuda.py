"""PyTorch on a GPU, as far as it can be told without one: the device of every tensor, precision, refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rnnbench import backends
from rnnbench.contract import CPU
from rnnbench.model import USUAL_PASSES, Case, DType, Head, Loss, Train, Truncation
from tests.helpers import assert_agrees, oracle, random_data, random_params, small_problem

if reason := backends.missing("torch"):
    pytest.skip(reason, allow_module_level=True)

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from rnnbench.backends import torch as torch_backend
from rnnbench.backends import torch_cuda
from rnnbench.backends.torch_cuda import TorchCudaBackend, TorchCudaTf32Backend

META = "meta"  # a device on which tensors have shapes and no numbers


@pytest.fixture(autouse=True)
def _precision():
    """The flags are the process's."""
    before = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    yield
    torch.backends.cudnn.allow_tf32 = before[0]
    torch.set_float32_matmul_precision(before[1])


class Devices(TorchDispatchMode):
    """Notes where the tensors of every operation are, and what goes from one device to another."""

    def __init__(self):
        super().__init__()
        self.mixed, self.moves, self.seen = [], [], set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        taken = {t.device.type for t in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        made = {t.device.type for t in torch.utils._pytree.tree_leaves(result) if isinstance(t, torch.Tensor)}
        self.seen |= taken | made
        name = func.overloadpacket.__name__
        if len(taken | made) > 1:
            (self.moves if name in ("_to_copy", "copy_", "to") else self.mixed).append(name)
        return result


@pytest.fixture
def on_meta(monkeypatch):
    """The backend on the device without numbers, where PyTorch has no fused optimizer and tells no values."""
    monkeypatch.setattr(torch_cuda, "refusal", lambda: None)
    monkeypatch.setattr(torch_cuda, "forget_peak", lambda device: None)
    monkeypatch.setattr(torch.Tensor, "item", lambda self: 0)

    def unfused(train, trained):
        return torch.optim.SGD(trained, lr=train.learning_rate, foreach=True)

    monkeypatch.setattr(torch_backend, "optimizer_for", unfused)
    return TorchCudaBackend(META)


PROBLEMS = {
    "tokens": small_problem(),
    "dense, every step": small_problem(V=None, head=Head.EVERY, train=Train(clip_norm=1.0)),
    "classes, truncated": small_problem(
        O=3, head=Head.EVERY, loss=Loss.CATEGORICAL_CROSS_ENTROPY, truncation=Truncation(4, 3)
    ),
    "last window": small_problem(truncation=Truncation(3, 2), train=Train(clip_value=0.1)),
    "lstm, layers, both directions": small_problem(cell="lstm", layers=2, bidirectional=True, V=None),
    "gru, truncated": small_problem(cell="gru", head=Head.EVERY, truncation=Truncation(4, 3)),
}
ENDING = {  # rows that end: those of one direction with one state are padded, the others packed
    "rnn": small_problem(mean_length=3.5, head=Head.EVERY),
    "gru, truncated": small_problem(cell="gru", mean_length=3.5, truncation=Truncation(4, 3)),
    "lstm": small_problem(cell="lstm", layers=2, bidirectional=True, mean_length=3.5, head=Head.EVERY),
}


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
def test_a_step_touches_no_other_device_and_an_epoch_moves_its_order_alone(on_meta, problem):
    session = on_meta.prepare(problem, random_params(problem), random_data(problem))
    for states in (None, dict.fromkeys(problem.model.states, np.zeros((4, 5)))):
        session.start_from(states)
        session.select(1)
        with Devices() as devices:
            for name in ("forward", "gradient", "train_step"):
                getattr(session, name)()
        assert devices.seen == {META}
    with Devices() as devices:
        session.train_epoch(np.arange(14))
    assert devices.mixed == []
    assert len(devices.moves) == 1
    session.reset()
    held = [session.inputs, session.targets, *session.initial.values(), *session.parameters.values()]
    assert {t.device.type for t in held} == {META}


@pytest.mark.parametrize("problem", [ENDING["rnn"], ENDING["gru, truncated"]], ids=["rnn", "gru"])
def test_of_rows_that_end_the_lengths_alone_are_on_the_processor(on_meta, problem):
    """No operation takes tensors of both but a copy: those would be refused by a GPU, or wait for it."""
    session = on_meta.prepare(problem, random_params(problem), random_data(problem))
    with Devices() as devices:
        for name in ("forward", "gradient", "train_step"):
            getattr(session, name)()
        session.train_epoch(np.arange(14))
    assert devices.mixed == []
    assert session.lengths.device.type == CPU


@pytest.mark.parametrize("problem", ENDING.values(), ids=ENDING)
def test_rows_that_end_agree_with_the_oracle_on_the_processor(problem):
    params, data = random_params(problem), random_data(problem)
    ref, got = oracle(problem, params, data), TorchCudaBackend("cpu").prepare(problem, params, data)
    for session in (ref, got):
        session.gradient()
    assert_agrees(ref.fetch(), got.fetch(), problem.dtype)


def test_the_contract_names_the_module_and_no_other_library():
    contract = TorchCudaBackend("cpu").contract(ENDING["lstm"])
    assert "nn.LSTM (cuDNN), time first" in contract.timed["forward"]
    assert "oneDNN" not in contract.timed["forward"]
    assert "where rows end is sent inside the clock" in contract.notes


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_a_subnormal_passes_cells_with_gates(cell):
    assert TorchCudaBackend("cpu").contract(small_problem(cell=cell)).subnormals == "kept"


@pytest.mark.parametrize("made", [TorchCudaBackend, TorchCudaTf32Backend])
def test_the_same_session_on_the_processor_agrees_with_the_oracle(made):
    """TF32 is nothing that a processor does: there both are float32."""
    problem = small_problem(dtype=DType.FLOAT32, head=Head.EVERY, truncation=Truncation(4, 3))
    params, data = random_params(problem), random_data(problem)
    backend = made("cpu")
    ref, got = oracle(problem, params, data), backend.prepare(problem, params, data)
    for session in (ref, got):
        session.train_step()
        session.reset()
        session.train_epoch(np.arange(14))
    assert_agrees(ref.fetch(), got.fetch(), DType.FLOAT32)
    contract = backend.contract(problem)
    assert contract.device == CPU
    assert set(contract.timed) == set(USUAL_PASSES)
    assert contract.subnormals == "kept"


def test_tf32_is_what_the_name_says():
    problem = small_problem(dtype=DType.FLOAT32)
    for backend, allowed, precision in (
        (TorchCudaTf32Backend("cpu"), True, "high"),
        (TorchCudaBackend("cpu"), False, "highest"),
    ):
        backend.prepare(problem, random_params(problem), random_data(problem))
        assert torch.backends.cudnn.allow_tf32 is allowed
        assert torch.get_float32_matmul_precision() == precision
        assert backend.contract(problem).tf32 is allowed
    case = Case(**vars(replace(problem, dtype=DType.FLOAT64)))
    assert "leaves float64 as it is; take torch-cuda" in TorchCudaTf32Backend("cpu").unsupported(case)
    assert TorchCudaBackend("cpu").unsupported(case) is None


def test_synchronize_clock_and_memory_are_those_of_the_sessions_device(on_meta, monkeypatch):
    asked = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: asked.append(("synchronize", device.type)))
    monkeypatch.setattr(
        torch.cuda, "max_memory_allocated", lambda device: asked.append(("memory", device.type)) or 1 << 20
    )

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            asked.append("record")

        def elapsed_time(self, end):
            return 0.25  # ms

    monkeypatch.setattr(torch.cuda, "Event", Event)
    problem = small_problem()
    session = on_meta.prepare(problem, random_params(problem), random_data(problem))
    session.synchronize()
    assert session.peak_device_bytes() == 1 << 20
    clock = session.device_clock()
    clock.start()
    clock.stop()
    assert clock.nanoseconds() == 250_000
    assert asked == [("synchronize", META), ("memory", META), "record", "record"]


def test_the_peak_counts_from_prepare_and_leaves_out_what_the_contract_tries(monkeypatch):
    """On a device that the process has not used yet there is nothing to put back: `init` comes first."""
    calls = []

    def noted(name, function=None):
        def call(*args, **kwargs):
            calls.append(name)
            return function(*args, **kwargs) if function else None

        return call

    monkeypatch.setattr(torch_cuda, "refusal", lambda: None)
    monkeypatch.setattr(torch.Tensor, "item", lambda self: 0)
    monkeypatch.setattr(torch_backend, "optimizer_for", lambda train, trained: None)
    monkeypatch.setattr(torch.cuda, "init", noted("init"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", noted("reset"))
    monkeypatch.setattr(torch_cuda, "Net", noted("net", torch_cuda.Net))
    monkeypatch.setattr(torch.nn, "RNN", noted("rnn", torch.nn.RNN))
    torch_cuda.observed_subnormals.cache_clear()
    backend, problem = TorchCudaBackend(META), small_problem()
    backend.prepare(problem, random_params(problem), random_data(problem))
    assert calls == ["rnn", "init", "reset", "net", "rnn"]
    backend.contract(problem)
    assert len(calls) == 5
    torch_cuda.observed_subnormals.cache_clear()


def test_subnormals_are_tried_in_a_recurrence_of_as_many_units_and_nothing_else(monkeypatch):
    made, RNN = [], torch.nn.RNN
    monkeypatch.setattr(torch.nn, "RNN", lambda *args, **kwargs: made.append(args) or RNN(*args, **kwargs))
    monkeypatch.setattr(torch_cuda, "Net", lambda *args: pytest.fail("a second network"))
    torch_cuda.observed_subnormals.cache_clear()
    backend = TorchCudaBackend("cpu")
    for H in (5, 9, 5):
        for dtype in DType:
            problem = small_problem(H=H, V=1 << 20, dtype=dtype)
            assert backend.contract(problem).subnormals == "kept"
    assert made == [(1, 5), (1, 5), (1, 9), (1, 9)]
    torch.set_flush_denormal(True)
    try:
        torch_cuda.observed_subnormals.cache_clear()
        assert backend.contract(small_problem()).subnormals == "flushed in the recurrence"
    finally:
        torch.set_flush_denormal(False)
        torch_cuda.observed_subnormals.cache_clear()


@pytest.mark.parametrize("name", ["torch-cuda", "torch-cuda+tf32"])
def test_without_a_cuda_build_or_a_gpu_it_says_what_to_do(name, monkeypatch):
    assert name not in backends.usual()
    backend = backends.load(name)
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "is built without CUDA; install a CUDA build" in backend.unavailable()
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "finds no NVIDIA GPU that its CUDA 13.0 can use; see nvidia-smi" in backend.unavailable()
    problem = small_problem(dtype=DType.FLOAT32)
    with pytest.raises(RuntimeError, match="finds no NVIDIA GPU"):
        backend.prepare(problem, random_params(problem), random_data(problem))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert backend.unavailable() is None


def test_an_old_gpu_has_no_tf32(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    case = Case(**vars(small_problem(dtype=DType.FLOAT32)))
    assert "compute capability 7.5; TF32 needs 8.0 or newer" in backends.load("torch-cuda+tf32").unsupported(case)
