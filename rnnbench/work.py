"""What a case needs, from its sizes alone: floating-point operations, and the least traffic to and from memory.

Operations are those of the matrix products, two in each multiply-add. Not counted: the cell's functions and their
derivatives, biases, losses, clipping, the optimizer. With S outputs a row (T where every step emits, else 1), R steps
that a reverse pass reaches, N steps and K passes of all reverse passes together (R = N = T and K = 1 for full BPTT),
and G gates of the cell:

    forward     2 B (T G (E H + H H) + S H O)
    backward    2 B (R G (E H + H H) + (N - K) G H H + 2 S H O), and 2 B R G E H more for an embedding
                (dW_xh and dW_hh; the deltas; dW_hy and the way back through it; d embedding)

    gradient    forward + backward          train_step  gradient          epoch  a train step for each of its batches

Weight gradients are formed once, from the deltas of all reverse passes. A product counts for each token, though
equal tokens have equal products: who computes those once is credited with all of them.

Traffic: each array that a pass is given or answers with moves once, and the states move twice, out in the forward and
in for the backward pass; gates can be computed again from them. With w bytes a number, C states of the cell, P numbers
in the parameters, Q of them outside the embedding, U and U' rows of the table (V, or one for each token of T or R
steps, whichever is less):

    forward     w (Q + inputs + B S O + B C H) + targets
    gradient    forward + w (2 B min(T, R + 1) C H + Q + U' E)
    train_step  forward + w (2 B min(T, R + 1) C H) + update

    inputs      w B T E, or for an embedding w U E and 4 B T for the tokens
    targets     w B S O, or 4 B S for class numbers
    update      Adam: w (P - Q - U E) to read the rest of the table, w P to write, 4 w P for its two moments
                SGD: w (Q + U' E) to write
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from rnnbench.model import Case, Head, Loss, Optimizer, Pass, Problem

_INDEX_BYTES = 4  # of a token or a class number


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
    forward, backward = _operations(case)
    if case.pass_ is Pass.FORWARD:
        return Work(forward, _forward_bytes(case))
    if case.pass_ is Pass.GRADIENT:
        return Work(forward + backward, _forward_bytes(case) + _state_bytes(case) + _gradient_bytes(case))
    step = _forward_bytes(case) + _state_bytes(case) + _update_bytes(case)
    return Work(case.steps * (forward + backward), case.steps * step)


def _outputs(problem: Problem) -> int:
    """S."""
    return problem.T if problem.model.head is Head.EVERY else 1


def _reached(problem: Problem) -> int:
    """R. Windows meet or overlap, so it is all steps from the start of the first one."""
    return problem.T - _first_step(problem)


def _first_step(problem: Problem) -> int:
    """Where the first reverse pass starts: a window before the end where the last step alone has a loss."""
    if problem.truncation is None or problem.model.head is Head.EVERY:
        return 0
    return max(0, problem.T - problem.truncation.window)


def _deltas(problem: Problem) -> int:
    """N - K, of the blocks in `model.blocks_of`; counted without them, as a record may name any T."""
    T, truncation = problem.T, problem.truncation
    if truncation is None or problem.model.head is Head.LAST:
        return _reached(problem) - 1
    before = (T - 1) // truncation.stride  # blocks before the one that ends at T
    grown = min(before, truncation.window // truncation.stride)  # those that reach back to the first step
    steps = truncation.stride * grown * (grown + 1) // 2 + (before - grown) * truncation.window
    return steps + min(truncation.window, T) - (before + 1)


def _operations(problem: Problem) -> tuple[int, int]:
    model, B, T, S, R = problem.model, problem.B, problem.T, _outputs(problem), _reached(problem)
    E, H, O, width = model.E, model.H, model.O, model.recurrence.width(model.H)
    deltas = _deltas(problem)
    through_embedding = 0 if model.V is None else R * E * width
    forward = 2 * B * (T * (E + H) * width + S * H * O)
    backward = 2 * B * (R * (E + H) * width + deltas * H * width + 2 * S * H * O + through_embedding)
    return forward, backward


def _weights(problem: Problem) -> int:
    """Q."""
    return sum(math.prod(shape) for name, shape in problem.model.shapes.items() if name != "embedding")


def _rows(problem: Problem, steps: int) -> int:
    """Numbers in the rows of the table that tokens of so many steps name, at most: U E."""
    V = problem.model.V
    return 0 if V is None else min(V, problem.B * steps) * problem.model.E


def _forward_bytes(problem: Problem) -> int:
    model, B, T, S, w = problem.model, problem.B, problem.T, _outputs(problem), problem.dtype.bytes
    inputs = w * B * T * model.E if model.V is None else w * _rows(problem, T) + _INDEX_BYTES * B * T
    classes = model.loss is Loss.CATEGORICAL_CROSS_ENTROPY
    targets = _INDEX_BYTES * B * S if classes else w * B * S * model.O
    return w * (_weights(problem) + B * S * model.O + B * _carried(problem)) + inputs + targets


def _state_bytes(problem: Problem) -> int:
    kept = min(problem.T, _reached(problem) + 1)
    return 2 * problem.dtype.bytes * problem.B * kept * _carried(problem)


def _carried(problem: Problem) -> int:
    """C H."""
    return len(problem.model.recurrence.states) * problem.model.H


def _gradient_bytes(problem: Problem) -> int:
    return problem.dtype.bytes * (_weights(problem) + _rows(problem, _reached(problem)))


def _update_bytes(problem: Problem) -> int:
    if problem.train.optimizer is Optimizer.SGD:
        return _gradient_bytes(problem)  # as many numbers as have a gradient
    every = sum(math.prod(shape) for shape in problem.model.shapes.values())
    unread = every - _weights(problem) - _rows(problem, problem.T)
    return problem.dtype.bytes * (unread + every + 4 * every)
