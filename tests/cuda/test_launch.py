"""What a launch gives to the driver, over the stub of it: the same as Numba's own launch, laid out once."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest
from numba import cuda

from rnnbench.kernels.cuda import device
from rnnbench.kernels.cuda.launch import HostNumber, Launcher, LaunchSize
from tests.cuda import stub

if device.simulated() or stub.STUB is None:
    pytest.skip("over the stub driver alone: make test-compile", allow_module_level=True)
STUB = stub.STUB
assert STUB is not None
binding = pytest.importorskip("cuda.bindings.driver")


@cuda.jit
def mixed(x, t, offset, rate, root):
    """One argument of each kind that our kernels take."""
    i = cuda.grid(1)
    if i < x.shape[0]:
        x[i, 0, 0] = t[i] * rate + offset * root


@cuda.jit
def dynamic(x):
    pool = cuda.shared.array(0, "float32")
    pool[cuda.threadIdx.x] = x[0]
    x[0] = pool[0]


@pytest.fixture
def arguments():
    numbers = cuda.to_device(np.zeros((4, 3, 2), np.float32)), cuda.to_device(np.arange(40, dtype=np.int64))[8:20]
    return [*numbers, 7, np.float32(0.25), np.float64(3)]


def last() -> stub.Launch:
    return STUB.launches(STUB.kept - 1)[0]


def facts(launch: stub.Launch) -> tuple:
    return (launch.kernel, *launch.grid, *launch.block, launch.shared, launch.stream, launch.arguments, launch.words)


def test_the_driver_gets_what_numba_would_give_it(arguments):
    stream = cuda.stream()
    mixed[(2, 3), (4, 4), stream, 128](*arguments)
    theirs = last()
    Launcher(stream)(mixed, LaunchSize((2, 3), (4, 4), 128), *arguments)
    assert facts(last()) == facts(theirs)
    assert last().arguments == 5 + 6 + 5 + 2 + 3


def test_numbers_of_now_are_launched(arguments):
    put, offset, rate = Launcher(), HostNumber(0), HostNumber(np.float32(0))
    x, t, *_, root = arguments
    begun = STUB.count()
    prepared = put.prepare(lambda: put(mixed, LaunchSize(1, 32), x, t, offset, rate, root))
    assert STUB.count() == begun
    for a, b in ((7, 0.25), (-1, 1.5)):
        offset.set(a)
        rate.set(b)
        prepared.replay()
        ours = last()
        mixed[1, 32](x, t, a, np.float32(b), root)
        assert facts(ours) == facts(last())
    assert STUB.count() == begun + 4


def test_prepared_launches_hold_their_arrays():
    put = Launcher()
    prepared = put.prepare(lambda: put(dynamic, LaunchSize(1, 32), cuda.to_device(np.zeros(1, np.float32))))
    gc.collect()
    cuda.current_context().deallocations.clear()
    prepared.replay()
    assert STUB.faults() == []
    prepared.close()
    assert prepared.args == []


def test_shared_memory_beyond_48_kb_is_asked_for():
    x = cuda.to_device(np.zeros(1, np.float32))
    with pytest.raises(Exception, match="CUDA_ERROR"):
        dynamic[1, 64, 0, 70000](x)
    assert "70000 bytes of dynamic and 0 of static shared memory; 49152 are granted" in STUB.faults()[0]
    put = Launcher()
    first = put.prepare(lambda: put(dynamic, LaunchSize(1, 64, shared=70000), x))
    put(dynamic, LaunchSize(1, 64, shared=60000), x)
    first.replay()
    assert last().shared == 70000
    assert not last().together


def test_blocks_that_wait_are_launched_together_or_not_at_all():
    x, put = cuda.to_device(np.zeros(1, np.float32)), Launcher()
    put(dynamic, LaunchSize(132, 64, together=True), x)
    assert last().together
    begun = STUB.count()
    with pytest.raises(RuntimeError, match="100000 blocks wait for each other and the device holds 4224"):
        put(dynamic, LaunchSize(100_000, 64, together=True), x)
    assert STUB.count() == begun


def test_any_thread_may_launch(arguments):
    put = Launcher()
    prepared = put.prepare(lambda: put(mixed, LaunchSize(1, 32), *arguments))
    begun, raised = STUB.count(), []

    def replay():
        try:
            prepared.replay()
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=replay)
    thread.start()
    thread.join()
    assert raised == []
    assert STUB.count() == begun + 1


def test_what_the_driver_refuses_is_an_error(arguments):
    from numba.cuda.cudadrv.driver import CudaAPIError

    put = Launcher()
    with pytest.raises(CudaAPIError, match="cuLaunchKernelEx results in CUDA_ERROR"):
        put(mixed, LaunchSize(1, 2048), *arguments)
    assert "2048 threads" in STUB.faults()[0]


def test_memory_that_was_freed_is_noted():
    from numba.cuda.cudadrv.devicearray import DeviceNDArray
    from numba.cuda.cudadrv.driver import MemoryPointer, driver

    address, put = driver.cuMemAlloc(256), Launcher()
    x = DeviceNDArray((64,), (4,), np.dtype(np.float32), gpu_data=MemoryPointer(cuda.current_context(), address, 256))
    prepared = put.prepare(lambda: put(dynamic, LaunchSize(1, 32), x))
    driver.cuMemFree(address)
    prepared.replay()
    assert "lies in memory that was freed" in STUB.faults()[0]


def test_an_array_beyond_its_memory_is_noted():
    from numba.cuda.cudadrv.devicearray import DeviceNDArray

    x = cuda.to_device(np.zeros(64, np.float32))
    longer = DeviceNDArray((65,), (4,), np.dtype(np.float32), gpu_data=x.gpu_data)
    Launcher()(dynamic, LaunchSize(1, 32), longer)
    assert "260 bytes begin 0 bytes into an allocation of 256" in STUB.faults()[0]


def test_a_copy_in_a_capture_is_refused():
    from numba.cuda.cudadrv.driver import CudaAPIError, driver

    from rnnbench.kernels.cuda.graph import captured

    x, stream = cuda.to_device(np.zeros(1, np.float32)), cuda.stream()
    with pytest.raises(CudaAPIError):
        captured(driver, int(stream.handle), x.copy_to_host)
    assert STUB.faults() == ["cuMemcpyDtoH in a capture"]
    x.copy_to_host()


def test_numba_has_what_is_asked_for():
    """Names without a promise: a version of numba-cuda that drops them is found here and not on a GPU."""
    from numba.cuda.cudadrv.driver import CudaPythonFunction
    from numba.cuda.dispatcher import CUDADispatcher, _Kernel

    assert "handle" in CudaPythonFunction.__slots__
    assert callable(CUDADispatcher.compile)
    assert callable(_Kernel.max_cooperative_grid_blocks)
    assert isinstance(_Kernel.local_mem_per_thread, property)
    for name in ("MULTIPROCESSOR_COUNT", "MAX_SHARED_MEMORY_PER_BLOCK_OPTIN", "COOPERATIVE_LAUNCH"):
        assert hasattr(binding.CUdevice_attribute, f"CU_DEVICE_ATTRIBUTE_{name}")
    for name in ("cuStreamBeginCapture", "cuStreamEndCapture", "cuGraphInstantiate", "cuGraphLaunch"):
        assert hasattr(binding, name)
