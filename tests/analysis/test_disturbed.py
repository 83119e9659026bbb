"""Disturbed turns: which count, what a comparison takes, and what is said of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rnnbench.analysis.compare import launch_logs
from rnnbench.analysis.stats import Metric, counted, disturbance_notes, summaries
from rnnbench.analysis.warnings import Severity, warnings_of
from rnnbench.records.record import Status
from rnnbench.records.store import decode_record, encode
from tests.report import fake


def answer(*turns):
    """Of (launch, round, attempt, disturbed, seconds)."""
    made = fake.record(fake.case(), "numba", [1.0, 1.0])
    return [
        replace(made, launch=launch, round=round_, attempt=attempt, disturbed=disturbed,
                samples_ns=(round(seconds * 1e9),) * 8, warmup=0)
        for launch, round_, attempt, disturbed, seconds in turns
    ]  # fmt: skip


def kept(records):
    return [(r.launch, r.round, r.attempt) for r in counted(records)]


CALM = [(0, 0, 0, 0.0, 1.0), (1, 0, 0, 0.0, 1.0), (2, 0, 0, 0.0, 1.0)]


def test_of_several_attempts_the_one_counts_that_others_took_least_from():
    assert kept(answer(*CALM, (3, 0, 0, 0.9, 5.0), (3, 0, 1, 0.0, 1.0)))[-1] == (3, 0, 1)
    assert kept(answer(*CALM, (3, 0, 0, 0.9, 5.0), (3, 0, 1, 0.0, 7.0)))[-1] == (3, 0, 1)  # not by its time
    assert kept(answer((0, 0, 0, 0.5, 1.0), (0, 0, 1, 0.4, 9.0), (0, 0, 2, 0.6, 1.0))) == [(0, 0, 1)]


def test_disturbed_turns_are_left_out_where_three_launches_have_others():
    records = answer(*CALM, (0, 1, 0, 0.0, 1.0), (0, 2, 0, 0.3, 9.0), (3, 0, 0, 0.9, 9.0), (3, 1, 0, 0.4, 9.0))
    assert kept(records) == [(0, 0, 0), (1, 0, 0), (2, 0, 0), (0, 1, 0)]
    (found,) = summaries(records)
    assert found.time.value == pytest.approx(1.0)
    assert found.disturbed == []
    assert launch_logs(records, Metric.MEDIAN) == pytest.approx([0.0] * 3)


def test_a_turn_among_as_many_disturbed_ones_is_no_launch():
    """What others took from it may have been missed, and it would be all that stands for the launch."""
    records = answer(*CALM, (3, 0, 0, 0.9, 9.0), (3, 1, 0, 0.0, 9.0))
    assert kept(records) == [(0, 0, 0), (1, 0, 0), (2, 0, 0)]
    assert len(kept(records[1:])) == 4


def test_they_count_where_too_few_have_and_the_answer_says_so():
    records = answer(*CALM[:2], (2, 0, 0, 0.87, 9.0), (0, 1, 0, 0.2, 3.0))
    (found,) = summaries(records)
    assert len(found.turns) == 4
    assert sorted((r.launch, r.round) for r in found.disturbed) == [(0, 1), (2, 0)]
    (warned,) = [w for w in warnings_of(records, {}) if w.kind == "disturbed"]
    assert warned.severity is Severity.WARNING
    assert warned.text.endswith("of 4 turns that count 2 were disturbed: other programs took up to 87 % of them")
    (note,) = disturbance_notes(records)
    assert note == (
        "2 of 4 turns (numba 2): other programs took part of their time; 2 of these count, as too few are "
        "undisturbed; measured again: 0"
    )


def test_what_was_measured_again_is_a_note_and_no_warning():
    records = answer(*CALM, (1, 1, 0, 0.3, 9.0), (1, 1, 1, 0.0, 1.0))
    assert not [w for w in warnings_of(records, {}) if w.kind == "disturbed"]
    (note,) = disturbance_notes(records)
    assert note.startswith("1 of 5 turns (numba 1)")
    assert note.endswith("none of these counts; measured again: 1")


def test_a_suspended_or_failed_turn_is_no_attempt_that_counts():
    first, again = answer((0, 0, 0, 0.0, 1.0), (0, 0, 1, 0.0, 2.0))
    assert kept([replace(first, disturbances=("suspended for 3 s",)), again]) == [(0, 0, 1)]
    assert kept([first, replace(again, samples_ns=(), status=Status.CRASHED)]) == [(0, 0, 0)]


def test_runs_of_one_answer_are_each_judged_by_their_own_launches():
    calm = answer(*CALM)
    other = [replace(r, run_id="other", disturbed=0.5) for r in answer(*CALM[:2])]
    assert len(launch_logs([*calm, *other], Metric.MEDIAN)) == 5


def test_records_keep_it_and_older_ones_have_none():
    (record,) = answer((0, 0, 2, 0.25, 1.0))
    assert decode_record(encode(record)) == record
    (plain,) = answer((0, 0, 0, 0.0, 1.0))
    assert b"attempt" not in encode(plain)
    assert b'"disturbed"' not in encode(plain)
