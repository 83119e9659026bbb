"""`rnnbench seeds`: the experiments of two public teaching notebooks, their figures beside ours, their mistakes named.

The notebooks: an introduction to recurrent networks (forward pass, back-propagation, parity, sentiment), and a
comparison of Keras and PyTorch on IMDB reviews. Facts about them are in `docs/seeds.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np

from rnnbench import workloads
from rnnbench.api.learning import make_training
from rnnbench.backends.base import Outputs
from rnnbench.backends.numpy import backward_pass, dlosses, forward_pass
from rnnbench.correctness.tolerances import relative_error
from rnnbench.data import Data, shaped_targets
from rnnbench.files import temporary_folder
from rnnbench.harness import arrays
from rnnbench.harness.observer import Observer
from rnnbench.harness.plan import Plan
from rnnbench.harness.tasks import refused_sizes
from rnnbench.harness.train import Test, Training, train_in_worker
from rnnbench.harness.worker_client import WorkerFailure
from rnnbench.harness.worker_pool import WorkerPool
from rnnbench.model import DType, Head, Loss, Model, Optimizer, Pass, Problem, StepSum, Train
from rnnbench.params import Array, Init, Params, cast, init_params
from rnnbench.records.record import Epoch
from rnnbench.records.store import new_run_id
from rnnbench.workloads.base import Dataset, Split

MISTAKES = {
    1: "bptt-golden adds the losses of its forward pass to a total that is never set back, and the cell was run "
    "twice. The loss is 0.37498379581458174; the printed 0.7499675916291635 is its double.",
    2: "bptt-golden multiplies by 1 - tanh(h)^2 where h is a tanh already; the derivative is 1 - h^2. With weights "
    "near 0.01, h is near 0 and both are near 1, so it goes unseen. With larger weights the gradient is wrong.",
    3: "The PyTorch evaluation counts sigmoid(z) > 0 as positive. A sigmoid is always above 0, so every review is, and "
    "the accuracy is the share of positive labels: 0.5000 for any network. The threshold is 0.5 (z > 0).",
    4: "imdb-200 pads at the end, so the network reads a short review first and then padding to the last step, "
    "where it is asked. What it read has faded by then. Padding in front, or stopping at each review's length, is "
    "the cure.",
}

# fmt: off
FORWARD_OUTPUTS = np.array([
    [1.36210111, -0.04806836], [-0.38264111, 1.23505342], [0.47215486, -1.39426624],
    [-0.66213135, 2.32535818], [2.92316993, 0.1776373], [-2.84506174, -0.23812638],
])
# fmt: on
BPTT_PRINTED = 0.7499675916291635  # twice the loss: mistake 1

# The ten short texts, each word by its rank in their own vocabulary of 17 words.
TOY_ROWS = [
    [9, 1], [1, 1], [3, 3, 10], [2, 11, 2, 1, 2], [12, 13, 4, 5], [6, 6], [7, 7], [8, 8], [14, 15, 4, 5], [16, 17],
]  # fmt: skip


@dataclass(frozen=True)
class SeedFinding:
    """One line of the table: what the seed prints, what we get, what to make of it. `agrees` None: not comparable."""

    experiment: str
    quantity: str
    theirs: str
    ours: str
    agrees: bool | None
    note: str = ""


class LeftOut(Exception):
    """Memory does not hold an experiment; the message says what it would need."""


class Bench:
    """One worker of the chosen backend, and the plan's seed, folder and observer."""

    def __init__(self, plan: Plan, pool: WorkerPool, folder: Path, observer: Observer) -> None:
        self.plan, self.pool, self.folder, self.observer = plan, pool, folder, observer
        self.backend = plan.backends[0]

    def answer(self, problem: Problem, params: Params, data: Data, pass_: Pass) -> Outputs:
        """The outputs of one pass."""
        staged, out = self.folder / "arrays" / "golden.npz", self.folder / "arrays" / "out.npz"
        arrays.save_problem(staged, params, data)
        self.pool.ask(self.backend, "prepare", problem=msgspec.to_builtins(problem), arrays=str(staged))
        self.pool.ask(self.backend, "first", pass_=pass_, order=None, out=str(out))
        return arrays.load_outputs(out)

    def training(self, workload: str, cell: str = "rnn") -> Training:
        """A workload's training with its own number of epochs, and with this cell."""
        spec = workloads.get(workload).resized(cell=cell).spec
        if refused := refused_sizes(replace(self.plan, workloads=(spec,)), trained=True):
            raise LeftOut(next(iter(refused.values())))
        return make_training(spec, self.plan, new_run_id(), self.observer)

    def train(self, training: Training, name: str) -> tuple[list[Epoch], Test]:
        """All epochs, and the test."""
        epochs: list[Epoch] = []

        def emit(epoch: Epoch) -> None:
            epochs.append(epoch)
            self.observer.show(f"{name}: epoch {epoch.epoch} of {epoch.epochs}", epoch.epoch / epoch.epochs)

        self.observer.show(f"{name}: {self.backend}", 0.0)
        return epochs, train_in_worker(training, self.backend, self.pool, emit)


def transposed(W_xh: Array, W_hh: Array, W_hy: Array) -> Params:
    """Our parameters of the notebook's, which multiply from the left; its biases are 0."""
    zeros = {"b_h": np.zeros(len(W_hh)), "b_y": np.zeros(len(W_hy))}
    return {"W_xh": W_xh.T.copy(), "W_hh": W_hh.T.copy(), "W_hy": W_hy.T.copy(), **zeros}


def forward_golden(bench: Bench) -> list[SeedFinding]:
    """Six steps of a random network with seed 0."""
    rng = np.random.RandomState(0)
    x, W_xh, W_hh, W_hy = (rng.randn(*shape) for shape in ((6, 4), (5, 4), (5, 5), (2, 5)))
    model = Model(E=4, H=5, O=2, head=Head.EVERY, loss=Loss.SQUARED_ERROR)
    params = transposed(W_xh, W_hh, W_hy)
    problem = Problem("forward-golden", DType.FLOAT64, model, Train(), B=1, T=6)
    logits = bench.answer(problem, params, Data(x[None], np.zeros((1, 6, 2))), Pass.FORWARD).logits
    assert logits is not None
    off = float(np.abs(logits[0] - FORWARD_OUTPUTS).max())
    return [
        SeedFinding(
            "forward-golden",
            "12 outputs",
            f"{FORWARD_OUTPUTS[0, 0]} ... {FORWARD_OUTPUTS[-1, -1]}",
            f"{logits[0, 0, 0]:.8f} ... {logits[0, -1, -1]:.8f}",
            off < 1e-8,
            f"largest difference {off:.0e}; they print 8 digits",
        )
    ]


def bptt_problem() -> tuple[Problem, Params, Data]:
    """Three steps, squared error of a sigmoid, clipping at 1, SGD with 0.1, weights near 0.01, seed 42."""
    rng = np.random.RandomState(42)
    W_xh, W_hh, W_hy = (0.01 * rng.randn(*shape) for shape in ((4, 2), (4, 4), (1, 4)))
    model = Model(E=2, H=4, O=1, head=Head.EVERY, loss=Loss.SIGMOID_SQUARED_ERROR, step_sum=StepSum.SUM)
    sgd = Train(Optimizer.SGD, learning_rate=0.1, clip_value=1.0)
    params = transposed(W_xh, W_hh, W_hy)
    data = Data(np.array([[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]]), np.array([[1.0, 0.0, 1.0]]))
    return Problem("bptt-golden", DType.FLOAT64, model, sgd, B=1, T=3), params, data


def bptt_golden(bench: Bench) -> list[SeedFinding]:
    """The loss, and how far the notebook's gradient is from the right one for small and for large weights."""
    problem, params, data = bptt_problem()
    outputs = bench.answer(problem, params, data, Pass.GRADIENT)
    assert outputs.loss is not None
    small, large = (
        error_of_seed_gradient(problem, {k: v * scale for k, v in params.items()}, data) for scale in (1, 100)
    )
    return [
        SeedFinding(
            "bptt-golden", "loss", f"{BPTT_PRINTED}", f"{outputs.loss:.17g}",
            abs(2 * outputs.loss - BPTT_PRINTED) < 1e-12, "theirs is the double: mistake 1",
        ),
        SeedFinding(
            "bptt-golden", "error of their gradient", "not looked at", f"{small:.1e} with their weights, "
            f"{large:.2f} with 100 times larger ones", None, "mistake 2",
        ),
    ]  # fmt: skip


def seed_gradient(problem: Problem, params: Params, data: Data) -> tuple[dict[str, Array], dict[str, Array]]:
    """The right gradient, and the one with the notebook's derivative of tanh."""
    trace = forward_pass(problem.model, params, data.inputs, None)
    targets = shaped_targets(problem, data.targets)
    dz = dlosses(problem.model, trace.logits, targets) * problem.model.loss_scale(problem.B, problem.T)
    right = backward_pass(problem.model, params, data.inputs, trace, dz, None)
    (recurrence,) = trace.parts
    h = recurrence.states["h"]
    wrong = {name: np.zeros_like(value) for name, value in params.items()}
    dh = np.zeros_like(h[0])
    for t in reversed(range(problem.T)):
        wrong["W_hy"] += h[t + 1].T @ dz[:, t]
        wrong["b_y"] += dz[:, t].sum(axis=0)
        delta = (dh + dz[:, t] @ params["W_hy"].T) * (1 - np.tanh(h[t + 1]) ** 2)
        wrong["W_xh"] += recurrence.x[t].T @ delta
        wrong["W_hh"] += h[t].T @ delta
        wrong["b_h"] += delta.sum(axis=0)
        dh = delta @ params["W_hh"].T
    return right, wrong


def error_of_seed_gradient(problem: Problem, params: Params, data: Data) -> float:
    """The worst relative error, over all parameters, of the notebook's gradient."""
    right, wrong = seed_gradient(problem, params, data)
    errors = [relative_error(right[name], wrong[name]) for name in right]
    return max(e for e in errors if e is not None)


def parity(bench: Bench) -> list[SeedFinding]:
    """Ten epochs on the sum of five integers."""
    _, test = bench.train(bench.training("parity"), "parity")
    note = "chance is 0.5 and 200 rows are few: 0.43 to 0.57 is what guessing gives"
    assert test.accuracy is not None
    return [
        SeedFinding("parity", "test accuracy", "0.4700", f"{test.accuracy:.4f}", 0.40 <= test.accuracy <= 0.60, note)
    ]


def sentiment_toy(bench: Bench) -> list[SeedFinding]:
    """Ten texts, padded at the end to five words, looked up in an embedding of width 2."""
    del bench  # a look-up is all there is to it
    tokens = np.zeros((len(TOY_ROWS), 5), dtype=np.int32)
    for row, words in zip(tokens, TOY_ROWS, strict=True):
        row[: len(words)] = words
    model = Model(V=int(tokens.max()) + 1, E=2, H=1, O=1)
    shape = init_params(model, Init.KERAS, 0)["embedding"][tokens].shape
    return [SeedFinding("sentiment-toy", "shape of the prediction", "(10, 5, 2)", str(shape), shape == (10, 5, 2))]


MADE_UP = "made-up reviews: their figure is of the real ones, and not comparable"


def of_reviews(training: Training, workload: str, agrees: bool | None, note: str) -> tuple[bool | None, str]:
    """Whether a figure agrees, and what to say of it, where it was computed on real reviews; else that it was not."""
    return (agrees, note) if training.problem.workload == workload else (None, MADE_UP)


def imdb_50(bench: Bench) -> list[SeedFinding]:
    """Five epochs on the last 50 words."""
    training = bench.training("imdb-50")
    epochs, test = bench.train(training, "imdb-50")
    seen = ", ".join(f"{e.validation_accuracy:.4f}" for e in epochs[1:])
    assert test.accuracy is not None
    name = training.problem.workload
    return [
        SeedFinding(name, "validation accuracy by epoch", "0.7700, 0.8157, 0.7900, 0.8053, 0.8016", seen,
                *of_reviews(training, "imdb-50", None, "")),
        SeedFinding(name, "test accuracy", "0.8016", f"{test.accuracy:.4f}",
                *of_reviews(training, "imdb-50", 0.77 <= test.accuracy <= 0.82, "expected: 0.77 to 0.82")),
    ]  # fmt: skip


def imdb_200(bench: Bench) -> list[SeedFinding]:
    """Five epochs on the last 200 words, padded at the end as they have it, and in front."""
    findings = []
    for workload, theirs, note in (
        ("imdb-200", "0.5768", "padded at the end: mistake 4"),
        ("imdb-200-pre", "not tried", "the same, padded in front: the cure of mistake 4"),
    ):
        training = bench.training(workload)
        _, test = bench.train(training, workload)
        assert test.accuracy is not None
        agrees = 0.5 <= test.accuracy <= 0.65 if workload == "imdb-200" else None
        told = of_reviews(training, workload, agrees, note)
        findings.append(SeedFinding(training.problem.workload, "test accuracy", theirs, f"{test.accuracy:.4f}", *told))
    return findings


def imdb_200_cures(bench: Bench) -> list[SeedFinding]:
    """What the notebooks name and do not try: a network that stops at the last word, a gru and an lstm."""
    findings = []
    for workload, cell, note in (
        ("imdb-200-lengths", "rnn", "padding is not read: the cure of mistake 4"),
        ("imdb-200", "gru", "padded at the end"),
        ("imdb-200", "lstm", "padded at the end"),
    ):
        training = bench.training(workload, cell)
        asked = workloads.get(workload).resized(cell=cell).name
        _, test = bench.train(training, asked)
        assert test.accuracy is not None
        told = of_reviews(training, asked, None, note)
        findings.append(
            SeedFinding(training.problem.workload, "test accuracy", "not tried", f"{test.accuracy:.4f}", *told)
        )
    return findings


def imdb_200_torch(bench: Bench) -> list[SeedFinding]:
    """The PyTorch version: PyTorch's initialisation and epsilon, all 25,000 rows, its evaluation, wrong and right."""
    training = as_in_torch(bench.training("imdb-200"), bench.plan.seed)
    epochs, test = bench.train(training, "imdb-200-torch")
    always_true = float(np.mean(training.dataset.test.targets == 1))
    last = epochs[-1].loss
    assert last is not None
    assert test.accuracy is not None
    name = f"{training.problem.workload} in PyTorch"
    return [
        SeedFinding(name, quantity, theirs, ours, *of_reviews(training, "imdb-200", agrees, note))
        for quantity, theirs, ours, agrees, note in (
            ("loss in epoch 5", "0.5843", f"{last:.4f}", None, ""),
            ("test accuracy, sigmoid > 0", "0.5000", f"{always_true:.4f}", always_true == 0.5, "mistake 3"),
            ("test accuracy, sigmoid > 0.5", "not computed", f"{test.accuracy:.4f}", None, ""),
        )
    ]


def as_in_torch(training: Training, seed: int) -> Training:
    """The training with PyTorch's defaults and no validation split."""
    problem, dataset = training.problem, training.dataset
    held = dataset.validation
    if held is not None:
        both = (np.concatenate([getattr(dataset.train, n), getattr(held, n)]) for n in ("inputs", "targets"))
        dataset = Dataset(Split(*both), dataset.test, None, dataset.source)
    return replace(
        training,
        problem=replace(problem, train=replace(problem.train, epsilon=1e-8)),
        params=cast(init_params(problem.model, Init.TORCH, seed), problem.dtype),
        dataset=dataset,
    )


EXPERIMENTS: dict[str, Callable[[Bench], list[SeedFinding]]] = {
    "forward-golden": forward_golden,
    "bptt-golden": bptt_golden,
    "parity": parity,
    "sentiment-toy": sentiment_toy,
    "imdb-50": imdb_50,
    "imdb-200": imdb_200,
    "imdb-200-cures": imdb_200_cures,
    "imdb-200-torch": imdb_200_torch,
}


def run_experiments(names: Sequence[str], plan: Plan, observer: Observer) -> list[SeedFinding]:
    """The findings of the named experiments; a worker that fails is one that does not agree, one without room none."""
    findings: list[SeedFinding] = []
    with temporary_folder("rnnbench-seeds-") as folder:
        pool = WorkerPool(plan.backends, Path(folder), plan.threads, plan.timeout, cache=None, env=plan.env)
        bench = Bench(plan, pool, Path(folder), observer)
        try:
            for name in names:
                try:
                    findings += EXPERIMENTS[name](bench)
                except LeftOut as left:
                    findings.append(SeedFinding(name, "all", "", "left out", None, str(left)))
                except WorkerFailure as failure:
                    findings.append(SeedFinding(name, "all", "", str(failure.status), False, failure.reason))
        finally:
            pool.kill()
    return findings
