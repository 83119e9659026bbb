"""The page of a sweep over made-up answers: standings, plots against size, the map; and nothing of it elsewhere."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import product

import msgspec
import numpy as np
import pandas as pd
import pytest

from rnnbench.model import Case, DType, Head, Model, Pass
from rnnbench.records.record import Mode, Status
from rnnbench.report.data import ReportData
from rnnbench.report.plots.crossover import map_cells
from rnnbench.report.plots.sweep import panel_of
from rnnbench.report.sweep import WORK, work_text
from rnnbench.sizes import Sizes, Sweep
from rnnbench.work import work_of
from tests.helpers import made_up_problem
from tests.report.fake import Fake, failure, make, record
from tests.report.test_report import shown, written

SWEEP = Sweep(H=(16, 64, 256), B=(1, 32), centre=Sizes(64, 32, 100), grid=True)
PASSES = (Pass.FORWARD, Pass.GRADIENT)


def fake_of(sweep: Sweep = SWEEP, dtypes=(DType.FLOAT32,), failed=(), mode=Mode.DEFAULT) -> Fake:
    """numba is three times as fast as jax up to H 64, and beyond it a little slower; numpy is slow."""
    rng = np.random.default_rng(0)
    records = []
    for dtype, sizes, pass_ in product(dtypes, sweep.cases, PASSES):
        case = Case(**vars(made_up_problem(sizes, sweep.E, dtype)), pass_=pass_)
        for name, speed in {"numpy": 1e9, "numba": 3e10, "jax": 1e10 if sizes.H <= 64 else 3.1e10}.items():
            if name in failed:
                records.append(failure(case, name, Status.CRASHED, "killed by signal 9", data_source="random numbers"))
                continue
            for turn in range(3):
                seconds = work_of(case).flops / speed * np.exp(rng.normal(0, 0.005, 3))
                records.append(record(case, name, seconds, round=turn, mode=mode, data_source="random numbers"))
    run = {"run_id": "fake", "mode": str(mode), "plan": {"sweep": msgspec.to_builtins(sweep)}}
    return Fake(records, [], make(("parity",), ("numpy",), (Pass.FORWARD,)).machine, run)


def test_the_page_of_a_sweep(tmp_path):
    text = written(tmp_path, fake_of())
    for name in ("sweep-time", "sweep-share", "crossover", "roofline"):
        assert (tmp_path / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "figures" / "time.png").exists()
    answer = text.split("## Time against size")[0]
    assert "- **Use numba**: first in 8 of 12 cases, at least 0.9" in answer
    assert "8 of 12" in answer  # numba is ahead in two H of three
    assert "12 of 12" in answer  # and near in all
    assert "jax, made-up E256 H256" in answer
    assert "| H 16, B 1, T 100 " in text
    assert "nan" not in text.lower()
    assert set(pd.read_csv(tmp_path / "tables" / "cells.csv")["H"]) == {16, 64, 256}
    assert "made-up E16 H16 B1 T100" in set(pd.read_csv(tmp_path / "tables" / "times.csv")["workload"])


def test_the_terminal_tells_the_standings():
    text = " ".join(shown(fake_of()).split())
    assert "made-up E16 H16 B32 T100 forward: numba" in text
    line = (
        r"Use numba: first in 8 of 12 cases, at least 0.9 of the fastest other in 12; at worst 0\.9[67]x as fast as jax"
    )
    assert re.search(line, text)


def context_of(fake: Fake) -> ReportData:
    return ReportData(fake.records, fake.epochs, fake.machine, fake.run)


def test_a_panel_has_the_sizes_of_its_axis_in_order():
    context = context_of(fake_of())
    panel = panel_of(context, "H", Pass.FORWARD, DType.FLOAT32, lambda s: s.time.value if s.time else None)
    assert set(panel.lines) == {"numpy", "numba", "jax"}
    assert all([size for size, _ in line] == [16, 64, 256] for line in panel.lines.values())
    assert panel.title == "forward: B 32, T 100, E = H"
    assert [v for _, v in panel.lines["numba"]] == sorted(v for _, v in panel.lines["numba"])


def test_the_map_has_who_wins_and_by_how_much():
    cells = map_cells(context_of(fake_of()), Pass.GRADIENT, DType.FLOAT32)
    assert {key: a.fastest for key, a in cells.items()} == {
        (H, B): "jax" if H == 256 else "numba" for H in SWEEP.H for B in SWEEP.B
    }
    assert cells[16, 1].lead.value == pytest.approx(3.0, rel=0.05)
    assert cells[256, 32].lead.value == pytest.approx(3.1 / 3, rel=0.05)


@pytest.mark.parametrize(
    "fake",
    [
        fake_of(Sweep(T=(1, 10)), failed=("jax",)),
        fake_of(Sweep(H=(1, 2), B=(1, 2), grid=True, E=7), failed=("jax", "numba", "numpy")),
        fake_of(dtypes=tuple(DType), mode=Mode.QUICK),
        fake_of(failed=("jax", "numba")),
    ],
    ids=["one axis", "all failed", "two types", "one alone"],
)
def test_unusual_sweeps(tmp_path, fake):
    text = written(tmp_path, fake)
    assert "nan" not in text.lower()
    assert shown(fake, width=80)


def test_a_run_that_is_no_sweep_has_no_plots_of_one(tmp_path):
    fake = make(("parity",), ("numpy", "numba"), (Pass.FORWARD,))
    written(tmp_path, fake)
    assert not list((tmp_path / "figures").glob("sweep*"))
    assert not (tmp_path / "tables" / "cells.csv").exists()


def test_the_page_says_which_network_was_swept():
    data = ReportData(*vars(fake_of()).values())
    assert work_text(data) == WORK
    model = Model(V=20_000, E=64, H=8, O=3, head=Head.EVERY, cell="gru")
    own = [replace(r, case=replace(r.case, model=model), data_source="rows from a_b.npz") for r in data.records]
    said = work_text(replace(data, records=own))
    assert said.startswith("Tokens of a vocabulary of 20,000, embedded to E, gru of H units, 3 outputs at every step")
    assert "rows from a\\_b.npz" in said
