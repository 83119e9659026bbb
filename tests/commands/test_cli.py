"""The commands as a user types them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from rnnbench import backends, workloads
from rnnbench.cli import main
from rnnbench.cli.training import SEEDS
from rnnbench.commands.run import EXIT_CODES
from rnnbench.commands.seeds import EXPERIMENTS
from rnnbench.model import Pass
from tests.calling import called

FRAMEWORKS = ("torch", "tensorflow", "keras", "jax", "numba", "optax")


def invoke(*arguments: str) -> str:
    return called(*arguments, code=0).stdout


def test_help_is_quick():
    best = 9.0
    for _ in range(3):
        before = os.times()
        subprocess.run([sys.executable, "-m", "rnnbench", "--help"], check=True, capture_output=True)
        after = os.times()  # processor time: the wall clock of a busy machine tells about the others
        best = min(best, after.children_user + after.children_system - before.children_user - before.children_system)
    assert best < 0.3


@pytest.mark.parametrize("command", ["", *main.commands])
def test_every_command_has_help_with_an_example(command):
    text = invoke(*filter(None, [command, "--help"]))
    assert "Examples:" in text
    assert f"python -m rnnbench {command}".strip() in text


def test_the_parent_imports_no_framework(tmp_path):
    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom rnnbench.cli import main\n"
        "args = ['run', '-w', 'parity', '-b', 'numpy', '--quick', '-o', sys.argv[1]]\n"
        "result = CliRunner().invoke(main, args)\n"
        "assert result.exit_code == 0, result.output\n"
        f"print([m for m in {FRAMEWORKS!r} if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_list_names_every_workload_and_backend():
    found = json.loads(invoke("list", "--json"))
    assert list(found["workloads"]) == list(workloads.REGISTRY)
    assert list(found["backends"]) == list(backends.REGISTRY)
    text = invoke("list")
    for name in (*workloads.REGISTRY, *backends.REGISTRY):
        assert name in text


def test_list_says_which_extra_to_install_and_who_needs_a_gpu(monkeypatch):
    monkeypatch.setattr(backends, "missing", lambda name: "pip install '.[cuda]'" if name == "cuda" else None)
    lines = {line.split()[0]: line for line in invoke("list").splitlines() if line.split()}
    assert "pip install '.[cuda]'" in lines["cuda"]
    assert "installed; needs an NVIDIA GPU" in lines["jax-cuda"]
    assert lines["jax"].rstrip().endswith("ready")


def test_env_is_json():
    facts = json.loads(invoke("env", "--json"))
    assert facts["machine_id"]
    assert facts["libraries"]["numpy"]
    assert facts["cpu"]["allowed"] >= 1
    assert facts["workers"]["numba"]["built_for"]["llvm_cpu"]
    assert any(pool["user_api"] == "blas" for pool in facts["workers"]["numpy"]["threadpools"])
    assert facts["start"]["load_per_core"] >= 0


def test_env_measures_the_peak_when_asked():
    facts = json.loads(invoke("env", "--peak", "--threads", "1", "--json"))
    assert set(facts["peak"]["rates"]) == {"float32", "float64"}
    (rates,) = facts["peak"]["rates"]["float32"]
    assert rates["flops"] > 1e8
    assert "peak" not in json.loads(invoke("env", "--json"))


def test_dry_run_lists_the_plan_and_runs_nothing(tmp_path):
    text = invoke("run", "--dry-run", "-k", "imdb-50 forward !torch", "-o", str(tmp_path / "run"))
    assert "imdb-50 forward float32" in text
    assert "torch" not in text
    assert "gradient" not in text
    assert not (tmp_path / "run").exists()


def test_a_run_is_found_by_the_id_that_it_tells(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    called("run", "--quick", "-w", "parity", "-b", "numpy", "--pass", "forward", code=0)
    (folder,) = (tmp_path / "reports").iterdir()
    told = json.loads((folder / "run.json").read_text())["run_id"]
    assert f"rnnbench: {told}" in (folder / "report.md").read_text()
    assert f"hold records of run {told}" in " ".join(called("compare", told, told).output.split())


def test_memory_is_asked_for_and_belongs_to_a_rigorous_run():
    one = ("run", "--dry-run", "-w", "parity", "-b", "numpy")
    assert "memory" not in invoke(*one)
    for option in ("--memory", "--rigorous"):
        assert ", then once for its memory; nothing was run" in invoke(*one, option)


def test_warm_compiles_once_and_keeps_it(tmp_path):
    env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "rnnbench", "warm"]
    first, second = (subprocess.run(command, env=env, capture_output=True, text=True, check=True) for _ in range(2))
    seconds = [float(re.search(r"float32: kernels ready after ([\d.]+) s", run.stderr)[1]) for run in (first, second)]
    assert list(tmp_path.rglob("*.nbi"))
    assert seconds[1] < seconds[0] / 2


def test_verify_as_json():
    found = json.loads(invoke("verify", "-w", "parity,running-parity", "-b", "numpy", "--json"))
    assert {(r["dtype"], r["pass"]) for r in found} == {(d, str(p)) for d in ("float32", "float64") for p in Pass}
    assert {r["truncation"] for r in found} == {None, "20:5"}
    assert all(r["status"] == "ok" and r["errors"] for r in found)


def test_train_as_json():
    found = json.loads(invoke("train", "parity", "--backend", "numpy", "--epochs", "2", "--json"))
    assert [epoch["epoch"] for epoch in found["epochs"]] == [0, 1, 2]
    assert found["epochs"][2]["loss"] < found["epochs"][1]["loss"]
    assert 0 <= found["test"]["accuracy"] <= 1


def test_train_learns_the_running_parity_of_two_bits():
    found = json.loads(invoke("train", "running-parity", "-T", "2", "-b", "numpy", "--epochs", "60", "--json"))
    assert found["test"]["accuracy"] > 0.95


def test_train_keeps_its_curve_for_a_report(tmp_path):
    invoke("train", "parity", "--backend", "numpy", "--epochs", "2", "-o", str(tmp_path / "run"))
    assert "report.md" in invoke("report", str(tmp_path / "run"))
    assert (tmp_path / "run" / "figures" / "curves.png").stat().st_size > 1000


def test_golden_seeds_agree():
    found = json.loads(invoke("seeds", "forward-golden", "bptt-golden", "sentiment-toy", "-b", "numpy", "--json"))
    agrees = {f["experiment"]: f["agrees"] for f in found["findings"] if f["agrees"] is not None}
    assert agrees == {"forward-golden": True, "bptt-golden": True, "sentiment-toy": True}
    assert list(found["mistakes"]) == ["1", "2", "3", "4"]


def test_the_second_mistake_shows_with_large_weights_only():
    from rnnbench.commands.mistakes import error_of_seed_gradient
    from rnnbench.commands.seeds import bptt_problem

    problem, params, data = bptt_problem()
    assert error_of_seed_gradient(problem, params, data) < 1e-5
    assert error_of_seed_gradient(problem, {k: 100 * v for k, v in params.items()}, data) > 0.1


def test_registries_and_documents_agree():
    assert list(EXPERIMENTS) == list(SEEDS)
    text = invoke("run", "--help")
    for code in EXIT_CODES:
        assert f"  {code}  " in text
