"""The options that say how long to measure, a real A/A run, and the margin that `compare` takes from it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rnnbench.analysis.noise import NOISE
from rnnbench.cli.names import DurationType
from rnnbench.model import Pass
from rnnbench.records import store
from tests.calling import called
from tests.cli.test_compare import invoke, times
from tests.report.fake import case

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: object) -> tuple[int, str]:
    result = called("run", "-w", "parity", "-b", "numpy", "--pass", "forward", *arguments)
    return result.exit_code, " ".join(result.output.split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "each in 5 launches of 3 rounds;"),
        (["--precision", "5%"], "each in 5 to 30 launches of 3 rounds, until 5 % precise;"),
        (["--precision", "2.5", "--max-launches", 4], "each in 4 to 4 launches of 3 rounds, until 2.5 % precise;"),
        (["--rigorous"], "each in 5 to 30 launches of 6 rounds, until 2 % precise, then once for its memory;"),
        (["--rigorous", "--max-launches", 50], "each in 5 to 50 launches"),
        (["--quick", "--budget", "10m", "--case-budget", "30"], "rounds; 10 min in all; 30 s a case and backend;"),
        (["--aa"], "parity forward float32 numpy#2 2 answers"),
    ],
)
def test_a_dry_run_says_how_long_would_be_measured(arguments, words):
    code, text = run(*arguments, "--dry-run")
    assert code == 0
    assert words in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--precision", "0"], "'0' has 0 %; above 0 and below 100 is allowed"),
        (["--precision", "nan"], "above 0 and below 100 is allowed"),
        (["--precision", "much"], "'much' is not a number of percent, such as 5%"),
        (["--max-launches", "9"], "--max-launches 9 caps nothing; give --precision, such as 5%, too"),
        (["--precision", "5%", "--max-launches", "2"], "'2' is not a whole number from 3 to"),
        (["--budget", "5 minutes"], "'5 minutes' is not a duration, such as 90, 30s, 10m or 1h30m"),
        (["--budget", "0"], "above 0 and below"),
        (["--case-budget", "-3s"], "is not a duration"),
        (["--budget", "inf"], "above 0 and below"),
    ],
)
def test_wrong_options_get_one_sentence(arguments, words):
    code, text = run(*arguments)
    assert code == 2, text
    assert words in text


def test_durations():
    seconds = {"90": 90, "30s": 30, "1.5m": 90, "1h30m": 5400, "2h": 7200, "0.5": 0.5}
    assert {text: DurationType().convert(text, None, None) for text in seconds} == seconds


def test_an_aa_run_tells_the_noise_and_keeps_why_it_stopped_and_its_rule(tmp_path):
    """A real run with a rule and a budget."""
    made = tmp_path / "aa"
    done = subprocess.run(
        [sys.executable, "-m", "rnnbench", "run", "--aa", "-w", "parity", "-b", "numpy", "--pass", "forward,gradient",
         "--threads", "1", "--quick", "--precision", "1%", "--max-launches", "3", "--budget", "1h", "--no-training",
         "-o", str(made)],
        cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    _tells_the_noise(made, " ".join(done.stdout.split()))
    _keeps_why_it_stopped_and_its_rule(made)


def _tells_the_noise(made, out):
    found = json.loads((made / NOISE).read_text())
    records = store.load_run(made).records
    assert {r.backend for r in records} == {"numpy", "numpy#2"}
    assert found["machine_id"] == records[0].machine_id
    assert found["floor"] > 0
    assert (found["launches"], len(found["pairs"])) == (3, 2)
    assert found["false_alarms"] == sum(pair["different"] for pair in found["pairs"])
    report = " ".join((made / "report.md").read_text().replace("\\", "").split())
    for words in ("## The same code twice", "## Why it stopped", f"False alarms: {found['false_alarms']} of 2"):
        assert words in report
    assert "False alarms" in out
    assert "stopped: " in out


def _keeps_why_it_stopped_and_its_rule(made):
    run_json = json.loads((made / store.RUN).read_text())
    assert run_json["plan"]["rule"] == {"precision": 0.01, "min_launches": 3, "max_launches": 3}
    assert run_json["plan"]["budget"] == 3600
    for stops in run_json["stops"].values():
        assert set(stops) == {"numpy", "numpy#2"}
        for stop in stops.values():
            assert stop["why"] in ("precise enough", "cap of launches")
            assert stop["launches"] == 3
            assert "%" in stop["reason"]


def test_compare_takes_the_noise_of_the_machine_for_its_margin(folder, tmp_path):
    base, new = folder("base", times(1, machine_id="m")), folder("new", times(1.08, machine_id="m"))
    assert "by median:5%" in invoke(base, new)[1]

    def told(name, floor, machine="m", launches=3):
        (tmp_path / name).mkdir()
        facts = {"floor": floor, "machine_id": machine, "launches": launches, "pairs": [{}]}
        store.write_json(tmp_path / name / NOISE, facts)
        return tmp_path / name

    told("other", 0.5, machine="elsewhere")
    told("short", 0.5, launches=2)
    assert invoke(base, new)[0] == 1
    quiet = told("quiet", 0.0001)
    code, text = invoke(base, new)
    assert (code, "margin 1 %: the noise of 1 pairs" in " ".join(text.split())) == (1, True)
    os.utime(quiet / NOISE, (1, 1))
    wide = told("wide", 0.2)
    code, text = invoke(base, new)
    assert (code, "by median:20%" in text, str(wide) in text.replace("\n", "")) == (0, True, True)
    assert invoke(base, new, "--noise", quiet)[0] == 1
    code, text = invoke(base, new, "--fail-on", "median:3%", "--noise", quiet)
    assert (code, "choose one of them" in text) == (2, True)
    code, text = invoke(base, new, "--fail-on", "median:3%")
    assert (code, "by median:3%" in text) == (1, True)
    assert invoke(base, new, "--noise", tmp_path / "other")[0] == 4
    code, text = invoke(base, new, "--noise", tmp_path / "base")
    assert (code, "run --aa" in text) == (4, True)


def test_a_skipped_case_is_missing_and_harms_nothing(folder):
    from rnnbench.records.record import Status
    from tests.report.fake import failure

    lost = failure(case("imdb-50", Pass.EPOCH), "numba", Status.SKIPPED, "the budget of 9 s was spent")
    code, text = invoke(folder("base", times(1)), folder("new", [*times(1), lost]))
    assert code == 0
    assert "2 same" in text
    assert "1 missing" in text
