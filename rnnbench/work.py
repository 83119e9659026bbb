"""What a case needs, from its sizes alone: floating-point operations, and the least traffic to and from memory.

Operations are those of the matrix products, two in each multiply-add. Not counted: the cell's functions and their
derivatives, biases, losses, clipping, the optimizer. With n steps of a row, S outputs a row (n where every step emits,
else 1), R steps that a reverse pass reaches, N steps and K passes of all reverse passes together (R = N = n and K = 1
for full BPTT), G gates of the cell, D directions, and i the width of what a layer reads (E, above the first D H):

    forward     2 B (n G (i H + H H) summed over all layers and directions + S D H O)
    backward    2 B (R G (i H + H H) + (N - K) G H H summed likewise + 2 S D H O), and for what is below a layer
                2 B R G E H more in each direction for an embedding, 2 B N G D H H for another layer
                (dW_xh and dW_hh; the deltas; dW_hy and the way back through it; d embedding)

    gradient    forward + backward          train_step  gradient          epoch  a train step for each of its batches

Weight gradients are formed once, from the deltas of all reverse passes. A product counts for each token, though
equal tokens have equal products: who computes those once is credited with all of them.

n is T, or of rows with lengths their mean, over all rows to train on: steps past a row's length do not count, whoever
computes them. R, N and K are then those of a row of the mean length; truncated, which is not linear in the length,
means over rows of all lengths up to half a stride from it.

Traffic: each array that a pass is given or answers with moves once, and the states move twice, out in the forward and
in for the backward pass; gates can be computed again from them. With w bytes a number, C states of all layers and
directions, P numbers in the parameters, Q of them outside the embedding, U and U' rows of the table (V, or one for each
token of n or R steps, whichever is less):

    forward     w (Q + inputs + B S O + B C H) + targets
    gradient    forward + w (2 B min(n, R + 1) C H + Q + U' E)
    train_step  forward + w (2 B min(n, R + 1) C H) + update

    inputs      w B n E, or for an embedding w U E and 4 B n for the tokens
    targets     w B S O, or 4 B S for class numbers
    update      Adam: w (P - Q - U E) to read the rest of the table, w P to write, 4 w P for its two moments
                SGD: w (Q + U' E) to write
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from rnnbench.model import Case, Head, Loss, Optimizer, Pass, Problem

_INDEX_BYTES = 4  # of a token or a class number
_LENGTHS = 100  # at most, that a mean over lengths is taken of

Number = int | float  # whole where each row has all T steps


@dataclass(frozen=True)
class Work:
    """Floating-point operations and least traffic in bytes of one call."""

    flops: int
    bytes: int

    @property
    def intensity(self) -> float:
        """Operations for each byte."""
        return self.flops / self.bytes


def work_of(case: Case) -> Work:
    """Operations and traffic of one call of the case, by the formulas of this module."""
    if case.pass_ is Pass.STEP:
        model = replace(case.model, head=Head.EVERY)
        case = replace(case, pass_=Pass.FORWARD, model=model, T=1, truncation=None, mean_length=None)
    forward, backward = _operations(case)
    if case.pass_ is Pass.FORWARD:
        return Work(round(forward), round(_forward_bytes(case)))
    if case.pass_ is Pass.GRADIENT:
        moved = _forward_bytes(case) + _state_bytes(case) + _gradient_bytes(case)
        return Work(round(forward + backward), round(moved))
    step = _forward_bytes(case) + _state_bytes(case) + _update_bytes(case)
    return Work(case.steps * round(forward + backward), case.steps * round(step))


def _length(problem: Problem) -> Number:
    """n."""
    return problem.T if problem.mean_length is None else problem.mean_length


def _outputs(problem: Problem) -> Number:
    """S."""
    return _length(problem) if problem.model.head is Head.EVERY else 1


@dataclass(frozen=True)
class _Reverse:
    """The reverse passes of a row: steps that one reaches (R), steps (N) and passes (K) of all together."""

    reached: Number
    steps: Number
    passes: Number


def _reverse(problem: Problem) -> _Reverse:
    mean, cut = problem.mean_length, problem.truncation
    if mean is None:
        return _reverse_of(problem, problem.T)
    if cut is None:
        return _Reverse(mean, mean, min(mean, 1))
    count = min(cut.stride, _LENGTHS)
    lengths = (round(mean + cut.stride * ((i + 0.5) / count - 0.5)) for i in range(count))
    each = [_reverse_of(problem, max(0, min(problem.T, length))) for length in lengths]
    return _Reverse(*(sum(getattr(e, name) for e in each) / count for name in ("reached", "steps", "passes")))


def _reverse_of(problem: Problem, length: int) -> _Reverse:
    """Of a row of so many steps, by the blocks in `model.blocks_of`; without them, as a record may name any T."""
    cut = problem.truncation
    if length == 0:
        return _Reverse(0, 0, 0)
    if cut is None:
        return _Reverse(length, length, 1)
    before = (length - 1) // cut.stride  # blocks before the one in which the row ends
    end = min(problem.T, (before + 1) * cut.stride)
    last = length - max(0, end - cut.window)
    if problem.model.head is Head.LAST:
        return _Reverse(last, last, 1)
    grown = min(before, cut.window // cut.stride)  # those that reach back to the first step
    steps = cut.stride * grown * (grown + 1) // 2 + (before - grown) * cut.window
    return _Reverse(length, steps + last, before + 1)


def _operations(problem: Problem) -> tuple[Number, Number]:
    model, B, n, S, back = problem.model, problem.B, _length(problem), _outputs(problem), _reverse(problem)
    H, width = model.H, model.recurrence.width(model.H)
    forward: Number = S * model.read * model.O
    backward: Number = 2 * forward
    for direction in model.directions:
        gates = (direction.E + H) * width
        below = back.steps if direction.layer else 0 if model.V is None else back.reached
        forward += n * gates
        backward += back.reached * gates + (back.steps - back.passes) * H * width + below * direction.E * width
    return 2 * B * forward, 2 * B * backward


def _weights(problem: Problem) -> int:
    """Q."""
    return sum(math.prod(shape) for name, shape in problem.model.shapes.items() if name != "embedding")


def _rows(problem: Problem, steps: Number) -> Number:
    """Numbers in the rows of the table that tokens of so many steps name, at most: U E."""
    V = problem.model.V
    return 0 if V is None else min(V, problem.B * steps) * problem.model.E


def _forward_bytes(problem: Problem) -> Number:
    model, B, n, S, w = problem.model, problem.B, _length(problem), _outputs(problem), problem.dtype.bytes
    inputs = w * B * n * model.E if model.V is None else w * _rows(problem, n) + _INDEX_BYTES * B * n
    classes = model.loss is Loss.CATEGORICAL_CROSS_ENTROPY
    targets = _INDEX_BYTES * B * S if classes else w * B * S * model.O
    return w * (_weights(problem) + B * S * model.O + B * _carried(problem)) + inputs + targets


def _state_bytes(problem: Problem) -> Number:
    kept = min(_length(problem), _reverse(problem).reached + 1)
    return 2 * problem.dtype.bytes * problem.B * kept * _carried(problem)


def _carried(problem: Problem) -> int:
    """C H."""
    return len(problem.model.states) * problem.model.H


def _gradient_bytes(problem: Problem) -> Number:
    return problem.dtype.bytes * (_weights(problem) + _rows(problem, _reverse(problem).reached))


def _update_bytes(problem: Problem) -> Number:
    if problem.train.optimizer is Optimizer.SGD:
        return _gradient_bytes(problem)  # as many numbers as have a gradient
    every = sum(math.prod(shape) for shape in problem.model.shapes.values())
    unread = every - _weights(problem) - _rows(problem, _length(problem))
    return problem.dtype.bytes * (unread + every + 4 * every)
