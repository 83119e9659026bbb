"""What a case needs, against loops that do it number by number and count."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from rnnbench import work
from rnnbench.model import Case, DType, Head, Loss, Optimizer, Pass, Train, Truncation, blocks_of
from rnnbench.work import work_of
from tests.helpers import small_problem


class Counter:
    """Multiply-adds, and the numbers that are read and written, each once."""

    def __init__(self, case):
        self.case, self.multiply_adds, self.moved = case, 0, set()
        self.again = 0  # bytes that move a second time

    def product(self, *sizes):
        """A matrix product, number by number."""
        a, b, c = sizes
        for _ in range(a):
            for _ in range(b):
                for _ in range(c):
                    self.multiply_adds += 1

    def touch(self, array, count, width, way="read"):
        self.moved |= {(array, way, i, width) for i in range(count)}

    @property
    def bytes(self):
        return sum(width for *_, width in self.moved) + self.again


def lengths_of(case):
    """Of the rows of a batch: the mean, one step more and one less in turn, where the problem has lengths."""
    if case.mean_length is None:
        return [case.T] * case.B
    spread = [int(case.mean_length + 1 - 2 * (i % 2)) for i in range(case.B)]
    assert sum(spread) == case.mean_length * case.B
    return spread


def brute_force(case):
    """One call, row by row and step by step."""
    model, lengths, w = case.model, lengths_of(case), {DType.FLOAT32: 4, DType.FLOAT64: 8}[case.dtype]
    E, H, O, V = model.E, model.H, model.O, model.V
    count, words = Counter(case), 0
    classes = model.loss is Loss.CATEGORICAL_CROSS_ENTROPY
    for i, length in enumerate(lengths):
        for t in range(length):
            for E_read in widths(model):
                for _ in model.recurrence.gates:
                    count.product(1, E_read, H)
                    count.product(1, H, H)
            if V is None:
                count.touch(f"x {t} {i}", E, w)
            else:
                count.touch(f"token {t} {i}", 1, 4)
                count.touch(f"embedding {words % V}", E, w)  # no word again before all have come
                words += 1
        for t in emits(model, length):
            count.product(1, model.read, O)
            count.touch(f"logits {t} {i}", O, w, "write")
            count.touch(f"targets {t} {i}", 1 if classes else O, 4 if classes else w)
        for name in states(model):
            count.touch(f"last {name} {i}", H, w, "write")
    for name, size in weights(model).items():
        count.touch(name, size, w)
    if case.pass_ is not Pass.FORWARD:
        backward(case, count, lengths, w)
    return count


def emits(model, length):
    return range(length) if model.head is Head.EVERY else [length - 1]


def widths(model):
    """What each layer reads in each direction."""
    both = range(2 if model.bidirectional else 1)
    return [model.E if layer == 0 else len(both) * model.H for layer in range(model.layers) for _ in both]


def states(model):
    each = {"rnn": ["h"], "gru": ["h"], "lstm": ["h", "c"]}[model.cell]
    return [f"{name} {i}" for i in range(len(widths(model))) for name in each]


def weights(model):
    """Name -> numbers in each parameter but the embedding."""
    H, O = model.H, model.O
    G = {"rnn": 1, "gru": 3, "lstm": 4}[model.cell]
    found = {"W_hy": (2 if model.bidirectional else 1) * H * O, "b_y": O}
    for i, E in enumerate(widths(model)):
        found |= {f"W_xh {i}": E * G * H, f"W_hh {i}": H * G * H, f"b_h {i}": G * H}
        found |= {f"b_hn {i}": H} if model.cell == "gru" else {}
    return found


def backward(case, count, lengths, w):
    model, words = case.model, 0
    E, H, O, V = model.E, model.H, model.O, model.V
    gradient = case.pass_ is Pass.GRADIENT
    adam = case.train.optimizer is Optimizer.ADAM
    for i, length in enumerate(lengths):
        reached, kept = set(), set()
        for block in blocks_of(model, case.truncation, case.T, case.lengths):
            last = min(block.end, length)
            if block.emit >= length or (model.head is Head.LAST and block.end < length):
                continue  # nothing of this row is emitted there
            for t in reversed(range(block.start, last)):
                reached.add(t)
                kept |= {t, t - 1}
                for n, E_read in enumerate(widths(model)):
                    for _ in model.recurrence.gates:
                        if t > block.start:
                            count.product(1, H, H)  # to the delta of the step before
                        if n >= (2 if model.bidirectional else 1):
                            count.product(1, H, E_read)  # to the layer below
        for _ in emits(model, length):
            count.product(model.read, 1, O)  # dW_hy
            count.product(1, O, model.read)  # the way back through it
        for _ in reached:
            for n, E_read in enumerate(widths(model)):
                for _ in model.recurrence.gates:
                    count.product(E_read, 1, H)
                    count.product(H, 1, H)
                    if V is not None and n < (2 if model.bidirectional else 1):
                        count.product(1, H, E)
            if V is not None and (gradient or not adam):
                count.touch(f"embedding {words % V}", E, w, "write")
                words += 1
        for t, name in product(kept - {-1}, states(model)):
            count.touch(f"{name} {t} {i}", H, w, "write")
            count.touch(f"{name} {t} {i}", H, w)
    for name, size in weights(model).items():
        count.touch(name, size, w, "write")
        if adam and not gradient:
            for moment in "mv":
                count.touch(f"{moment} {name}", size, w)
                count.touch(f"{moment} {name}", size, w, "write")
    if adam and not gradient and V is not None:
        for word in range(V):
            for way in ("read", "write"):
                count.touch(f"embedding {word}", E, w, way)
                for moment in "mv":
                    count.touch(f"{moment} embedding {word}", E, w, way)


PROBLEMS = {
    "words, few": small_problem(B=2, T=4, V=5),
    "words, many": small_problem(B=2, T=4, V=50, dtype=DType.FLOAT32),
    "dense": small_problem(B=3, T=4, V=None, O=2),
    "every step": small_problem(B=2, T=5, V=None, head=Head.EVERY, O=3),
    "classes": small_problem(B=2, T=3, V=4, O=3, loss=Loss.CATEGORICAL_CROSS_ENTROPY, dtype=DType.FLOAT32),
    "one of everything": small_problem(B=1, T=1, E=1, H=1, V=None),
    "truncated, last": small_problem(B=2, T=9, V=40, truncation=Truncation(3, 2)),
    "truncated, every": small_problem(B=2, T=7, V=11, head=Head.EVERY, truncation=Truncation(4, 2)),
    "chunks": small_problem(B=2, T=7, V=None, head=Head.EVERY, truncation=Truncation(3, 3)),
    "gru": small_problem(B=2, T=4, V=50, cell="gru"),
    "gru, truncated": small_problem(B=2, T=7, V=None, head=Head.EVERY, cell="gru", truncation=Truncation(4, 2)),
    "lstm": small_problem(B=2, T=4, V=50, cell="lstm"),
    "lstm, truncated": small_problem(B=2, T=7, V=None, head=Head.EVERY, cell="lstm", truncation=Truncation(4, 2)),
    "layers": small_problem(B=2, T=4, V=50, layers=3),
    "layers, truncated": small_problem(B=2, T=7, V=None, head=Head.EVERY, layers=2, truncation=Truncation(4, 2)),
    "layers, words, truncated": small_problem(B=2, T=7, V=9, cell="gru", layers=3, truncation=Truncation(4, 2)),
    "bidirectional": small_problem(B=2, T=4, V=50, O=2, bidirectional=True),
    "layers, bidirectional": small_problem(
        B=2, T=4, V=None, cell="lstm", head=Head.EVERY, layers=2, bidirectional=True
    ),
    "lengths": small_problem(B=4, T=7, V=50, mean_length=4.0),
    "lengths, every step": small_problem(B=4, T=7, V=6, O=2, head=Head.EVERY, mean_length=4.0),
    "lengths, layers, bidirectional": small_problem(
        B=2, T=9, V=None, cell="gru", head=Head.EVERY, layers=2, bidirectional=True, mean_length=4.0
    ),
    "sgd": small_problem(B=2, T=4, V=50, train=Train(Optimizer.SGD)),
    "sgd, dense": small_problem(B=2, T=4, V=None, train=Train(Optimizer.SGD)),
}


@pytest.mark.parametrize("pass_", [Pass.FORWARD, Pass.GRADIENT, Pass.TRAIN_STEP])
@pytest.mark.parametrize("name", PROBLEMS)
def test_formulas_against_counting(name, pass_):
    case = Case(**vars(PROBLEMS[name]), pass_=pass_)
    count, work = brute_force(case), work_of(case)
    assert work.flops == 2 * count.multiply_adds
    assert work.bytes == count.bytes
    assert work.intensity == work.flops / work.bytes


def test_an_epoch_is_so_many_train_steps():
    step = Case(**vars(PROBLEMS["dense"]), pass_=Pass.TRAIN_STEP)
    epoch = replace(step, pass_=Pass.EPOCH, steps=7)
    assert work_of(epoch).flops == 7 * work_of(step).flops
    assert work_of(epoch).bytes == 7 * work_of(step).bytes


def test_a_size_known_by_heart():
    """imdb-200: 32 rows, 200 steps, E = H = 128; 2 x 32 x 200 x 2 x 128^2 and the head forward."""
    problem = small_problem(B=32, T=200, E=128, H=128, V=10_000, dtype=DType.FLOAT32)
    assert work_of(Case(**vars(problem), pass_=Pass.FORWARD)).flops == 419_430_400 + 2 * 32 * 128


def test_reverse_passes_are_counted_without_making_them():
    for T, window, stride in ((T, w, s) for T in range(1, 13) for w in range(1, 14) for s in range(1, w + 1)):
        for head, length in product(Head, range(1, T + 1)):
            asked = small_problem(T=T, head=head, truncation=Truncation(window, stride), mean_length=float(length))
            ends = [
                (block.start, min(block.end, length))
                for block in blocks_of(asked.model, asked.truncation, T, lengths=True)
                if block.emit < length and (head is Head.EVERY or length <= block.end)
            ]
            found = work._reverse_of(asked, length)
            assert found.passes == len(ends)
            assert found.steps == sum(end - start for start, end in ends)
            assert found.reached == length - ends[0][0]
    huge = small_problem(T=10**15, head=Head.EVERY, truncation=Truncation(1, 1))
    found = work._reverse(huge)
    assert found.steps == found.passes == 10**15


def test_truncated_rows_with_lengths_count_as_rows_of_all_lengths_about_their_mean():
    cut = Truncation(4, 4)
    asked = small_problem(T=40, truncation=cut, mean_length=18.5)
    found = work._reverse(asked)  # rows of 17 to 20 steps, of which the last block has 1 to 4
    assert (found.reached, found.steps, found.passes) == (2.5, 2.5, 1)
    assert work_of(Case(**vars(asked), pass_=Pass.GRADIENT)).flops > 0
