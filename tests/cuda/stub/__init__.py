"""A stub of the CUDA driver (driver.c): `pytest -p tests.cuda.stub tests/cuda`, as `make test-compile` does.

Loaded before Numba looks for a driver. All of the host side runs and every launch is checked, on a machine with no GPU;
kernels do nothing, so of answers names, shapes and types are compared. A test that reads what kernels compute is marked
`numbers` and skipped. A fault that the stub noted fails the test that it was noted in.

A kernel is compiled once for each list of its arguments' types: of other sizes and cells, one that is empty takes its
place. With --every-case all are compiled.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

SOURCE = Path(__file__).with_name("driver.c")
FLAGS = ("-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-Wl,-soname,libcuda.so.1", "-ldl", "-lpthread")


class Launch(ctypes.Structure):
    """A launch as driver.c keeps it."""

    _fields_ = [
        ("kernel", ctypes.c_char * 256), ("grid", ctypes.c_uint * 3), ("block", ctypes.c_uint * 3),
        ("shared", ctypes.c_uint), ("together", ctypes.c_int), ("arguments", ctypes.c_int), ("stream", ctypes.c_size_t),
        ("words", ctypes.c_uint64),
    ]  # fmt: skip


def missing() -> str | None:
    """Why the stub cannot be built here, or None."""
    return None if shutil.which("cc") else "there is no C compiler (cc) to build the stub driver with"


def built() -> Path:
    """The folder with libcuda.so.1 and libcuda.so in it, made once for each version of the source."""
    digest = hashlib.sha256(SOURCE.read_bytes() + repr(FLAGS).encode()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"rnnbench-stub-{os.getuid()}-{digest}"
    library = folder / "libcuda.so.1"
    if not library.exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f"{os.getpid()}.part"
        subprocess.run(["cc", str(SOURCE), "-o", str(part), *FLAGS], check=True)
        (folder / "libcuda.so").unlink(missing_ok=True)
        (folder / "libcuda.so").symlink_to(library.name)
        part.replace(library)  # another process may make the same at the same time
    return folder


class Stub:
    """The library, in this process and in those that it starts."""

    def __init__(self) -> None:
        folder = built()
        self.library = ctypes.CDLL(str(folder / "libcuda.so.1"), mode=ctypes.RTLD_GLOBAL)
        self.library.stub_faults.restype = ctypes.c_char_p
        self.library.stub_launches.restype = self.library.stub_kept.restype = ctypes.c_long
        self.library.stub_launch.argtypes = [ctypes.c_long, ctypes.POINTER(Launch)]
        path = os.environ.get("LD_LIBRARY_PATH")
        os.environ["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, [str(folder), path]))

    def faults(self) -> list[str]:
        """What was noted since the last call."""
        return self.library.stub_faults().decode().splitlines()

    def count(self) -> int:
        """Launches so far, those of graphs too."""
        return self.library.stub_launches()

    def launches(self, since: int = 0) -> list[Launch]:
        """Single launches and those that were captured, from number `since` on."""
        found = []
        for number in range(since, self.library.stub_kept()):
            found.append(Launch())
            assert self.library.stub_launch(number, found[-1]) == 0, "more launches than the stub keeps"
        return found

    @property
    def kept(self) -> int:
        """How many `launches` there are."""
        return self.library.stub_kept()


STUB: Stub | None = None  # where this module is a plugin of pytest


def pytest_load_initial_conftests() -> None:
    """Pytest calls it of a plugin alone, and before it imports anything that asks for a driver."""
    global STUB
    if not missing():
        STUB = Stub()


def pytest_report_header() -> str:
    return f"CUDA driver: {missing() or 'the stub of tests/cuda/stub'}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("numbers"):
            item.add_marker(pytest.mark.skip(reason="reads what kernels compute, and those of the stub do nothing"))


def _same_shapes(ref: Any, got: Any, dtype: Any) -> dict[str, Any]:
    """In place of `errors_of`: every array of `ref` is in `got` with its shape, in its type."""
    from tests.helpers import arrays_of

    theirs = dict(arrays_of(got))
    for name, x in arrays_of(ref):
        assert np.shape(theirs[name]) == np.shape(x), name
        assert np.ndim(x) == 0 or theirs[name].dtype == str(dtype), name
    return dict.fromkeys(theirs, SimpleNamespace(ok=True))


def _same_shape(ref: Any, got: Any) -> float:
    """In place of `relative_error`."""
    assert np.shape(ref) == np.shape(got)
    return 0.0


COMPILED = set[tuple[str, Any]]()  # names of kernels and their arguments' types


def _compiled(kernel: Any, kinds: tuple[Any, ...]) -> Any:
    """In place of `launch._compiled`, which takes seconds: sizes and cells change what a kernel does, and not how it is
    called. tests/cuda/test_compile.py compiles the one with most registers of each kind, all with --every-case.
    """
    from numba import cuda

    if kinds not in kernel.overloads:
        key = kernel.py_func.__qualname__, kinds
        if key in COMPILED:
            empty = eval(f"lambda {', '.join(f'x{n}' for n in range(len(kinds)))}: None")
            empty.__name__, empty.__qualname__ = kernel.py_func.__name__, kernel.py_func.__qualname__
            made = cuda.jit(empty, launch_bounds=kernel.targetoptions.get("launch_bounds"))
            kernel.overloads[kinds] = made.compile(kinds)
        COMPILED.add(key)
    return kernel.overloads.get(kinds) or kernel.compile(kinds)


@pytest.fixture(autouse=True)
def _checked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from rnnbench.kernels.cuda import launch
    from tests import helpers

    if STUB is None:
        yield
        return
    if not request.config.getoption("--every-case", default=False):
        monkeypatch.setattr(launch, "_compiled", _compiled)
    monkeypatch.setattr(helpers, "errors_of", _same_shapes)
    monkeypatch.setattr(helpers, "relative_error", _same_shape)
    yield
    faults = STUB.faults()
    assert not faults, faults
