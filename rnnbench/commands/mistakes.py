"""The four mistakes of the seed notebooks, and the one of them that needs computing to be seen."""

from __future__ import annotations

import numpy as np

from rnnbench.backends.numpy import backward_pass, dlosses, forward_pass
from rnnbench.correctness.tolerances import relative_error
from rnnbench.data import Data, shaped_targets
from rnnbench.model import Problem
from rnnbench.params import Array, Params

MISTAKES = {
    1: "bptt-golden adds the losses of its forward pass to a total that is never set back, and the cell was run "
    "twice. The loss is 0.37498379581458174; the printed 0.7499675916291635 is its double.",
    2: "bptt-golden multiplies by 1 - tanh(h)^2 where h is a tanh already; the derivative is 1 - h^2. With weights "
    "near 0.01, h is near 0 and both are near 1, so nobody sees it. With larger weights the gradient is wrong.",
    3: "The PyTorch evaluation counts sigmoid(z) > 0 as positive. A sigmoid is always above 0, so every review is, and "
    "the accuracy is the share of positive labels: 0.5000 for any network. The threshold is 0.5 (z > 0).",
    4: "imdb-200 pads at the end, so the network reads a short review first and then padding to the last step, "
    "where it is asked. What it read has faded by then. Padding in front, or stopping at each review's length, is "
    "the cure.",
}


def seed_gradient(problem: Problem, params: Params, data: Data) -> tuple[dict[str, Array], dict[str, Array]]:
    """The right gradient, and the one with the notebook's derivative of tanh."""
    trace = forward_pass(problem.model, params, data.inputs, None)
    targets = shaped_targets(problem, data.targets)
    dz = dlosses(problem.model, trace.logits, targets) * problem.model.loss_scale(problem.B, problem.T)
    right = backward_pass(problem.model, params, data.inputs, trace, dz, None)
    h = trace.states["h"]
    wrong = {name: np.zeros_like(value) for name, value in params.items()}
    dh = np.zeros_like(h[0])
    for t in reversed(range(problem.T)):
        wrong["W_hy"] += h[t + 1].T @ dz[:, t]
        wrong["b_y"] += dz[:, t].sum(axis=0)
        delta = (dh + dz[:, t] @ params["W_hy"].T) * (1 - np.tanh(h[t + 1]) ** 2)
        wrong["W_xh"] += trace.x[t].T @ delta
        wrong["W_hh"] += h[t].T @ delta
        wrong["b_h"] += delta.sum(axis=0)
        dh = delta @ params["W_hh"].T
    return right, wrong


def error_of_seed_gradient(problem: Problem, params: Params, data: Data) -> float:
    """The worst relative error, over all parameters, of the notebook's gradient."""
    right, wrong = seed_gradient(problem, params, data)
    errors = [relative_error(right[name], wrong[name]) for name in right]
    return max(e for e in errors if e is not None)
