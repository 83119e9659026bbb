"""One door for all launches: the stream, shared memory beyond 48 KB, and grids whose blocks are resident together.

Numba works out the arguments of a launch anew each time, an array as shape, strides and address, which costs the host
more than the driver's own call. So launches are prepared: what the driver is to be given is laid out once, for a kernel
and a shape of the batch, and every later launch is that call alone. Numbers that change meanwhile are `HostNumber`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
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


class HostNumber:
    """An argument of prepared launches that the host may set before each of them: an int64 or a number of NumPy's."""

    def __init__(self, value: Any) -> None:
        self.held = np.array([value])  # where it is read from at each launch

    def set(self, value: Any) -> None:
        self.held[0] = value

    @property
    def value(self) -> Any:
        """As kernels get it, of its type."""
        return self.held[0]


def _value(arg: Any) -> Any:
    return arg.value if isinstance(arg, HostNumber) else arg


class PreparedLaunches:
    """Launches in their order, each as a call with no arguments that gives what the driver answered.

    `args`: what each was prepared with, held so that device memory which it reads is not freed before it.
    """

    def __init__(self) -> None:
        self.calls: list[Callable[[], tuple[Any, ...]]] = []
        self.args: list[tuple[Any, ...]] = []

    def add(self, call: Callable[[], tuple[Any, ...]], args: tuple[Any, ...]) -> None:
        self.calls.append(call)
        self.args.append(args)

    def replay(self) -> None:
        """Put all of them on the stream, with the numbers of now."""
        for call in self.calls:
            if call()[0]:
                _again(call)

    @property
    def local_bytes(self) -> int:
        """The most memory that a thread of any of their kernels has beside registers, as compiled for this device."""
        return max(getattr(call, "local_bytes", 0) for call in self.calls)

    def close(self) -> None:
        """Drop them."""
        self.calls, self.args = [], []


class Launcher:
    """Puts launches on one stream, 0 the default."""

    def __init__(self, stream: Any = 0) -> None:
        self.stream = stream
        self._prepared: PreparedLaunches | None = None

    def __call__(self, kernel: Any, size: LaunchSize, *args: Any) -> None:
        """Launch a kernel, or write the launch down where launches are being prepared.

        RuntimeError where the device cannot hold all blocks that must be resident.
        """
        into = PreparedLaunches() if self._prepared is None else self._prepared
        into.add((_simulated if simulated() else _prepared)(kernel, size, self.stream, args), args)
        if self._prepared is None:
            into.replay()

    def prepare(self, launches: Callable[[], None]) -> PreparedLaunches:
        """What `launches` launches, none of which runs: kernels are compiled and loaded, arguments laid out."""
        self._prepared = prepared = PreparedLaunches()
        try:
            launches()
        finally:
            self._prepared = None
        return prepared


def _simulated(kernel: Any, size: LaunchSize, stream: Any, args: tuple[Any, ...]) -> Callable[[], Any]:
    if size.together:
        _refuse(size, kernel.overloads[()].max_cooperative_grid_blocks(size.threads))

    def call() -> tuple[Any, ...]:
        kernel[size.grid, size.threads, stream, size.shared](*(_value(arg) for arg in args))
        return (0,)

    return call


def _prepared(kernel: Any, size: LaunchSize, stream: Any, args: tuple[Any, ...]) -> Callable[[], Any]:
    """The driver's call with all that it reads."""
    from cuda.bindings import driver

    compiled = _compiled(kernel, tuple(kernel.typeof_pyval(_value(arg)) for arg in args))
    function = compiled._codelibrary.get_cufunc()
    if size.together or size.shared:
        _grant(compiled, function, size)
    config = driver.CUlaunchConfig()
    config.gridDimX, config.gridDimY, config.gridDimZ = _three(size.grid)
    config.blockDimX, config.blockDimY, config.blockDimZ = _three(size.threads)
    config.sharedMemBytes = size.shared
    config.hStream = driver.CUstream(int(stream.handle) if stream else 0)
    if size.together:
        attribute = driver.CUlaunchAttribute()
        attribute.id = driver.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_COOPERATIVE
        attribute.value.cooperative = 1
        config.attrs = [attribute]
    config.numAttrs = int(size.together)
    # The driver is given the address of each number, and copies the number at each launch
    numbers = [
        number for arg, kind in zip(args, compiled.argument_types, strict=True) for number in _laid_out(arg, kind)
    ]
    addresses = (ctypes.c_void_p * len(numbers))(*(number.ctypes.data for number in numbers))
    handle = driver.CUfunction(int(function.handle))
    call = partial(driver.cuLaunchKernelEx, config, handle, ctypes.addressof(addresses), 0)
    call.held = numbers, addresses, compiled  # type: ignore[attr-defined]  # as long as it can be called
    call.local_bytes = compiled.local_mem_per_thread  # type: ignore[attr-defined]
    return call


def _three(sizes: int | tuple[int, ...]) -> tuple[int, int, int]:
    x, y, z = (*(sizes if isinstance(sizes, tuple) else (sizes,)), 1, 1)[:3]
    return x, y, z


def _compiled(kernel: Any, kinds: tuple[Any, ...]) -> Any:
    """A kernel compiled for arguments of these Numba types, once, and loaded."""
    return kernel.overloads.get(kinds) or kernel.compile(kinds)


def _laid_out(arg: Any, kind: Any) -> list[Any]:
    """An argument as numba-cuda's kernels take it, each number an array (1,).

    An array is two addresses that kernels do not use, how many numbers it has, bytes of each, address, shape, strides.
    """
    if isinstance(arg, HostNumber):
        return [arg.held]
    if not hasattr(arg, "__cuda_array_interface__"):
        return [np.array([arg], str(kind))]
    where = arg.__cuda_array_interface__["data"][0]
    words = [0, 0, arg.size, arg.dtype.itemsize, where, *arg.shape, *arg.strides]
    return [np.array([word], np.int64) for word in words]


def _grant(compiled: Any, function: Any, size: LaunchSize) -> None:
    """Ask the driver for dynamic shared memory beyond 48 KB, which numba does not. RuntimeError where not all blocks
    that wait for each other can be resident.
    """
    from cuda.bindings.driver import CUfunction_attribute
    from numba.cuda.cudadrv.driver import driver

    attribute = CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    of = function.handle, function.device.id
    granted = driver.cuKernelGetAttribute(attribute, *of)  # perhaps to another launch of it
    driver.cuKernelSetAttribute(attribute, max(size.shared, granted), *of)
    _refuse(size, compiled.max_cooperative_grid_blocks(size.threads, size.shared))


def _refuse(size: LaunchSize, limit: int) -> None:
    if size.together and isinstance(size.grid, int) and size.grid > limit:
        raise RuntimeError(
            f"{size.grid} blocks wait for each other and the device holds {limit} of them at a time; "
            "nothing else may use it meanwhile, and without RegimeKind.SPREAD in LaunchPlan.kinds each step is a launch"
        )


def _again(call: Callable[[], tuple[Any, ...]]) -> None:
    """Launch what the driver refused once more, from a thread that now uses the device. CudaAPIError where it is not
    the thread.
    """
    from numba.cuda.cudadrv.driver import CudaAPIError

    cuda.current_context()
    if code := call()[0]:
        raise CudaAPIError(code, f"Call to cuLaunchKernelEx results in {code.name}")
