"""The part of the report on GPUs over made-up records: there where a GPU backend was timed, and nowhere else."""

from __future__ import annotations

import re
from dataclasses import replace

import pandas as pd
import pytest

from rnnbench.analysis.stats import summaries, times_frame
from rnnbench.model import DType, Pass
from rnnbench.records.record import CheckRecord, Status, TurnRecord, turns_in
from rnnbench.report import devices, plots
from rnnbench.report.data import ReportData
from rnnbench.report.plots.gpu import device_groups, duels, lines_of, looks_of, rivals
from rnnbench.report.section import markdown
from rnnbench.sizes import Sizes, Sweep
from tests.report.fake import Fake, make
from tests.report.fake_gpu import make_gpu, seconds_of, sweep_gpu
from tests.report.test_report import shown, written

FIGURES = ("gpu-sweep", "gpu-step", "device-time")
SMALL = Sweep(H=(16, 64, 256), centre=Sizes(64, 32, 100))
FOUR = ("numba", "cuda", "torch-cuda", "jax-cuda")


def context_of(fake: Fake) -> ReportData:
    return ReportData(fake.records, fake.epochs, fake.machine, fake.run)


def told(context: ReportData) -> str:
    return markdown([devices.crossings_section(context), devices.on_the_gpu_section(context)], {})


def test_a_run_on_both(tmp_path):
    text = written(tmp_path, make_gpu(("parity",), FOUR, (Pass.GRADIENT,)))
    for name in FIGURES[1:]:
        assert (tmp_path / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "figures" / "gpu-sweep.png").exists()
    section = text.split("## On the GPU")[1].split("\n## ")[0]
    assert re.search(
        r"parity gradient +\| +cuda +\| +5\d\.\d µs \| +1[01]\.\d µs \| +(19|20|21) % \| +3\.0 MiB", section
    )
    assert re.search(r"jax-cuda +\| +\S+ (µs|ms) \| +- \| +- \|", section)
    assert re.search(r"parity gradient +\| +cuda \| +torch-cuda \| +1\.\d\dx .* \| +3\.\dx", section)
    assert "power cap: 3 of 12" in section
    assert "1,500 to 1,980 MHz" in section
    assert "nan" not in section.lower()
    table = pd.read_csv(tmp_path / "tables" / "times.csv").set_index("backend")
    assert table.loc["cuda", "device_seconds"] == pytest.approx(11e-6, rel=0.1)
    assert table["device_seconds"].isna().to_dict() == {
        "numba": True, "cuda": False, "torch-cuda": False, "jax-cuda": True,
    }  # fmt: skip
    assert table.loc["torch-cuda", "peak_device_bytes"] == 3 << 20
    shares = pd.read_csv(tmp_path / "tables" / "shares.csv").set_index("backend")["share_of_peak"]
    assert shares.notna().to_dict() == {name: name == "numba" for name in FOUR}  # the peak is the processor's


def test_a_sweep_on_both_says_where_the_gpu_starts_to_win(tmp_path):
    text = written(tmp_path, sweep_gpu(FOUR, SMALL))
    for name in FIGURES:
        assert (tmp_path / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    section = text.split("## From which size the GPU is faster")[1].split("\n## ")[0]
    assert len(re.findall(r"\| +from \d\d \| +16, 64, 256 \|", section)) == 6  # three GPU backends, two passes
    assert "At the centre of the sweep" in text
    assert "made-up E256" not in text.split("## On the GPU")[1].split("\n## ")[0]


def test_the_crossing_of_a_panel_is_between_the_sizes_that_it_lies_between():
    context = context_of(sweep_gpu(("numba", "torch", "torch-cuda"), SMALL))
    (duel,) = [d for d in duels(context) if d.pass_ is Pass.FORWARD]
    assert duel.gpu == {"torch-cuda"}
    (stretch,) = duel.ahead.stretches
    assert 16 < stretch.since < 64
    assert stretch.until is None
    cases = {s.case.model.H: s.case for s in context.summaries if s.case.pass_ is Pass.FORWARD}
    for H, seconds in duel.cpu.items():
        assert seconds == pytest.approx(seconds_of(cases[H], "numba")[0], rel=0.1)


@pytest.mark.parametrize(
    "fake",
    [
        make(("parity",), ("numpy", "numba"), (Pass.FORWARD,)),
        make_gpu(("parity",), ("numba", "torch"), (Pass.FORWARD,)),
        sweep_gpu(("numba",), SMALL),
        make(("parity",), ("numba", "cuda"), failures={("*", "cuda"): (Status.UNAVAILABLE, "no driver")}),
    ],
    ids=["cpu", "cpu of a mixed machine", "a sweep", "no device"],
)
def test_without_a_timed_gpu_backend_nothing_is_said_or_drawn(fake):
    context = context_of(fake)
    assert told(context) == ""
    assert all(plots.draw_figure(name, context) == [] for name in FIGURES)
    assert "on the device" not in shown(fake)


def test_a_gpu_alone_has_nobody_to_overtake():
    context = context_of(sweep_gpu(("cuda", "torch-cuda"), SMALL))
    assert plots.draw_figure("gpu-sweep", context) == []
    assert "From which size" not in told(context)
    assert "## On the GPU" in told(context)


def test_a_wrong_answer_stands_in_no_pair_and_no_ratio():
    fake = make_gpu(("parity",), ("cuda", "torch-cuda"), (Pass.FORWARD,))
    wrong = [
        replace(r, status=Status.WRONG, reason="error of loss is 1")
        if r.backend == "cuda" and isinstance(r, CheckRecord)
        else r
        for r in fake.records
    ]
    context = context_of(Fake(wrong, [], fake.machine, fake.run))
    assert [d.summary.backend for group in device_groups(context).values() for d in group] == ["torch-cuda"]
    assert rivals(context) == {}
    assert "cuda (wrong)" in told(context)
    assert "Ratios by device time" not in told(context)


def test_rankings_stay_by_wall_time_where_the_device_says_otherwise():
    fake = make_gpu(("parity",), ("cuda", "torch-cuda+tf32"), (Pass.FORWARD,))
    slower = [
        replace(r, device_ns=tuple(2 * ns for ns in r.device_ns))
        if isinstance(r, TurnRecord) and r.backend == "cuda"
        else r
        for r in fake.records
    ]
    context = context_of(Fake(slower, [], fake.machine, fake.run))
    assert context.rankings[0].fastest == "cuda"
    ratios = told(context).split("### Ratios by device time")[1]
    assert re.search(r"parity forward +\| +torch-cuda\+tf32 \| +cuda \| +2\.0x .* \| +0\.2\dx", ratios)


def test_bars_and_lines_hold_what_was_recorded():
    fake = make_gpu(("parity",), FOUR, (Pass.GRADIENT, Pass.EPOCH))
    context = context_of(fake)
    assert len(plots.draw_figure("device-time", context)) == 1
    for key, group in device_groups(context).items():
        for d in group:
            wall, device = seconds_of(d.summary.case, d.summary.backend)
            assert d.wall.value == pytest.approx(wall, rel=0.1), key
            assert (d.time is None) is (device is None)
            if device is not None:
                assert d.time.value == pytest.approx(device, rel=0.1)
    context = context_of(sweep_gpu(("cuda", "torch-cuda"), SMALL))
    lines = lines_of(context, rivals(context), "H", Pass.FORWARD, DType.FLOAT32)
    assert lines.keys() == {(name, kind) for name in ("cuda", "torch-cuda") for kind in ("wall", "device")}
    assert [size for size, _ in lines["cuda", "device"]] == [16, 64, 256]
    assert lines["cuda", "device"][0][1] == pytest.approx(0.71, rel=0.1)  # microseconds for each of 100 steps


def test_cpu_lines_share_a_hue_and_a_dash():
    looks = looks_of(FOUR, frozenset(FOUR[1:]))
    assert looks["numba"].line == "--"
    assert {looks[name].line for name in FOUR[1:]} == {"-"}
    assert len({look.colour for look in looks.values()}) == 4


def test_the_terminal_shows_device_time_beside_wall_time():
    text = shown(make_gpu(("parity",), FOUR, (Pass.FORWARD,)))
    assert re.search(r"parity forward +cuda +2\d\.\d µs +3\.\d\d µs", text)
    assert not re.search(r"parity forward +jax-cuda", text)


def test_records_without_a_contract_still_tell_the_device():
    fake = make_gpu(("parity",), ("cuda", "numba"), (Pass.FORWARD,))
    turns = turns_in(fake.records)
    assert context_of(Fake(turns, [])).gpu_backends == ["cuda"]
    assert len(times_frame(summaries(turns))) == 2
