"""The cell table: what a model takes from it, and each cell's backward step against finite differences."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

from rnnbench.cells import CELLS
from rnnbench.model import Case, DType, Model, Problem, Train
from rnnbench.params import Init, init_params

KEPT = Path(__file__).resolve().parents[1] / "reports" / "sweep-cpu-2-cores" / "records.jsonl"


def test_an_unknown_cell_is_refused_with_those_that_there_are():
    with pytest.raises(ValueError, match=f"there is no cell 'elman'; the cells are {', '.join(CELLS)}"):
        Model(E=2, H=3, O=1, cell="elman")


def test_a_kept_run_without_a_cell_is_one_of_the_rnn():
    with KEPT.open() as lines:
        case = json.loads(next(lines))["case"]
    assert "cell" not in case["model"]
    case["pass_"] = case.pop("pass")
    assert msgspec.convert(case, Case).model.cell == "rnn"


def test_a_key_names_a_cell_that_is_not_the_rnn():
    names = [Problem("mine", DType.FLOAT32, Model(E=2, H=3, O=1, cell=cell), Train(), 4, 5).name for cell in CELLS]
    assert names == ["mine", *(f"mine {cell}" for cell in CELLS if cell != "rnn")]


def test_initial_parameters_of_the_gru_are_those_of_keras_and_pytorch():
    model, H = Model(E=7, H=60, O=1, cell="gru"), 60
    keras, torch = (init_params(model, init, 0) for init in (Init.KERAS, Init.TORCH))
    assert keras.keys() == torch.keys() == model.shapes.keys()
    np.testing.assert_allclose(keras["W_hh"] @ keras["W_hh"].T, np.eye(H), atol=1e-12)  # orthonormal rows
    assert not keras["b_h"].any()
    assert not keras["b_hn"].any()
    limit = 1 / np.sqrt(H)
    assert np.abs(torch["b_h"][: 2 * H]).max() > limit  # sums of two
    assert np.abs(torch["b_h"][2 * H :]).max() <= limit
    assert np.abs(torch["b_hn"]).max() <= limit


def test_the_forget_gate_of_the_lstm_starts_open_in_keras_alone():
    model, H = Model(E=7, H=60, O=1, cell="lstm"), 60
    keras, torch = (init_params(model, init, 0) for init in (Init.KERAS, Init.TORCH))
    assert keras.keys() == torch.keys() == model.shapes.keys()
    np.testing.assert_allclose(keras["W_hh"] @ keras["W_hh"].T, np.eye(H), atol=1e-12)  # orthonormal rows
    np.testing.assert_array_equal(keras["b_h"], np.repeat([0, 1, 0, 0], H))
    limit = 2 / np.sqrt(H)  # of sums of two
    assert limit / 2 < np.abs(torch["b_h"]).max() <= limit
    assert abs(torch["b_h"][H : 2 * H].mean()) < limit / 4
    assert np.abs(torch["W_hh"]).max() <= limit / 2


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_a_step_back_equals_finite_differences(cell):
    """Of the sum of all states after the step, each weighted at random."""
    B, E, H = 3, 2, 4
    rng = np.random.default_rng(0)
    params = {name: rng.standard_normal(shape) for name, shape in cell.shapes(E, H).items()}
    assert params["W_xh"].shape == (E, len(cell.gates) * H)
    x = rng.standard_normal((B, E))
    before, dafter = ({name: rng.uniform(-1, 1, (B, H)) for name in cell.states} for _ in range(2))
    step = cell.forward(params, x, before)
    back = cell.backward(params, x, before, step.after, step.tape, dafter)
    assert back.grads.keys() == params.keys()
    found = [(params, back.grads), (before, back.before), ({"x": x}, {"x": back.delta @ params["W_xh"].T})]

    def weighted() -> float:
        after = cell.forward(params, x, before).after
        return sum(float((dafter[name] * value).sum()) for name, value in after.items())

    for arrays, grads in found:
        for name, array in arrays.items():
            for index in np.ndindex(array.shape):
                value = array[index]
                array[index] = value + 1e-6
                up = weighted()
                array[index] = value - 1e-6
                down = weighted()
                array[index] = value
                assert grads[name][index] == pytest.approx((up - down) / 2e-6, rel=1e-6, abs=1e-8), (name, index)
