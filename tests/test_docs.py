"""The examples of examples/ run as they stand, and what documents promise holds; tests/docs runs what pages show."""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import rnnbench as rb
from rnnbench import backends, workloads
from rnnbench.cells import CELLS
from rnnbench.cli import main
from rnnbench.model import Feature
from rnnbench.report import plots
from rnnbench.workloads.files import TABLES
from tests.calling import called

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _no_backend_stays():
    before = set(backends.REGISTRY)
    yield
    for name in backends.REGISTRY.keys() - before:
        del backends.REGISTRY[name]


def test_the_page_on_python_has_all_keys_of_a_description(tmp_path):
    (block,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.DOTALL)
    found = tomllib.loads(block)
    assert {*TABLES[""]} - {*found} == {"T"}  # told in a comment, as it goes with made-up rows alone
    assert {*found["model"]} == {*TABLES["model"]}
    assert {*TABLES["train"]} - {*found["train"]} == {"clip_value"}  # one of the two may be given


def test_the_commands_of_the_page_on_continuous_integration_are_understood():
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "ci.md").read_text(), re.DOTALL)
    lines = re.findall(r"python -m rnnbench (\w+) ([^\n)>]*)", "\n".join(blocks))
    assert [name for name, _ in lines] == ["run", "run", "compare", "run", "report"]
    for name, rest in lines:
        arguments = shlex.split(rest.replace("backend.py:Mine", "numba"))  # a file that is not here
        command = main.commands[name]
        with command.make_context(name, [a for a in arguments if a]) as context:
            assert context.params


@pytest.mark.usefixtures("no_figures")
def test_the_example_of_a_workload_runs_at_any_length(tmp_path, monkeypatch):
    shutil.copy(ROOT / "examples" / "own_workload.py", tmp_path)
    monkeypatch.chdir(tmp_path)
    plain = ("-b", "numpy,numba", "--quick", "--no-training", "-o", "run")
    run = called("run", "-w", "own_workload.py:WORKLOAD", "-T", "9", *plain, code=0)
    assert "positive-sum T9: use numba: a train step takes" in " ".join(run.output.split())


@pytest.mark.usefixtures("no_figures")
def test_the_example_of_a_backend_is_checked_and_timed_and_goes_on(tmp_path, monkeypatch):
    shutil.copy(ROOT / "examples" / "own_backend.py", tmp_path)
    monkeypatch.chdir(tmp_path)
    asked = ("-w", "parity", "-b", "own_backend.py:EinsumBackend,numpy", "--pass", "forward,gradient", "--quick")
    result = called("run", *asked, "--no-training", "-o", "run", code=0)
    assert "only the forward pass is written" in " ".join(result.output.split())
    times = rb.load("run").times
    assert set(times[times["status"] == "ok"]["backend"]) == {"own_backend.EinsumBackend", "numpy"}
    records = (tmp_path / "run" / "records.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "run" / "records.jsonl").write_bytes(b"".join(records[:-1]))
    called("run", "--resume", "run", code=0)
    again = rb.load("run").times
    assert list(again["rounds"]) == list(times["rounds"])


def test_the_example_of_the_seeds_trains():
    done = subprocess.run([sys.executable, ROOT / "examples" / "seeds.py"], capture_output=True, text=True, timeout=280)
    assert re.fullmatch(r"parity: test accuracy 0\.[4-6]\d+; theirs: 0\.4700\n", done.stdout), done.stdout + done.stderr


def test_the_example_of_learning_curves_trains_and_draws(tmp_path):
    asked = [sys.executable, ROOT / "examples" / "learning_curves.py", "-T", "5", "-H", "4", "--epochs", "1"]
    done = subprocess.run([*asked, "--output", "curves.png"], cwd=tmp_path, capture_output=True, text=True, timeout=280)
    found = re.findall(r"^(.+?) +test accuracy (\S+)", done.stdout, re.MULTILINE)
    assert [name for name, _ in found] == [
        "rnn, padded behind", "rnn, padded in front", "rnn, real lengths", "gru, padded behind", "lstm, padded behind",
    ], done.stdout + done.stderr  # fmt: skip
    assert all(0.4 < float(accuracy) < 0.9 for _, accuracy in found)
    assert (tmp_path / "curves.png").stat().st_size > 10_000


@pytest.mark.parametrize(("cell", "step"), [("rnn", 1e-9), ("gru", 3e-3), ("lstm", 1e-6)])  # as steep as each is
def test_the_example_of_gradients_finds_the_derivative_by_the_state_before_the_first_step(cell, step):
    """Against differences of the loss, each row's state moved along its own gradient."""
    example = runpy.run_path(str(ROOT / "examples" / "gradient_flow.py"))
    workload, params = example["network"](cell, 1.5)
    delta = example["deltas"]("numpy", cell, 1.5)["whole"]
    dh = example["gradients_of_states"](cell, params, delta)[:, 0]
    with rb.session("numpy", workload, params=params, dtype="float64") as session:
        zeros, along, losses = np.zeros_like(dh), step * dh / np.linalg.norm(dh), []
        for h in (along, -along):
            session.start_from({name: h if name == "h" else zeros for name in CELLS[cell].states})
            session.forward()
            losses.append(session.fetch().loss)
    assert (losses[0] - losses[1]) / (2 * step) == pytest.approx(np.linalg.norm(dh), rel=1e-3)


def test_the_example_of_gradients_draws(tmp_path):
    asked = [sys.executable, ROOT / "examples" / "gradient_flow.py", "--backend", "numpy", "--output", "flow.png"]
    done = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, timeout=280)
    ratios = [float(x) for x in re.findall(r"= +(\S+)\n", done.stdout)]
    assert len(ratios) == 9, done.stdout + done.stderr
    assert ratios[0] < 1e-20  # the rnn at radius 0.5 vanishes,
    assert ratios[6] > 100  # and at 1.5 explodes
    assert (tmp_path / "flow.png").stat().st_size > 10_000


WRONG = {"absent.py:X": "absent.py is not there", "own.py": "give FILE.py:CLASS", "own.py:1": "give FILE.py:CLASS"}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_of_a_backend_gets_one_sentence(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert WRONG[name] in called("run", "-b", name, "-w", "parity", code=2).output


PLOT = """
from rnnbench.report.plots.layout import Page

def pages(context):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3, 2))
    figure.subplots().bar([s.backend for s in context.summaries], [s.time.value for s in context.summaries])
    return [Page("bars", figure, "Seconds a call.")]
"""


def test_a_workload_and_a_plot_from_outside_are_a_file_and_a_line(tmp_path, monkeypatch):
    """As CONTRIBUTING says; a backend is above."""
    shutil.copy(ROOT / "examples" / "own_workload.py", tmp_path)
    (tmp_path / "own_plot.py").write_text(PLOT)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(workloads.REGISTRY, "positive-sum", "own_workload:WORKLOAD")
    monkeypatch.setitem(plots.REGISTRY, "bars", "own_plot:pages")
    asked = {"backends": ["numpy"], "passes": ["forward"], "mode": "quick", "progress": False, "output": "run"}
    page = rb.run("positive-sum", **asked).report().read_text()
    assert "positive-sum" in page
    assert "figures/bars.png" in page
    assert (tmp_path / "run" / "figures" / "bars.png").stat().st_size > 1000


def test_the_readme_says_who_computes_which_cell_and_structure():
    text = " ".join((ROOT / "README.md").read_text().split())
    names = {name for name, entry in backends.REGISTRY.items() if not entry.own}
    assert "All of them compute the three cells;" in text
    assert all(names <= {*(cell.computed_by or names)} for cell in CELLS.values())
    found = re.search(r"layers and both directions all but (.*?); rows with lengths all but (.*?)\. What one", text)
    assert found
    for said, features in zip(
        found.groups(), ((Feature.LAYERS, Feature.BIDIRECTIONAL), (Feature.LENGTHS,)), strict=True
    ):
        lacking = {name for name in names if not {*features} <= {*backends.REGISTRY[name].features}}
        assert {*re.findall("`(.*?)`", said)} == lacking
