"""Reports of uncertain figures: words in place of wild intervals, axes that end where the values do."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from rnnbench.analysis.comparable import Side
from rnnbench.analysis.history import DatedRun, Line, RunPoint
from rnnbench.analysis.stats import Basis, Interval, interval_of
from rnnbench.model import Pass
from rnnbench.records.record import Mode, TurnRecord
from rnnbench.records.stops import Why
from rnnbench.report import plots
from rnnbench.report.data import ReportData
from rnnbench.report.facts import stops_section
from rnnbench.report.plots import gpu, history, layout
from rnnbench.report.text import how_sure, ranking_text, ratio_with_interval, with_interval
from tests.report.fake import Fake, make
from tests.report.fake_gpu import make_gpu
from tests.report.test_report import context_of, shown, undrawn, written
from tests.report.test_sweep import fake_of

WILD = re.compile(r"([\d,.]+|inf)x? \(([\d,.]+|inf) to ([\d,.]+|inf)\)")


def of_launches(value: float, low: float, high: float) -> Interval:
    return Interval(value, low, high, Basis.LAUNCHES, 3)


def disturbed(slower: dict[str, float], workload: str = "imdb-50") -> Fake:
    """As if other programs had held these backends back in the last of three launches, by so many times."""
    fake = make(("parity", "imdb-50"), ("numba", "jax", "torch", "numpy"), (Pass.FORWARD, Pass.TRAIN_STEP))
    records = [
        replace(r, samples_ns=tuple(round(slower[r.backend] * ns) for ns in r.samples_ns))
        if isinstance(r, TurnRecord) and r.launch == 2 and r.backend in slower and r.case.workload == workload
        else r
        for r in fake.records
    ]
    return replace(fake, records=records)


@pytest.mark.parametrize(
    ("interval", "noisy"),
    [
        (of_launches(2, 1.0, 3.0), False),
        (of_launches(2, 1.0, 3.01), True),
        (of_launches(2, 0.0, math.inf), True),
        (Interval(2, 1.0, 3.1, Basis.ROUNDS, 4), True),
        (interval_of({(0, 0, 0): 1.0}), False),
        (interval_of({(0, 0, 0): 1.0, (0, 1, 0): 2.9}), False),
        (interval_of({(0, 0, 0): 1.0, (0, 1, 0): 3.1}), True),
    ],
)
def test_an_interval_is_noisy_from_a_factor_of_3_on(interval, noisy):
    assert interval.noisy is noisy


def test_a_noisy_value_has_two_digits_and_no_interval():
    assert with_interval(of_launches(2156e-6, 900e-6, 4e-3), 1e-6) == "about 2,200 (noisy)"
    assert with_interval(of_launches(0.213, 0.2, 0.22)) == "0.213 (0.200 to 0.220)"
    assert ratio_with_interval(of_launches(87.3, 1e-3, 835_238)) == "about 87x (noisy)"
    assert with_interval(interval_of({(0, 0, 0): 2.757, (0, 1, 0): 21.519})) == "about 7.7‡ (noisy)"
    assert ratio_with_interval(Interval(3.0, 1.0, 9.0, Basis.ROUNDS, 4)) == "about 3.0x† (noisy)"


@pytest.mark.usefixtures("no_figures")
def test_no_wild_interval_is_written_out(tmp_path):
    fake = disturbed({"torch": 700.0, "jax": 12.0, "numba": 0.2})
    text, on_screen = written(tmp_path, fake), shown(fake, width=200)
    for page in (text, on_screen):
        ends = [[float(end.replace(",", "")) for end in found[1:]] for found in WILD.findall(page)]
        assert ends
        assert all(high <= 3.2 * low for low, high in ends)  # 3, of ends that are rounded
        assert "(noisy) its 95 % interval is wider than a factor of 3, or its two launches are further apart: " in page
    times, speedups = (pd.read_csv(tmp_path / "tables" / f"{name}.csv") for name in ("times", "speedups"))
    wild = times[(times["backend"] == "torch") & (times["workload"] == "imdb-50")]
    assert (wild["high"] > 1000 * wild["low"]).all()
    assert (speedups["high"] > 1000 * speedups["low"]).any()


def test_a_lead_that_is_too_noisy_is_said_in_words():
    (forward,) = (
        line for line in undrawn(disturbed({"jax": 0.3})).splitlines() if line.startswith("- **imdb-50 forward**")
    )
    assert "no sure difference to jax (noisy, 3 launches), " in forward
    assert re.search(r", 9\.\dx \([\d.]+ to [\d.]+\) ahead of torch\.$", forward)
    near = replace(context_of(make(("parity",), ("numba", "jax"), (Pass.FORWARD,))).rankings[0])
    far = replace(near, lead=of_launches(7.0, 1.4, 35.4), reference=None, over_reference=None)
    assert ranking_text(far).endswith(", about 7.0x ahead of jax (noisy, 3 launches)")
    assert how_sure(far) == "sure"  # that it is ahead
    one = replace(far, lead=Interval(7.0, 0.4, 35.4, Basis.ROUNDS, 4))
    assert ranking_text(one).endswith(", no sure difference to jax (noisy, 4 rounds of one launch)")
    assert how_sure(one) == "one launch only"
    slow = replace(far, time=of_launches(5448e-6, 4e-4, 7e-2))
    assert ranking_text(slow).startswith("numba about 5.4 ms, about 7.0x ahead")


@pytest.mark.parametrize("slower", [{"torch": 700.0}, {"jax": 12.0}, {"jax": 0.3, "torch": 9.0}, {}])
def test_what_is_sure_is_told_apart_from_every_backend_that_is_named(slower):
    """The reference was noisy, the runner-up not: the answer read `no sure difference to torch (sure)`."""
    fake = disturbed(slower)
    leads = undrawn(fake).split("## The fastest in each case")[1].split("\n## ")[0]
    answer = [line for line in leads.splitlines() if line.startswith("- **")]
    assert len(answer) == 4
    for line in answer:
        assert ("(sure)" in line) == ("no sure difference" not in line), line
    for ranking in context_of(fake).rankings:
        assert ranking.sure == all(lead.low > 1 for lead in ranking.leads.values())
    assert any("no sure" in line for line in answer) == bool(slower)


def interval_ends(ax) -> list[tuple[float, float]]:
    """The bars that lie in the panel."""
    return [tuple(line.get_xdata()) for line in ax.lines if len(line.get_xdata()) == 2 and line.get_linewidth() == 1.6]


@pytest.mark.parametrize("name", ["time", "speedup"])
def test_an_axis_ends_where_the_values_do_and_a_bar_that_goes_on_has_an_arrow(name):
    fake = disturbed({"torch": 700.0})
    (page,) = plots.draw_figure(name, context_of(fake))
    quiet, wild = (
        next(ax for ax in page.figure.axes if ax.get_title(loc="left").startswith(f"{workload}: train_step"))
        for workload in ("parity", "imdb-50")
    )
    points = [line.get_xdata()[0] for ax in page.figure.axes for line in ax.lines if len(line.get_xdata()) == 1]
    low, high = wild.get_xlim()
    assert low >= min(points) / 2
    assert high <= 100 * max(points)  # the room for labels is in it
    assert all(low <= start < end <= high for start, end in interval_ends(wild))
    arrows = [{line.get_marker() for line in ax.lines} & {layout.LEFT, layout.RIGHT} for ax in (quiet, wild)]
    assert arrows[0] == set()
    assert (arrows[1] == {layout.LEFT, layout.RIGHT}) if name == "speedup" else (arrows[1] == {layout.RIGHT})


def test_two_launches_that_differ_are_noisy_in_words_and_in_figures():
    fake = disturbed({"torch": 9.0})
    records = [r for r in fake.records if getattr(r, "launch", 0) != 1]
    data = ReportData(records, [], fake.machine, fake.run)
    (forward,) = (line for line in undrawn(fake, records).splitlines() if line.startswith("- **imdb-50 forward**"))
    assert re.search(
        r"3\.\dx‡ ahead of jax, about 2\dx ahead of torch \(noisy, 2 launches\) \(no interval\)\.$", forward
    )
    for name, label in (("time", r"about \d.* ms$"), ("speedup", r"about 2\dx$")):
        (page,) = plots.draw_figure(name, data)
        (ax,) = (ax for ax in page.figure.axes if ax.get_title(loc="left").startswith("imdb-50: train_step"))
        assert any(re.fullmatch(label, text.get_text()) for text in ax.texts), [text.get_text() for text in ax.texts]


def test_bars_of_a_gpu_are_cut():
    pair = next(d for d in context_of(make_gpu()).on_device if d.time)
    wild = replace(
        pair, time=replace(pair.time, low=pair.time.value / 1e3, high=pair.time.value * 1e3, basis=Basis.LAUNCHES)
    )
    ax = Figure().subplots()
    gpu.draw_pairs(ax, [wild], 1.0, gpu.MICRO)
    end, notes = ax.get_xlim()[1], [text for text in ax.texts if isinstance(text, Annotation)]
    assert all(max(line.get_xdata()) < end for line in ax.lines)
    assert all(note.xy[0] < 0.7 * end for note in notes)  # the words have their room
    assert any(line.get_marker() == layout.RIGHT for line in ax.lines)
    assert "about" in notes[0].get_text()


def test_runs_of_a_history_are_cut():
    (summary,) = context_of(make(("parity",), ("numba",), (Pass.FORWARD,))).summaries
    assert summary.time
    times = [replace(summary.time, low=summary.time.value / far, high=summary.time.value * far) for far in (1.01, 1e3)]
    run = DatedRun("fake", "", "", None, False, Side(summary.records))
    line = Line(summary.case, "numba", tuple(RunPoint(run, replace(summary, time=time)) for time in times))
    ax = Figure().subplots()
    history.panel(ax, line, "parity forward numba")
    low, high = ax.get_ylim()
    bars = [line.get_ydata() for line in ax.lines if len(line.get_ydata()) == 2 and line.get_linewidth() == 1.2]
    assert len(bars) == 2
    assert all(low <= start < end <= high for start, end in bars)
    assert [line.get_marker() for line in ax.lines if line.get_marker() in (layout.DOWN, layout.UP)] == [
        layout.DOWN,
        layout.UP,
    ]


def test_a_precision_that_is_too_noisy_is_said_in_words():
    fake = make(("parity",), ("numba", "jax"), (Pass.FORWARD,))
    key = fake.records[0].case.key
    stops = {
        key: {
            "numba": {"why": Why.ALL, "reached": 0.03, "launches": 3},
            "jax": {"why": Why.ALL, "reached": 8352.0, "launches": 3},
        }
    }
    section = stops_section(ReportData(fake.records, [], fake.machine, fake.run | {"stops": stops}))
    assert list(section.blocks[0].iloc[0])[1:] == ["3 %, 3", "noisy, 3"]
    assert section.brief[0].endswith("the least precise is parity forward jax, noisy")


BUSY = {"end": {"others_share": 0.573, "load_per_core": 2.0}}
LOADED = {"start": {"load_per_core": 0.53}, "end": {"others_share": 0.01}}


def first_line(page: str) -> str:
    return page.split("## Answer")[1].strip().splitlines()[0]


def test_the_answer_of_a_disturbed_run_begins_with_that():
    quiet = make(("parity",), ("numba", "jax"), (Pass.FORWARD,))
    assert first_line(undrawn(quiet)).startswith("- **parity**")
    assert "isturbed" not in shown(quiet)
    busy = replace(quiet, machine=quiet.machine | BUSY)
    said = "other processes took 57.3 % of the allowed cores' time during the run; more than 5.0 % disturbs."
    remedy = "Remedy: end other programs, or measure when they rest; trust ratios within rounds only."
    assert first_line(undrawn(busy)) == f"- **Disturbed**: {said} *{remedy}*"
    assert shown(busy, width=400).split("\nAnswer\n")[1].splitlines()[0].strip() == f"Disturbed: {said} {remedy}"
    some = first_line(undrawn(replace(quiet, machine=quiet.machine | {"end": {"others_share": 0.06}})))
    assert some.startswith("- **Perhaps disturbed**: other processes took 6.0 % of the allowed cores' time")
    loaded = undrawn(replace(quiet, machine=quiet.machine | LOADED))
    assert first_line(loaded) == first_line(undrawn(quiet))
    assert "load 0.53 per core at the start of the run" in loaded
    asleep = [replace(r, disturbances=("suspended for 3 s",)) if isinstance(r, TurnRecord) and r.round == 1 else r
              for r in quiet.records]  # fmt: skip
    assert first_line(undrawn(quiet, asleep)).startswith("- **Disturbed**: suspended for 3 s (")


def test_the_answer_of_a_disturbed_sweep_begins_with_that():
    fake = fake_of(mode=Mode.DEFAULT)
    busy = replace(fake, machine=fake.machine | BUSY)
    assert first_line(undrawn(busy)).startswith("- **Disturbed**: other processes took 57.3 %")
    assert shown(busy, width=400).count("Disturbed: ") == 1
