"""The device, and why there is none that these kernels can run on: one sentence, with the way out."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numba
from numba import cuda

OLDEST = (7, 5)  # compute capability; the CUDA 13 toolkit compiles for nothing older
INSTALL = "pip install 'rnnbench[cuda]' or '.[cuda]' in a clone"


def simulated() -> bool:
    """Whether kernels run in Numba's simulator, on the processor."""
    return bool(numba.config.ENABLE_CUDASIM)


# Two questions are asked of a device: may kernels run on it at all (`Facts`), and which of them fit it (`Room`).


@dataclass(frozen=True)
class Facts:
    """What was found. `packaged`: the target is numba-cuda's, and not the one inside numba, which is not tested.

    `linked`: the toolkit links kernels to machine code itself; else the driver is given PTX.
    """

    packaged: bool
    error: str | None = None  # of the driver, where it cannot be used
    name: str = ""
    capability: tuple[int, int] = (0, 0)
    driver: tuple[int, int] = (0, 0)  # the newest CUDA version that it runs
    toolkit: tuple[int, int] = (0, 0)
    free_bytes: int = 0
    linked: bool = True


@dataclass(frozen=True)
class Room:
    """What the choice of a regime depends on: multiprocessors, shared memory that a block may ask for, and whether the
    blocks of a grid can be promised to run at the same time.
    """

    multiprocessors: int
    block_bytes: int
    together: bool


SIMULATOR = Room(16, 96 << 10, together=True)  # as that of the tests has it; Numba's own holds one block at a time


@functools.cache
def room() -> Room:
    """Of the current device."""
    if simulated():
        return SIMULATOR
    device = cuda.get_current_device()
    return Room(
        int(device.MULTIPROCESSOR_COUNT),
        int(device.MAX_SHARED_MEMORY_PER_BLOCK_OPTIN),
        bool(device.COOPERATIVE_LAUNCH),
    )


def probe() -> Facts:
    """Ask numba, the driver and the device."""
    from numba.cuda.cudadrv.error import CudaDriverError, CudaSupportError  # the simulator has not both

    # numba has a CUDA target of its own; numba-cuda takes its place where it is installed, and alone is tested here
    packaged = getattr(cuda, "implementation", "") == "NVIDIA"
    if not cuda.is_available():
        return Facts(packaged, error=_first_line(cuda.cuda_error()) or "no device was found")
    try:
        device = cuda.get_current_device()
        name = device.name.decode() if isinstance(device.name, bytes) else str(device.name)
        free = cuda.current_context().get_memory_info()[0]
        driver, toolkit = _versions()
    except (CudaSupportError, CudaDriverError) as error:  # a device that is full or taken has no room for a context
        return Facts(packaged, error=_first_line(error))
    return Facts(packaged, None, name, tuple(device.compute_capability), driver, toolkit, int(free), _linked())


def _versions() -> tuple[tuple[int, int], tuple[int, int]]:
    """CUDA version of the driver and of the toolkit."""
    from numba.cuda.cudadrv import driver, runtime

    return tuple(driver.driver.get_version()), tuple(runtime.runtime.get_version())


def _linked() -> bool:
    """Whether there is nvJitLink, of CUDA 12.3 or newer, by which numba-cuda links."""
    from numba.cuda.cudadrv import driver

    have: Callable[[], bool] | None = getattr(driver, "_have_nvjitlink", None)
    return have is not None and have()


def _first_line(error: object) -> str | None:
    """The first line of an error that says what is wrong; numba's own heading does not."""
    # The heading, and empty lines around what follows it, are left out
    lines = [line.strip(" :.") for line in str(error or "").splitlines()]
    return next((line for line in lines if line and line != "Error at driver init"), None)


def unusable(facts: Facts) -> str | None:
    """Why no kernel can run here, or None."""
    if not facts.packaged:
        return f"numba-cuda is not installed, and the target inside numba is not tested; {INSTALL}"
    if facts.error is not None:
        return f"no CUDA device can be used: {facts.error}; an NVIDIA driver and device are needed, see nvidia-smi"
    if facts.capability < OLDEST:
        return f"{facts.name} has compute capability {_dotted(facts.capability)}; {_dotted(OLDEST)} or newer is needed"
    # Machine code of a toolkit runs with every driver of its major version; PTX with one that knows its instructions
    digits = 1 if facts.linked else 2
    if facts.driver[:digits] < facts.toolkit[:digits]:
        return (
            f"the driver runs CUDA {_dotted(facts.driver)}, older than the toolkit's {_dotted(facts.toolkit)}; "
            f"update the driver, or install cuda-toolkit=={_dotted(facts.driver)}.*"
        )
    return None


def exceeds_memory(facts: Facts, needed: int, kept: int = 0) -> str | None:
    """Why a problem that needs so many bytes does not fit the device, or None. `kept`: of them, whatever the batch."""
    if needed <= facts.free_bytes:
        return None
    way_out = "take a smaller batch or shorter rows"
    if kept > facts.free_bytes:
        way_out = f"parameters and gradients alone take {_mib(kept)}: take fewer hidden units, or a smaller vocabulary"
    return f"the problem needs {_mib(needed)} on the device and {_mib(facts.free_bytes)} are free; {way_out}"


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
