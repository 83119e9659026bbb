"""The examples of the documents and of examples/ run as they stand."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from rnnbench.workloads.files import TABLES
from tests.calling import called

ROOT = Path(__file__).resolve().parents[1]


def python(code: str, folder: Path) -> None:
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_page_on_python_runs_from_top_to_bottom(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.DOTALL)
    assert len(blocks) >= 5
    python("\n".join(blocks), tmp_path)


def test_the_page_on_python_has_all_keys_of_a_description(tmp_path):
    (block,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.DOTALL)
    found = tomllib.loads(block)
    assert {*TABLES[""]} - {*found} == {"T"}  # told in a comment, as it goes with made-up rows alone
    assert {*found["model"]} == {*TABLES["model"]}
    assert {*TABLES["train"]} - {*found["train"]} == {"clip_value"}  # one of the two may be given


def test_the_notebook_runs_and_its_results_show(tmp_path):
    cells = json.loads((ROOT / "examples" / "own_network.ipynb").read_text())["cells"]
    code = []
    for cell in cells:
        if cell["cell_type"] == "code":
            assert not cell["outputs"], "clear the outputs before a commit"
            code.append(text := "".join(cell["source"]))
            last = ast.parse(text).body[-1]
            if isinstance(last, ast.Expr):  # as Jupyter shows it
                code.append(f"assert getattr(({ast.unparse(last)}), '_repr_html_', lambda: 'shown')()")
    assert len(code) > 10
    python("\n".join(code), tmp_path)


def test_the_example_of_a_workload_runs_at_any_length(tmp_path, monkeypatch):
    shutil.copy(ROOT / "examples" / "own_workload.py", tmp_path)
    monkeypatch.chdir(tmp_path)
    plain = ("-b", "numpy,numba", "--quick", "--no-training", "-o", "run")
    run = called("run", "-w", "own_workload.py:WORKLOAD", "-T", "9", *plain, code=0)
    assert "positive-sum T9 train_step" in run.output


@pytest.mark.parametrize(
    "page", ["README.md", "docs/python.md", "CONTRIBUTING.md", "docs/measuring.md", "docs/seeds.md"]
)
def test_links_lead_to_files_that_are_there(page):
    path = ROOT / page
    for link in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
        assert (path.parent / link).exists(), link
