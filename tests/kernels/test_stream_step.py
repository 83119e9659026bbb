"""Streams against the oracle: every step of every cell, states by row, what is refused, and whose memory they touch."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import subprocess
import sys
import tracemalloc
from itertools import product

import numpy as np
import pytest

import rnnbench as rb
from rnnbench import backends
from rnnbench import stream as stream_module
from rnnbench.backends.numpy import forward_pass
from rnnbench.cells import CELLS
from rnnbench.correctness.tolerances import LIMITS, relative_error
from rnnbench.kernels.cpu import simd, stream_step
from rnnbench.model import DType, Head, Model
from rnnbench.params import Init, cast, init_params
from tests.kernels.test_safety import runs

T = 4


def network(**given) -> tuple[Model, dict[str, np.ndarray]]:
    model = Model(**{"E": 5, "H": 17, "O": 3, "head": Head.EVERY} | given)
    return model, init_params(model, Init.TORCH, 0)


def inputs(model: Model, B: int, dtype: str = "float32", steps: int = T, seed: int = 1) -> np.ndarray:
    """(T, B) tokens or (T, B, E)."""
    rng = np.random.default_rng(seed)
    if model.V is not None:
        return rng.integers(0, model.V, (steps, B), dtype=np.int32)
    return rng.standard_normal((steps, B, model.E)).astype(dtype)


def right(model: Model, params, x: np.ndarray, dtype: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Logits of each step, (T, B, O), and the last states, by the oracle in float64."""
    rows = x.swapaxes(0, 1)
    exact = cast(cast(params, dtype), "float64")
    trace = forward_pass(model, exact, rows if model.V is not None else rows.astype(np.float64), None)
    return trace.logits.swapaxes(0, 1), trace.at(len(x))


def check(model: Model, params, B: int, dtype: str) -> None:
    x = inputs(model, B, dtype)
    logits, states = right(model, params, x, dtype)
    stream = rb.Stream(model, params, B=B, dtype=dtype)
    got = np.stack([stream.step(step).copy() for step in x])
    assert relative_error(logits, got) <= LIMITS[dtype], (model, B, dtype)
    for name, state in stream.states().items():
        assert relative_error(states[name], state) <= LIMITS[dtype], (model, B, dtype, name)


def sizes(dtype: str, units=(1, 3, 17, 130)):
    for cell, H, B, V, layers in product(CELLS, units, (1, 2, 5), (None, 11), (1, 3)):
        check(*network(cell=cell, H=H, V=V, layers=layers), B, dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_each_step_is_the_oracles(dtype):
    sizes(dtype)


def test_tiles_of_all_numbers_of_rows_and_panels_that_end_in_a_vector():
    lanes = simd.lanes(np.float32)
    for cell, H, B in product(CELLS, (lanes - 1, lanes, lanes + 1), range(1, 14)):
        check(*network(cell=cell, H=H), B, "float32")


def test_a_table_that_would_be_too_large_is_not_made(monkeypatch):
    monkeypatch.setattr(stream_module, "MAX_TABLE", 0)
    for cell in CELLS:
        check(*network(cell=cell, V=11), 3, "float64")


MACHINES = {
    "sse": {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "+sse2"},
    "wide": {"RNNBENCH_REGISTER_BYTES": "64"},
    "plain": {"RNNBENCH_PLAIN_KERNELS": "1"},
}


@pytest.mark.parametrize("machine", MACHINES)
def test_other_machines(machine, tmp_path):
    env = os.environ | MACHINES[machine] | {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    code = "from tests.kernels.test_stream_step import sizes; sizes('float32', (1, 33))"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def test_without_the_head_a_step_gives_the_states_and_needs_none():
    model, params = network(cell="lstm", layers=2)
    x = inputs(model, 2)
    _, states = right(model, params, x, "float32")
    for name in ("W_hy", "b_y"):
        del params[name]
    stream = rb.Stream(model, params, B=2, head=False)
    for step in x:
        h = stream.step(step)
    assert relative_error(states["l1.h"], h) <= LIMITS["float32"]
    np.testing.assert_array_equal(h, stream.states()["l1.h"])


def test_inputs_and_outputs_lie_as_the_caller_has_them():
    """Strided, reversed, of another type, in the stream's own array, and all of it to an array of the caller's."""
    model, params = network(E=4)
    x = inputs(model, 3)
    ref, got = (rb.Stream(model, params, B=3) for _ in range(2))
    wide, out = np.zeros((3, 8), np.float32), np.full((3, 6), 7, np.float32)
    forms = [
        lambda a: (wide.__setitem__((slice(None), slice(None, None, 2)), a), wide[:, ::2])[1],
        lambda a: np.asfortranarray(a),
        lambda a: a[::-1].copy()[::-1],
        lambda a: a.astype(np.float64).tolist(),
    ]
    for step, form in zip(x, forms, strict=True):
        want = ref.step(step).copy()
        np.testing.assert_array_equal(got.step(form(step), out=out[:, 1::2]), want)
    assert (out[:, ::2] == 7).all()
    got.inputs[:] = x[0]
    np.testing.assert_array_equal(got.step(), ref.step(x[0]))
    tokens, weights = network(V=9)
    ref, got = (rb.Stream(tokens, weights, B=2) for _ in range(2))
    for kind in (np.int64, np.uint8, ">i4"):
        np.testing.assert_array_equal(got.step(np.array([8, 0], kind)), ref.step(np.array([8, 0], np.int32)))


def test_what_is_written_to_the_outputs_of_a_step_changes_none_after_it():
    model, params = network()
    ref, got = (rb.Stream(model, params, B=2) for _ in range(2))
    for step in inputs(model, 2):
        want, answer = ref.step(step).copy(), got.step(step)
        np.testing.assert_array_equal(answer.reshape(want.shape), want)
        answer.fill(np.nan)
        answer.shape = (6,)


@pytest.mark.parametrize("cell", CELLS)
def test_rows_begin_anew_by_themselves(cell):
    model, params = network(cell=cell, layers=2)
    x = inputs(model, 4)
    stream, fresh = (rb.Stream(model, params, B=4) for _ in range(2))
    stream.step(x[0])
    before = stream.states()
    stream.reset([1, 3])
    after = stream.states()
    for name in model.states:
        assert not after[name][[1, 3]].any()
        np.testing.assert_array_equal(after[name][::2], before[name][::2])
    np.testing.assert_array_equal(stream.step(x[1])[[1, 3]], fresh.step(x[1])[[1, 3]])
    stream.reset()
    fresh.reset(slice(None))
    np.testing.assert_array_equal(stream.step(x[2]), fresh.step(x[2]))
    kept = stream.states(2)
    want = stream.step(x[3])[2].copy()
    stream.start_from(kept, 2)
    np.testing.assert_array_equal(stream.step(x[3])[2], want)


@pytest.mark.parametrize("cell", CELLS)
def test_nan_and_infinity_come_out_where_the_oracle_has_them(cell):
    model, params = network(cell=cell)
    x = inputs(model, 3, "float64")
    x[1, 0, 2], x[2, 1, 0] = np.nan, np.inf
    logits, _ = right(model, params, x, "float64")
    stream = rb.Stream(model, params, B=3, dtype="float64")
    got = np.stack([stream.step(step).copy() for step in x])
    np.testing.assert_allclose(got, logits, rtol=1e-10)


@pytest.mark.parametrize("given", [{}, {"V": 11}])
def test_a_step_allocates_nothing(given):
    model, params = network(cell="lstm", **given)
    stream, x = rb.Stream(model, params, B=2), list(inputs(model, 2))
    step, out = stream.step, np.empty((2, 3), np.float32)

    def calls() -> None:
        for _ in range(500):
            step(x[0])
            step(x[1], out)
            step()

    calls()
    gc.disable()
    tracemalloc.start()
    try:
        calls()
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        calls()
        now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()
    assert now - before < 1000
    assert peak - before < 2000  # a shape, an integer: what Python makes and drops


def test_a_long_step_lets_other_threads_run():
    stream = rb.Stream(*network(H=1024), B=1)
    assert stream._enter is stream_step.entry("float32", tokens=False, long=True)[1]
    short = rb.Stream(*network(H=16), B=1)
    assert short._enter is stream_step.entry("float32", tokens=False, long=False)[1]


WRONG = [
    ({"V": 11}, lambda s: s.step(np.array([1, 11], np.int32)), "token 11 of row 1 is outside the vocabulary"),
    ({"V": 11}, lambda s: s.step(np.array([-1, 0], np.int32)), "token -1 of row 0 is outside the vocabulary"),
    ({"V": 11}, lambda s: s.step(np.array([2**32, 0])), "token 4294967296 is outside the vocabulary"),
    ({"V": 11}, lambda s: s.step(np.zeros(3, np.int32)), r"shape \(3,\); a step of this stream needs \(2,\)"),
    ({"V": 11}, lambda s: s.step(np.zeros((2, 1), np.int32)), r"tokens have shape \(2, 1\)"),
    ({"V": 11}, lambda s: s.step(np.zeros(2)), "tokens are float64; they must be integers"),
    ({}, lambda s: s.step(np.zeros((2, 4), np.float32)), r"shape \(2, 4\); a step of this stream needs \(2, 5\)"),
    ({}, lambda s: s.step(np.zeros(5, np.float32)), r"inputs have shape \(5,\)"),
    ({}, lambda s: s.step(np.zeros((2, 5), complex)), "inputs are complex128; they must be real numbers"),
    ({}, lambda s: s.step(out=np.zeros((2, 2), np.float32)), r"out is float32 of shape \(2, 2\); this stream writes"),
    ({}, lambda s: s.step(out=np.zeros((2, 3))), "out is float64 of shape"),
    ({}, lambda s: s.step(out=[1]), "out is list; this stream writes an array of float32"),
    ({}, lambda s: s.step(out=np.broadcast_to(np.float32(0), (2, 3))), "out is read-only"),
    ({}, lambda s: s.reset(2), "rows are 2; this stream has rows 0 to 1"),
    ({}, lambda s: s.states([0, 7]), r"rows are \[0, 7\]"),
    ({}, lambda s: s.states([[0, 1]]), r"rows are \[\[0, 1\]\]; .*: give one, several or a slice"),
    ({}, lambda s: s.reset(True), "rows are True"),
    ({}, lambda s: s.start_from({"c": 0}), r"the states are \['c'\]"),
    ({}, lambda s: s.start_from({"h": np.zeros((2, 17))}, rows=[1]), r"state h has shape \(2, 17\)"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "call", "words"), WRONG)
def test_what_does_not_fit_is_refused_and_the_states_stay(given, call, words):
    model, params = network(**given)
    stream = rb.Stream(model, params, B=2)
    stream.step(inputs(model, 2)[0])
    before = stream.states()
    with pytest.raises(ValueError, match=words):
        call(stream)
    np.testing.assert_array_equal(before["h"], stream.states()["h"])
    stream.step(inputs(model, 2)[1])


@pytest.mark.parametrize(
    ("model", "given", "words"),
    [
        ({"bidirectional": True}, {}, "a bidirectional model reads rows from their end too"),
        ({}, {"B": 0}, "B is 0; a stream needs a whole number of rows, 1 or more"),
        ({}, {"dtype": "float16"}, "dtype is 'float16'; it must be float32 or float64"),
    ],
)
def test_what_no_stream_can_be_is_refused(model, given, words):
    with pytest.raises(ValueError, match=words):
        rb.Stream(*network(**model), **given)
    with pytest.raises(ValueError, match="W_hh has shape"):
        rb.Stream(network()[0], network()[1] | {"W_hh": np.zeros((2, 2))})


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_stream_is_not_copied(copied):
    """A copy would compute in the memory of the first one, by its address, and after that was gone."""
    with pytest.raises(TypeError, match="make another one of the same parameters"):
        copied(rb.Stream(*network()))


def test_whoever_warms_has_all_of_a_stream():
    """A loop that controls something cannot wait for a compiler at its first reset."""
    assert "single steps" in [name for _, _, name in backends.load("numba").warm(DType.FLOAT32)]
    kernels = [stream_step.move_states, *stream_step._enter.values()]
    compiled = [len(kernel.overloads) for kernel in kernels]
    assert all(compiled)
    for V, B in ((None, 4), (11, 4), (None, 4000)):
        stream = rb.Stream(*network(V=V), B=B)
        stream.step()
        for rows in (None, 1, [0, 2], slice(0, 4, 2), np.arange(B) % 2 == 0):
            stream.start_from(stream.states(rows), rows)
            stream.reset(rows)
    assert compiled == [len(kernel.overloads) for kernel in kernels]


# All arrays of a stream between pages that may not be touched, and steps in every form, wrong ones among them.
GUARDED = """
import numpy as np
from itertools import product
from contextlib import suppress
from tests.kernels.fuzz import guarded
from rnnbench import stream as module
from rnnbench.kernels.cpu import stream_step
module.aligned = stream_step.aligned = guarded
from tests.kernels.test_stream_step import check, inputs, network
import rnnbench as rb

for cell, H, B, V, layers in product(("rnn", "gru", "lstm"), (1, 7, 9, 33), (1, 4), (None, 3), (1, 2)):
    model, params = network(cell=cell, H=H, V=V, layers=layers)
    check(model, params, B, "float32")
    stream = rb.Stream(model, params, B=B)
    for wrong in (np.full(B, 2**31 - 1, np.int32), np.full(B, -1, np.int32), np.zeros((B, 4), np.float32),
                  np.zeros((B + 1, 5), np.float32), np.zeros((0, 5), np.float32), np.zeros(0, np.int32), None, "x", 3):
        with suppress(ValueError):
            stream.step(wrong)
    for rows in (-1, B, [B], slice(0, 99), np.array([True] * B)):
        with suppress(ValueError):
            stream.reset(rows)
print("whole")
"""

# Two Python threads in one long stream, whose steps let go of the interpreter: each call whole or not at all.
TWO_THREADS = """
import threading
import numpy as np
from tests.kernels.test_stream_step import network
import rnnbench as rb

model, params = network(cell="lstm", H=300, E=8)
stream, ones = rb.Stream(model, params, B=2), np.ones((2, 8), np.float32)
assert stream._enter is not None
fresh = rb.Stream(model, params, B=2)
known = [{n: np.zeros_like(s) for n, s in fresh.states().items()}]
for _ in range(40):
    fresh.step(ones)
    known.append(fresh.states())
keys = {k["h"].tobytes() + k["c"].tobytes() for k in known}
wrong = []

def steps():
    for i in range(400):
        stream.step(ones)

def states():
    for i in range(400):
        if i % 10 == 0:
            stream.reset()
        found = stream.states()
        if i < 40 and found["h"].tobytes() + found["c"].tobytes() not in keys:
            wrong.append(i)

every = [threading.Thread(target=t) for t in (steps, states, states)]
[t.start() for t in every]
[t.join() for t in every]
assert np.isfinite(stream.outputs).all()
print("whole", len(wrong))
"""


@pytest.mark.parametrize("code", [GUARDED, TWO_THREADS], ids=["guarded", "two threads"])
def test_memory_that_is_not_its_own_is_left_alone(code):
    assert runs(code).startswith("whole")
