"""Runs of the same code against one another: every one against that before it, and what is called slower is counted."""

from __future__ import annotations

from click.testing import CliRunner

import apart
from rnnbench.analysis.compare import Verdict
from tests.validation.test_busy import run_in


def test_whole_runs_are_taken_and_false_verdicts_counted(tmp_path, monkeypatch):
    """Three runs that are alike and a fourth in which `torch` takes twice as long."""
    for number, by in enumerate((3.0, 3.0, 3.0, 6.0)):
        run_in(tmp_path / f"run-{number + 1}", 9.0, by=by)
    found = apart.verdicts([tmp_path / f"run-{n}" for n in (1, 2, 3, 4)], 0.05)
    assert found == [{Verdict.SAME: 2}, {Verdict.SAME: 2}, {Verdict.SAME: 1, Verdict.SLOWER: 1}]
    asked = ["--keep", str(tmp_path), "--runs", "3"]
    calm = CliRunner().invoke(apart.main, asked)
    assert calm.exit_code == apart.OK
    assert calm.output.splitlines()[-1].split() == ["|", "all", "|", "4", "|", "0", "|", "0", "|", "0", "|", "4", "|"]
    broken = CliRunner().invoke(apart.main, [*asked[:3], "4"])
    assert broken.exit_code == apart.BROKEN
    assert "1 cases are called slower or faster, in 1 of 3 comparisons" in broken.output
    monkeypatch.setattr(apart.time, "sleep", interrupted)
    cut = CliRunner().invoke(apart.main, [*asked[:3], "5", "--wait", "3600"])
    assert cut.exit_code == apart.INTERRUPTED
    assert "3 to 4" in cut.output


def interrupted(seconds):
    assert seconds == 3600
    raise KeyboardInterrupt
