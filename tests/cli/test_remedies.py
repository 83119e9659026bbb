"""A message that names an option names one that the command has which prints it, or says of which command it is."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import rnnbench
from rnnbench.analysis.warnings import KINDS
from rnnbench.api.exit_codes import EXIT_CODES
from rnnbench.cli import main

PACKAGE = Path(rnnbench.__file__).parent
COMMANDS = {name: {o for p in command.params for o in p.opts} for name, command in main.commands.items()}
OPTION = re.compile(r"(?<![\w=/'}-])(--[a-z][a-z-]+|-[a-zA-Z])(?![\w=-])")
OF_COMMAND = re.compile(rf"\b({'|'.join(COMMANDS)})( +(?!and |or )[^\s;,]+)* +$")  # before an option: whose it is

OTHERS = ("pip install", "cpupower", "ulimit", "dask worker", "--help")  # what else takes options, and what all have

MEASURING = ("run", "sweep")
WORKING = (*MEASURING, "verify", "train", "seeds", "list")
PRINTED_BY = {
    "api/compare.py": ("compare",),
    "api/history.py": ("history",),
    "api/runs.py": ("report",),
    "api/run.py": MEASURING,
    "api/to_accuracy.py": ("run",),
    "cluster/dispatch.py": MEASURING,
    "cluster/run.py": MEASURING,
    "harness/to_accuracy.py": ("run",),
    "harness/worker_client.py": WORKING,
    "machine/environment.py": ("run", "verify", "train", "sweep"),
    "harness/stopping.py": ("run",),
    "harness/tasks.py": ("run", "verify", "train", "sweep"),
    "report/history.py": ("history",),
    "records/folder.py": MEASURING,
    "analysis/pooling.py": ("report",),
    "records/store.py": (*MEASURING, "train"),
    "analysis/warnings.py": ("run",),
    "workloads/base.py": ("run", "verify", "train", "sweep"),
    "workloads/files.py": ("run", "verify", "train", "sweep"),
    "workloads/resolve.py": ("run", "verify", "train", "sweep"),
    "workloads/imdb_files.py": ("run", "verify", "train", "seeds"),
}


def texts(path: Path) -> Iterator[str]:
    """The strings of a file, but for what documents it; what a string is formatted with is left out."""
    tree = ast.parse(path.read_text())
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    documents = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and not {id(node)} & (inside | documents):
            yield node.value


def options_in(text: str) -> Iterator[tuple[str, str | None]]:
    """Options that a sentence names, each with the command that it names before them, if it does."""
    text = text.replace("python -m ", "")
    if " " not in text or any(other in text for other in OTHERS):
        return
    for found in OPTION.finditer(text):
        of = OF_COMMAND.search(text[: found.start()])
        yield found[1], of[1] if of else None


def test_options_are_told_from_other_words():
    said = "make it by: python -m rnnbench run --aa -o reports/aa, and raise --timeout; one-sided, x - 1"
    assert list(options_in(said)) == [("--aa", "run"), ("-o", "run"), ("--timeout", None)]
    assert list(options_in("leave out --quick, or measure with run --rigorous")) == [
        ("--quick", None),
        ("--rigorous", "run"),
    ]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_message_names_options_that_its_commands_have(path):
    name = str(path.relative_to(PACKAGE))
    for text in texts(path):
        for option, command in options_in(text):
            if name == "api/exit_codes.py":
                continue  # help prints them: below
            if command is not None:
                assert option in COMMANDS[command], text
            elif name.startswith("cli/"):
                assert any(option in options for options in COMMANDS.values()), text
            else:
                assert name in PRINTED_BY, f"who prints this? {text}"
                assert all(option in COMMANDS[by] for by in PRINTED_BY[name]), text


def test_an_exit_code_names_options_that_its_command_has():
    for command, codes in EXIT_CODES.items():
        for words in codes.values():
            for option, of in options_in(words):
                assert of is None, words
                assert option in COMMANDS[command], words


@pytest.mark.parametrize("kind", KINDS)
def test_a_remedy_for_a_sweep_names_options_of_sweep(kind):
    remedy = KINDS[kind].of_sweep or KINDS[kind].remedy
    for option, command in options_in(remedy):
        assert option in COMMANDS[command or "sweep"], remedy
        assert command != "run", remedy
