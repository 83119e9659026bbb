"""What is printed on: a pipe that nobody reads, a full disk, a terminal of ASCII; the exit code stays true."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rnnbench.api import compare
from tests.calling import called
from tests.damaged import run_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return run_of(tmp_path_factory.mktemp("runs"), "run")


def shell(line: str, **env: str) -> tuple[int, bytes, str]:
    """A line of shell in which `rnnbench` is this one: exit code, stdout, stderr."""
    line = line.replace("rnnbench", f"{sys.executable} -m rnnbench")
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONUTF8"} | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-o", "pipefail", "-c", line], env=clean | env, capture_output=True, timeout=120)
    return done.returncode, done.stdout, done.stderr.decode(errors="replace")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("rnnbench compare {run} {run} | true", 0),
        ("rnnbench compare {run} {run} --json | head -1", 0),
        ("rnnbench compare {run} {run} --markdown | true", 0),
        ("rnnbench check {run} | true", 1),
        ("rnnbench history {run} | true", 0),
        ("rnnbench report {run} --export github | true", 0),
        ("rnnbench list | true", 0),
        ("rnnbench --help | true", 0),
        ("rnnbench compare {run} {run} >&-", 0),
        ("rnnbench compare {run} {run} <&- >&- 2>&-", 0),
        ("rnnbench compare {run} nowhere 2>&1 >&- | true", 4),
    ],
)
def test_a_reader_that_has_gone_changes_nothing(line, code, run):
    assert shell(line.format(run=run))[0::2] == (code, "")


@pytest.mark.slow
@pytest.mark.parametrize(("command", "code"), [("compare {run} {run}", 4), ("check {run}", 4), ("list", 4)])
def test_an_answer_that_cannot_be_written_is_said(command, code, run):
    found, _, errors = shell(f"rnnbench {command.format(run=run)} > /dev/full")
    assert found == code
    assert errors.startswith("Error: standard output")
    assert "No space left on device" in errors
    assert errors.count("\n") == 1
    assert shell(f"rnnbench {command.format(run=run)} 2> /dev/full")[0] in (0, 1)


ASCII = {"PYTHONIOENCODING": "ascii"}
C = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "env"),
    [
        ("compare {run} {run}", ASCII),
        ("compare {run} {run} --markdown", C),
        ("report {run}", C),
        ("history {run}", ASCII),
    ],
)
def test_signs_that_cannot_be_shown_are_replaced(command, env, run):
    code, output, errors = shell(f"rnnbench {command.format(run=run)}", **env)
    assert (code, errors) == (0, "")
    assert output.isascii()
    assert b" us" in output or "--markdown" in command  # which tells ratios
    assert b"?" not in output.replace(b"*?*: inconclusive", b"")
    if command.startswith("report"):
        assert "µs" in (run / "report.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_run_in_ascii_is_measured_and_reported(tmp_path):
    line = f"rnnbench run -b numpy -w parity --pass forward --quick --no-training -o {tmp_path / 'run'}"
    code, output, errors = shell(line, **C)
    assert code == 0, errors
    assert output.isascii()
    assert b"parity: only numpy was measured" in output
    code, output, errors = shell(f"rnnbench run --resume {tmp_path / 'run'} 2>&1 | true")
    assert (code, errors) == (0, "")


@pytest.mark.slow
def test_a_run_whose_end_cannot_be_shown_says_where_all_is(tmp_path):
    line = f"rnnbench run -b numpy -w parity --pass forward --quick --no-training -o {tmp_path / 'run'} > /dev/full"
    code, _, errors = shell(line)
    assert code == 4
    last = errors.splitlines()[-1]
    assert last.startswith("Error: standard output cannot be written: No space left on device")
    assert last.endswith(f"all that was measured is in {tmp_path / 'run'}")
    assert (tmp_path / "run" / "report.md").stat().st_size


def test_a_report_that_cannot_be_drawn_loses_nothing(tmp_path, monkeypatch):
    def broken(*_, **__):
        raise ArithmeticError("no such figure")

    monkeypatch.setattr("rnnbench.api.run_session.RunSession.look_for_peak", lambda self: None)
    monkeypatch.setattr("rnnbench.report.page.write_report", broken)
    asked = ("-b", "numpy", "-w", "parity", "--pass", "forward", "--quick", "--no-training")
    result = called("run", *asked, "-o", tmp_path / "my run", env={"RNNBENCH_TRACEBACK": ""})
    assert result.exit_code == 70
    assert f"write it later with: python -m rnnbench report '{tmp_path / 'my run'}'" in result.output
    assert "parity: only numpy was measured" in result.output


def test_a_path_that_is_no_text_is_shown(tmp_path):
    result = called("check", str(tmp_path / "nothing-\udcff"))
    assert result.exit_code == 4
    assert "nothing-?" in result.output


def failing(error: Exception):
    def fail(*_args, **_kwargs):
        raise error

    return fail


@pytest.mark.parametrize("error", [RecursionError("too deep"), OverflowError(), KeyError("x"),
                                   BrokenPipeError(32, "Broken pipe"), UnicodeDecodeError("ascii", b"x", 0, 1, "no"),
                                   np.linalg.LinAlgError("singular")])  # fmt: skip
def test_what_nobody_foresaw_has_a_code_of_its_own(error, run, monkeypatch):
    monkeypatch.setattr(compare, "compared", failing(error))
    result = called("compare", run, run, env={"RNNBENCH_TRACEBACK": ""})
    assert result.exit_code == 70
    assert result.output.startswith(f"Error: this is a fault of rnnbench, {type(error).__name__}")
    assert result.output.endswith("; RNNBENCH_TRACEBACK=1 in the environment shows where\n")
    assert result.output.count("\n") == 1
    result = called("compare", run, run)
    assert result.exit_code == 70
    assert "Traceback" in result.output


def test_a_library_s_value_error_is_no_wrong_option(run, monkeypatch):
    monkeypatch.setattr(compare, "compared", lambda *_: np.zeros(3).reshape(2, 2))
    assert called("compare", run, run).exit_code == 70


def test_an_interruption_is_130_wherever_it_comes(run, monkeypatch):
    monkeypatch.setattr(compare, "compared", failing(KeyboardInterrupt()))
    assert called("compare", run, run).exit_code == 130
    monkeypatch.setattr("rnnbench.cli.list.print_table", failing(KeyboardInterrupt()))
    result = called("list")
    assert (result.exit_code, "interrupted" in result.output) == (130, True)


def test_a_fault_outside_of_a_command_s_body_too(monkeypatch):
    monkeypatch.setattr("rnnbench.cli.list.print_table", failing(OSError(32, "Broken pipe")))
    assert called("list").exit_code == 70
    monkeypatch.setattr("rnnbench.cli.list.print_table", failing(RuntimeError("no")))
    assert called("list").exit_code == 70
