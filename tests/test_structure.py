"""Layers, directions and lengths as data: names, shapes, initial parameters, keys, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from rnnbench import backends
from rnnbench.data import Data, checked_states
from rnnbench.model import Case, DType, Feature, Model, Pass, Problem, Train, Truncation
from rnnbench.params import Init, init_params
from rnnbench.workloads.base import Workload
from tests.helpers import random_data, small_problem

STACK = Model(E=3, H=4, O=2, V=9, cell="gru", layers=2, bidirectional=True)


def test_names_and_shapes_of_a_stack():
    shapes = STACK.shapes
    assert list(shapes)[:5] == ["embedding", "l0.W_xh", "l0.W_hh", "l0.b_h", "l0.b_hn"]
    assert shapes["l0.back.W_xh"] == (3, 12)
    assert shapes["l1.W_xh"] == shapes["l1.back.W_xh"] == (8, 12)  # both directions of the layer below
    assert shapes["l1.back.W_hh"] == (4, 12)
    assert shapes["W_hy"] == (8, 2)
    assert STACK.states == ("l0.h", "l0.back.h", "l1.h", "l1.back.h")
    assert Model(E=3, H=4, O=2, cell="lstm", layers=2).states == ("l0.h", "l0.c", "l1.h", "l1.c")


def test_one_layer_in_one_direction_keeps_its_names():
    assert list(Model(E=3, H=4, O=2).shapes) == ["W_xh", "W_hh", "b_h", "W_hy", "b_y"]
    assert Model(E=3, H=4, O=2, bidirectional=True).states == ("l0.h", "l0.back.h")


@pytest.mark.parametrize("init", list(Init))
def test_the_first_layer_starts_as_it_does_alone_and_all_others_apart(init):
    one, two = (init_params(replace(STACK, layers=n, bidirectional=n > 1), init, 3) for n in (1, 2))
    for name in ("W_xh", "W_hh", "b_h", "b_hn"):
        np.testing.assert_array_equal(one[name], two[f"l0.{name}"])
    recurrent = [two[f"{prefix}W_hh"] for prefix in ("l0.", "l0.back.", "l1.", "l1.back.")]
    assert len({array.tobytes() for array in recurrent}) == 4
    limit = np.sqrt(6 / 10) if init is Init.KERAS else 1 / np.sqrt(8)  # of the 8 states that the head reads
    assert 0.8 * limit < np.abs(two["W_hy"]).max() <= limit
    if init is Init.KERAS:
        assert not any(two[name].any() for name in two if "b_" in name)


@pytest.mark.parametrize(
    ("workload", "model", "mean", "name"),
    [
        ("mine", {}, None, "mine"),
        ("mine", {"layers": 2}, None, "mine L2"),
        ("mine", {"cell": "lstm", "layers": 3, "bidirectional": True}, 2.5, "mine lstm L3 bidirectional lengths"),
        ("imdb-200-lengths lstm L3", {"cell": "lstm", "layers": 3}, 2.5, "imdb-200-lengths lstm L3"),
        ("dense", {"layers": 2}, None, "dense L2 E2 H3 B4 T5"),
    ],
)
def test_a_name_tells_what_differs(workload, model, mean, name):
    problem = Problem(workload, DType.FLOAT32, Model(E=2, H=3, O=1, **model), Train(), 4, 5, mean_length=mean)
    assert problem.name == name
    assert Case(**vars(problem), pass_=Pass.FORWARD).key == f"{name} forward float32"


def test_a_case_goes_through_json():
    case = Case("mine", DType.FLOAT64, STACK, Train(), 4, 5, mean_length=10 / 3, pass_=Pass.EPOCH, steps=3)
    assert msgspec.convert(json.loads(json.dumps(msgspec.to_builtins(case))), Case) == case


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"layers": 0}, "layers is 0; it must be greater than 0"),
        ({"mean_length": -0.5}, r"the mean length is -0.5; it must lie in \[0, T = 7\]"),
        ({"mean_length": 7.5}, r"the mean length is 7.5; it must lie in \[0, T = 7\]"),
        (
            {"bidirectional": True, "truncation": Truncation(3, 2)},
            "reads rows from their end too, and truncation 3:2 cuts them before that; leave one of the two out",
        ),
    ],
)
def test_what_no_network_has_is_refused(given, words):
    with pytest.raises(ValueError, match=words):
        small_problem(**given)


def test_states_are_those_of_all_directions():
    problem = small_problem(bidirectional=True)
    with pytest.raises(
        ValueError, match=r"the states are \['h'\]; rnn needs a dict of arrays named \['l0.back.h', 'l0.h'\]"
    ):
        checked_states(problem, {"h": np.zeros((4, 5))})
    states = {name: np.full((4, 5), i) for i, name in enumerate(problem.model.states)}
    assert list(checked_states(problem, states)) == ["l0.h", "l0.back.h"]


def test_each_feature_has_who_computes_it():
    for feature in Feature:
        assert "numpy" in [name for name, entry in backends.REGISTRY.items() if feature in entry.features]


def test_a_workload_takes_its_lengths_from_its_rows():
    problem = small_problem(V=None, mean_length=3.5)
    data = random_data(problem)
    mine = Workload("mine", problem.model, data, B=4)
    assert mine.lengths
    assert mine.spec.problem(DType.FLOAT32).mean_length == 7  # until the rows are there
    found = mine.load(None).train
    assert mine.spec.problem(DType.FLOAT32, train=found).mean_length == np.mean(data.lengths[: len(found.inputs)])
    assert not Workload("mine", problem.model, replace(data, lengths=None), B=4).lengths
    whole = replace(data, lengths=data.lengths.astype(float))
    assert Workload("mine", problem.model, whole, B=4).data.lengths.dtype.kind == "i"
    with pytest.raises(ValueError, match="mine: length 9 is outside a row of T = 7 steps"):
        Workload("mine", problem.model, replace(data, lengths=data.lengths + 2), B=4)
    with pytest.raises(ValueError, match="of mine only the test rows or the others have lengths; give both or neither"):
        Workload("mine", problem.model, data, B=4, test=replace(data, lengths=None))


def test_resizing_names_layers_and_directions():
    mine = Workload("mine", Model(E=3, H=4, O=1), Data(np.zeros((9, 2, 3), np.float32), np.zeros(9)), B=4)
    two = mine.resized(layers=2, bidirectional=True)
    assert (two.name, two.model.layers, two.model.bidirectional) == ("mine L2 bidirectional", 2, True)
    assert two.spec.problem(DType.FLOAT32).name == two.name
    assert two.resized(layers=1, bidirectional=False).name == "mine L2 bidirectional L1 unidirectional"
