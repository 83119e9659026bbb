"""PyTorch on one NVIDIA GPU, where its recurrences are cuDNN's: strict float32, or with TF32 products, each under its
own name.

The sessions are those of the processor. Rows, order, parameters, losses and hits stay on the device; a step copies
nothing and waits for nothing.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import ClassVar

import torch

from rnnbench.backends.base import DeviceClock, Events, Session
from rnnbench.backends.torch import TorchBackend, TorchSession
from rnnbench.backends.torch_parts import DTYPES, Net, Subnormals, module_of
from rnnbench.contract import CPU, CUDA, Contract
from rnnbench.data import Data
from rnnbench.model import Case, DType, Problem
from rnnbench.params import Params

_BUILD = "install a CUDA build, as PyPI has it for Linux: pip install --force-reinstall torch; others: pytorch.org"


class TorchCudaSession(TorchSession):
    """One problem on the GPU."""

    def synchronize(self) -> None:
        torch.cuda.synchronize(self.device)

    def device_clock(self) -> DeviceClock:
        return Events(*(torch.cuda.Event(enable_timing=True) for _ in range(2)))

    def peak_device_bytes(self) -> int:
        """The most that PyTorch's allocator had given out since `prepare`, workspaces of its libraries included."""
        return torch.cuda.max_memory_allocated(self.device)


def set_precision(tf32: bool) -> None:
    """Whether float32 products of cuDNN and cuBLAS may round their factors to TF32, for this process."""
    torch.backends.cudnn.allow_tf32 = tf32
    torch.set_float32_matmul_precision("high" if tf32 else "highest")


def refusal() -> str | None:
    """Why PyTorch cannot compute on a GPU here and the way out, or None."""
    if torch.version.cuda is None:
        return f"PyTorch {torch.__version__} is built without CUDA; {_BUILD}"
    if not torch.cuda.is_available():
        return (
            f"PyTorch {torch.__version__} finds no NVIDIA GPU that its CUDA {torch.version.cuda} can use; see "
            "nvidia-smi, and update the driver where it is older"
        )
    return None


def forget_peak(device: str) -> None:
    """Count the peak of the memory from here: what earlier sessions of this process had is none of the next one's."""
    torch.cuda.init()  # before which there is nothing to put back, and PyTorch raises
    torch.cuda.reset_peak_memory_stats(device)


@functools.cache
def observed_subnormals(module: str, H: int, dtype: torch.dtype, device: str) -> str:
    """What becomes of a subnormal input on its way through a recurrence of H units: tried, not asked; once a process.

    The recurrence's kernels are cuDNN's, which chooses them by H, and need not do as PyTorch's own. Gates of no sum are
    at 1/2, so a subnormal input stays one.
    """
    rnn = getattr(torch.nn, module)(1, H, bias=False, dtype=dtype, device=device)
    tiny = torch.finfo(dtype).smallest_normal / 4
    with torch.inference_mode():
        rnn.weight_ih_l0.fill_(1.0)
        rnn.weight_hh_l0.zero_()
        states, _ = rnn(torch.full((4, 8, 1), tiny, dtype=dtype, device=device))
        bits = states.view(torch.int32 if dtype is torch.float32 else torch.int64)
        kept = bits.count_nonzero().item() / states.numel()
    return {0.0: "flushed in the recurrence", 1.0: "kept"}.get(kept, f"flushed in {1 - kept:.0%} of the recurrence")


class TorchCudaBackend(TorchBackend):
    """Strict float32: no product rounds its factors to TF32."""

    name: ClassVar[str] = "torch-cuda"
    streams: ClassVar[bool] = False
    subnormals: ClassVar[Subnormals] = Subnormals(flush=False)
    recurrence: ClassVar[str] = "{module} (cuDNN), time first"
    padded: ClassVar[str] = "padding is computed, and the state of each row's end read; on a GPU nobody tried packing"
    tf32: ClassVar[bool] = False

    def __init__(self, device: str = CUDA) -> None:
        self.device = device

    def unavailable(self) -> str | None:
        return None if self.device == CPU else refusal()

    def contract(self, problem: Problem) -> Contract:
        epoch = (
            "the order to the device; a Python loop of train steps; rows by index_select there; loss and hits added up"
            " on the device"
        )
        common = super().contract(problem)
        lengths = "; lengths stay on the processor, and where rows end is sent inside the clock" * problem.lengths
        return replace(
            common,
            threads=1,  # launches; the work is the device's
            subnormals=self._subnormals(problem),
            tf32=self.tf32 and problem.dtype is DType.FLOAT32,
            timed={**common.timed, "epoch": epoch},
            notes=f"cuDNN {torch.backends.cudnn.version()}; {common.notes}{lengths}",
            device=CPU if self.device == CPU else CUDA,
            staged="rows (tokens as int64) and targets as tensors on the device; a batch is a view of them",
            waits="torch.cuda.synchronize",
        )

    def libraries(self) -> dict[str, str]:
        return {
            "torch": torch.__version__,
            "cuda": str(torch.version.cuda),
            "cudnn": str(torch.backends.cudnn.version()),
        }

    def _subnormals(self, problem: Problem) -> str:
        return observed_subnormals(module_of(problem.model), problem.model.H, DTYPES[problem.dtype], self.device)

    def _module(self, problem: Problem) -> str:
        return f"nn.{module_of(problem.model)}"

    def _prepare(self, problem: Problem, params: Params, data: Data) -> Session:
        set_precision(self.tf32)
        self._subnormals(problem)  # while the peak is not yet this session's
        if self.device != CPU:
            forget_peak(self.device)
        net = Net(problem.model, DTYPES[problem.dtype], self.device)
        return TorchCudaSession(problem, params, data, net, self.subnormals)


class TorchCudaTf32Backend(TorchCudaBackend):
    """PyTorch on one GPU with TF32 allowed: factors rounded to 11 significant bits, sums in float32."""

    name: ClassVar[str] = "torch-cuda+tf32"
    tf32: ClassVar[bool] = True

    def _unsupported(self, case: Case) -> str | None:
        if case.dtype is not DType.FLOAT32:
            return f"TF32 is a form of float32 and leaves {case.dtype} as it is; take torch-cuda"
        if self.device == CPU:
            return None
        major, minor = torch.cuda.get_device_capability(self.device)
        if (major, minor) < (8, 0):
            return f"the GPU has compute capability {major}.{minor}; TF32 needs 8.0 or newer; take torch-cuda"
        return None
