"""The network of `torch` with one line more: `rnnbench.torch.replace`, which puts our kernels in its recurrence, and
lets that know the tokens of an embedding below it.

What it says beside `torch` is what that line brings; beside `numba`, what PyTorch costs around the recurrence.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from typing import ClassVar

from rnnbench import torch as ours
from rnnbench.backends.base import Session
from rnnbench.backends.torch import TorchBackend, TorchSession
from rnnbench.backends.torch_parts import DTYPES, Net
from rnnbench.contract import Contract
from rnnbench.data import Data
from rnnbench.kernels.cpu.layer_pass import compile_layer
from rnnbench.model import DType, Problem
from rnnbench.params import Params


class TorchRnnbenchBackend(TorchBackend):
    """PyTorch with our recurrence: subnormals are kept around it, and flushed inside."""

    name: ClassVar[str] = "torch+rnnbench"
    streams: ClassVar[bool] = False
    recurrence: ClassVar[str] = (
        "the {cell} of rnnbench.torch, which packs its weights in each call, time first; with tokens its Embedding, of "
        "which each unique one is projected once, but under inference_mode"
    )

    def contract(self, problem: Problem) -> Contract:
        return replace(super().contract(problem), subnormals="flushed in the recurrence, kept by PyTorch around it")

    def libraries(self) -> dict[str, str]:
        return super().libraries() | {name: version(name) for name in ("numba", "llvmlite")}

    def warm(self, dtype: DType) -> Iterator[tuple[int, int, str]]:
        yield from compile_layer(str(dtype))

    def _prepare(self, problem: Problem, params: Params, data: Data) -> Session:
        net = ours.replace(Net(problem.model, DTYPES[problem.dtype]))
        return TorchSession(problem, params, data, net, self.subnormals)
