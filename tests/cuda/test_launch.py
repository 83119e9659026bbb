"""What a launch asks of the driver, by a double of numba's compiled kernel: there is no GPU here that could refuse."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from rnnbench.kernels.cuda import device, launch
from rnnbench.kernels.cuda.launch import Launcher, LaunchSize

if device.simulated():
    pytest.skip("the simulator asks nobody", allow_module_level=True)
binding = pytest.importorskip("cuda.bindings.driver")


class Kernel:
    """A dispatcher that counts how often it is compiled, and keeps its launches. Eight of its blocks fit the device."""

    def __init__(self) -> None:
        function = SimpleNamespace(handle="handle", device=SimpleNamespace(id=3))
        self.compiled = SimpleNamespace(
            cooperative=False,
            max_cooperative_grid_blocks=lambda threads, shared: 8,
            _codelibrary=SimpleNamespace(get_cufunc=lambda: function),
        )
        self.overloads = {"signature": self.compiled}
        self.specialized, self.launches = [], []

    def specialize(self, *args):
        self.specialized.append(args)
        return self

    def __getitem__(self, configuration):
        return lambda *args: self.launches.append((configuration, args))


@pytest.fixture
def asked(monkeypatch):
    """Attributes that are set, as (attribute, value, kernel, device)."""
    from numba.cuda.cudadrv import driver

    calls = []
    double = SimpleNamespace(cuKernelSetAttribute=lambda *args: calls.append(args))
    monkeypatch.setattr(driver, "driver", double)
    launch._granted.cache_clear()
    return calls


def test_shared_memory_is_asked_for_once(asked):
    kernel, put = Kernel(), Launcher(stream=5)
    for value in (1, 2):
        put(kernel, LaunchSize(4, 64, shared=70000), value)
    wanted = binding.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    assert asked == [(wanted, 70000, "handle", 3)]
    assert kernel.specialized == [(1,)]
    assert kernel.launches == [((4, 64, 5, 70000), (1,)), ((4, 64, 5, 70000), (2,))]
    assert not kernel.compiled.cooperative


def test_blocks_that_wait_are_launched_together_or_not_at_all(asked):
    kernel, put = Kernel(), Launcher()
    put(kernel, LaunchSize(8, 64, together=True), 1)
    assert kernel.compiled.cooperative
    with pytest.raises(RuntimeError, match="9 blocks wait for each other and the device holds 8"):
        put(kernel, LaunchSize(9, 64, together=True), 1)
    assert len(kernel.launches) == 1


def test_a_plain_launch_asks_for_nothing(asked):
    kernel = Kernel()
    Launcher()(kernel, LaunchSize((2, 3), (4, 4)), 1)
    assert asked == []
    assert kernel.specialized == []
    assert kernel.launches == [(((2, 3), (4, 4), 0, 0), (1,))]


def test_numba_has_what_is_asked_for():
    """Names without a promise: a version of numba-cuda that drops them is found here and not on a GPU."""
    from numba.cuda.cudadrv.driver import CudaPythonFunction
    from numba.cuda.dispatcher import CUDADispatcher, _Kernel

    assert "handle" in CudaPythonFunction.__slots__
    assert callable(CUDADispatcher.specialize)
    assert callable(_Kernel.max_cooperative_grid_blocks)
    assert "cooperative" in _Kernel.launch.__code__.co_names
    for name in ("MULTIPROCESSOR_COUNT", "MAX_SHARED_MEMORY_PER_BLOCK_OPTIN", "COOPERATIVE_LAUNCH"):
        assert hasattr(binding.CUdevice_attribute, f"CU_DEVICE_ATTRIBUTE_{name}")
    for name in ("cuStreamBeginCapture", "cuStreamEndCapture", "cuGraphInstantiate", "cuGraphLaunch"):
        assert hasattr(binding, name)
