"""One door for all launches: the stream, shared memory beyond 48 KB, and grids whose blocks are resident together."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from numba import cuda

from rnnbench.kernels.cuda.device import simulated


@dataclass(frozen=True)
class LaunchSize:
    """Blocks and threads of a block, each a number or up to three; bytes of dynamic shared memory.

    `together`: blocks wait for each other, so all of them must be resident.
    """

    grid: int | tuple[int, ...]
    threads: int | tuple[int, ...]
    shared: int = 0
    together: bool = False


def bounded(threads: int) -> Any:
    """The decorator of a kernel for blocks of so many threads: the compiler leaves registers for all of them."""
    return cuda.jit if simulated() else cuda.jit(launch_bounds=threads)


class Launcher:
    """Puts launches on one stream, 0 the default."""

    def __init__(self, stream: Any = 0) -> None:
        self.stream = stream

    def __call__(self, kernel: Any, size: LaunchSize, *args: Any) -> None:
        """RuntimeError where the device cannot hold all blocks that must be resident."""
        if simulated():
            _refuse(size, 1)
        elif size.together or size.shared:
            kernel, limit = _granted(kernel, size.threads, size.shared, size.together)(args)
            _refuse(size, limit)
        kernel[size.grid, size.threads, self.stream, size.shared](*args)


def _refuse(size: LaunchSize, limit: int) -> None:
    if size.together and isinstance(size.grid, int) and size.grid > limit:
        raise RuntimeError(
            f"{size.grid} blocks wait for each other and the device holds {limit} of them at a time; "
            "nothing else may use it meanwhile, and without RegimeKind.SPREAD in LaunchPlan.kinds each step is a launch"
        )


@functools.cache
def _granted(kernel: Any, threads: int | tuple[int, ...], shared: int, together: bool) -> Any:
    """The kernel compiled for the types of the first arguments that it gets, the only ones that it ever gets, with what
    it asks of the driver granted; and the number of its blocks that are resident at a time. More than 48 KB of shared
    memory, and a cooperative launch, are attributes that numba sets for its own purposes alone.
    """
    from cuda.bindings.driver import CUfunction_attribute
    from numba.cuda.cudadrv.driver import driver

    found: list[tuple[Any, int]] = []

    def of(args: tuple[Any, ...]) -> tuple[Any, int]:
        if not found:
            typed = kernel.specialize(*args)
            (compiled,) = typed.overloads.values()
            function = compiled._codelibrary.get_cufunc()
            attribute = CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            driver.cuKernelSetAttribute(attribute, shared, function.handle, function.device.id)
            compiled.cooperative = compiled.cooperative or together
            found.append((typed, compiled.max_cooperative_grid_blocks(threads, shared)))
        return found[0]

    return of
