"""A slow-down planted in real processes: the busy loop is as long as it says, and the comparison finds it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from planted import MISSED, OK, code_of, slowed, summary

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
        return {"verdict": "slower" if slower else "not slower", "of_two_runs": "inconclusive"}

    return [{"planted": verdict(i < planted), "unchanged": verdict(i < unchanged)} for i in range(count)]


def test_tries_are_counted_and_judged():
    assert "planted 97 of 100 (91 to 99 %), unchanged 2 of 100 (0 to 7 %)" in summary(tries(97, 2))
    assert code_of(tries(95, 5)) == OK
    assert code_of(tries(94, 0)) == code_of(tries(100, 6)) == MISSED


@pytest.mark.slow
def test_a_planted_slow_down_is_found_in_real_processes():
    """In reduced form: one try, twice as long, seen through any neighbours."""
    done = subprocess.run(
        [sys.executable, PLANTED, "--tries", "1", "--share", "1", "--margin", "0.2", "--launches", "5",
         "--rounds", "4"],
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    assert "1 of 1: planted slower (" in done.stdout
    assert "unchanged not slower (" in done.stdout


def test_wrong_options_get_one_sentence():
    for arguments, words in ((["--launches", "2"], "2 is not in the range x>=3"), (["--share", "0"], "x>0")):
        done = subprocess.run([sys.executable, PLANTED, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert words in " ".join(done.stderr.split())
