"""Ratios beside busy loops: the loops run and end, and what is compared is counted right."""

from __future__ import annotations

import time
from dataclasses import replace

import psutil
import pytest
from click.testing import CliRunner

import busy
from busy import LOADS, Answer, Comparison, Load, answers_of
from rnnbench.analysis.stats import Basis, Interval
from worlds import turn


def children():
    return [p for p in psutil.Process().children() if p.status() != psutil.STATUS_ZOMBIE]


def test_loops_run_for_their_part_of_a_run_and_end():
    before = len(children())
    with Load("two", 2, 0.0, 0.5).beside(0.6) as lasted:
        time.sleep(0.1)
        assert len(children()) == before + 2
        time.sleep(0.5)
        assert len(children()) == before
    assert 0.25 < lasted[0] < 0.55
    with Load("later", 1, 10.0).beside(1.0) as lasted:
        assert len(children()) == before
    assert lasted == []
    load = Load("one", 1).beside(0.0)
    lasted = load.__enter__()
    time.sleep(0.1)
    assert load.__exit__(KeyError, KeyError(), None) is not True
    assert len(children()) == before
    assert lasted[0] > 0.05


def made(ratio, says_so=False, threads=(2, 2)):
    return Answer(Interval(ratio, 0.9 * ratio, 1.1 * ratio, Basis.LAUNCHES, 5), threads, says_so)


def test_what_is_off_is_counted_and_complained_of():
    pairs = [(made(2.0), made(2.1)), (made(2.0), made(1.0)), (made(2.0), made(1.5, says_so=True)),
             (made(2.0), made(2.4, threads=(1, 2)))]  # fmt: skip
    shared = {("case", f"b{i}"): pair for i, pair in enumerate(pairs)}
    records = [
        replace(turn("a", [1.0], 0, 0), disturbed=0.4),
        turn("a", [1.0], 0, 1),
        replace(turn("a", [1.0], 0, 0), attempt=1),
    ]
    found = Comparison(LOADS[1], 90.0, 30.0, records, shared)
    assert found.near == 1
    assert found.far == [("case", "b1"), ("case", "b2")]
    assert found.silent == [("case", "b1")]
    assert found.off(("case", "b1")) == pytest.approx(1.0)  # twice as small is as far off as twice as large
    row = found.row()
    assert row["seconds"] == "90, 33 % beside loops"
    assert row["disturbed turns"] == "1 of 3"
    assert row["measured again"] == "1"
    assert row["over 25 %"] == "2, 1 do not say so"
    assert row["other threads"] == "1"
    assert [text.partition(": ")[2] for text in found.complaints()] == [
        "1 of 4 ratios are within 10 %; 90 % are stated", "b1 in case is off by 100 % and does not say so",
    ]  # fmt: skip


def test_a_ratio_says_so_where_either_answer_is_disturbed():
    turns = [
        turn(name, [seconds], launch, 0) for launch in range(3) for name, seconds in (("numba", 1.0), ("torch", 3.0))
    ]
    ((key, answer),) = answers_of(turns, "numba").items()
    assert key[1] == "torch"
    assert answer.ratio.value == pytest.approx(3)
    assert not answer.says_so
    disturbed = [replace(r, disturbed=0.5) if r.backend == "numba" and r.launch == 1 else r for r in turns]
    assert answers_of(disturbed, "numba")[key].says_so
    assert answers_of(turns, "missing") == {}


def test_a_run_that_fails_ends_the_comparison(tmp_path):
    found = CliRunner().invoke(busy.main, ["--keep", str(tmp_path), "--", "-b", "no-such-backend"])
    assert found.exit_code == 1
    assert "quiet: the run ended with code" in found.output
