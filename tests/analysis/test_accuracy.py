"""Time to accuracy from records: medians where some, half or all of the trainings did not get there."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from rnnbench.analysis.accuracy import best_so_far, to_accuracy_frame, to_reach
from rnnbench.analysis.pooling import NamedRun, pool
from rnnbench.model import Pass
from rnnbench.records.record import Status, TrainingRecord
from rnnbench.records.store import Loaded
from rnnbench.report.data import ReportData
from rnnbench.report.plots import draw_figure
from rnnbench.report.section import Section
from rnnbench.report.terminal import text_of
from rnnbench.report.to_accuracy import to_accuracy_section
from tests.report.fake import case, end_of_epoch, record, training

HERE = case("imdb-50", Pass.EPOCH)


def trainings(*times: float | None, backend: str = "numba", case=HERE) -> list[TrainingRecord]:
    """One a seed, with a first epoch after a second; None did not get there in ten."""
    return [
        training(case, backend, seed, [end_of_epoch(1.0, 0.6), end_of_epoch(t or 10.0, 0.81 if t else 0.7)])
        for seed, t in enumerate(times)
    ]


@pytest.mark.parametrize(
    ("times", "seconds", "high", "at_least"),
    [
        ((3.0, 2.0, 4.0), 3.0, 4.0, 3.0),
        ((3.0, 2.0), 2.5, 3.0, 2.5),
        ((3.0, None, 2.0), 3.0, math.inf, 3.0),  # the one that did not get there is the slowest
        ((3.0, None), math.inf, math.inf, 6.5),
        ((None, 3.0, None), math.inf, math.inf, 10.0),
        ((12.0, 13.0, None), 13.0, math.inf, 12.0),  # ended at 10 s, and would have taken longer
        ((None, None, None), math.inf, math.inf, 10.0),
    ],
)
def test_a_training_that_did_not_get_there_is_the_slowest(times, seconds, high, at_least):
    (found,) = to_reach(trainings(*times))
    assert (found.seconds, found.high, found.at_least) == (seconds, high, at_least)
    assert found.low == min((t for t in times if t), default=math.inf)
    assert len(found.reached) == sum(t is not None for t in times)


def test_one_that_died_counts_and_is_told():
    died = training(HERE, "numba", 2, [end_of_epoch(1.0, 0.6)], status=Status.CRASHED, reason="it died")
    (found,) = to_reach([*trainings(2.0, 3.0), died])
    assert (found.seconds, found.status, found.reason) == (3.0, Status.CRASHED, "it died")
    assert len(found.trainings) == 3


def test_backends_stand_in_the_order_of_their_times_and_what_cannot_last():
    absent = training(HERE, "torch", 0, [], status=Status.UNAVAILABLE, reason="not installed")
    records = [
        absent,
        *trainings(None, None, backend="jax"),
        *trainings(5.0, 6.0),
        *trainings(2.0, 2.0, backend="numpy"),
    ]
    found = to_reach(records)
    assert [t.backend for t in found] == ["numpy", "numba", "jax", "torch"]
    assert not found[-1].trainings
    table = to_accuracy_frame(found).set_index("backend")
    assert list(table["reached"]) == [2, 2, 0, 0]
    assert table.loc["jax", "at_least"] == 10.0
    assert math.isnan(table.loc["jax", "seconds"])


def test_parts_add_up_and_the_first_call_is_what_the_first_epoch_takes_longer():
    epochs = [
        end_of_epoch(9.0, 0.6, train=5.0),
        end_of_epoch(10.0, 0.7, train=1.0),
        end_of_epoch(11.0, 0.81, train=1.0),
    ]
    (found,) = to_reach([training(HERE, "numba", 0, epochs, start=1.0, import_=2.0, read=0.5, prepare=0.5)])
    assert found.parts == {"start": 1.0, "import": 2.0, "read": 0.5, "prepare": 0.5, "first_call": 4.0, "train": 3.0}
    assert sum(found.parts.values()) == found.seconds == 11.0
    (alone,) = to_reach([training(HERE, "numba", 0, [end_of_epoch(9.0, 0.9, train=5.0)])])
    assert (alone.parts["first_call"], alone.parts["train"]) == (0.0, 5.0)  # of one epoch nobody knows


def test_a_cold_start_is_told_apart():
    cold = replace(training(HERE, "numba", 0, [end_of_epoch(7.0, 0.6)]), cache="cold")
    (found,) = to_reach([cold, *trainings(2.0, 3.0)])
    assert found.colder == 6.0  # its first epoch ends at 7 s, that of the others at 1 s
    assert (found.seconds, len(found.trainings)) == (2.5, 2)
    text = " ".join(text_of(ReportData([], trainings=[cold]), 100).split())  # a run that was ended after it
    assert "Not there: numba (not trained yet)" in text


def test_the_line_of_the_figure_crosses_the_accuracy_at_the_time_of_the_table():
    times = (3.0, 2.0, None, 2.5, 4.0)
    (found,) = to_reach(trainings(*times))
    steps = best_so_far(found.trainings)
    assert next(seconds for seconds, middle, *_ in steps if middle >= 0.8) == found.seconds == 3.0
    assert steps[0] == (1.0, 0.6, 0.6, 0.6)
    assert [low for *_, low, _ in steps] == sorted(low for *_, low, _ in steps)  # it never falls


def test_runs_with_and_without_an_answer_are_shown():
    silent = [r for name in ("jax", "torch") for r in trainings(None, None, None, backend=name)]
    assert "imdb-50 to 80 %: no backend got there" in text_of(ReportData([], trainings=silent), 100)
    assert len(draw_figure("to-accuracy", ReportData([], trainings=silent))) == 1
    dead = [training(HERE, "jax", seed, [], status=Status.CRASHED, reason="it died") for seed in (0, 1)]
    assert draw_figure("to-accuracy", ReportData([], trainings=dead)) == []
    assert "Not there: jax (crashed, 0 of 2 seeds)" in " ".join(text_of(ReportData([], trainings=dead), 100).split())


def test_the_filters_of_a_page_know_the_network():
    data = ReportData([record(case("imdb-50"), "numba", [1e-3])], trainings=trainings(2.0, 3.0))
    (keys,) = [block.keys for block in to_accuracy_section(data).blocks if isinstance(block, Section)]
    assert keys == data.problems[0].keys


def test_a_busy_machine_and_a_stand_in_are_told():
    busy = [replace(r, others_share=0.4) for r in trainings(2.0, 3.0, 4.0, case=case("imdb-synthetic-50", Pass.EPOCH))]
    text = " ".join(text_of(ReportData([], trainings=busy), 100).split())
    assert "other programs used 40 % of the cores' time during the trainings" in text
    assert "imdb-synthetic-50: synthetic stand-in, seed 0; not the real rows" in text
    assert "Perhaps disturbed" not in text_of(ReportData([], trainings=trainings(2.0, 3.0, 4.0)), 100)


def test_trainings_of_two_runs_are_shown_as_one_if_their_machines_are_alike():
    def named(name: str, cpu: str) -> NamedRun:
        lines = [replace(r, run_id=name) for r in trainings(2.0, 3.0)]
        machine = {"machine_id": cpu, "cpu": {"model": cpu}}
        return NamedRun(name, Loaded([], [], {"run_id": name}, machine, [], lines))

    assert len(pool([named("a", "EPYC"), named("b", "EPYC")]).trainings) == 4
    with pytest.raises(ValueError, match="unlike machines"):
        pool([named("a", "EPYC"), named("b", "Xeon")])
