"""All commands in all surroundings: no traceback, the right exit code, nothing that was measured is lost."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rnnbench.cli import main
from rnnbench.records import store
from rnnbench.records.record import turns_in
from tests.damaged import run_of
from tests.every_command import commands

ROOT = Path(__file__).resolve().parents[2]
CODES = dict.fromkeys(main.commands, 0) | {"check": 1}  # its run has warnings

SURROUNDINGS: dict[str, dict[str, str]] = {  # several at once, as a process takes seconds
    "no home, ascii, one core": {"PYTHONIOENCODING": "ascii"},
    "read-only home, broken pipe": {"HOME": "/proc/self"},
    "closed stdout, no facts": {},
    "20 columns": {"COLUMNS": "20", "TERM": "xterm"},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return run_of(tmp_path_factory.mktemp("runs"), "run")


def all_of(stream: int) -> bytes:
    """What is printed on a terminal, to the end."""
    found = b""
    while True:
        try:
            part = os.read(stream, 1 << 16)
        except OSError:  # its other end is closed
            return found
        if not part:
            return found
        found += part


def test_every_command_is_called():
    assert commands(Path(), Path()).keys() == main.commands.keys()


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_all_commands_end_as_they_should(name, run, tmp_path):
    env = {key: value for key, value in os.environ.items() if key not in ("HOME", "COLUMNS", "CI", "FORCE_COLOR")}
    env |= {"HOME": str(tmp_path)} if "no home" not in name else {}
    terminal, theirs = pty.openpty()
    with (tmp_path / "errors").open("wb") as errors, (tmp_path / "output").open("wb") as answers:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.every_command", str(tmp_path), str(run), name],
            cwd=ROOT, env=env | SURROUNDINGS[name], stdin=subprocess.DEVNULL, stderr=errors,
            stdout=theirs if name == "20 columns" else answers,
        )  # fmt: skip
    os.close(theirs)
    output = all_of(terminal)
    os.close(terminal)
    assert process.wait(timeout=120) == 0
    output = output or (tmp_path / "output").read_bytes()
    said = (tmp_path / "errors").read_text(errors="replace")
    assert "Traceback" not in said
    assert "Error" not in said
    assert "\x1b" not in said  # no terminal: no cursor moves there
    assert json.loads((tmp_path / "codes.json").read_text()) == CODES
    for made in ("run", "sweep"):
        assert any(record.samples_ns for record in turns_in(store.load_run(tmp_path / made).records))
        assert (tmp_path / made / "report.md").stat().st_size
    assert store.load_run(tmp_path / "training").curves
    if not output:
        assert "stdout" in name or "pipe" in name
        return
    text = re.sub(r"\x1b\[[0-9;]*m", "", output.decode())
    assert text.isascii() == ("ascii" in name)
    if not text.isascii():
        assert "…" not in text
    for word in ("imdb-synthetic-200-lengths", "keras+torch", "transparent_huge_pages"):
        assert word in "".join(text.split())  # which may go on in the next line, and is whole
