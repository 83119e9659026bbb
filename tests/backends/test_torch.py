"""What is particular to PyTorch: the second bias, subnormals in every thread, and what torch.compile compiles when."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from rnnbench import backends
from rnnbench.cells import CELLS
from rnnbench.model import Case, DType, Head, Train, Truncation
from tests.helpers import random_data, random_params, small_problem

if reason := backends.missing("torch"):
    pytest.skip(reason, allow_module_level=True)

import torch


def prepare(name, problem):
    return backends.load(name).prepare(problem, random_params(problem), random_data(problem))


def test_the_second_bias_stays_zero():
    session = prepare("torch", small_problem())
    for _ in range(5):
        session.train_step()
    session.train_epoch(np.arange(14))
    assert not session.net.rnn.bias_hh_l0.any()
    assert session.net.rnn.bias_hh_l0.grad is None
    assert session.net.rnn.bias_ih_l0.any()


def test_of_the_gru_s_second_bias_the_n_gate_s_part_alone_is_trained():
    """The others' gradients are not zero in PyTorch: they must reach neither the norm nor Adam."""
    session = prepare("torch", small_problem(cell="gru", dtype=DType.FLOAT64, train=Train(clip_norm=1e-3)))
    bias, H = session.net.rnn.bias_hh_l0, 5
    session.train_step()
    for _ in range(5):
        session.train_step()
    session.train_epoch(np.arange(14))
    moments = session.optimizer.state[bias]
    for value in (bias, bias.grad, moments["exp_avg"], moments["exp_avg_sq"]):
        assert not value[: 2 * H].any()
        assert value[2 * H :].all()
    session.reset()
    assert not bias[: 2 * H].any()


def test_the_second_bias_of_the_lstm_stays_zero():
    session = prepare("torch", small_problem(cell="lstm"))
    session.train_epoch(np.arange(14))
    assert not session.net.rnn.bias_hh_l0.any()
    assert session.net.rnn.bias_hh_l0.grad is None


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dtype", DType)
def test_the_contract_says_where_onednn_computes(cell, dtype):
    problem = small_problem(cell=cell, dtype=dtype)
    session = prepare("torch", problem)
    timed = backends.load("torch").contract(problem).timed
    assert all(f"nn.{cell.upper()}" in timed[name] for name in ("forward", "gradient", "train_step"))
    for name in ("forward", "gradient"):
        with torch.profiler.profile() as profile:
            getattr(session, name)()
        used = any("mkldnn_rnn" in event.key for event in profile.key_averages())
        assert used == ("oneDNN" in timed[name])


def test_the_lstm_is_called_anew_where_a_block_starts_between_emitted_steps():
    """Its c is known after its last step alone."""
    for window, stride, calls in ((3, 3, 3), (9, 9, 1), (7, 1, 9), (5, 3, 5), (4, 2, 6)):
        truncation = Truncation(window, stride)
        problem = small_problem(cell="lstm", T=9, head=Head.EVERY, truncation=truncation)
        session = prepare("torch", problem)
        made = []
        session.net.rnn.register_forward_hook(lambda *args, made=made: made.append(1))
        session.gradient()
        assert len(made) == calls, truncation
        parts = "called in parts" in backends.load("torch").contract(problem).notes
        assert parts == (window > stride)


def test_fetched_arrays_do_not_change_with_later_steps():
    session = prepare("torch", small_problem())
    session.train_step()
    first = session.fetch()
    kept = {name: value.copy() for name, value in first.params.items()}
    for _ in range(3):
        session.train_step()
    assert all(np.array_equal(first.params[name], kept[name]) for name in kept)
    assert not np.array_equal(session.fetch().params["W_hh"], kept["W_hh"])


def test_a_clipped_gradient_that_is_not_finite_stays_so():
    problem = small_problem(train=Train(clip_norm=1.0))
    params = random_params(problem)
    params["W_hh"][0, 0] = np.nan
    session = backends.load("torch").prepare(problem, params, random_data(problem))
    session.train_step()
    assert np.isnan(session.fetch().params["W_hy"]).all()


# A process of its own for each: threads keep the mode of the thread that started them.
SUBNORMALS = """
import sys, numpy as np, torch
from rnnbench import backends
from rnnbench.model import DType, Train, Optimizer
from tests.helpers import random_data, random_params, small_problem
torch.set_num_threads(2)
backend = backends.load(sys.argv[1])
problem = small_problem(B=64, T=200, E=64, H=64, V=None, dtype=DType.FLOAT32, train=Train(Optimizer.SGD))
params = random_params(problem)
params["W_hh"] *= 0.3  # contracting: gradients vanish
params["W_hy"] *= np.float32(1e-36)
session = backend.prepare(problem, params, random_data(problem))
session.gradient()
grads = session.fetch().grads.values()
bits = [g.view(np.int32) for g in grads]
count = sum(int(((b & 0x7FFFFFFF != 0) & (b & 0x7F800000 == 0)).sum()) for b in bits)
print(backend.contract(problem).subnormals, count > 0)
print((np.array([2.0**-126], np.float32) / 2 > 0).all())
"""


@pytest.mark.slow
@pytest.mark.parametrize(("name", "expected"), [("torch", "kept True"), ("torch+flush", "flushed False")])
def test_subnormals_are_kept_or_flushed_in_all_threads(name, expected):
    if why := backends.load(name).unsupported(Case(**vars(small_problem()))):
        pytest.skip(why)
    done = subprocess.run([sys.executable, "-c", SUBNORMALS, name], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == expected
    assert lines[1] == "True", "the caller's own mode is changed"


def compiled():
    backend = backends.load("torch+compile")
    if why := backend.unsupported(Case(**vars(small_problem()))):
        pytest.skip(why)
    return backend


@pytest.fixture
def without_code(monkeypatch):
    """torch.compile traces, differentiates and keeps as ever, and PyTorch's own operators stand in for compiled C++:
    what is compiled, and when, is the same in a tenth of the time.
    """
    whole = torch.compile

    def traced(function, *, options, **rest):
        return whole(function, backend="aot_eager", **rest)

    monkeypatch.setattr(torch, "compile", traced)


def compilations() -> int:
    from torch._dynamo.utils import counters

    return counters["stats"]["unique_graphs"]


@pytest.mark.usefixtures("without_code")
@pytest.mark.parametrize(
    ("cell", "T", "head", "structure"),
    [
        ("rnn", 7, Head.LAST, {}),  # the gradient is one function
        ("rnn", 23, Head.EVERY, {}),  # the forward pass as well
        ("lstm", 23, Head.LAST, {}),  # chunks
        ("gru", 11, Head.EVERY, {"layers": 2, "bidirectional": True, "mean_length": 5.0}),
    ],
)
def test_a_short_batch_compiles_nothing(cell, T, head, structure):
    torch._dynamo.reset()  # other tests of this process may have compiled the same shapes
    problem = small_problem(cell=cell, T=T, head=head, **structure)
    session = compiled().prepare(problem, random_params(problem), random_data(problem))
    before = compilations()
    session.forward()
    session.train_step()
    first = compilations()
    assert first > before, "nothing was compiled"
    session.select(1)
    session.train_step()
    session.train_epoch(np.arange(14))  # three batches of 4 and one of 2
    session.start_from({name: np.full((4, 5), 0.5) for name in problem.model.states})
    session.train_step()
    rows = random_data(problem, rows=9)
    session.predict(rows.inputs, rows.lengths)
    assert compilations() == first


@pytest.mark.usefixtures("without_code")
@pytest.mark.parametrize(("cell", "T", "whole"), [("rnn", 64, True), ("rnn", 65, False), ("gru", 11, False)])
def test_what_is_compiled_is_what_the_contract_says(cell, T, whole):
    problem = small_problem(cell=cell, T=T, B=2, H=3)
    session = compiled().prepare(problem, random_params(problem), random_data(problem))
    calls = []

    def counted(name, run):
        return lambda *args: calls.append(name) or run(*args)

    session.loss_gradient = counted("loss_gradient", session.loss_gradient)
    session.net.compiled = counted("compiled", session.net.compiled)
    session.gradient()
    assert set(calls) == {"loss_gradient" if whole else "compiled"}
    assert ("torch.func.grad_and_value" in backends.load("torch+compile").contract(problem).timed["gradient"]) is whole


def test_rows_without_a_step_are_not_packed():
    """PyTorch refuses them; and a row's own end is where the states are taken."""
    problem = small_problem(cell="lstm", mean_length=3.5, layers=2)
    params, data = random_params(problem), random_data(problem)
    assert 0 in data.lengths[:4]
    session = backends.load("torch").prepare(problem, params, data)
    packed = []
    session.net.rnn.register_forward_hook(lambda module, args, out: packed.append(len(args[0].sorted_indices)))
    session.forward()
    assert packed == [np.count_nonzero(data.lengths[:4])]
    states = session.fetch().states
    assert not states["l1.c"][data.lengths[:4] == 0].any()
    assert states["l1.c"][data.lengths[:4] > 0].all()


def test_a_machine_without_a_compiler_is_told_so(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    why = backends.load("torch+compile").unsupported(Case(**vars(small_problem())))
    assert why == "torch.compile needs a C++ compiler and no-such-compiler is not found; install it or set CXX"
