"""How much others took from a run, and from which turns most."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from rnnbench.analysis.contention import contention_of
from rnnbench.analysis.stats import summaries
from rnnbench.records.record import Contention
from rnnbench.records.store import decode_record, encode
from tests.analysis.test_warnings import steady

CALM = Contention(1.0, run_delay_ns=0, involuntary_switches=1, others_share=0.02, stolen_share=0.0, probe_ns=(100, 104))
WAITED = Contention(3.0, 2_400_000_000, 40, 0.5, 0.01, (100, 110))
SLOWED = Contention(1.0, 0, 0, 0.0, 0.0, (101, 145))
SILENT = Contention(1.0, probe_ns=(102, 103))
CONTENDED = [CALM, WAITED, SLOWED, SILENT, CALM]


def contended():
    *turns, old = steady()
    return [*(replace(r, contention=c) for r, c in zip(turns, CONTENDED, strict=True)), old]


def test_amounts_of_a_run_and_its_worst_turns():
    (run,) = contention_of(contended(), worst=3)
    assert (run.run_id, run.turns, run.of) == (contended()[0].run_id, 5, 6)
    assert run.all.seconds == 7.0
    assert run.all.waited == pytest.approx(2.4 / 6)  # of the turns that tell
    assert run.all.involuntary_switches == 42
    assert run.all.others == pytest.approx((0.02 + 1.5 + 0.0 + 0.02) / 6)
    assert run.all.stolen == pytest.approx(0.03 / 6)
    assert run.all.throttled is None
    assert run.all.slowed == pytest.approx(0.04)
    assert [turn.moment for turn in run.worst] == [
        "launch 1, round 2", "launch 2, round 1", "launch 1, round 1",
    ]  # fmt: skip
    assert [turn.amounts.largest for turn in run.worst] == pytest.approx([0.8, 0.45, 0.04])
    unknown = contention_of(contended(), worst=6)[0].worst[-1].amounts
    assert (unknown.waited, unknown.others, unknown.stolen, unknown.involuntary_switches) == (None,) * 4


def test_a_group_that_was_held_back_is_among_what_was_taken():
    turns = [
        replace(r, contention=replace(CALM, throttled_ns=ns))
        for r, ns in zip(steady(), (None, 4 * 10**8, 0, 0, 0, 0), strict=True)
    ]
    (run,) = contention_of(turns, worst=1)
    assert run.all.throttled == pytest.approx(0.08)  # of the turns that tell
    assert run.worst[0].amounts.largest == run.worst[0].amounts.throttled == pytest.approx(0.4)


def test_runs_are_apart_and_those_that_tell_nothing_have_none():
    other = [replace(r, run_id="b", contention=replace(SLOWED, probe_ns=(200, 210))) for r in steady()]
    found = contention_of([*contended(), *other], worst=1)
    assert [(run.run_id, run.turns) for run in found][1] == ("b", 6)
    assert found[1].worst[0].amounts.slowed == pytest.approx(0.05)  # by the best of its own run
    assert contention_of(steady(), worst=1) == []


def test_a_record_keeps_it_and_an_older_one_has_none():
    record = contended()[1]
    assert decode_record(encode(record)) == record
    assert b"contention" not in encode(steady()[0])
    assert decode_record(encode(steady()[0])).contention is None


@pytest.mark.parametrize("field", ["others_share", "stolen_share"])
def test_a_share_above_the_whole_is_damage(field):
    record = replace(steady()[0], contention=replace(CALM, **{field: 1.01}))
    with pytest.raises(msgspec.ValidationError, match=field):
        decode_record(encode(record))


def test_no_number_moves_by_it():
    assert summaries(contended())[0].time == summaries(steady())[0].time
