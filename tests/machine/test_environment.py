"""What workers get of a user's environment, what of it is recorded, and which backends it makes untrue."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rnnbench import backends
from rnnbench.analysis.comparable import hashes_of
from rnnbench.machine import fingerprint as facts_of
from rnnbench.machine.environment import _remove, environment, passed, plainly_named, switches, variables_of
from rnnbench.model import DType
from rnnbench.report.facts import machine_rows

HERE = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("name", "passes", "counts"),
    [
        ("PATH", True, False), ("LC_ALL", True, False), ("https_proxy", True, False), ("XDG_CACHE_HOME", True, False),
        ("KMP_AFFINITY", True, True), ("OMP_PROC_BIND", True, True), ("ATEN_CPU_CAPABILITY", True, True),
        ("TF_ENABLE_ONEDNN_OPTS", True, True), ("TF_XLA_FLAGS", True, True), ("XLA_FLAGS", True, True),
        ("JAX_ENABLE_X64", True, True), ("LD_PRELOAD", True, True), ("RNNBENCH_PLAIN_KERNELS", True, True),
        ("NUMBA_CACHE_DIR", True, False), ("TF_CPP_MIN_LOG_LEVEL", True, False), ("KERAS_HOME", True, False),
        ("RNNBENCH_DATA", True, False), ("KMP_INIT_AT_FORK", True, False),
        ("PYTHONMALLOC", False, False), ("PYTHONDEVMODE", False, False), ("PYTHONINSPECT", False, False),
        ("TF_CLI_CONFIG_FILE", False, False), ("TF_TOKEN_app_terraform_io", False, False),
        ("NVIDIA_API_KEY", False, False), ("TF_GPU_THREAD_MODE", True, True),
        ("GIT_DIR", False, False), ("MPLBACKEND", False, False), ("COLUMNS", False, False), ("SOMETHING", False, False),
    ],
)  # fmt: skip
def test_what_reaches_a_worker_and_what_makes_runs_unlike(monkeypatch, name, passes, counts):
    monkeypatch.setenv(name, "7")
    assert (environment(1, None).get(name) == "7") == passes
    assert (name in switches({})) == counts
    assert environment(1, None, {name: "8"})[name] == switches({name: "8"})[name] == "8"  # asked for by name


def test_thread_counts_of_the_shell_reach_no_worker_and_make_no_machine(monkeypatch):
    monkeypatch.setattr(facts_of, "_described", dict)
    before = facts_of.fingerprint()
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/elsewhere")
    after = facts_of.fingerprint()
    assert after["machine_id"] == before["machine_id"]
    assert after["replaced_in_workers"]["OMP_NUM_THREADS"] == "7"
    assert environment(2, None)["OMP_NUM_THREADS"] == "2"


def test_a_variable_that_was_asked_for_is_part_of_what_makes_runs_comparable(monkeypatch):
    monkeypatch.setattr(facts_of, "_described", dict)
    plain, asked = facts_of.fingerprint(), facts_of.fingerprint({"MINE": "1"})
    assert asked["environment"]["MINE"] == "1"
    assert [part for part in hashes_of(plain) if hashes_of(plain)[part] != hashes_of(asked)[part]] == ["system"]


def test_variables_of_the_option(monkeypatch):
    monkeypatch.setenv("MINE", "a=b")
    assert variables_of(["MINE", "OTHER=", "X=1=2"]) == {"MINE": "a=b", "OTHER": "", "X": "1=2"}
    for asked, said in {
        "NOT_SET": "is not set here; give NOT_SET=VALUE", "=1": "names no variable", "": "names no variable",
        "OMP_NUM_THREADS=3": "choose threads with --threads", "RNNBENCH_CORES=1": "rnnbench's own",
    }.items():  # fmt: skip
        with pytest.raises(ValueError, match="--env") as caught:
            variables_of([asked])
        assert said in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "value", "refused"),
    [
        (
            "NUMBA_DISABLE_JIT",
            "1",
            {"numba", "numba+subnormal", "numba+naive", "cuda", "cuda+graph", "torch+rnnbench", "jax+rnnbench"},
        ),
        ("NUMBA_DISABLE_JIT", "0", set()),
        ("TORCHDYNAMO_DISABLE", "1", {"torch+compile"}),
        ("TORCH_COMPILE_DISABLE", "1", {"torch+compile"}),
        ("TORCHDYNAMO_SUPPRESS_ERRORS", "1", {"torch+compile"}),
        ("JAX_DISABLE_JIT", "True", {"jax", "jax+rnnbench", "jax-cuda", "keras+jax"}),
        ("JAX_DISABLE_JIT", "off", set()),
        ("JAX_PLATFORMS", "cuda", {"jax", "jax+rnnbench", "keras+jax"}),
        ("JAX_PLATFORMS", "cuda,cpu", set()),
        ("TF_XLA_FLAGS", "--tf_xla_cpu_global_jit --tf_xla_auto_jit=2", {"tensorflow"}),
        ("TF_XLA_FLAGS", "--tf_xla_auto_jit=-1", set()),
        ("TF_FUNCTION_JIT_COMPILE_DEFAULT", "true", {"tensorflow"}),
    ],
)
def test_a_switch_that_makes_a_name_untrue_is_refused_with_the_variable(monkeypatch, variable, value, refused):
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda name: True)  # as if all were installed
    for env in ({}, {variable: value}):
        if not env:
            monkeypatch.setenv(variable, value)
        else:
            monkeypatch.delenv(variable)
        found = {name: reason for name in backends.REGISTRY if (reason := backends.missing(name, env))}
        assert found.keys() == refused
        assert all(f"{variable}={value}" in reason for reason in found.values())


@pytest.mark.usefixtures("no_figures")
def test_a_run_leaves_out_what_its_variables_contradict_and_keeps_them(tmp_path):
    import rnnbench as rb

    run = rb.run("parity", ["numpy", "jax"], passes=["forward"], mode="quick", threads=1, training=False,
                 env={"JAX_DISABLE_JIT": "1", "MINE": "here"}, output=tmp_path / "run", progress=False)  # fmt: skip
    (answer,) = run.times[run.times["backend"] == "jax"].to_dict("records")
    assert answer["status"] == "unavailable"
    assert "JAX_DISABLE_JIT=1" in answer["reason"]
    assert run.loaded.machine["environment"]["MINE"] == "here"
    assert run.loaded.run["plan"]["env"]["MINE"] == "here"
    assert ("environment MINE", "here") in machine_rows(run.loaded.machine)


def test_where_numba_is_switched_off_the_peak_is_measured_nevertheless_and_nothing_is_warmed(monkeypatch):
    from click.testing import CliRunner

    from rnnbench.cli import main
    from rnnbench.machine import peak

    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    asked: list[dict[str, str]] = []
    monkeypatch.setattr(peak, "asked", lambda module, op, limit, env, **more: asked.append(env) or {"peak": None})
    with pytest.raises(ValueError, match="object"):  # no answer
        peak.measure((DType.FLOAT32,), 1)
    assert "NUMBA_DISABLE_JIT" not in asked[0]
    done = CliRunner().invoke(main, ["warm"])
    assert done.exit_code == 3
    assert "NUMBA_DISABLE_JIT=1" in done.output


@pytest.mark.parametrize("place", ["a b", 'quo"te', "quo'te", "back\\slash", "ümläut", os.fsdecode(b"\xff"), "plain"])
def test_compilers_get_their_caches_by_names_that_need_no_quotes_and_they_lie_in_the_run(tmp_path, place, monkeypatch):
    cache = tmp_path / place
    caches = {name for entry in backends.REGISTRY.values() for name, value in entry.caches.items() if "{" in value}
    for name in caches:
        monkeypatch.delenv(name, raising=False)
    env = environment(1, cache)
    for name in caches:
        folder = env[name].partition("=")[2] or env[name]
        if name == "NUMBA_CACHE_DIR":  # tests share theirs
            continue
        assert re.fullmatch(r"[\w./+-]+", folder, re.ASCII)
        assert Path(folder).resolve().parent == cache.resolve()
        assert Path(folder).is_dir()
    shutil.rmtree(cache)
    assert environment(1, cache) == env  # as of a run that goes on, whose caches were deleted
    link = plainly_named(cache)
    assert (link == cache) == (place == "plain")
    if link != cache:
        _remove(link, os.getpid())
        assert not link.parent.exists()
        assert cache.is_dir()


def test_who_has_no_home_and_no_name_gets_them_in_the_folder_of_the_run(tmp_path, monkeypatch):
    from rnnbench.machine import environment as module

    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr(module.pwd, "getpwuid", unknown)
    for name in ("HOME", "USER", "LOGNAME"):
        monkeypatch.delenv(name, raising=False)
    env = passed({}, tmp_path)
    assert env["HOME"] == str(tmp_path / "home")
    assert os.path.isdir(env["HOME"])
    assert env["USER"] == str(os.getuid())
    monkeypatch.setenv("HOME", str(tmp_path / "not there"))
    assert passed({}, tmp_path)["HOME"] == str(tmp_path / "home")


LOADED = """
import os
from rnnbench import backends
from tests.helpers import random_data, random_params, small_problem
problem = small_problem(B=32, T=60, H=64)
backend = backends.load("numba")
session = backend.prepare(problem, random_params(problem), random_data(problem))
session.gradient(); session.predict(random_data(problem).inputs)
from numba.np.ufunc import parallel
from rnnbench.kernels.cpu.thread_pool import thread_pool
maps = open("/proc/self/maps").read()
print(parallel._is_initialized, any(name in maps for name in ("libgomp", "libomp", "libtbb", "omppool")),
      backend.contract(problem).threads, len(thread_pool().threads))
"""


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="no list of loaded libraries")
def test_our_kernels_load_no_threading_layer_to_count_their_threads():
    """Asking Numba did: OpenMP came with it and pinned threads to cores, and `tbb` failed where it is not there."""
    env = environment(2, None, {"NUMBA_THREADING_LAYER": "tbb", "OMP_PROC_BIND": "true"})
    env |= {"PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", LOADED], env=env, cwd=HERE, capture_output=True, text=True, timeout=240
    )
    assert done.stdout.split() == ["False", "False", "2", "1"], done.stderr
