"""The fingerprint: read from made-up trees of files, hashed by what matters, silent about nothing."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import pytest

from rnnbench.analysis.comparable import hashes_of, parts_of
from rnnbench.machine import fingerprint as facts_of
from rnnbench.machine import interference
from rnnbench.machine.fingerprint import fingerprint
from rnnbench.machine.interference import CpuTimes, shares_between


def tree(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


CPU = "sys/devices/system/cpu"


def test_the_clock_policy_of_a_desktop(tmp_path, monkeypatch):
    monkeypatch.setattr(facts_of, "allowed_cores", lambda: [0, 2])
    files = {
        f"{CPU}/cpu{n}/cpufreq/scaling_governor": text for n, text in ((0, "powersave"), (1, "x"), (2, "ondemand"))
    }
    files |= {f"{CPU}/cpu0/cpufreq/cpuinfo_min_freq": "800000", f"{CPU}/cpu2/cpufreq/cpuinfo_max_freq": "4700000"}
    found = facts_of.clock_policy(tree(tmp_path, **files, **{f"{CPU}/intel_pstate/no_turbo": "0"}))
    assert found == {
        "min_mhz": 800,
        "max_mhz": 4700,
        "governor": "ondemand, powersave",
        "frequency_driver": None,
        "turbo": "on",
    }
    assert facts_of.clock_policy(tree(tmp_path / "amd", **{f"{CPU}/cpufreq/boost": "0"}))["turbo"] == "off"


def test_what_is_not_told_is_unknown(tmp_path):
    assert set(facts_of.clock_policy(tmp_path).values()) == {None}
    assert set(facts_of.kernel_settings(tmp_path).values()) == {None}
    assert set(facts_of.control_group(tmp_path).values()) == {None}
    assert facts_of.sockets(tmp_path) is facts_of.smt(tmp_path) is None
    assert facts_of.cache_bytes(tmp_path, 3, "Unified") is None


def test_sockets_threads_and_caches(tmp_path):
    files = {f"{CPU}/cpu{n}/topology/physical_package_id": str(n // 2) for n in range(4)}
    files |= {f"{CPU}/smt/control": "on", f"{CPU}/smt/active": "1"}
    for index, facts in enumerate((("1", "Data", "48K"), ("3", "Unified", "36M"), ("2", "Unified", "odd"))):
        for name, value in zip(("level", "type", "size"), facts, strict=True):
            files[f"{CPU}/cpu0/cache/index{index}/{name}"] = value
    tree(tmp_path, **files)
    assert facts_of.sockets(tmp_path) == 2
    assert facts_of.smt(tmp_path) == "on"
    assert facts_of.cache_bytes(tmp_path, 1, "Data") == 48 << 10
    assert facts_of.cache_bytes(tmp_path, 3, "Unified") == 36 << 20
    assert facts_of.cache_bytes(tmp_path, 2, "Unified") is None


GROUP = "sys/fs/cgroup"


@pytest.mark.parametrize(
    ("files", "cpus", "memory"),
    [
        ({"proc/self/cgroup": "0::/a/b", f"{GROUP}/cgroup.controllers": "cpu", f"{GROUP}/a/cpu.max": "150000 100000",
          f"{GROUP}/a/b/cpu.max": "max 100000", f"{GROUP}/a/b/memory.max": "1048576"}, 1.5, 1 << 20),
        ({"proc/self/cgroup": "0::/", f"{GROUP}/cgroup.controllers": "", f"{GROUP}/cpu.max": "max 100000",
          f"{GROUP}/memory.max": "max"}, "unlimited", "unlimited"),
        ({"proc/self/cgroup": "4:memory:/gone\n1:cpu,cpuacct:/", f"{GROUP}/cpu/cpu.cfs_quota_us": "50000",
          f"{GROUP}/cpu/cpu.cfs_period_us": "100000", f"{GROUP}/memory/memory.limit_in_bytes": "9223372036854771712"},
         0.5, "unlimited"),
        ({"proc/self/cgroup": "0::/", f"{GROUP}/cgroup.controllers": "memory"}, None, None),
    ],
    ids=["version 2, nested", "version 2, none", "version 1, seen from a container", "version 2, not told"],
)  # fmt: skip
def test_limits_of_control_groups(tmp_path, files, cpus, memory):
    assert facts_of.control_group(tree(tmp_path, **files)) == {"cpus": cpus, "memory_bytes": memory}


def test_kernel_settings(tmp_path):
    pages = "sys/kernel/mm/transparent_hugepage/enabled"
    found = facts_of.kernel_settings(
        tree(tmp_path, **{pages: "always [madvise] never", "proc/sys/kernel/randomize_va_space": "2"})
    )
    assert found == {"transparent_huge_pages": "madvise", "aslr": "full", "clocksource": None}


def test_the_step_of_the_clock_is_its_smallest():
    ticks = itertools.accumulate(itertools.cycle((0, 30, 90)))
    found = facts_of.clock_facts(lambda: next(ticks))
    assert found["step_ns"] == 30
    assert found["read_ns"] == 40


def test_shares_leave_out_this_process_and_tell_the_rest():
    first = CpuTimes(at=0.0, busy=100.0, stolen=1.0, total=200.0, own=10.0)
    found = shares_between(first, CpuTimes(at=10.0, busy=115.0, stolen=3.0, total=220.0, own=19.0))
    assert found.seconds == 10
    assert found.others == pytest.approx(0.3)  # 15 s busy, 9 of them ours, of 20
    assert found.stolen == pytest.approx(0.1)
    assert shares_between(first, None) is shares_between(first, first) is None
    assert shares_between(first, CpuTimes(1.0, 101.0, None, 202.0, 11.5)).others == 0.0


def test_a_busy_child_is_ours_once_it_has_ended_and_another_process_is_not():
    first = interference.read_cpu_times()
    if first is None:
        pytest.skip("this system does not count its processors' time")
    busy = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\ninput()"
    child = subprocess.Popen([sys.executable, "-c", busy], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    child.stdout.readline()
    assert interference.read_cpu_times().own - first.own < 0.25
    child.communicate("\n")
    assert interference.read_cpu_times().own - first.own > 0.29


def test_a_fingerprint_hashes_what_matters():
    facts = fingerprint()
    assert facts["hashes"] == hashes_of(facts)
    assert set(facts["hashes"]) == {"processor", "gpu", "system", "software"}
    busier = {**facts, "load": [9.0], "git": None, "clock": {}, "cpu": {**facts["cpu"], "mhz": 1}, "swap_bytes": 1}
    assert hashes_of(busier) == facts["hashes"]
    for part, other in (
        ("processor", {**facts, "cpu": {**facts["cpu"], "model": "another"}}),
        ("gpu", {**facts, "gpu": {"name": "another", "celsius": 40}}),
        ("system", {**facts, "cpu": {**facts["cpu"], "governor": "another"}}),
        ("system", {**facts, "environment": {"KMP_AFFINITY": "compact"}}),
        ("software", {**facts, "libraries": {"numpy": "0"}}),
    ):
        changed = hashes_of(other)
        assert [name for name in changed if changed[name] != facts["hashes"][name]] == [part]
    warmer = [hashes_of({**facts, "gpu": {"name": "a", "celsius": celsius}}) for celsius in (40, 50)]
    assert warmer[0] == warmer[1]


@pytest.mark.parametrize(
    ("whole", "usable"), [(16, 15.34), (24, 23.54), (32, 31.2), (64, 62.7), (96, 94.1), (128, 125.6)]
)
def test_a_little_memory_more_or_less_is_the_same_machine(whole, usable):
    """What a system keeps for itself differs from start to start; what is put in does not."""

    def found(gibibytes):
        return hashes_of({"memory_bytes": int(gibibytes * 2**30)})["system"]

    assert found(usable) == found(usable - 0.05) == found(whole)
    assert found(usable) != found(whole * 1.25)
    assert found(usable) != found(whole / 2)


def test_parts_of_an_older_fingerprint():
    found = parts_of({"cpu": {"model": "A", "mhz": 2000, "governor": None}, "os": "Linux 6", "python": "3.11"})
    assert found == {
        "processor": {"cpu model": "A"},
        "gpu": {},
        "system": {"cpu governor": None, "os": "Linux 6"},
        "software": {"python": "3.11"},
    }


@pytest.fixture
def quick_facts(monkeypatch):
    """A fingerprint for which no other program is asked."""
    monkeypatch.setattr(facts_of, "_described", lambda: {"brand_raw": "a chip", "flags": ["avx2"]})
    monkeypatch.setattr(facts_of, "git", lambda: None)
    monkeypatch.setattr(facts_of, "_detected", lambda kind: None)
    for name in CHANGES | KEEPS:
        monkeypatch.delenv(name, raising=False)


CHANGES = {
    "OMP_PROC_BIND": "true", "KMP_AFFINITY": "compact", "OPENBLAS_CORETYPE": "Haswell", "MALLOC_ARENA_MAX": "1",
    "GLIBC_TUNABLES": "glibc.malloc.check=1", "ATEN_CPU_CAPABILITY": "default", "TORCHDYNAMO_DISABLE": "1",
    "XLA_FLAGS": "--x", "TF_ENABLE_ONEDNN_OPTS": "0", "TF_XLA_FLAGS": "--x", "JAX_DISABLE_JIT": "1",
    "NUMBA_OPT": "0", "LD_PRELOAD": "x.so", "KERAS_BACKEND": "torch", "ORT_X": "1", "CUDA_VISIBLE_DEVICES": "0",
}  # fmt: skip
KEEPS = {
    "HOME": "/nowhere", "TMPDIR": "/nowhere", "COLUMNS": "20", "TERM": "dumb", "CI": "true", "FORCE_COLOR": "1",
    "NO_COLOR": "1", "MPLBACKEND": "TkAgg", "LANG": "C", "LC_ALL": "C", "PYTHONHASHSEED": "7", "GIT_DIR": "/nowhere",
    "NUMBA_CACHE_DIR": "/nowhere", "TORCHINDUCTOR_CACHE_DIR": "/nowhere", "JAX_COMPILATION_CACHE_DIR": "/nowhere",
    "KERAS_HOME": "/nowhere", "RNNBENCH_DATA": "/nowhere", "RNNBENCH_TRACEBACK": "1", "OMP_NUM_THREADS": "7",
    "TF_TOKEN_x": "secret", "PYTHONDEVMODE": "1", "AWS_SECRET": "x", "TORCH_LOGS": "all",
}  # fmt: skip


def test_the_machine_id_differs_where_and_only_where_a_number_may(quick_facts, monkeypatch):
    before = fingerprint()["machine_id"]
    ids = {before}
    for name, value in CHANGES.items():
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            found = fingerprint()["machine_id"]
        assert found not in ids, name
        ids.add(found)
        assert fingerprint({name: value})["machine_id"] == found  # of --env, too
    assert fingerprint({"OWN_SWITCH": "1"})["machine_id"] not in ids
    for name, value in KEEPS.items():
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert fingerprint()["machine_id"] == before, name
    monkeypatch.chdir("/")
    assert fingerprint()["machine_id"] == before


def test_a_checkout_is_dirty_by_its_code_alone(tmp_path):
    (tmp_path / "rnnbench").mkdir()
    (tmp_path / "rnnbench" / "kernel.py").write_text("x = 1\n")
    (tmp_path / "pyproject.toml").touch()
    identity = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.org"]
    for arguments in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "-m", "One file"]):
        subprocess.run(["git", "-C", tmp_path, *arguments], check=True)
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "report.md").write_text("what a run leaves")
    assert (facts_of.git(tmp_path) or {})["dirty"] is False
    (tmp_path / "rnnbench" / "another.py").touch()
    assert (facts_of.git(tmp_path) or {})["dirty"] is True
