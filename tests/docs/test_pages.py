"""What the pages of the documentation show is what comes out."""

from __future__ import annotations

import ast
import doctest
import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest

from rnnbench import backends
from rnnbench.analysis.noise import NOISE
from rnnbench.cli import main
from rnnbench.records import store
from tests.calling import KEPT_KERNELS, called

ROOT = Path(__file__).resolve().parents[2]
DOCS, RUN = ROOT / "docs", ROOT / "reports" / "cpu-2-cores"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md")), ROOT / "rnnbench/kernels/README.md"]
NOTEBOOKS = runpy.run_path(str(DOCS / "notebooks.py"))
TUTORIAL = NOTEBOOKS["NOTEBOOKS"]["tutorial.ipynb"]
TIMED = DOCS / "guides" / "own_network.md"  # its numbers are of the machine
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, *kinds: str) -> list[str]:
    return [text for kind, text in BLOCK.findall(page.read_text()) if kind in kinds]


class AnyNumbers(doctest.OutputChecker):
    """Outputs agree if their words do and they have as many numbers; rows of a ranking may change places."""

    def check_output(self, want: str, got: str, flags: int) -> bool:
        of, found = (sorted(re.sub(r"NaN|(?<![\w.])\d[\d.e+-]*", "#", text).split()) for text in (want, got))
        return of == found


def run_examples(page: Path, checker: doctest.OutputChecker | None = None) -> dict[str, object]:
    """The page's `>>>` examples from top to bottom; what their names are at the end."""
    found = NOTEBOOKS["examples"](page)
    assert len(found) > 5
    said: list[str] = []
    test = doctest.DocTest(found, {"__name__": "__main__"}, named(page), str(page), 0, None)
    failed, _ = doctest.DocTestRunner(checker, verbose=False).run(test, out=said.append, clear_globs=False)
    assert not failed, "".join(said)
    return test.globs


@pytest.mark.parametrize("page", TUTORIAL, ids=named)
def test_the_tutorial_shows_what_comes_out(page):
    run_examples(page)


def test_the_page_of_an_own_network_runs_and_its_results_show(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run_examples(TIMED, AnyNumbers())
    assert names["run"]._repr_html_()


@pytest.mark.parametrize("name", NOTEBOOKS["NOTEBOOKS"])
def test_a_notebook_is_made_of_its_pages(name):
    """So what the pages' tests run is what it runs."""
    made = NOTEBOOKS["notebook"](NOTEBOOKS["NOTEBOOKS"][name])
    assert (ROOT / "examples" / name).read_text() == made, "python docs/notebooks.py makes it again"
    shown = [cell for cell in json.loads(made)["cells"] if cell["cell_type"] == "code"]
    assert len(shown) > 6
    ends = [ast.parse("".join(cell["source"])).body[-1] for cell in shown]
    assert sum(isinstance(end, ast.Expr) for end in ends) >= 4
    links = re.findall(r"\]\(([^)#:]+)", "".join("".join(c["source"]) for c in json.loads(made)["cells"]))
    assert all((ROOT / "examples" / link).exists() for link in links)


def test_the_notebook_of_the_tutorial_runs_in_one_go():
    """Its pages share names, which each page has for itself."""
    names: dict[str, object] = {}
    for cell in json.loads((ROOT / "examples" / "tutorial.ipynb").read_text())["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)


WITH_PYTHON = [page for page in PAGES if blocks(page, "python") and page != ROOT / "README.md"]  # that is a summary


@pytest.mark.parametrize("page", WITH_PYTHON, ids=named)
def test_the_python_of_a_page_runs_from_top_to_bottom(page, tmp_path):
    if "runs/new" in page.read_text():
        shutil.copytree(RUN, tmp_path / "runs" / "new")
    code = "\n".join([KEPT_KERNELS, *blocks(page, "python")])
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]


def commands(page: Path) -> list[list[str]]:
    """The arguments of each `python -m rnnbench` in a page's blocks; of one in a workflow too."""
    lines = [line for text in blocks(page, "", "sh", "yaml") for line in text.splitlines()]
    found = (re.search(r"^(?:\s*- run: )?python -m rnnbench +(.*?)(?: +#.*| >> .*)?$", line) for line in lines)
    return [shlex.split(match[1]) for match in found if match]


WITH_COMMANDS = [page for page in PAGES if commands(page)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Whatever the pages take for given: rows, files, runs."""
    x, y = np.random.default_rng(0).integers(0, 9, (200, 5)), np.arange(200) % 2
    np.savez(tmp_path / "rows.npz", x=x, y=y)
    (tmp_path / "mine.toml").write_text('data = "rows.npz"\n')
    shutil.copy(ROOT / "examples" / "own_workload.py", tmp_path / "mine.py")
    shutil.copy(ROOT / "examples" / "own_backend.py", tmp_path)
    for name in ("reports/mine", "reports/monday", "reports/tuesday", "runs/base", "runs/new", "runs/aa"):
        shutil.copytree(RUN, tmp_path / name, ignore=shutil.ignore_patterns("figures", "tables", "report.*"))
    noise = {"floor": 0.02, "launches": 5, "pairs": [], "machine_id": store.load_run(RUN).machine["machine_id"]}
    store.write_json(tmp_path / "runs" / "aa" / NOISE, noise)
    monkeypatch.chdir(tmp_path)
    before = set(backends.REGISTRY)
    yield tmp_path
    for name in backends.REGISTRY.keys() - before:
        del backends.REGISTRY[name]


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=named)
def test_each_command_of_a_page_is_one(page, folder):
    """What plans or reads is carried out, of `verify` with a filter that leaves nothing; all others are parsed."""
    for name, *rest in commands(page):
        if name in ("run", "sweep") and "--resume" not in rest:
            at = rest.index("-o") if "-o" in rest else len(rest)
            called(name, *rest[:at], *rest[at + 2 :], "--dry-run", code=0)
        elif name == "verify":
            assert called(name, *rest, *([] if "--audit" in rest else ["-k", "nothing-of-this"])).exit_code in (0, 3)
        elif name in ("check", "compare", "history"):
            assert called(name, *rest).exit_code in (0, 1, 3)
        else:
            main.commands[name].make_context(name, rest, parent=click.Context(main))


def test_each_decision_has_a_line_in_the_index():
    index = (DOCS / "decisions" / "README.md").read_text()
    for path in DOCS.glob("decisions/0*.md"):
        assert f"- [{path.name[:4]}]({path.name}): " in index, f"{path.name} needs a line in docs/decisions/README.md"


def test_the_figure_of_the_ladder_has_the_figures_of_the_ladder():
    figure, text = runpy.run_path(str(DOCS / "draw_kernels.py")), (ROOT / "rnnbench/kernels/README.md").read_text()
    for _, low, high in figure["ONE_THREAD"] + figure["TWO_THREADS"]:
        assert (f"{low:g} ms" if low == high else f"{low:g} to {high:g}") in text
    assert figure["tile"]().axes
    assert figure["ladder"]().axes


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_to_files_that_are_there(page):
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for link in re.findall(r"\]\((?!https?:)([^)#:]+)", prose):
        assert (page.parent / link).exists(), link
