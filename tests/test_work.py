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


def brute_force(case):
    """One call, step by step."""
    model, B, T, w = case.model, case.B, case.T, {DType.FLOAT32: 4, DType.FLOAT64: 8}[case.dtype]
    E, H, O, V = model.E, model.H, model.O, model.V
    count = Counter(case)
    emits = [t for t in range(T) if model.head is Head.EVERY or t == T - 1]
    for t in range(T):
        for _ in model.recurrence.gates:
            count.product(B, E, H)
            count.product(B, H, H)
        for i in range(B):
            if V is None:
                count.touch(f"x {t} {i}", E, w)
            else:
                count.touch(f"token {t} {i}", 1, 4)
                count.touch(f"embedding {(t * B + i) % V}", E, w)  # no word again before all have come
    for name, size in weights(model).items():
        count.touch(name, size, w)
    for t in emits:
        count.product(B, H, O)
        count.touch(f"logits {t}", B * O, w, "write")
        classes = model.loss is Loss.CATEGORICAL_CROSS_ENTROPY
        count.touch(f"targets {t}", B if classes else B * O, 4 if classes else w)
    for name in model.recurrence.states:
        count.touch(f"last {name}", B * H, w, "write")
    if case.pass_ is not Pass.FORWARD:
        backward(case, count, emits, w)
    return count


def weights(model):
    """Name -> numbers in each parameter but the embedding."""
    E, H, O = model.E, model.H, model.O
    head = {"W_hy": H * O, "b_y": O}
    if model.cell == "gru":
        return {"W_xh": E * 3 * H, "W_hh": H * 3 * H, "b_h": 3 * H, "b_hn": H} | head
    if model.cell == "lstm":
        return {"W_xh": E * 4 * H, "W_hh": H * 4 * H, "b_h": 4 * H} | head
    return {"W_xh": E * H, "W_hh": H * H, "b_h": H} | head


def backward(case, count, emits, w):
    model, B, T = case.model, case.B, case.T
    E, H, O, V = model.E, model.H, model.O, model.V
    reached, kept = set(), set()
    for block in blocks_of(model, case.truncation, T):
        for t in reversed(range(block.start, block.end)):
            reached.add(t)
            kept |= {t, t - 1}
            for _ in model.recurrence.gates if t > block.start else ():
                count.product(B, H, H)  # to the delta of the step before
    for _ in emits:
        count.product(H, B, O)  # dW_hy
        count.product(B, O, H)  # the way back through it
    gradient = case.pass_ is Pass.GRADIENT
    adam = case.train.optimizer is Optimizer.ADAM
    for t in reached:
        for _ in model.recurrence.gates:
            count.product(E, B, H)
            count.product(H, B, H)
            if V is not None:
                count.product(B, H, E)
        if V is not None:
            for i in range(B):
                if gradient or not adam:
                    count.touch(f"embedding {(t * B + i) % V}", E, w, "write")
    for t, name in product(kept - {-1}, model.recurrence.states):
        count.touch(f"{name} {t}", B * H, w, "write")
        count.touch(f"{name} {t}", B * H, w)
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
        for head in Head:
            asked = small_problem(T=T, head=head, truncation=Truncation(window, stride))
            blocks = blocks_of(asked.model, asked.truncation, T)
            assert work._deltas(asked) == sum(block.end - block.start - 1 for block in blocks)
            assert work._reached(asked) == T - blocks[0].start
    huge = small_problem(T=10**15, head=Head.EVERY, truncation=Truncation(1, 1))
    assert work._deltas(huge) == 0
