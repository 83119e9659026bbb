"""Ratios beside busy loops: the loops run and end, and what is compared is counted right."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import psutil
import pytest
from click.testing import CliRunner

import busy
from busy import LOADS, Answer, Comparison, Load, answers_of
from rnnbench.analysis.stats import Basis, Interval
from rnnbench.records.store import RUN, write_json
from tests.calling import stored
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
    assert found.near == [("case", "b0")]
    assert found.far == [("case", "b1"), ("case", "b2")]
    assert found.said == [("case", "b2")]
    assert found.off(("case", "b1")) == pytest.approx(1.0)  # twice as small is as far off as twice as large
    row = found.row()
    assert row["seconds"] == "90, 33 % beside loops"
    assert row["disturbed turns"] == "1 of 3"
    assert row["measured again"] == "1"
    assert row["over 25 %"] == "2, 1 do not say so"
    assert row["within 10 %"] == "1 of 4"
    assert row["of those not said to be disturbed or noisy"] == "1 of 3"
    assert row["intervals apart"] == "2"
    assert row["median"] == "27 %"
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


def test_a_run_that_measures_nothing_ends_the_comparison(tmp_path):
    found = CliRunner().invoke(busy.main, ["--keep", str(tmp_path), "--", "-b", "no-such-backend"])
    assert found.exit_code == 1
    assert "quiet: the run ended with code" in found.output


def run_in(folder, seconds, by=3.0, took=True):
    """A whole run of two backends in three launches; `took`: made by this script."""
    turns = [turn(name, [s], launch, 0) for launch in range(3) for name, s in (("numba", 1.0), ("torch", by))]
    stored(folder, turns)
    write_json(folder / RUN, {"seconds": {"timed calls": seconds}})
    if took:
        (folder / "seconds.json").write_text(json.dumps([seconds, 0.0, 0]))


def test_what_is_there_is_taken_and_a_cut_keeps_the_lines_so_far(tmp_path, monkeypatch):
    """A quiet run from elsewhere, one whole run, one that was interrupted, and then an interruption."""
    run_in(tmp_path / "before", 40.0, took=False)
    run_in(tmp_path / "kept" / "quiet-again", 50.0, by=3.1)
    run_in(tmp_path / "kept" / "two-loops-for-a-third", 9.0, by=9.9, took=False)
    begun = []

    def interrupted(command, **_):
        begun.append(command)
        raise KeyboardInterrupt

    monkeypatch.setattr(busy.subprocess, "run", interrupted)
    found = CliRunner().invoke(busy.main, ["--keep", str(tmp_path / "kept"), "--quiet", str(tmp_path / "before")])
    assert found.exit_code == busy.INTERRUPTED
    assert [command[5] for command in begun] == [str(tmp_path / "kept" / "two-loops-for-a-third")]
    assert not (tmp_path / "kept" / "two-loops-for-a-third").exists()
    text = (tmp_path / "kept" / "busy.md").read_text()
    assert text in found.output
    assert "1 ratios to numba; the quiet run took 40 s" in text
    assert "| quiet again | 50, 0 % beside loops" in text
    assert "interrupted" in found.output


def test_a_quiet_run_without_the_reference_is_an_error(tmp_path):
    run_in(tmp_path / "before", 40.0, took=False)
    found = CliRunner().invoke(busy.main, ["--over", "jax", "--quiet", str(tmp_path / "before")])
    assert found.exit_code == 1
    assert "has no ratio to jax; choose another one by --over" in found.output
