"""A slow-down planted in real processes: the busy loop is as long as it says, and the comparison finds it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from planted import MISSED, OK, code_of, summary
from planted_worker import slowed

PLANTED = str(Path(__file__).resolve().parents[2] / "validation" / "planted.py")


def test_the_loop_takes_its_share_of_the_call():
    ratios = []
    for _ in range(5):
        start = time.perf_counter()
        slowed(lambda: time.sleep(0.01), 0.5)()
        ratios.append((time.perf_counter() - start) / 0.01)
    assert min(ratios) >= 1.5
    assert min(ratios) < 2.5


def tries(planted: int, unchanged: int, count: int = 100) -> list[dict]:
    def verdict(slower: bool) -> dict:
        return {"verdict": "slower" if slower else "same", "of_two_runs": "inconclusive"}

    return [{"findings": {"planted": verdict(i < planted), "unchanged": verdict(i < unchanged)}} for i in range(count)]


def test_tries_are_counted_and_judged():
    assert "planted 97 of 100 (91 to 99 %), unchanged 2 of 100 (0 to 7 %)" in summary(tries(97, 2))
    assert code_of(tries(95, 5)) == OK
    assert code_of(tries(94, 0)) == code_of(tries(100, 6)) == MISSED


@pytest.mark.slow
def test_a_planted_slow_down_is_found_in_real_processes(tmp_path):
    """In reduced form: one try, twice as long, seen through any neighbours."""
    done = subprocess.run(
        [sys.executable, PLANTED, "--tries", "1", "--share", "100%", "--margin", "30%", "--launches", "7",
         "--rounds", "8", "--json", str(tmp_path / "planted.json")],
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    (one,) = json.loads((tmp_path / "planted.json").read_text())["tries_done"]
    assert one["findings"]["planted"]["ratio"] > 1.3, done.stdout
    assert one["findings"]["unchanged"]["verdict"] != "slower"


def test_wrong_options_get_one_sentence():
    for arguments, words in (
        (["--launches", "3"], "intervals of 2 cases by launch need 7: raise --launches"),
        (["--share", "10"], "'10' is not a percentage"),
    ):
        done = subprocess.run([sys.executable, PLANTED, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert words in " ".join(done.stderr.split())
