"""The answer of a report: what to use for each network, what weakens that before it, one screen of it."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from rnnbench.model import DType, Pass
from rnnbench.records.record import CheckRecord, Costs, Status, TurnRecord
from rnnbench.report.answer import answer_section
from rnnbench.report.data import ReportData
from rnnbench.report.facts import machine_section
from rnnbench.report.plots.layout import mark_lanes
from rnnbench.report.section import markdown
from tests.report.fake import MIXED, Fake, make
from tests.report.test_noisy import BUSY
from tests.report.test_report import context_of, shown, undrawn

NETWORKS = ("parity", "imdb-50")


def answer(fake: Fake) -> str:
    return markdown([answer_section(context_of(fake))], {}).replace("\\", "")


def told(fake: Fake, network: str) -> str:
    (line,) = re.findall(rf"^- \*\*{network}\*\*: .*$", answer(fake), re.MULTILINE)
    return line


def slower(fake: Fake, backend: str, factor: float, pass_: Pass | None = None) -> Fake:
    """As if a backend took so many times as long, in one pass or in all."""
    records = [
        replace(r, samples_ns=tuple(round(factor * ns) for ns in r.samples_ns))
        if isinstance(r, TurnRecord) and r.backend == backend and pass_ in (None, r.case.pass_)
        else r
        for r in fake.records
    ]
    return replace(fake, records=records)


def starting(fake: Fake, seconds: dict[str, float]) -> Fake:
    """As if each backend's first call took so long, all that comes before it nothing, and no pass came before."""
    records = [
        replace(r, costs=Costs(0, 0, round(1e9 * seconds[r.backend]), cache="cold") if r.costs != Costs() else r.costs)
        if isinstance(r, CheckRecord)
        else r
        for r in fake.records
    ]
    return replace(fake, records=records)


def test_a_network_has_one_sentence_that_says_what_to_use():
    fake = make(NETWORKS, ("numba", "jax", "torch"))
    line = told(fake, "imdb-50")
    said = r"use numba: a train step takes [\d.]+ ms, 3\.\dx \([\d.]+ to [\d.]+\) ahead of jax, [89]\.\dx .* of torch"
    assert re.search(rf"{said} \(sure\)\.", line)
    assert "First in forward, gradient and epoch too." in line
    assert len(re.findall(r"^- \*\*(parity|imdb-50)\*\*", answer(fake), re.MULTILINE)) == 2
    assert "- **How sure**: in 8 of 8 cases every lead is above 1" in answer(fake)
    assert "- **Measured on**: Made-up CPU 9000, 2 cores, 2026-01-02." in answer(fake)


def test_what_is_level_is_named_with_the_fastest():
    level = slower(make(("parity",), ("numba", "jax", "torch")), "jax", 1 / 3.3)
    assert re.search(r"use (numba or jax|jax or numba): a train step takes \w+ ", told(level, "parity"))
    assert "no sure difference to" in told(level, "parity")


def test_another_pass_with_another_first_is_said():
    fake = slower(make(("parity",), ("numba", "jax", "torch")), "jax", 0.1, Pass.FORWARD)
    line = told(fake, "parity")
    assert re.search(r"In forward jax is first: [\d.]+ µs, 3\.\dx .* ahead of numba", line)
    assert "First in gradient and epoch too." in line


def test_what_is_little_slower_and_starts_sooner_is_named():
    fake = slower(make(("parity",), ("numba", "jax"), (Pass.TRAIN_STEP,)), "jax", 1.1 / 3.3)
    line = told(starting(fake, {"numba": 10.0, "jax": 1.0}), "parity")
    assert re.search(r"jax takes 1\.\d\dx as long, but starts in 1\.0 s\.", line)
    assert re.search(
        r"For fewer than about [\d,]+00 steps jax is done first: it starts in 1\.0 s, numba in 10 s\.", line
    )
    line = told(starting(fake, {"numba": 1.0, "jax": 10.0}), "parity")
    assert "starts in" not in line


def test_one_backend_none_and_wrong_ones():
    only = told(make(("parity",), ("numba",), (Pass.TRAIN_STEP,)), "parity")
    assert "only numba was measured: a train step takes" in only
    failed = {("*", name): (Status.CRASHED, "killed") for name in ("numba", "jax")}
    assert "no backend was measured (2 crashed)" in told(make(("parity",), ("numba", "jax"), failures=failed), "parity")
    assert "- **Wrong, in no ranking**" not in answer(make(("parity",), ("numba", "jax")))
    assert "Wrong, in no ranking: jax in 4 of 12 cases." in answer(make(failures=MIXED))


def test_of_few_launches_nothing_is_sure():
    said = answer(make(("parity",), ("numba", "jax"), (Pass.FORWARD,), launches=1))
    assert (
        "How sure**: no lead is sure: there was only one launch, and the spread between launches is known from 3 on."
        in said
    )


def test_severe_warnings_stand_before_the_sentences_that_they_weaken():
    fake = make(("parity",), ("numba", "jax"), (Pass.FORWARD,))
    fake = replace(fake, machine=fake.machine | BUSY | {"limits": {"cpus": 1}})
    said = answer(fake)
    places = [said.index(lead) for lead in ("- **Disturbed**", "- **More threads than cores**", "- **parity**")]
    assert max(places) == places[2]
    assert said.count("*Remedy: ") == 2
    assert shown(fake, 300).split("\nAnswer\n")[1].index("More threads") < shown(fake, 300).rindex("parity: use")


def test_the_page_is_one_screen_and_links_to_the_rest():
    text = undrawn(make(NETWORKS))
    first, rest = text.split("\n## Warnings" if "\n## Warnings" in text else "\n## Time per step", 1)
    assert len(first.splitlines()) < 30
    titles = {title.lower() for title in re.findall(r"^## (.*)$", rest, re.MULTILINE)}
    links = dict(re.findall(r"\[([^]*]+)\]\(#([\w-]+)\)", first))
    assert {title.lower() for title in links} - {"warnings"} == titles - {"other figures"} - {"warnings"}
    assert "](report.html)" in first
    assert links["Where the time goes"] == "where-the-time-goes"


def test_the_machine_is_a_dozen_facts_and_the_rest_is_folded():
    cpu = {
        "model": "CPU", "allowed": 2, "mhz": 2600, "features": ["avx2", "avx512f"],
        "cache_bytes": {"l1d": 49152, "l2": 2 << 20}, "container": "docker", "governor": None, "turbo": "off",
    }  # fmt: skip
    machine = {"cpu": cpu, "memory_bytes": 8 << 30, "os": "Linux 6", "gpu": None, "limits": {"cpus": 1.5}}
    section = machine_section(ReportData([], machine=machine))
    shown_first, rest = section.blocks
    facts = dict(zip(shown_first["fact"], shown_first["value"], strict=True))
    assert len(facts) <= 12
    assert facts["processor"] == "CPU, 2 cores, of which 1.5 may be used"
    assert facts["vector units"] == "AVX-512, AVX2"
    assert facts["caches"] == "L1D 48 KiB, L2 2.00 MiB"
    assert facts["clock"] == "2,600 MHz, governor unknown, turbo off"
    assert facts["memory"] == "8.0 GiB"
    assert rest.folded
    assert "cpu features" in set(rest.blocks[0]["fact"])
    assert "<details><summary>Everything that was recorded of it</summary>" in markdown([section], {})


def test_one_order_of_backends_for_all_tables():
    fake = make(failures=MIXED, dtypes=tuple(DType))
    order = context_of(fake).backends
    assert order[0] == "numba"
    assert order[-1] == "tensorflow"  # not there
    for problem in context_of(fake).problems:
        assert problem.backends == order
    tables = re.split(r"\n\n", undrawn(fake))
    found = [re.findall(r"^\| ([\w+]+) ", table, re.MULTILINE)[1:] for table in tables if table.startswith("| backend")]
    assert len(found) > 20
    for names in found:
        places = [order.index(name) for name in names if name in order]
        assert places == sorted(places), names


@pytest.mark.parametrize(
    ("places", "expected"),
    [([], []), ([3], [0]), ([0, 10, 20], [0, 0, 0]), ([0, 1, 2], [0, 1, 2]), ([20, 0, 1, 12], [0, 0, 1, 0])],
)
def test_marks_that_would_hide_each_other_have_lanes(places, expected):
    assert mark_lanes(places, 5) == expected
