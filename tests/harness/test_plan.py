"""Plans, filters, orders, and the estimate of the time left."""

from __future__ import annotations

import msgspec
import pytest

from rnnbench.harness.plan import Estimate, Plan, cases_of, epoch_steps, matches, order_of, shuffled
from rnnbench.harness.tasks import tasks_of
from rnnbench.model import USUAL_PASSES, DType, Loss, Pass, Truncation
from rnnbench.records.record import Mode
from rnnbench.records.stops import StopRule
from rnnbench.workloads.parity import PARITY
from rnnbench.workloads.resolve import Asked
from tests.helpers import specs


def plan_of(**changes) -> Plan:
    asked = {
        "workloads": specs("parity"), "backends": ("numpy", "torch+flush"), "passes": USUAL_PASSES,
        "dtypes": tuple(DType), "mode": Mode.QUICK, "threads": 1, "seed": 0, "timeout": 9.0,
    }  # fmt: skip
    return Plan(**(asked | changes))


def test_a_plan_survives_its_file():
    plan = plan_of(truncation=Truncation(5, 2), filter="imdb !epoch", sizes=Asked(T=7, loss=Loss.SQUARED_ERROR),
                   training=("parity",),
                   rule=StopRule(0.05, 3, 7), budget=60.0, case_budget=9.5)  # fmt: skip
    assert msgspec.convert(msgspec.json.decode(msgspec.json.encode(plan)), Plan) == plan


def test_filter_words():
    assert matches("", "imdb-50 epoch float32 jax")
    assert matches("imdb !torch", "imdb-50 epoch float32 jax")
    assert not matches("imdb !torch", "imdb-50 epoch float32 torch+flush")
    assert not matches("parity", "imdb-50 epoch float32 jax")


def test_cases_are_passes_times_types():
    cases = cases_of(plan_of(), PARITY.spec)
    assert len({case.key for case in cases}) == len(cases) == 8
    assert {case.steps for case in cases if case.pass_ is Pass.EPOCH} == {25}
    assert {case.steps for case in cases if case.pass_ is not Pass.EPOCH} == {1}


def test_filtered_workloads_are_not_even_loaded():
    assert tasks_of(plan_of(workloads=specs("parity", "running-parity"), filter="running float64"), print)[0].cases[
        0
    ].workload == ("running-parity")
    assert tasks_of(plan_of(filter="nothing-of-the-kind"), print) == []


def test_epoch_lengths():
    assert epoch_steps(PARITY.spec, 800, None) == 25
    assert epoch_steps(PARITY.spec, 800, 0) == 25
    assert epoch_steps(PARITY.spec, 790, 0) == 25
    assert epoch_steps(PARITY.spec, 800, 3) == 3
    assert epoch_steps(PARITY.spec, 800, 99) == 25


def test_orders_are_fixed_by_their_seed():
    assert sorted(order_of(100, 100, 1, 3)) == list(range(100))
    assert order_of(100, 2, 8, 3, 1) == order_of(100, 2, 8, 3, 1)
    assert order_of(100, 2, 8, 3, 1) != order_of(100, 2, 8, 3, 2)
    assert len(order_of(100, 2, 8, 3)) == 16
    names = [str(i) for i in range(9)]
    assert sorted(shuffled(names, 1)) == names
    assert shuffled(names, 1) != shuffled(names, 2)


def test_the_estimate_learns():
    estimate = Estimate()
    estimate.add(("turn", "a", 1), 10)
    estimate.add(("turn", "b", 1), 10)
    estimate.done(("turn", "a", 1), 2.0)
    assert estimate.remaining == pytest.approx(9 * 2 + 10 * 2)  # b is guessed from a
    estimate.done(("turn", "b", 1), 4.0)
    assert estimate.remaining == pytest.approx(9 * 2 + 9 * 4)
    estimate.drop(("turn", "b", 1))
    assert estimate.remaining == pytest.approx(18)
    assert estimate.fraction == pytest.approx(6 / 24)
