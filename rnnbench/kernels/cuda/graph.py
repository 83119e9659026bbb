"""Launches captured once into a CUDA graph, which the driver then starts with one call.

A graph keeps the arguments that it was captured with: sizes, numbers, and where arrays are. What changes from one
replay to the next must stand in device memory (`cursor`). In the simulator the prepared launches take its place; what
the driver refuses to capture shows on a GPU alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import cuda

from rnnbench.kernels.cuda.device import simulated
from rnnbench.kernels.cuda.launch import HostNumber, Launcher, PreparedLaunches

WAY_OUT = "take the backend cuda, which launches the same kernels one by one"


class Graph:
    """An executable graph, on the stream that it was captured from."""

    def __init__(self, driver: Any, stream: int, executable: Any) -> None:
        self.driver, self.stream, self.executable = driver, stream, executable

    def replay(self) -> None:
        """Put all of its launches on the stream."""
        self.driver.cuGraphLaunch(self.executable, self.stream)

    def close(self) -> None:
        self.driver.cuGraphExecDestroy(self.executable)


class Recorder(Launcher):
    """Launches on a stream of its own: the default one cannot be captured. It waits for the default stream's copies."""

    def __init__(self) -> None:
        super().__init__(cuda.stream())

    def capture(self, prepared: PreparedLaunches) -> Graph | PreparedLaunches:
        """A graph of launches that have run before: to load a kernel is nothing that can be captured.

        RuntimeError where the driver refuses; TypeError for a number of the host, which a graph never reads again.
        """
        if any(isinstance(arg, HostNumber) for args in prepared.args for arg in args):
            raise TypeError("a graph keeps the numbers that it was captured with; read what changes from the device")
        if simulated():
            return prepared
        from numba.cuda.cudadrv.driver import CudaAPIError, driver

        try:
            return captured(driver, int(self.stream.handle), prepared.replay)
        except CudaAPIError as error:
            raise RuntimeError(f"the driver captured no CUDA graph: {error}; {WAY_OUT}") from error


def captured(driver: Any, stream: int, launches: Callable[[], None]) -> Graph:
    """A graph by the driver's calls. Where launches fail the capture is ended, so that the stream can be used again."""
    from cuda.bindings.driver import CUstreamCaptureMode

    # relaxed: numba may free memory meanwhile, which other modes forbid to this thread or to all
    driver.cuStreamBeginCapture(stream, CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED)
    try:
        launches()
    except BaseException:
        _end(driver, stream)
        raise
    # What can be launched is made of the graph, which is then no longer needed
    graph = driver.cuStreamEndCapture(stream)
    try:
        return Graph(driver, stream, driver.cuGraphInstantiate(graph, 0))
    finally:
        driver.cuGraphDestroy(graph)


def _end(driver: Any, stream: int) -> None:
    """End a capture that failed; what the driver says of it now is no news."""
    from numba.cuda.cudadrv.driver import CudaAPIError

    try:
        driver.cuGraphDestroy(driver.cuStreamEndCapture(stream))
    except CudaAPIError:
        return
