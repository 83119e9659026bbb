"""Shared fixtures and options."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace

import pytest
from threadpoolctl import threadpool_limits

from rnnbench import backends
from rnnbench.api import run_session
from rnnbench.cells import CELLS
from rnnbench.model import features_of
from tests.helpers import STRUCTURES, small_problem

# OpenMP's threads beside other busy processes wait more than they work, and spin meanwhile.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Of how many cases one is tested. Backends that compile or trace every case anew take seconds for each; numba compiles
# once. Variants of a backend that has all cases, and runtimes that share one graph, need fewer.
EVERY = {
    "jax": 12,
    "jax+rnnbench": 12,
    "tensorflow": 16,
    "cuda": 8,
    "cuda+graph": 8,
}
EVERY |= dict.fromkeys(
    ("torch+flush", "torch+rnnbench", "numba+subnormal", "numba+naive", "onnxruntime", "openvino"), 4
)
# The same for backends that compute as another one does and compile for longer: all tests of conformance count as one.
EVERY_OF_ALL = dict.fromkeys(("tensorflow+xla", "torch+compile", "keras", "keras+jax", "keras+torch"), 16)
# Tested beside those of a usual run. Keras has one framework a process, TensorFlow in that of all tests: `make
# test-keras` runs it on the others.
ON_REQUEST = ["numba+subnormal", "numba+naive", "onnxruntime", "keras", "torch+rnnbench", "jax+rnnbench"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--backend", action="append", choices=list(backends.REGISTRY), help="only these backends")
    parser.addoption("--every-case", action="store_true", help="all cases of every backend")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep one in so many cases of the backends in `EVERY` and `EVERY_OF_ALL`; all with --every-case."""
    if config.getoption("--every-case"):
        return
    seen: Counter[tuple[str, str]] = Counter()
    kept, left_out = [], []
    for item in items:
        callspec = getattr(item, "callspec", None)
        name = callspec.params.get("backend") if callspec else None
        test = item.nodeid.partition("[")[0]
        if name in EVERY_OF_ALL and "test_conformance.py" in test:
            test = "conformance"
        key, every = (str(name), test), EVERY.get(str(name)) or EVERY_OF_ALL.get(str(name), 1)
        (left_out if seen[key] % every else kept).append(item)
        seen[key] += 1
    items[:] = kept
    if left_out:
        config.hook.pytest_deselected(items=left_out)


def has(name: str, structure: str) -> bool:
    """Whether a backend of the registry implements all that a structure takes."""
    return {*features_of(small_problem(**STRUCTURES[structure]))} <= {*backends.REGISTRY[name].features}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "backend" in metafunc.fixturenames:
        names = metafunc.config.getoption("--backend") or [*backends.usual(), *ON_REQUEST]
        fixtures, cases = ["backend"], [(name,) for name in names]
        if "cell" in metafunc.fixturenames:
            fixtures.append("cell")
            cases = [
                (name, cell.name) for (name,) in cases for cell in CELLS.values() if name in (cell.computed_by or names)
            ]
        if "structure" in metafunc.fixturenames:
            fixtures.append("structure")
            only = metafunc.definition.get_closest_marker("structures")
            structures = only.args if only else STRUCTURES
            cases = [(*case, structure) for case in cases for structure in structures if has(case[0], structure)]
        metafunc.parametrize(fixtures, cases, indirect=["backend"], scope="session")


@pytest.fixture(scope="session", autouse=True)
def _a_runtime_folder_of_its_own(tmp_path_factory):
    """Runs of tests side by side are not neighbours."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _kernels_are_compiled_once():
    """A run compiles in a folder of its own, to know what that costs: half a minute in each of a hundred tests. Here it
    takes what is kept beside the sources.
    """
    shared = {"NUMBA_CACHE_DIR": ""}
    with pytest.MonkeyPatch.context() as patch:
        for name, entry in backends.REGISTRY.items():
            if shared.keys() <= entry.caches.keys():
                patch.setitem(backends.REGISTRY, name, replace(entry, caches={**entry.caches, **shared}))
        yield


@pytest.fixture(scope="session", autouse=True)
def _the_peak_is_measured_once():
    """The ceilings of this machine are the same in every quick run of the command line in this process."""
    measure, found = run_session.measure, {}

    def measured(dtypes, threads, *, quick, timeout):
        key = (tuple(dtypes), threads)
        if quick and key in found:
            return found[key]
        peak = measure(dtypes, threads, quick=quick, timeout=timeout)
        if quick:
            found[key] = peak
        return peak

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_session, "measure", measured)
        yield


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch):
    """Reports without figures, which take most of their time and are drawn in tests/report."""
    monkeypatch.setattr("rnnbench.report.page._figures", lambda *_: {})


@pytest.fixture(scope="session", autouse=True)
def _one_thread_for_the_oracle():
    """The oracle's products are small; where tests run side by side, a second BLAS thread waits more than it works."""
    with threadpool_limits(limits=1, user_api="blas"):
        yield


@pytest.fixture(scope="session")
def backend(request: pytest.FixtureRequest):
    """A backend of the registry, loaded in this process; skipped, with the way to get it, where it cannot run."""
    if reason := backends.missing(request.param):
        pytest.skip(reason)
    loaded = backends.load(request.param)
    if reason := loaded.unavailable():
        pytest.skip(reason)
    return loaded


@pytest.fixture
def faulty_backends(monkeypatch: pytest.MonkeyPatch):
    """The backends of `tests.faulty` are in the registry of this process, beside the others."""
    from tests.faulty import register

    registry = dict(backends.REGISTRY)
    monkeypatch.setenv("PYTHONPATH", register(registry))
    monkeypatch.setattr(backends, "REGISTRY", registry)
