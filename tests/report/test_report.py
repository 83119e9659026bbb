"""The report over believable runs: every part is there, nothing is hidden, nothing is cut."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from dataclasses import replace

import pandas as pd
import pytest
from rich.console import Console

from rnnbench.model import DType, Pass, Truncation
from rnnbench.records.record import CheckRecord, Energy, ErrorOf, Mode, Record, Status, turns_in
from rnnbench.report import page
from rnnbench.report.data import ReportData
from rnnbench.report.page import write_report
from rnnbench.report.style import look
from rnnbench.report.terminal import render
from tests.report.fake import BACKENDS, MIXED, Fake, make, trial

FIGURES = ("time", "speedup", "roofline", "costs", "break-even", "errors", "curves")


def context_of(fake: Fake, reference=None) -> ReportData:
    return ReportData(fake.records, fake.epochs, fake.machine, fake.run, reference)


def written(folder, fake: Fake, reference=None, vector=False) -> str:
    paths = write_report(folder, context_of(fake, reference), vector=vector)
    assert all(path.stat().st_size > 0 for path in paths)
    text = (folder / "report.md").read_text()
    for name in re.findall(r"!\[[^\]]*\]\(([^)]*)\)", text):
        assert (folder / name).exists(), name
    return text.replace("\\", "")


def shown(fake: Fake, width: int = 120) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    with console.file:
        render(console, context_of(fake))
    return console.export_text()


def test_what_was_judged_in_part_is_said():
    fake = make()
    assert "Judged in part" not in undrawn(fake)
    records = [
        replace(r, errors={**r.errors, "losses of 6 of 20 steps": ErrorOf(1e-3, 2e-2)})
        if isinstance(r, CheckRecord)
        and (r.case.workload, r.case.pass_, r.backend) == ("imdb-50", Pass.TRAIN_STEP, "jax")
        else r
        for r in fake.records
    ]
    text = undrawn(fake, records)
    assert "can be: imdb-50 train_step, 6 of 20 steps (jax)." in text


def found_threads(made: Fake, one: set[str], failed: str = "") -> Fake:
    """As if each number of threads had been found: one for some backends, and else two."""
    records: list[Record] = []
    for r in made.records:
        n = 1 if r.backend in one else 2
        given = {"threads": n, "tried": (1, 2)}
        if isinstance(r, CheckRecord) and r.launch == 0:
            if r.backend == failed:
                reason = {"status": Status.CRASHED, "reason": "first: no thread"}
                records.append(trial(r.case, r.backend, threads=2, tried=(1, 2), pair=0, **reason))
            else:
                seconds = {1: 0.001, 2: 0.0015 if n == 1 else 0.0008}
                records += [
                    trial(r.case, r.backend, threads=m, tried=(1, 2), pair=p, samples_ns=(round(s * 1e9),))
                    for p in (0, 1)
                    for m, s in seconds.items()
                ]
        if isinstance(r, CheckRecord) and r.contract:
            r = replace(r, contract=replace(r.contract, threads=n))
        records.append(replace(r, **given))
    return replace(made, records=records)


def test_the_threads_of_each_number_are_shown(tmp_path):
    made = make(("parity", "imdb-50"), ("numba", "jax", "torch"))
    plain = undrawn(made)
    assert "¹" not in plain
    assert "Threads</summary>" not in plain
    fake = found_threads(made, {"jax", "torch"}, failed="torch")
    text = written(tmp_path / "found", fake)
    times = text.split("## Time per step")[1].split("\n## ")[0]
    assert len(re.findall(r"^\| jax .*¹.*¹.*¹.*¹", times, re.MULTILINE)) == 2
    assert not re.search(r"^\| \**numba.*¹", times, re.MULTILINE)
    assert "¹ by one thread; times without this mark are by all threads of the run." in times
    section = text.split("Threads</summary>")[1].split("</details>")[0]
    assert "Threads: 16 of 24 by 1, 8 of 24 by 2, the faster in a trial before." in section
    assert re.search(r"\| jax +\| +1 \(1.50x\) \| +1 \(1.50x\) \| +1 \(1.50x\) \| +1 \(1.50x\) \|", section)
    assert re.search(r"\| numba +\| +2 \(1.25x\) \|", section)
    assert "1, crashed with 2 threads: first: no thread" in section
    assert "numba" in (answer := text.split("## The run")[0])
    assert " by 2 threads, " in answer
    missing = text.split("## Not measured, or not fully")[1]
    assert re.search(r"torch +\| +ok +\| .*crashed with 2 threads: first: no thread", missing)
    table = pd.read_csv(tmp_path / "found" / "tables" / "times.csv")
    assert dict(zip(table["backend"], table["threads"], strict=True)) == {"numba": 2, "jax": 1, "torch": 1}
    on_screen = shown(fake)
    assert "¹ by one thread" in on_screen
    assert "Threads: 16 of 24 by 1, 8 of 24 by 2" in on_screen


def test_a_whole_run(tmp_path):
    fake = make(failures=MIXED)
    text = written(tmp_path, fake, vector=True)
    for name in FIGURES:
        assert (tmp_path / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (tmp_path / "figures" / f"{name}.svg").read_text()
        assert f"[as SVG](figures/{name}.svg)" in text
    for heading in ("Answer", "The run", "The machine", "The work", "Learning curves"):
        assert f"## {heading}" in text, heading
    for folded in ("Subnormals: kept or flushed", "What each backend does", "How the numbers were made"):
        assert f"<details><summary>{folded}</summary>" in text, folded
    answer = text.split("## The run")[0]
    assert "numba" in answer
    assert "ahead of jax" in answer
    for reason in ("no answer within 120 s", "killed by signal 9", "error of grad W_hh is 0.31", "not installed"):
        assert reason in text, reason
    assert "Made up, in place of the real rows: imdb-synthetic-200" in text
    assert "Made-up CPU 9000" in text
    assert "quick" not in answer


def test_what_is_drawn_again_as_png_alone_leaves_no_older_svg(tmp_path):
    fake = make(("parity",), ("numpy", "numba"), (Pass.FORWARD,))
    assert "[as SVG](figures/time.svg)" in written(tmp_path, fake, vector=True)
    assert "SVG" not in written(tmp_path, fake)
    assert list((tmp_path / "figures").glob("*.svg")) == []


SIDE_BY_SIDE = """
import sys
from pathlib import Path
from rnnbench.model import Pass
from rnnbench.report import page
from tests.report.fake import make
from tests.report.test_report import context_of

assert not sys.modules.keys() & page.THREADED
fake = make(("parity", "imdb-50"), ("numpy", "numba"), (Pass.FORWARD,))
for n in (1, 2):
    for path in page.write_report(Path(sys.argv[1]) / str(n), context_of(fake), vector=True, processes=n):
        print(n, path.relative_to(Path(sys.argv[1]) / str(n)))
"""


def test_figures_drawn_side_by_side_are_the_same(tmp_path):
    """In a process that no test has given a framework."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SIDE_BY_SIDE, tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    alone, beside = ([path[2:] for path in done.stdout.splitlines() if path[0] == n] for n in "12")
    assert alone == beside
    assert "figures/time.svg" in alone
    for path in alone:
        assert (tmp_path / "1" / path).read_bytes() == (tmp_path / "2" / path).read_bytes(), path


def drawn_by(parent: int, number: int, name: str) -> tuple[list[str], list[str]]:
    """A figure, by the parent alone: the others get this signal."""
    if os.getpid() != parent:
        os.kill(os.getpid(), number)
    return [name], []


DRAW = """
from functools import partial
from multiprocessing import active_children
from tests.report.test_report import FIGURES, drawn_by, os, page
page.DRAWN_WITHIN = 1.0
made = page._side_by_side(partial(drawn_by, os.getpid(), {number}), FIGURES, 2)
assert [name for (name,), _ in made] == list(FIGURES)
assert not active_children()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_drawing_process_that_dies_or_hangs_costs_no_figure(number):
    """In a process that has no framework: one that has, splits off none."""
    program = [sys.executable, "-c", DRAW.format(number=int(number))]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_shares_stand_under_the_ceilings_that_were_measured(tmp_path):
    fake = make(("imdb-50",), failures=MIXED, dtypes=tuple(DType), passes=(Pass.FORWARD, Pass.TRAIN_STEP))
    section = written(tmp_path, fake).split("## Share of the machine's peak")[1].split("\n## ")[0]
    assert re.search(r"float32, 2 threads +\| +160 GFLOP/s; 12.0 GB/s read, 16.0 GB/s read and written", section)
    assert "Best of many short trials: made up." in section
    assert re.search(r"numba +\| +[\d.]+ %, [\d.]+ GFLOP/s", section)
    assert "MFLOP" in section
    assert (tmp_path / "figures" / "roofline-2.png").exists()  # a page for each type
    table = pd.read_csv(tmp_path / "tables" / "shares.csv")
    timed = table[table["flops_per_second"].notna() & (table["dtype"] == "float32")]
    assert len(timed)
    assert (timed["share_of_peak"] - timed["flops_per_second"] / 160e9).abs().max() < 1e-9


def test_where_no_ceiling_is_known_nothing_is_said_of_it(tmp_path):
    fake = make(("parity",), ("numpy", "numba"), (Pass.FORWARD,))
    machine = {name: value for name, value in fake.machine.items() if name != "peak"}
    text = written(tmp_path, Fake(fake.records, fake.epochs, machine, fake.run))
    assert "peak" not in text.lower()
    assert not (tmp_path / "figures" / "roofline.png").exists()


def undrawn(fake: Fake, records=None) -> str:
    data = ReportData(records or fake.records, [], fake.machine, fake.run)
    return page.text(page.sections_of(data), "fake", {}).replace("\\", "")


def test_joules_of_a_call_where_they_are_known_and_one_line_where_not():
    fake = make(("parity",), ("numpy", "numba"), (Pass.FORWARD,))
    known = Energy(joules=0.07, seconds=0.2, source="rapl package-0")  # over 7 calls
    silent = Energy(reason="no energy counter: it is a virtual machine")
    records = [replace(r, energy=known if r.backend == "numba" else silent) for r in turns_in(fake.records)]
    section = undrawn(fake, records).split("## Energy")[1]
    assert "Counted by rapl package-0." in section
    assert re.search(r"numba +\| +10.0 \(10.0 to 10.0\)", section)
    assert re.search(r"numpy +\| +unknown", section)
    assert "Not known for 12 turns: no energy counter: it is a virtual machine." in section
    assert "## Energy" not in undrawn(fake)  # nobody looked


def test_warnings_stand_after_the_answer_and_in_the_terminal():
    fake = make(("parity",), ("numpy", "numba"), (Pass.FORWARD, Pass.GRADIENT), launches=2)
    text = undrawn(fake)
    assert text.index("## Answer") < text.index("## Warnings") < text.index("## The run")
    assert "**warning, few launches**: 2 launches, of fewer than 3" in text
    assert "4 answers in all. *Remedy: " in text
    assert shown(fake).count("few launches") == 1


@pytest.mark.usefixtures("no_figures")
def test_tables_can_be_read_back(tmp_path):
    written(tmp_path, make(("imdb-50", "imdb-synthetic-200"), passes=(Pass.FORWARD, Pass.TRAIN_STEP), failures=MIXED))
    names = {path.stem for path in (tmp_path / "tables").glob("*.csv")}
    assert {"times", "speedups", "costs", "errors", "curves"} <= names
    for name in names:
        table = pd.read_csv(tmp_path / "tables" / f"{name}.csv")
        assert len(table) > 0, name
    assert set(pd.read_csv(tmp_path / "tables" / "times.csv").backend) == set(BACKENDS)


def test_a_quick_run_says_so_first():
    fake = make(("parity",), mode=Mode.QUICK, launches=1, rounds=2)
    assert "quick: a smoke run, not for quoting" in undrawn(fake)[:200]
    assert shown(fake).split("quick: a smoke run, not for quoting")[0].strip() == ""
    assert shown(fake).split("\nAnswer\n")[1].startswith("quick: a smoke run")


def test_the_last_screen_is_the_answer_of_the_page():
    fake = make(failures=MIXED)
    before, answer = shown(fake, width=1000).split("\nAnswer\n")
    assert "synthetic stand-in" in before.splitlines()[0]
    assert "torch+compile timeout" in before
    assert "killed by signal 9" in before
    on_page = undrawn(fake).split("## Answer")[1].split("[**The same")[0]
    told = [re.sub(r"^- |\*\*", "", line) for line in on_page.splitlines() if line]
    assert [line.rstrip() for line in answer.splitlines() if line.strip()] == told


@pytest.mark.parametrize(
    "options",
    [
        {"workloads": ("parity", "imdb-50"), "backends": ("numpy", "numba")},
        {"workloads": ("parity",), "backends": ("numba",), "launches": 1, "rounds": 1, "samples": 1},
        {
            "workloads": ("running-parity",),
            "backends": ("numpy", "numba"),
            "truncations": (None, Truncation(20, 5)),
            "dtypes": tuple(DType),
        },
        {"workloads": ("parity", "imdb-50"), "passes": (Pass.FORWARD,)},
        {"failures": {("*", name): (Status.CRASHED, "a very long reason " * 40) for name in BACKENDS}},
    ],
    ids=["two backends", "one of everything", "truncated, two types", "forward alone", "all failed"],
)
def test_unusual_runs(tmp_path, options):
    fake = make(**options)
    text = written(tmp_path, fake)
    assert "nan" not in text.lower().replace("nanosecond", "")
    assert "running-parity" in text or "parity" in text
    assert shown(fake, width=80)


def test_nothing_but_a_training(tmp_path):
    fake = make()
    assert "## Learning curves" in written(tmp_path, Fake([], fake.epochs, fake.machine, fake.run))


def test_nothing_at_all(tmp_path):
    assert written(tmp_path, Fake([], []))
    assert "No case was measured" in shown(Fake([], []))


def test_a_chosen_reference(tmp_path):
    fake = make(("parity",))
    assert "over numba" in written(tmp_path, fake, reference="numba").lower()
    with pytest.raises(ValueError, match="is not in this run"):
        written(tmp_path, fake, reference="nobody")


def test_looks_tell_backends_apart():
    looks = [look(name) for name in BACKENDS]
    assert len({style.colour for style in looks}) == len(BACKENDS)
    assert len({style.marker for style in looks}) == len(BACKENDS)
    assert look("numba") == look("numba")
    assert look("some-new-backend").colour


def test_the_calls_behind_a_table_are_counted():
    fake = make(("imdb-50",), backends=("numba", "jax"), passes=(Pass.FORWARD,))
    section = undrawn(fake).split("## Time per step")[1].split("## Speed-up")[0]
    turns = turns_in(fake.records)
    counted = len(turns) * 6
    assert f"{counted:,} calls, after {len(turns)} warm-ups that are left out. Outliers, kept: " in section
    assert "not warm yet" not in section
