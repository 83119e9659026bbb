"""The commands as a user types them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path

import pytest

from rnnbench import backends, workloads
from rnnbench.api import train as training
from rnnbench.api.exit_codes import EXIT_CODES
from rnnbench.api.learning import with_trainings
from rnnbench.api.seeds import EXPERIMENTS, MADE_UP, Bench, of_reviews
from rnnbench.cli import main
from rnnbench.cli.names import Names, SizesType
from rnnbench.cli.run import RUN_EPILOG, say_what_is_on_request
from rnnbench.cli.seeds import SEEDS
from rnnbench.harness.plan import Plan
from rnnbench.harness.tasks import tasks_of
from rnnbench.harness.worker_client import WorkerFailure
from rnnbench.model import USUAL_PASSES, DType, Pass, Truncation
from rnnbench.records.record import Mode, Status
from tests.calling import called
from tests.harness.test_run_loop import Listener, loop_of
from tests.helpers import specs

ROOT = Path(__file__).resolve().parents[2]

FRAMEWORKS = ("torch", "tensorflow", "keras", "jax", "numba", "optax")


def invoke(*arguments: str) -> str:
    return called(*arguments, code=0).stdout


def processor_time(*arguments: str) -> float:
    """Seconds of a Python with these arguments: the wall clock of a busy machine tells about the others."""
    before = os.times()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def test_help_is_quick():
    """A slowed core takes twice as long for all, Python and click too, which are a quarter of it at either speed."""
    ours, least = zip(*((processor_time("-m", "rnnbench", "--help"), processor_time("-c", "import json, click"))
                        for _ in range(3)), strict=True)  # fmt: skip
    assert min(ours) < 0.3 or sum(ours) < 6 * sum(least), (ours, least)


@pytest.mark.parametrize("command", ["", *main.commands])
def test_every_command_has_help_with_an_example(command):
    text = invoke(*filter(None, [command, "--help"]))
    assert "Examples:" in text
    assert f"python -m rnnbench {command}".strip() in text


def test_the_parent_imports_no_framework(tmp_path):
    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom rnnbench.cli import main\n"
        "args = ['run', '-w', 'parity', '-b', 'numpy', '--pass', 'epoch', '--quick', '-o', sys.argv[1]]\n"
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
    assert "ready; measured if named" in lines["numba+naive"]


def test_env_is_json():
    facts = json.loads(invoke("env", "--json"))
    assert facts["machine_id"]
    assert facts["libraries"]["numpy"]
    assert facts["cpu"]["allowed"] >= 1
    assert facts["workers"]["numba"]["built_for"]["llvm_cpu"]
    assert any(pool["user_api"] == "blas" for pool in facts["workers"]["numpy"]["threadpools"])
    assert facts["start"]["load_per_core"] >= 0
    assert "peak" not in facts


def test_env_measures_the_peak_when_asked():
    facts = json.loads(invoke("env", "--peak", "--threads", "1", "--json"))
    assert set(facts["peak"]["rates"]) == {"float32", "float64"}
    (rates,) = facts["peak"]["rates"]["float32"]
    assert rates["flops"] > 1e8


def test_dry_run_lists_the_plan_and_runs_nothing(tmp_path):
    text = invoke("run", "--dry-run", "-k", "imdb-50 forward !torch", "-o", str(tmp_path / "run"))
    assert "imdb-50 forward float32" in text
    assert "torch" not in text
    assert "gradient" not in text
    assert not (tmp_path / "run").exists()


def test_a_run_of_the_usual_backends_says_how_to_ask_for_the_others(capsys):
    say_what_is_on_request(types.SimpleNamespace(backends=("numpy", "numba")))
    assert capsys.readouterr().out == ""
    say_what_is_on_request(types.SimpleNamespace(backends=tuple(backends.usual())))
    (names,) = re.fullmatch(r"Measured if named: -b (\S+)\n", capsys.readouterr().out).groups()
    assert {"numba+naive", "onnxruntime", "keras"} <= set(names.split(","))
    assert f"parity forward float32   {names.split(',')[-1]}" in invoke(
        "run", "--dry-run", "-w", "parity", "--pass", "forward", "-b", names
    )


def test_a_length_below_1_is_refused():
    words = "Error: Invalid value for '--time-steps' / '-T': '0' is not a whole number from 1 to 2,147,483,647\n"
    assert words in called("run", "-w", "running-parity", "-T", "0", "--quick", code=2).output


@pytest.mark.parametrize(
    "options",
    [
        "-w parity,running-parity -b numpy,numba --pass forward,gradient --dtype float32,float64",
        "-w parity -w running-parity -b numpy -b numba --pass forward --pass gradient --dtype float32 --dtype float64",
        "-w parity,parity -w parity,running-parity -b numpy -b numba,numpy --pass forward,gradient --pass forward"
        " --dtype float32,float64 --dtype float32",
    ],
    ids=["with commas", "again and again", "both, and some twice"],
)
def test_several_values_are_given_with_commas_or_again_and_each_counts_once(options):
    text = invoke("run", "--dry-run", *options.split())
    assert "16 answers, each in" in text
    for name in ("parity gradient float32", "running-parity forward float64"):
        for backend in ("numpy", "numba"):
            assert re.search(rf"^ *{name} +{backend} *$", text, re.MULTILINE), text


def test_words_and_sizes_given_again_add_up():
    text = invoke("run", "--dry-run", "-w", "parity", "-b", "numpy,numba", "-k", "forward", "-k", "!numba")
    assert "1 answer, each in" in text
    text = invoke(
        "sweep", "--dry-run", "--H", "3", "--H", "4,3", "--pass", "forward", "--pass", "gradient", "-b", "numpy"
    )
    assert "4 cases, each by numpy" in text


def test_every_option_of_several_names_may_be_given_again():
    found = [
        (name, parameter.opts)
        for name, command in main.commands.items()
        for parameter in command.params
        if isinstance(parameter.type, Names | SizesType)
    ]
    assert len(found) >= 14
    for name, opts in found:
        (parameter,) = (p for p in main.commands[name].params if p.opts == opts)
        assert parameter.multiple, (name, opts)


def test_help_of_types_says_what_they_do_and_what_is_taken_by_default():
    text = " ".join(invoke("verify", "--help").replace("-\n", "-").split())
    assert "each is judged by the limits of its type. Default: float32,float64; with --audit: float32." in text
    assert "Default: parity,running- parity,imdb-50,imdb-200" in text.replace("running-parity", "running- parity")


def test_an_experiment_named_twice_is_done_once():
    found = json.loads(invoke("seeds", "sentiment-toy", "sentiment-toy", "-b", "numpy", "--json"))
    assert len(found["findings"]) == 1


def test_figures_of_made_up_reviews_agree_and_differ_with_nothing(tmp_path, monkeypatch):
    for name in ("HOME", "KERAS_HOME", "RNNBENCH_DATA", "RNNBENCH_CACHE"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("RNNBENCH_OFFLINE", "1")
    result = called("seeds", "imdb-50", "-b", "numba", "--json", code=0)
    found = json.loads(result.stdout)["findings"]
    assert len(found) == 2
    for finding in found:
        assert finding["experiment"] == "imdb-synthetic-50"
        assert finding["agrees"] is None
        assert finding["note"] == MADE_UP


def test_the_cures_are_rows_with_lengths_a_gru_and_an_lstm(monkeypatch):
    seen = []

    def train(self, training, name):
        lengths = training.dataset.train.lengths is not None
        seen.append((training.problem.model.cell, lengths, training.problem.T, training.problem.model.H))
        return [], types.SimpleNamespace(accuracy=0.75)

    monkeypatch.setattr(Bench, "train", train)
    found = json.loads(invoke("seeds", "imdb-200-cures", "-b", "numba", "--json"))["findings"]
    assert seen == [("rnn", True, 200, 128), ("gru", False, 200, 128), ("lstm", False, 200, 128)]
    assert [finding["ours"] for finding in found] == ["0.7500"] * 3
    assert len({finding["experiment"] for finding in found}) == 3


@pytest.mark.parametrize("agrees", [True, False, None])
def test_a_figure_of_real_reviews_agrees_or_differs(agrees):
    def trained(workload):
        return types.SimpleNamespace(problem=types.SimpleNamespace(workload=workload))

    assert of_reviews(trained("imdb-200"), "imdb-200", agrees, "note") == (agrees, "note")
    assert of_reviews(trained("imdb-synthetic-200"), "imdb-200", agrees, "note") == (None, MADE_UP)


@pytest.mark.usefixtures("no_figures")
def test_what_accuracy_to_expect_is_said_wherever_one_is_shown(tmp_path):
    expect = workloads.get("parity").expect
    assert "chance, 0.5" in expect
    assert expect in " ".join(invoke("train", "parity", "-b", "numpy", "--epochs", "1").split())
    assert json.loads(invoke("list", "--json"))["workloads"]["parity"]["expect"] == expect
    assert "to expect is chance" in " ".join(invoke("list").split())
    folder = tmp_path / "run"
    text = invoke("run", "-w", "parity", "-b", "numpy", "--pass", "forward", "--quick", "-o", str(folder))
    assert f"parity: {expect}" in " ".join(text.split())
    assert expect.partition(" ")[2] in (folder / "report.md").read_text().replace("\\", "")
    assert not workloads.get("imdb-50").expect


def test_a_run_of_which_nothing_is_left_ends_before_its_last_launch(tmp_path):
    limits = ("--precision", "99%", "--max-launches", 10**6)
    assert "5 to 1000000 launches" in invoke("run", "--dry-run", "-w", "parity", *map(str, limits))


@pytest.mark.usefixtures("no_figures")
def test_a_run_says_how_long_it_takes_before_it_measures(tmp_path):
    plain = ("run", "-w", "parity", "-b", "numpy", "--pass", "forward", "--quick", "--no-training")
    said = called(*plain, "-o", tmp_path / "a", code=0).stderr
    assert re.search(r"^measuring takes about \d+ s; Ctrl-C ends it and keeps what was measured$", said, re.MULTILINE)
    said = called(*plain, "--budget", "50s", "-o", tmp_path / "b", code=0).stderr
    assert re.search(r"measuring takes about \d+ s; no round begins after 50 s;", said)


def test_long_rows_are_trained_only_when_asked_for():
    plan = Plan(specs("running-parity"), ("numpy",), (Pass.FORWARD,), (DType.FLOAT32,), Mode.DEFAULT, 1, 0, 300.0)
    assert with_trainings(plan, None).training == ("running-parity",)
    long = replace(plan, workloads=specs("running-parity", T=1000))
    assert with_trainings(long, None).training == ()
    assert with_trainings(long, True).training == ("running-parity T1000",)


@pytest.mark.parametrize("which", ["epilog", "README"])
def test_the_example_of_long_rows_is_expected_to_end_in_a_minute(which):
    text = RUN_EPILOG if which == "epilog" else (ROOT / "README.md").read_text()
    line = next(line for line in text.splitlines() if "-T 1000" in line and " run " in line)
    asked = dict(re.findall(r"(-w|-T|--truncation|-b|--pass) (\S+)", line))
    plan = Plan(
        specs("running-parity", T=int(asked["-T"])), tuple(asked["-b"].split(",")),
        tuple(Pass(p) for p in asked["--pass"].split(",")),
        (DType.FLOAT32,), Mode.DEFAULT, 2, 0, 300.0, truncation=Truncation(*map(int, asked["--truncation"].split(":"))),
    )  # fmt: skip
    runner = loop_of(plan, tasks_of(plan, print), ROOT, print, Listener(), run_id="r", machine_id="m")
    assert 10 < runner.expected_seconds() < 60


@pytest.mark.slow
def test_what_a_run_is_expected_to_take_is_near_what_one_took():
    """The published run of all backends on three workloads: 336 s on two cores."""
    plan = Plan(specs("parity", "imdb-synthetic-50", "imdb-synthetic-200"), tuple(backends.usual()), USUAL_PASSES,
                (DType.FLOAT32,), Mode.DEFAULT, 2, 0, 300.0)  # fmt: skip
    runner = loop_of(plan, tasks_of(plan, print), ROOT, print, Listener(), run_id="r", machine_id="m")
    assert 336 / 2 < runner.expected_seconds() < 2 * 336
    quick = replace(plan, mode=Mode.QUICK)
    runner = loop_of(quick, tasks_of(quick, print), ROOT, print, Listener(), run_id="r", machine_id="m")
    assert runner.expected_seconds() < 100


@pytest.mark.usefixtures("no_figures")
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
    found = json.loads(invoke("verify", "-w", "parity", "-b", "numpy", "--json"))
    assert {(r["dtype"], r["pass"]) for r in found} == {
        (d, str(p)) for d in ("float32", "float64") for p in USUAL_PASSES
    }
    found += json.loads(invoke("verify", "-w", "running-parity", "-b", "numpy", "--pass", "gradient", "--json"))
    assert {r["truncation"] for r in found} == {None, "20:5"}
    assert all(r["status"] == "ok" and r["errors"] for r in found)


def test_train_as_json():
    found = json.loads(invoke("train", "parity", "--backend", "numpy", "--epochs", "2", "--json"))
    assert [epoch["epoch"] for epoch in found["epochs"]] == [0, 1, 2]
    assert found["epochs"][2]["loss"] < found["epochs"][1]["loss"]
    assert 0 <= found["test"]["accuracy"] <= 1


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("openvino", (), "unsupported. forward only: it runs trained networks"),
        ("keras", ("--truncation", "2:2"), "unsupported. Keras's layers back-propagate through all steps"),
        ("numba+naive", ("--layers", "2"), "unsupported. layers: not implemented here yet"),
    ],
)
def test_a_backend_that_cannot_train_says_why(name, options, words):
    if reason := backends.missing(name):
        pytest.skip(reason)
    found = called("train", "parity", "-b", name, "--epochs", "1", *options, code=2)
    assert words in " ".join(found.stderr.split())
    assert "Traceback" not in found.stderr


def test_several_cells_are_trained_one_after_the_other_each_in_its_folder(tmp_path):
    asked = ("train", "parity", "-b", "numpy", "--epochs", "1", "--cell", "rnn,gru", "-o", str(tmp_path / "cells"))
    found = json.loads(invoke(*asked, "--json"))
    assert [each["workload"] for each in found] == ["parity", "parity gru"]
    assert sorted(path.name for path in (tmp_path / "cells").iterdir()) == ["gru", "rnn"]
    again = called(*asked, code=4)
    assert "holds gru, rnn; choose another folder with -o" in " ".join(again.stderr.split())


def test_what_was_trained_before_a_cell_that_fails_is_told(monkeypatch):
    def train_in_worker(asked, *rest):
        if asked.problem.model.cell == "gru":
            raise WorkerFailure(Status.CRASHED, "ended by signal 9", alive=False)
        return done(asked, *rest)

    done = training.train_in_worker
    monkeypatch.setattr(training, "train_in_worker", train_in_worker)
    found = called("train", "parity", "-b", "numpy", "--epochs", "1", "--cell", "rnn,gru", "--json", code=2)
    assert [each["workload"] for each in json.loads(found.stdout)] == ["parity"]
    assert "parity gru: crashed. ended by signal 9" in " ".join(found.stderr.split())


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
    from rnnbench.api.seeds import bptt_problem, error_of_seed_gradient

    problem, params, data = bptt_problem()
    assert error_of_seed_gradient(problem, params, data) < 1e-5
    assert error_of_seed_gradient(problem, {k: 100 * v for k, v in params.items()}, data) > 0.1


def test_registries_and_documents_agree():
    assert list(EXPERIMENTS) == list(SEEDS)
    for command, codes in EXIT_CODES.items():
        text = " ".join(invoke(command, "--help").split())
        for code, words in codes.items():
            assert f"{code} {words}" in text, command
