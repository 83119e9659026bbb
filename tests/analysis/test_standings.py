"""Standings: each backend against the fastest other of each case."""

from __future__ import annotations

import pytest

from rnnbench.analysis.ranking import cells_frame, standings
from rnnbench.analysis.stats import summaries
from rnnbench.model import Pass
from rnnbench.records.record import Status
from tests.report.fake import case, failure, record


def turns(pass_, backend, seconds):
    return [record(case("imdb-50", pass_), backend, [seconds], round=r) for r in range(3)]


def found():
    records = [
        *turns(Pass.FORWARD, "numba", 1.0), *turns(Pass.FORWARD, "jax", 3.0), *turns(Pass.FORWARD, "torch", 2.0),
        *turns(Pass.GRADIENT, "numba", 1.05), *turns(Pass.GRADIENT, "jax", 1.0),
        failure(case("imdb-50", Pass.GRADIENT), "torch", Status.WRONG, "far off"),
        *turns(Pass.TRAIN_STEP, "numba", 4.0), *turns(Pass.TRAIN_STEP, "jax", 1.0),
        *turns(Pass.EPOCH, "numba", 1.0),
    ]  # fmt: skip
    return summaries(records)


def test_each_backend_against_its_fastest_rival():
    by_name = {s.backend: s for s in standings(found())}
    assert list(by_name) == ["jax", "numba", "torch"]  # first in 2 of 3, 1 of 3, 0 of 1
    assert by_name["numba"].first == 1
    assert by_name["numba"].near == 2  # 1 / 1.05 is near
    assert len(by_name["numba"].cells) == 3  # nobody else was measured in the epoch
    assert by_name["numba"].worst.ratio == pytest.approx(0.25)
    assert (by_name["numba"].worst.rival, by_name["numba"].worst.case.pass_) == ("jax", Pass.TRAIN_STEP)
    assert by_name["jax"].first == 2
    assert len(by_name["torch"].cells) == 1  # what is wrong stands nowhere
    assert by_name["torch"].worst.rival == "numba"


def test_the_same_as_a_table():
    table = cells_frame(found()).set_index(["pass", "backend"])
    assert table.loc[("forward", "numba"), "speed_over_rival"] == pytest.approx(2.0)
    assert table.loc[("forward", "numba"), "fastest_rival"] == "torch"
    assert ("epoch", "numba") not in table.index
    assert len(cells_frame([])) == 0
