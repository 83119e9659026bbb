"""What is particular to OpenVINO and ONNX Runtime: float32 as asked, order of gates, large logits, what they lack."""

from __future__ import annotations

import os

import numpy as np
import pytest

import rnnbench as rb
from rnnbench import backends
from rnnbench.cells import CELLS
from rnnbench.model import Case, DType, Head, Loss, Pass
from tests.helpers import assert_agrees, oracle, pair, random_data, random_params, small_problem

NAMES = ("openvino", "onnxruntime")


@pytest.fixture(params=NAMES)
def runtime(request):
    if reason := backends.missing(request.param):
        pytest.skip(reason)
    return backends.load(request.param)


def test_openvino_computes_in_float32_and_on_the_cores_of_the_process():
    """Where the processor has bfloat16 or float16, OpenVINO takes it unless it is told not to."""
    ov = pytest.importorskip("openvino")
    cores = os.sched_getaffinity(0)
    problem = small_problem(dtype=DType.FLOAT32)
    _, session = pair(backends.load("openvino"), problem)
    session.forward()
    assert session.engine.compiled.get_property("INFERENCE_PRECISION_HINT") == ov.Type.f32
    assert session.engine.compiled.get_property("INFERENCE_NUM_THREADS") == len(cores)
    assert os.sched_getaffinity(0) == cores


@pytest.mark.parametrize("cell", list(CELLS))
def test_gates_go_to_the_order_of_onnx(cell):
    pytest.importorskip("onnx")
    from rnnbench.backends.onnx_parts import GATES, to_onnx

    gates = CELLS[cell].gates
    array = np.repeat(np.arange(float(len(gates))), 4)[None]
    assert sorted(GATES[cell]) == sorted(gates)
    np.testing.assert_array_equal(to_onnx(CELLS[cell], array)[0, ::4], [gates.index(gate) for gate in GATES[cell]])


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_of_a_layer_the_graph_gives_what_is_read_of_it(cell, bidirectional):
    """The states of every step of a layer below, or for a head at every step; for predictions no other state."""
    onnx = pytest.importorskip("onnx")
    from rnnbench.backends.onnx_parts import graph_of

    def given(head, **options) -> list[list[bool]]:
        problem = small_problem(cell=cell, layers=2, bidirectional=bidirectional, head=head, dtype=DType.FLOAT32)
        graph = onnx.load_from_string(graph_of(problem, random_params(problem), 4, **options)).graph
        return [[bool(name) for name in node.output] for node in graph.node if node.op_type == cell.upper()]

    states = [True] * len(CELLS[cell].states)
    assert given(Head.LAST) == [[True, *states], [False, *states]]
    assert given(Head.EVERY) == [[True, *states]] * 2
    assert given(Head.LAST, only_logits=True) == [[True], [False, True]]
    assert given(Head.EVERY, only_logits=True) == [[True]] * 2


@pytest.mark.parametrize("loss", list(Loss))
def test_losses_of_large_logits_are_exact(runtime, loss):
    """softplus(300) is 300, and not infinity."""
    problem = small_problem(head=Head.EVERY, loss=loss, O=3, dtype=DType.FLOAT32)
    params, data = random_params(problem), random_data(problem)
    params["W_hy"] *= np.float32(300)
    ref, got = oracle(problem, params, data), runtime.prepare(problem, params, data)
    for session in (ref, got):
        session.forward()
    assert np.abs(got.fetch().logits).max() > 100
    assert_agrees(ref.fetch(), got.fetch(), DType.FLOAT32)


def test_predictions_take_any_number_of_rows(runtime):
    from rnnbench.backends.onnx_parts import PREDICT_ROWS

    problem = small_problem(dtype=DType.FLOAT32, head=Head.EVERY)
    ref, got = pair(runtime, problem)
    rows = random_data(problem, rows=PREDICT_ROWS + 3, seed=4).inputs
    np.testing.assert_allclose(got.predict(rows), ref.predict(rows), atol=1e-5)
    np.testing.assert_array_equal(got.predict(rows[:2]), got.predict(rows)[:2])


def test_predictions_are_by_the_parameters_that_were_prepared(runtime):
    problem = small_problem(dtype=DType.FLOAT32)
    params, data = random_params(problem), random_data(problem)
    session = runtime.prepare(problem, params, data)
    for value in params.values():
        value[:] = np.nan
    assert np.isfinite(session.predict(data.inputs)).all()  # the graph for it is made now


def test_what_it_lacks_has_a_reason_and_a_way_out(runtime):
    problem = small_problem(dtype=DType.FLOAT32)
    _, session = pair(runtime, problem)
    for pass_, call in (
        (Pass.GRADIENT, session.gradient),
        (Pass.TRAIN_STEP, session.train_step),
        (Pass.EPOCH, lambda: session.train_epoch(np.arange(4))),
    ):
        reason = runtime.unsupported(Case(**vars(problem), pass_=pass_))
        assert "forward only: it runs trained networks; take torch or jax to train" in reason
        with pytest.raises(NotImplementedError, match="forward only"):
            call()
    double = small_problem()
    assert "float64" in runtime.unsupported(Case(**vars(double), pass_=Pass.FORWARD))
    with pytest.raises(RuntimeError, match="ask for float32"):
        runtime.prepare(double, random_params(double), random_data(double))


def test_a_session_from_python_takes_what_has_only_a_forward_pass(runtime):
    with rb.session(runtime.name, "parity") as session:
        session.forward()
        assert session.fetch().loss > 0
    with pytest.raises(ValueError, match="float64"), rb.session(runtime.name, "parity", dtype="float64"):
        pass
