"""Workloads of the user's own: rows, a description, a Python file, sizes alone; and every wrong one in a sentence."""

from __future__ import annotations

import zipfile
from dataclasses import replace

import numpy as np
import pytest

from rnnbench import workloads
from rnnbench.api.planning import plan_of
from rnnbench.data import Data
from rnnbench.harness.tasks import tasks_of, workload_of
from rnnbench.model import DType, Head, Loss, Model, Optimizer, StepSum, Train
from rnnbench.params import Init
from rnnbench.records.record import Mode
from rnnbench.workloads import files
from rnnbench.workloads.base import Source, Workload
from rnnbench.workloads.resolve import DEFAULT, Asked, resolve

RNG = np.random.default_rng(0)
TOKENS = RNG.integers(0, 50, (40, 6))
TOKENS[0, 0] = 49
NUMBERS = RNG.standard_normal((40, 6, 3))
BITS, CLASSES, REALS = RNG.integers(0, 2, 40), RNG.integers(0, 4, 40), RNG.standard_normal(40)
CLASSES[0] = 3


def saved(folder, **arrays):
    np.savez(folder / "rows.npz", **arrays)
    return str(folder / "rows.npz")


def one(name, said=None, **asked) -> Workload:
    (found,) = resolve([name], Asked(**asked), (lambda text: None) if said is None else said.append)
    return found


def steps(dtype, *shape):
    values = RNG.integers(0, 2, (40, 6, *shape)).astype(dtype)
    values[0, 0] = 1
    return values


@pytest.mark.parametrize(
    ("x", "y", "model"),
    [
        (TOKENS, BITS, {"V": 50, "E": 128, "O": 1, "loss": Loss.BINARY_CROSS_ENTROPY}),
        (TOKENS.astype(np.uint16), BITS.astype(bool), {"V": 50, "O": 1, "loss": Loss.BINARY_CROSS_ENTROPY}),
        (TOKENS, CLASSES, {"V": 50, "O": 4, "loss": Loss.CATEGORICAL_CROSS_ENTROPY}),
        (NUMBERS, REALS, {"V": None, "E": 3, "O": 1, "loss": Loss.SQUARED_ERROR}),
        (NUMBERS, BITS.astype(float), {"V": None, "E": 3, "O": 1, "loss": Loss.BINARY_CROSS_ENTROPY}),
        (NUMBERS[:, :, 0], REALS, {"V": None, "E": 1, "O": 1, "head": Head.LAST}),
        (NUMBERS, REALS.reshape(40, 1).repeat(2, axis=1), {"E": 3, "O": 2, "head": Head.LAST}),
        (NUMBERS, steps("float32"), {"O": 1, "head": Head.EVERY, "loss": Loss.BINARY_CROSS_ENTROPY}),
        (NUMBERS, steps("float32", 2) * 3.5, {"O": 2, "head": Head.EVERY, "loss": Loss.SQUARED_ERROR}),
        (TOKENS, steps("int64") * 4, {"V": 50, "O": 5, "head": Head.EVERY, "loss": Loss.CATEGORICAL_CROSS_ENTROPY}),
    ],
)
def test_rows_are_read_by_their_types_and_shapes(tmp_path, x, y, model):
    said = []
    found = one(saved(tmp_path, x=x, y=y), said)
    assert (found.name, found.B, found.T, found.rows) == ("rows", 32, 6, (32, 40))
    assert {name: getattr(found.model, name) for name in model} == model
    assert "32 rows of T 6, 8 for testing" in said[-1]
    assert f"E {found.model.E}, H {found.model.H}, B 32" in said[-1]
    dataset = found.load(Source(T=6))
    assert (len(dataset.train.inputs), len(dataset.test.inputs)) == (32, 8)


def test_what_is_asked_goes_before_what_is_read(tmp_path):
    path = saved(tmp_path, x=TOKENS, y=BITS, x_test=TOKENS[:5], y_test=BITS[:5])
    found = one(path, V=99, E=4, H=7, B=8, loss=Loss.SQUARED_ERROR)
    assert found.model == Model(V=99, E=4, H=7, O=1, loss=Loss.SQUARED_ERROR)
    assert (found.B, found.rows) == (8, (40, 45))
    assert one(path, O=2, loss=Loss.CATEGORICAL_CROSS_ENTROPY).model.O == 2


WRONG_ROWS = [
    ({"x": TOKENS, "y": BITS[:39]}, {}, r"x in .*rows.npz has 40 rows and y shape \(39,\)"),
    ({"x": np.where(NUMBERS > 2, np.nan, NUMBERS), "y": REALS}, {}, r"rows.npz: x holds NaN or infinity, first in row"),
    ({"x": NUMBERS, "y": REALS * np.inf}, {}, "y holds NaN or infinity, first in row 0"),
    ({"x": TOKENS, "y": BITS}, {"V": 10}, r"token 49 is outside the vocabulary: tokens must lie in \[0, 10\)"),
    ({"x": TOKENS - 1, "y": BITS}, {}, "token -1 is outside"),
    ({"x": TOKENS, "y": CLASSES}, {"loss": Loss.BINARY_CROSS_ENTROPY}, "a target is 3, and binary_cross_entropy needs"),
    ({"x": TOKENS, "y": CLASSES}, {"O": 3}, r"class 3 is outside the outputs: classes must lie in \[0, 3\)"),
    ({"x": TOKENS, "y": REALS}, {"loss": Loss.CATEGORICAL_CROSS_ENTROPY}, "classes are float64; they must be integers"),
    ({"x": NUMBERS, "y": REALS}, {"V": 9}, "dense inputs of E = 3; leave -V out"),
    ({"x": NUMBERS, "y": REALS}, {"E": 9}, "dense inputs of E = 3; leave -E out"),
    ({"x": NUMBERS, "y": REALS}, {"T": 9}, "have T = 6; give rows of another length instead of -T 9"),
    ({"x": NUMBERS, "y": REALS}, {"B": 41}, "there are 40 rows; a batch needs B = 41"),
    ({"x": NUMBERS, "y": REALS}, {"H": 0}, "H is 0; it must be greater than 0"),
    ({"x": NUMBERS[0, 0], "y": REALS[:3]}, {}, r"x in .* has shape \(3,\); \(N, T\) or \(N, T, E\) is needed"),
    ({"x": NUMBERS[:0], "y": REALS[:0]}, {}, r"has shape \(0, 6, 3\)"),
    ({"x": np.array([[1], [1, 2]], dtype=object), "y": BITS[:2]}, {}, "holds Python objects, which are never read"),
    ({"x": NUMBERS.astype(complex), "y": REALS}, {}, "is complex128; numbers are needed"),
    ({"x": np.array(["a", "b"]), "y": BITS[:2]}, {}, "is <U1; numbers are needed"),
    ({"x": TOKENS}, {}, r"has no y \(it has x\); save it by numpy.savez"),
    ({"x": TOKENS, "y": BITS, "x_test": TOKENS}, {}, "only one of x_test and y_test; give both or neither"),
    ({"x": TOKENS, "y": BITS, "x_test": TOKENS[:, :4], "y_test": BITS}, {}, "have 4 steps, the others 6"),
]


@pytest.mark.parametrize(("arrays", "asked", "words"), WRONG_ROWS, ids=[words[:30] for *_, words in WRONG_ROWS])
def test_wrong_rows_get_one_sentence(tmp_path, arrays, asked, words):
    with pytest.raises(ValueError, match=words) as raised:
        one(saved(tmp_path, **arrays), **asked)
    assert "\n" not in str(raised.value)
    assert "rows" in str(raised.value) or "must be" in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut"])
def test_a_file_that_is_none(tmp_path, content):
    (tmp_path / "rows.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"rows.npz is no .npz file; save it by numpy.savez"):
        one(str(tmp_path / "rows.npz"))


def test_a_damaged_array_and_one_that_claims_to_be_huge(tmp_path):
    path = saved(tmp_path, x=TOKENS, y=BITS)
    header = b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 9), }"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", header.ljust(127) + b"\n")
        archive.writestr("y.npy", b"nothing")
    with pytest.raises(ValueError, match=r"rows.npz"):
        one(path)


@pytest.mark.parametrize("name", ["absent.npz", "absent.toml", "absent.py:X"])
def test_a_file_that_is_not_there(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"there is no file absent\.\w+; check its path"):
        one(name)


def toml(folder, text):
    (folder / "mine.toml").write_text(text)
    return str(folder / "mine.toml")


def test_a_description_with_rows_and_one_without(tmp_path):
    saved(tmp_path, x=TOKENS, y=BITS)
    text = (
        'data = "rows.npz"\nB = 8\nepochs = 2\n[model]\nE = 4\nH = 5\n[train]\noptimizer = "sgd"\nlearning_rate = 1\n'
    )
    found = one(toml(tmp_path, text))
    assert (found.name, found.B, found.T, found.epochs, found.origin) == ("mine", 8, 6, 2, "")
    assert found.model == Model(V=50, E=4, H=5, O=1)
    assert (found.train.optimizer, found.train.learning_rate) == (Optimizer.SGD, 1)
    made = one(toml(tmp_path, 'name = "big"\nT = 9\n[model]\nV = 30\nE = 2\nH = 5\nO = 3\nloss = "squared_error"\n'))
    assert (made.name, made.T, made.made_up, made.model.O) == ("big", 9, True, 3)
    assert made.resized(H=6, T=4).name == "big H6 T4"
    stack = one(toml(tmp_path, "[model]\nE = 2\nH = 5\nlayers = 3\nbidirectional = true\n"))
    assert (stack.model.layers, stack.model.bidirectional) == (3, True)


WRONG_TOML = [
    ("B = 8\n[model]\nE = 4\nhidden = 5\nH = 5\n", r"line 4: there is no key in \[model\] 'hidden'"),
    ("C = 8\n", "line 1: there is no key 'C'"),
    ("\n\n[modle]\nE = 4\n", "line 3: there is no key 'modle'; did you mean model"),
    ("[model]\nE = 4\nH = 0\n", "line 3: H is 0; it must be greater than 0"),
    ('[model]\nE = 4\nH = "x"\n', "line 3: H is 'x'; a whole number is needed"),
    ("[model]\nE = 4\nH = true\n", "line 3: H is True; a whole number is needed"),
    ("[model]\nE = 4\nH = 3\nlayers = 0\n", "line 4: layers is 0; it must be greater than 0"),
    ("[model]\nE = 4\nH = 3\nbidirectional = 1\n", "line 4: bidirectional is 1; true or false is needed"),
    ('[model]\nE = 4\nH = 3\nloss = "huber"\n', "line 4: there is no loss 'huber'; known: binary"),
    ("[model]\nE = 4\nH = 3\n[train]\nlearning_rate = -1\n", "line 5: learning_rate is -1"),
    ("[model]\nE = 4\n", r"\[model\] has no H; without data all sizes are needed"),
    ("model = 3\n", "line 1: model is a value; a table"),
    ("B = \n", r"is no TOML: Invalid value \(at line 1"),
    ('data = "absent.npz"\n', r"there is no file .*absent.npz; `data` of .*mine.toml is a path from the folder"),
]


@pytest.mark.parametrize(("text", "words"), WRONG_TOML, ids=[words[:24] for _, words in WRONG_TOML])
def test_a_wrong_description_is_told_with_its_line(tmp_path, text, words):
    with pytest.raises(ValueError, match=words) as raised:
        one(toml(tmp_path, text))
    assert "\n" not in str(raised.value)


def python(folder, text):
    (folder / "mine.py").write_text(text)
    return str(folder / "mine.py")


GOOD = """
import numpy as np
import rnnbench as rb
from beside import SIZE

def rows(source):
    x = np.zeros((20, source.T, 3)); y = np.zeros(20)
    return rb.Dataset(rb.Data(x, y), rb.Data(x[:4], y[:4]), None, f"zeros, seed {source.seed}")

WORKLOAD = rb.Workload("zeros", rb.Model(E=3, H=SIZE, O=1), rows, B=4, T=5, rows=(20, 24))
OTHER = 3
"""


def test_a_python_file_and_rows_that_it_makes(tmp_path):
    (tmp_path / "beside.py").write_text("SIZE = 7\n")
    name = python(tmp_path, GOOD) + ":WORKLOAD"
    (found,) = resolve([name], Asked(T=9, H=8), seed=5)
    assert (found.name, found.model.H, found.T, found.source) == ("zeros H8 T9", 8, 9, "zeros, seed 5")
    assert found.rows == (20, 24)
    assert found.load(Source(T=9)).train.inputs.shape == (20, 9, 3)


@pytest.mark.parametrize(
    ("text", "attribute", "words"),
    [
        ("import numpy\n\nx = y\n", "X", r"mine.py line 3: NameError: name 'y' is not defined"),
        ("def f(:\n", "X", r"mine.py line 1: SyntaxError"),
        ("import nothing_of_the_kind\n", "X", r"line 1: ModuleNotFoundError"),
        ("X = 3\n", "X", r"has X, which is int and no Workload; a rnnbench.Workload is needed \(it has none\)"),
        ("X = 3\n", "Y", r"has no Y; a rnnbench.Workload is needed"),
        ("raise SystemExit(3)\n", "X", r"line 1: SystemExit: 3"),
        ("", "", r"has no name after it; give .*mine.py:NAME"),
    ],
)
def test_a_wrong_python_file_gets_one_sentence(tmp_path, text, attribute, words):
    with pytest.raises(ValueError, match=words) as raised:
        one(python(tmp_path, text) + (f":{attribute}" if attribute else ""))
    assert "\n" not in str(raised.value)


def test_sizes_alone_are_made_up_and_few_of_them_change_the_default_workloads():
    (found,) = resolve(None, Asked(V=20_000, E=64, H=256, T=120, B=64))
    assert found.name == "made-up V20000 E64 H256 B64 T120"
    assert (found.made_up, found.model) == (True, Model(V=20_000, E=64, H=256, O=1))
    assert [w.name for w in resolve(None)] == list(DEFAULT)
    assert [w.name for w in resolve(None, Asked(B=16))] == [f"{name} B16" for name in DEFAULT]
    assert resolve(None, Asked(O=3))[0].model.loss is Loss.CATEGORICAL_CROSS_ENTROPY
    with pytest.raises(ValueError, match="E is 0; it must be at least 1"):
        resolve(None, Asked(E=0))


def test_each_cell_makes_a_workload_of_its_own(tmp_path):
    found = resolve(["imdb-50"], Asked(cell=("rnn", "gru"), H=16))
    assert [(w.name, w.model.cell) for w in found] == [("imdb-50 H16", "rnn"), ("imdb-50 gru H16", "gru")]
    rows = resolve([saved(tmp_path, x=TOKENS, y=BITS)], Asked(cell=("rnn", "gru")))
    assert [(w.name, w.kept) for w in rows] == [("rows", "rows"), ("rows gru", "rows")]
    assert [w.name for w in resolve(None, Asked(cell=("gru",)))] == [f"{name} gru" for name in DEFAULT]
    made = resolve(None, Asked(cell=("rnn", "gru"), H=8, E=4))
    assert [w.name for w in made] == ["made-up E4 H8 B32 T100", "made-up gru E4 H8 B32 T100"]


def test_layers_and_directions_are_named_and_leave_made_up_rows_their_name(tmp_path):
    asked = Asked(layers=2, bidirectional=True)
    assert [w.name for w in resolve(None, asked)] == [f"{name} L2 bidirectional" for name in DEFAULT]
    (rows,) = resolve([saved(tmp_path, x=TOKENS, y=BITS)], asked)
    assert (rows.name, rows.model.layers, rows.model.bidirectional) == ("rows L2 bidirectional", 2, True)
    (made,) = resolve(None, Asked(layers=2, bidirectional=True, cell=("lstm",), H=8, E=4))
    assert made.name == "made-up lstm L2 bidirectional E4 H8 B32 T100"
    assert made.spec.problem(DType.FLOAT32).name == made.name
    with pytest.raises(ValueError, match="layers is 0; it must be at least 1"):
        resolve(None, Asked(layers=0, H=8))


def test_lengths_are_read_said_kept_and_read_back(tmp_path):
    said = []
    lengths = np.arange(len(TOKENS)) % (TOKENS.shape[1] + 1)
    path = saved(tmp_path, x=TOKENS, y=BITS, lengths=lengths, x_test=TOKENS, y_test=BITS, lengths_test=lengths[::-1])
    workload = one(path, said, B=4)
    assert f"{lengths.mean():.1f} steps long on average" in said[-1]
    assert workload.lengths
    files.keep_rows(tmp_path, workload)
    again = files.kept_workload(tmp_path, workload.spec)
    assert again.spec == workload.spec
    for got, kept in ((again.data, lengths), (again.test, lengths[::-1])):
        np.testing.assert_array_equal(got.lengths, kept)
    plan = plan_of([workload], ["numpy"], ["forward"], ["float32"], mode=Mode.QUICK, seed=0, timeout=9.0)
    (task,) = tasks_of(plan, said.append, {}, tmp_path)
    assert task.problem.mean_length == task.cases[0].mean_length == lengths.mean()
    np.testing.assert_array_equal(task.rows.lengths, lengths)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"lengths": BITS[:1]}, r"lengths have shape \(1,\)"),
        ({"lengths": np.full(len(TOKENS), 99)}, "length 99 is outside a row of T ="),
        ({"lengths": np.full(len(TOKENS), 0.5)}, "lengths are float64; they must be integers"),
        ({"lengths_test": BITS}, "has lengths_test and no x_test; give both or neither"),
        ({"lengths": BITS, "x_test": TOKENS, "y_test": BITS}, "only the test rows or the others have lengths"),
    ],
)
def test_wrong_lengths_get_one_sentence(tmp_path, arrays, words):
    with pytest.raises(ValueError, match=words):
        one(saved(tmp_path, x=TOKENS, y=BITS, **arrays))


def test_a_built_in_workload_at_other_sizes_tells_so_in_its_name():
    found = one("imdb-50", T=70, B=8, H=16, E=4)
    assert (found.name, found.T, found.B) == ("imdb-50 E4 H16 B8 T70", 70, 8)
    assert (found.model.E, found.model.H, found.model.V) == (4, 16, 10_000)
    assert found.origin == "imdb-50"
    assert one("imdb-50", T=50, B=32).name == "imdb-50"
    for letter, words in {"V": "imdb-50 has V = 10000; -V 0 is for rows from", "O": "-O 0", "T": "T is 0"}.items():
        with pytest.raises(ValueError, match=words):
            one("imdb-50", **{letter: 0})
    with pytest.raises(ValueError, match="E is 1 in running-parity, the width of its rows"):
        one("running-parity", E=2)
    with pytest.raises(ValueError, match=r"no workload 'imbd-50'; did you mean imdb-50.*rows.npz, mine.toml"):
        one("imbd-50")


def test_two_workloads_of_one_name_are_refused(tmp_path):
    mine = Workload("mine", Model(E=3, H=4, O=1), Data(NUMBERS, BITS))
    with pytest.raises(ValueError, match="two workloads are called mine"):
        resolve([mine, Workload("mine", Model(E=3, H=5, O=1), Data(NUMBERS, BITS))])
    with pytest.raises(ValueError, match="parity is the name of a built-in workload"):
        resolve([Workload("parity", Model(E=3, H=4, O=1), Data(NUMBERS, BITS))])
    with pytest.raises(ValueError, match="imdb-50 is the name of a built-in workload"):
        resolve([toml(tmp_path, 'name = "imdb-50"\ndata = "' + saved(tmp_path, x=TOKENS, y=BITS) + '"\n')])


@pytest.mark.parametrize("name", ["", " x", "a/b", "x.", "a" * 121, "a\nb"])
def test_a_name_that_could_not_be_a_files_is_refused(name):
    with pytest.raises(ValueError, match="is no name of a workload"):
        Workload(name, Model(E=3, H=4, O=1), Data(NUMBERS, REALS))


def test_rows_are_kept_and_read_back_bit_for_bit(tmp_path):
    mine = Workload("my rows", Model(E=3, H=4, O=1, loss=Loss.SQUARED_ERROR), Data(NUMBERS, REALS), B=8)
    files.keep_rows(tmp_path, mine)
    again = files.kept_workload(tmp_path, mine.resized(H=9).spec)
    assert (again.name, again.model.H, again.B) == ("my rows H9", 9, 8)
    assert (again.data.inputs == mine.data.inputs).all()
    assert again.rows == mine.rows


def test_other_rows_under_another_name_are_kept_apart(tmp_path):
    mine = Workload("mine", Model(E=3, H=4, O=1), Data(NUMBERS, BITS))
    other = replace(mine, name="other", data=Data(NUMBERS * 2, BITS))
    found = resolve([mine, other, mine.resized(H=8)])
    assert [(w.name, w.kept) for w in found] == [("mine", "mine"), ("other", "other"), ("mine H8", "mine")]
    for workload in found:
        files.keep_rows(tmp_path, workload)
    for workload in found:
        assert (files.kept_workload(tmp_path, workload.spec).data.inputs == workload.data.inputs).all()
    shorter = replace(mine, name="shorter", data=Data(NUMBERS, BITS, np.full(40, 3)))
    assert [w.kept for w in resolve([mine, shorter])] == ["mine", "shorter"]
    files.keep_rows(tmp_path, replace(mine, data=Data(NUMBERS * 3, BITS)))  # a later run in the same place
    assert (files.kept_workload(tmp_path, mine.spec).data.inputs == NUMBERS * 3).all()


def test_a_plan_brings_back_all_that_a_description_says_of_made_up_rows(tmp_path):
    text = 'T = 9\nepochs = 2\nshort_epoch = 3\ninit = "torch"\n[model]\nE = 2\nH = 5\n[train]\noptimizer = "sgd"\n'
    for workload in (made := one(toml(tmp_path, text)), made.resized(H=6)):
        again = workload_of(workload.spec, {})
        assert again.spec == workload.spec
        assert (again.init, again.epochs, again.short_epoch) == (Init.TORCH, 2, 3)
        assert again.train.optimizer is Optimizer.SGD
        assert (again.load(Source(T=9)).train.inputs == workload.load(Source(T=9)).train.inputs).all()


def test_a_function_that_fails_is_told_in_one_sentence():
    def rows(source):
        raise KeyError("no such column")

    broken = Workload("broken", Model(E=3, H=4, O=1), rows, T=5, rows=(20, 20))
    with pytest.raises(ValueError, match="the data of broken failed: KeyError: 'no such column'"):
        resolve([broken])


def test_every_built_in_workload_says_where_its_rows_come_from():
    for name in workloads.REGISTRY:
        assert workloads.get(name).origin == name


def test_names_do_for_the_members_that_they_name():
    x, y = np.zeros((8, 3, 2)), np.zeros((8, 3))
    plain = Model(E=2, H=4, O=1, head="every", loss="squared_error", step_sum="sum")
    assert plain == Model(E=2, H=4, O=1, head=Head.EVERY, loss=Loss.SQUARED_ERROR, step_sum=StepSum.SUM)
    workload = Workload("names", plain, Data(x, y), B=4, train=Train(optimizer="sgd"), init="torch")
    assert (workload.model.head, workload.train.optimizer, workload.init) == (Head.EVERY, Optimizer.SGD, Init.TORCH)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Model(E=2, H=4, O=1, head="each"), "there is no head 'each'; known: last, every"),
        (lambda: Model(E=2, H=4, O=1, loss="squared"), "no loss 'squared'; did you mean squared_error"),
        (lambda: Model(E=2, H=4, O=1, step_sum="total"), "no step_sum 'total'; known: mean, sum"),
        (lambda: Train(optimizer="Adam"), "no optimizer 'Adam'; did you mean adam"),
        (lambda: Workload("w", Model(E=2, H=4, O=1), Data(np.zeros((8, 3, 2)), np.zeros(8)), B=4, init="jax"), "init"),
    ],
)
def test_a_name_that_is_none_is_refused_with_those_that_there_are(make, said):
    with pytest.raises(ValueError, match=said):
        make()
