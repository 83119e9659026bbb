"""The ceilings of a run: what is measured first and last, and a measurement that fails costs the run nothing."""

from __future__ import annotations

import pytest

from rnnbench.analysis.roofline import Peak, Rates, peak_of
from rnnbench.analysis.stats import turn_seconds
from rnnbench.api import run, run_session
from rnnbench.machine.peak import PeakUnknown
from rnnbench.model import DType
from rnnbench.records import store
from rnnbench.records.record import Mode, turns_in
from tests.harness.test_plan import plan_of

LOW, HIGH = (Peak("by hand", {DType.FLOAT32: (Rates(1, flops, 1e9, 1e9),)}) for flops in (1e10, 2e10))


class Listener:
    def __init__(self):
        self.said = []

    def show(self, what, fraction):
        pass

    def doing(self, what, estimate, case=""):
        pass

    def say(self, text):
        self.said.append(text)


def small_run(folder, mode, monkeypatch, *answers):
    """A run of numpy on parity whose peak is measured by these answers, in order."""
    left = list(answers)

    def measure(dtypes, threads, *, quick=False, timeout=None):
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(run_session, "measure", measure)
    plan = plan_of(backends=("numpy",), dtypes=(DType.FLOAT32,), mode=mode, filter="forward", timeout=60.0)
    listener = Listener()
    done = run.execute(plan, folder, "a test", listener)
    assert done.code == run.OK
    assert not left
    lengths = [text for text in listener.said if text.startswith("measuring takes about ")]
    assert len(lengths) == 1
    return done.loaded, [text for text in listener.said if text not in lengths]


def test_a_run_keeps_the_better_of_its_start_and_end(tmp_path, monkeypatch):
    loaded, said = small_run(tmp_path, Mode.DEFAULT, monkeypatch, LOW, HIGH)
    assert peak_of(loaded.machine) == HIGH
    timed = [r for r in turns_in(loaded.records) if r.samples_ns]
    assert timed
    assert all(r.share_of_peak == pytest.approx(r.flops / 1e10 / turn_seconds(r)) for r in timed)
    assert said == []
    assert {"hashes", "clock", "start", "end", "workers"} <= loaded.machine.keys()
    assert loaded.machine["end"]["seconds"] > 0
    assert loaded.machine["end"]["load_per_core"] >= 0


def test_a_quick_run_measures_once(tmp_path, monkeypatch):
    loaded, _ = small_run(tmp_path, Mode.QUICK, monkeypatch, HIGH)
    assert peak_of(loaded.machine) == HIGH


def test_a_peak_that_cannot_be_measured_is_said_and_costs_nothing_else(tmp_path, monkeypatch):
    loaded, said = small_run(tmp_path / "never", Mode.DEFAULT, monkeypatch, PeakUnknown("no such thing"))
    assert peak_of(loaded.machine) is None
    assert said == ["no such thing; no share of it is shown"]
    assert all(r.flops for r in loaded.records)
    assert all(r.share_of_peak is None for r in turns_in(loaded.records))
    loaded, said = small_run(tmp_path / "once", Mode.DEFAULT, monkeypatch, LOW, PeakUnknown("no such thing"))
    assert peak_of(loaded.machine) == LOW
    assert said == ["no such thing"]
    assert (tmp_path / "once" / store.MACHINE).exists()
