"""Keras as its users write it, on each of its frameworks: the lines of the notebooks this project grew from."""

from __future__ import annotations

import importlib
from typing import ClassVar

from rnnbench.backends.base import Backend, Session
from rnnbench.backends.keras_import import imported
from rnnbench.contract import CPU, Contract
from rnnbench.data import Data
from rnnbench.model import Case, DType, Optimizer, Pass, Problem
from rnnbench.params import Params


class KerasBackend(Backend):
    """`SimpleRNN`, `GRU`, `LSTM`, `fit` on TensorFlow."""

    name: ClassVar[str] = "keras"
    framework: ClassVar[str] = "tensorflow"

    def __init__(self) -> None:
        self.reason: str | None = None
        try:
            self.keras = imported(self.framework)
        except ImportError as error:
            self.reason = str(error)

    def unavailable(self) -> str | None:
        return self.reason

    def _unsupported(self, case: Case) -> str | None:
        from rnnbench.backends.keras_lines import NO_GRADIENT, NO_TRUNCATION

        if case.pass_ is Pass.GRADIENT:
            return NO_GRADIENT
        if reason := self._unsupported_dtype(case):
            return reason
        return NO_TRUNCATION if case.truncation is not None and case.pass_ is not Pass.FORWARD else None

    def _unsupported_dtype(self, problem: Problem) -> str | None:
        if problem.dtype is DType.FLOAT32 or self.framework == "tensorflow":
            return None
        return f"Keras computes float64 in float32 on {self.framework}; take keras, or ask for float32"

    def threads(self) -> int:
        """The threads of the framework."""
        from rnnbench.backends.tensorflow import threads_inside

        return threads_inside()

    def subnormals(self) -> str:
        """What becomes of subnormal numbers in them."""
        return "flushed by TensorFlow's threads"

    def contract(self, problem: Problem) -> Contract:
        from rnnbench.backends.keras_lines import LAYERS, NO_GRADIENT

        layers = f"{'Embedding, ' if problem.model.V is not None else ''}{LAYERS[problem.model.cell]}, Dense"
        rule = "Adam" if problem.train.optimizer is Optimizer.ADAM else "SGD"
        bias = "; of GRU's second bias the n gate's part is trained" if problem.model.cell == "gru" else ""
        return Contract(
            threads=self.threads(),
            subnormals=self.subnormals(),
            tf32=False,
            timed={
                "forward": f"Model.test_on_batch of {layers}: NumPy rows in, the loss out",
                "gradient": NO_GRADIENT,
                "train_step": f"Model.train_on_batch of {layers}, {rule}: NumPy rows in, the loss out",
                "epoch": "NumPy gathers the rows; Model.fit, with accuracy where there are classes",
            },
            notes="jit_compile and steps_per_execution as Keras chooses them; Dense without an activation, the loss "
            f"from logits; a layer keeps logits and states of a batch in variables{bias}; Adam's epsilon after the "
            "bias correction; an embedding's gradient summed by token",
            staged="rows, targets and a zero state as NumPy arrays, of which a batch is a view",
            waits="the loss comes back as a number",
        )

    def libraries(self) -> dict[str, str]:
        framework = importlib.import_module(self.framework)
        return {"keras": self.keras.__version__, self.framework: framework.__version__}

    def _prepare(self, problem: Problem, params: Params, data: Data) -> Session:
        if reason := self._unsupported_dtype(problem):
            raise RuntimeError(reason)
        from rnnbench.backends.keras_lines import KerasLinesSession

        return KerasLinesSession(problem, params, data)


class KerasJaxBackend(KerasBackend):
    """The same on JAX."""

    name: ClassVar[str] = "keras+jax"
    framework: ClassVar[str] = "jax"

    def unavailable(self) -> str | None:
        if reason := super().unavailable():
            return reason
        import jax

        if (platform := jax.default_backend()) == CPU:
            return None
        return f"JAX would compute on its {platform}, and this backend is for the processor; set JAX_PLATFORMS={CPU}"

    def threads(self) -> int:
        from rnnbench.backends.jax import pool_threads

        return pool_threads()

    def subnormals(self) -> str:
        import jax

        from rnnbench.backends.jax import subnormals_in_xla

        return subnormals_in_xla(jax.devices()[0])


class KerasTorchBackend(KerasBackend):
    """The same on PyTorch."""

    name: ClassVar[str] = "keras+torch"
    framework: ClassVar[str] = "torch"

    def threads(self) -> int:
        import torch

        return torch.get_num_threads()

    def subnormals(self) -> str:
        from rnnbench.backends.torch_parts import Subnormals

        return Subnormals(flush=False).observed()
