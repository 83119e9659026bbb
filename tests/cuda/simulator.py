"""A quicker simulator under Numba's own, in which the blocks of a grid can wait for each other.

Numba's runs a Python thread for each thread of a block, one block after the other. Here each is a greenlet, which runs
until it waits: so a launch is repeatable, costs a fraction, and a block whose thread waits for another one makes room
for it. A block runs ahead of the others as far as it can, and the order of threads and of blocks turns about at each
barrier and each launch: what is written late or read early differs from one order to the other.

It shows when a kernel's waiting is wrong: a barrier too few, one that not all blocks come to, a counter that is not put
back, a buffer written while another block still reads it. It does not show what the memory of a GPU may do beyond
that: all threads see each write at once.
"""

from __future__ import annotations

import sys
from itertools import count
from typing import Any

import numpy as np
from greenlet import getcurrent, greenlet
from numba import cuda, types
from numba.core.errors import NumbaError
from numba.cuda.args import ArgHint, wrap_arg
from numba.cuda.errors import normalize_kernel_dimensions
from numba.cuda.simulator import kernel as numbas
from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray
from numba.cuda.simulator.kernelapi import Dim3, FakeCUDALocal, FakeCUDAModule, FakeCUDAShared
from numba.np.numpy_support import as_dtype

TOGETHER = 16  # blocks that may wait for each other
AT_BARRIER, SPINNING = "at a barrier of its block", "waiting for another block"
_turns = count()


class Deadlock(RuntimeError):
    """Blocks wait for each other, and none can come."""


def _dtype(dtype: Any) -> np.dtype[Any]:
    return np.dtype(as_dtype(dtype) if isinstance(dtype, types.Type) else dtype)


def _unset(shape: Any, dtype: Any) -> np.ndarray:
    """Memory as a kernel finds it: a number that nobody wrote is NaN."""
    dtype = _dtype(dtype)
    return np.full(shape, np.nan, dtype) if dtype.kind == "f" else np.empty(shape, dtype)


class Local(FakeCUDALocal):
    """Arrays of a thread."""

    def array(self, shape, dtype):
        return _unset(shape, dtype)


class Shared(FakeCUDAShared):
    """Shared memory of a block; an array is known by the line that asks for it, as in Numba's."""

    def __init__(self, dynamic_bytes: int) -> None:
        super().__init__(dynamic_bytes)
        self._dynshared[:] = -1  # NaN, too
        self.given = dict[int, Any]()  # by threads to others of their warp

    def array(self, shape, dtype):
        if shape == 0:
            return self._dynshared[: len(self._dynshared) // _dtype(dtype).itemsize * _dtype(dtype).itemsize].view(
                _dtype(dtype)
            )
        caller = sys._getframe(1)
        line = caller.f_code.co_filename, caller.f_lineno
        if line not in self._allocations:
            self._allocations[line] = _unset(shape, dtype)
        return self._allocations[line]


class Module(FakeCUDAModule):
    """What kernels find under the name of `cuda`: of the thread that runs now."""

    threadIdx = blockIdx = shared = None

    def __init__(self, grid: Any, threads: Any, dynamic_bytes: int) -> None:
        super().__init__(grid, threads, dynamic_bytes)
        self._local = Local()
        self._looking: greenlet | None = None

    def syncthreads(self) -> None:
        """Let the others of the block run until they have come."""
        self._looking = None
        getcurrent().parent.switch(AT_BARRIER)

    def shfl_xor_sync(self, mask: int, value: Any, bit: int) -> Any:
        """What the thread gives whose number in the block differs in this bit; all of the block call it together."""
        at, size = self.threadIdx, self.blockDim
        x = int(at.x + size.x * (at.y + size.y * at.z))
        given = self.shared.given
        given[x] = value
        self.syncthreads()
        taken = given[x ^ int(bit)]
        self.syncthreads()
        return taken

    def threadfence(self) -> None:
        """A thread that looks at what others write, and looks again: let them run in between."""
        thread = getcurrent()
        if self._looking is thread:
            thread.parent.switch(SPINNING)
        self._looking = thread


class Block:
    """The threads of a block."""

    def __init__(self, run: Any, module: Module, place: tuple[int, ...], threads: Any, dynamic_bytes: int) -> None:
        self.module, self.place, self.shared = module, Dim3(*place), Shared(dynamic_bytes)
        # As a GPU counts them: x runs first
        places = [Dim3(x, y, z) for z in range(threads[2]) for y in range(threads[1]) for x in range(threads[0])]
        self.coming = [(greenlet(run), at) for at in places]
        self.waiting: list[tuple[greenlet, Dim3]] = []

    def advance(self) -> bool:
        """Run until all threads are done (False) or one waits for another block."""
        module = self.module
        module.blockIdx, module.shared = self.place, self.shared
        while self.coming:
            spinning = []
            for thread, place in self.coming:
                module.threadIdx = place
                why = thread.switch()
                if thread.dead:
                    continue
                (self.waiting if why == AT_BARRIER else spinning).append((thread, place))
            if spinning:
                self.coming = spinning
                return True
            # All have come: on, and the last one first
            self.coming, self.waiting = self.waiting[:: -1 if next(_turns) % 2 else 1], []
        return False


def _argument(arg: Any, after: list[Any]) -> Any:
    """As a kernel reads it; what stands in `after` is called when the launch has ended."""
    if (isinstance(arg, np.ndarray) and arg.ndim > 0) or isinstance(arg, ArgHint):
        arg = (arg if isinstance(arg, ArgHint) else wrap_arg(arg)).to_device(after)
    return arg._ary if isinstance(arg, FakeCUDAArray) else arg


class Kernel(numbas.FakeCUDAKernel):
    """A kernel or device function."""

    running: Module | None = None
    replaced: dict[int, tuple[dict[str, Any], dict[str, Any]]] = {}  # noqa: RUF012  # globals, and what stood there

    def __call__(self, *args: Any) -> Any:
        if id(self.fn.__globals__) not in self.replaced:
            self._replace()
        if self._device:
            return self.fn(*args)
        self._launch(*args)
        return None

    def _launch(self, *args: Any) -> None:
        """All blocks, until they have ended."""
        if Kernel.running is not None:
            raise NumbaError("a kernel launches no other")
        grid, threads = normalize_kernel_dimensions(self.grid_dim, self.block_dim)
        after: list[Any] = []
        values = [_argument(arg, after) for arg in args]
        Kernel.running = module = Module(grid, threads, self.dynshared_size)
        try:
            self._replace()
            blocks = [
                Block(lambda: self.fn(*values), module, place, threads, self.dynshared_size)
                for place in np.ndindex(*grid)
            ]
            _run(blocks[:: -1 if next(_turns) % 2 else 1])
        finally:
            Kernel.running = None
            for names, held in self.replaced.values():
                names.update(held)
            self.replaced.clear()
        for call in after:
            call()

    def _replace(self) -> None:
        """Put the simulator in the place of `cuda` where the function looks for it, until the launch has ended.

        And NumPy's integers in that of Numba's, which take most of the time of a launch to call them.
        """
        if Kernel.running is None:
            return
        names = self.fn.__globals__
        stand_in = {id(cuda): Kernel.running, id(types.uint32): np.uint32, id(types.uint64): np.uint64}
        held = {name: value for name, value in names.items() if id(value) in stand_in}
        self.replaced[id(names)] = names, held
        names.update({name: stand_in[id(value)] for name, value in held.items()})


def _run(blocks: list[Block]) -> None:
    """Until all are done. Deadlock where each waits, and nothing else has happened."""
    idle = 0
    while blocks:
        before = next(_turns)
        left = [block for block in blocks if block.advance()]
        # A round in which no block passed a barrier or ended: twice, since a counter may have been raised in the first
        idle = idle + 1 if len(left) == len(blocks) and next(_turns) == before + 1 else 0
        if idle > 1:
            raise Deadlock(f"{len(left)} blocks wait for each other, and none can come")
        blocks = left[::-1]


def install() -> None:
    """In the place of Numba's, for the rest of the process."""
    for name in ("__call__", "_launch", "_replace"):
        setattr(numbas.FakeCUDAKernel, name, getattr(Kernel, name))
    numbas.FakeCUDAKernel.replaced = Kernel.replaced
    numbas.FakeOverload.max_cooperative_grid_blocks = lambda *sizes: TOGETHER
