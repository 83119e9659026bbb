"""Our CUDA kernels with the tanh that a GPU has as one instruction: what accuracy costs, and what it is worth."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from rnnbench.backends.cuda import CudaBackend
from rnnbench.contract import Contract
from rnnbench.kernels.cuda.plan import LaunchPlan
from rnnbench.model import Case, DType, Problem

ERROR = "tanh.approx.f32: relative error up to 2^-11"


class CudaFastTanhBackend(CudaBackend):
    """As `cuda`, float32 only. Its states are some 1e-4 off, more than float32 may be: it is shown, and not ranked."""

    name: ClassVar[str] = "cuda+fast-tanh"

    def __init__(self, plan: LaunchPlan | None = None) -> None:
        super().__init__(replace(plan or LaunchPlan(), fast_tanh=True))

    def unsupported(self, case: Case) -> str | None:
        if case.dtype is not DType.FLOAT32:
            return f"there is a fast tanh for float32 and none for {case.dtype}; take the backend cuda"
        return super().unsupported(case)

    def contract(self, problem: Problem) -> Contract:
        plain = super().contract(problem)
        return replace(plain, notes=f"{plain.notes}; {ERROR}, where the limits of float32 are stricter")
