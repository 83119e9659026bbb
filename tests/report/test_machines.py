"""The page over machines: which backend is fastest where, and how its lead changes."""

from __future__ import annotations

import json
import re

import pytest

from rnnbench.analysis.machines import KindOfMachine, fastest_frame, followed, leads_by_fact, machines_frame
from rnnbench.analysis.stats import summaries
from rnnbench.report import html
from rnnbench.report.machines import machines_page, machines_sections, write_machines_page
from rnnbench.report.section import markdown
from tests.report.compared import machines
from tests.report.fake import case, record

ONE = {"model": "Small CPU", "allowed": 1, "cache_bytes": {"l2": 1 << 20, "l3": None}, "features": ["sse2", "avx2"]}
TWO = {
    "model": "Wide CPU",
    "allowed": 2,
    "cache_bytes": {"l2": 2 << 20, "l3": 32 << 20},
    "features": ["avx512f", "avx2"],
}


def turns(seconds):
    """Three launches of each backend in each case; the second is slower by a hundredth each time."""
    return [
        record(case(workload), name, [s * (1 + launch / 100)], launch=launch)
        for (workload, name), s in seconds.items()
        for launch in range(3)
    ]


@pytest.fixture
def kinds():
    small = turns(
        {("parity", "numba"): 1.0, ("parity", "torch"): 2.0, ("imdb-50", "numba"): 1.0, ("imdb-50", "torch"): 1.0}
    )
    wide = turns(
        {("parity", "numba"): 1.0, ("parity", "torch"): 8.0, ("imdb-50", "numba"): 2.0, ("imdb-50", "torch"): 1.0}
    )
    return [
        KindOfMachine("small", ["a"], {"cpu": ONE}, summaries(small)),
        KindOfMachine("wide", ["b", "c"], {"cpu": TWO}, summaries(wide)),
    ]


def test_facts_of_machines(kinds):
    frame = machines_frame(kinds)
    assert list(frame["cores"]) == [1, 2]
    assert list(frame["cache_bytes"]) == [1 << 20, 32 << 20]
    assert list(frame["vector_bits"]) == [256, 512]
    assert list(frame["machines"]) == ["a", "b, c"]
    unknown = KindOfMachine("x", [], {}, [])
    assert (unknown.model, unknown.cores, unknown.cache_bytes, unknown.vector_bits) == ("unknown", None, None, None)


def test_who_is_fastest_where(kinds):
    frame = fastest_frame(kinds).set_index(["case", "kind"])
    parity, imdb = case("parity").key, case("imdb-50").key
    assert frame.loc[(parity, "small"), "fastest"] == "numba"
    assert frame.loc[(parity, "small"), "lead"] == pytest.approx(2)
    assert frame.loc[(parity, "wide"), "lead"] == pytest.approx(8)
    assert frame.loc[(imdb, "wide"), "fastest"] == "torch"


def test_how_the_lead_changes(kinds):
    assert followed(kinds) == "numba"
    found = {(at.fact, at.value): at for at in leads_by_fact(kinds, "numba")}
    assert found["cores", 1].lead == pytest.approx(2**0.5)  # 2 and 1
    assert found["cores", 2].lead == pytest.approx(2)  # 8 and 1/2
    assert (found["cores", 2].ahead, found["cores", 2].cases) == (1, 2)
    assert {fact for fact, _ in found} == {"cores", "largest cache", "vector width"}
    assert leads_by_fact(kinds[:1], "numba") == []


def test_the_page(kinds, tmp_path):
    page = write_machines_page(tmp_path, "some-run", kinds)
    text = page.read_text()
    assert text.startswith("# rnnbench over machines: some-run\n")
    assert "numba, 2.0x (2.0 to 2.0) ahead of torch" in text
    assert "no sure difference" in text
    assert "How the lead of numba changes" in text
    assert "| vector width" in text
    assert "- **small**: 2 cases; numba is fastest in 1, no sure difference in 1" in text
    assert "- **wide**: 2 cases; numba is fastest in 1, torch is fastest in 1" in text
    whole = tmp_path / "machines.html"
    assert f"]({whole.name})" in text
    assert whole.read_text().startswith(html.FIRST)
    assert (tmp_path / "tables" / "fastest.csv").is_file()
    write_machines_page(tmp_path, "some-run", kinds[:1])  # one's own page may be written again
    assert "How the lead" not in page.read_text()
    for path in (page, whole):
        kept = path.read_text()
        path.write_text("not ours")
        with pytest.raises(FileExistsError):
            write_machines_page(tmp_path, "some-run", kinds)
        path.write_text(kept)


def test_the_page_has_ratios_of_one_machine_and_no_times():
    kinds = machines()
    data = json.loads(re.search(r'id="data">(.*?)</script>', machines_page("some-run", kinds))[1])
    assert len(data["results"]) == 2 * 2 * 2 * 4
    assert not any("time" in result for result in data["results"])
    assert data["reference"] == "torch"
    key = {"network": "imdb-50", "pass": "train_step", "backend": "numba"}
    found = [r["over"]["torch"]["value"] for r in data["results"] if key.items() <= r.items()]
    assert found[0] == pytest.approx(4 * found[1], rel=1e-2)
    crashed = [r for r in data["results"] if r["backend"] == "jax" and "missing" in r]
    assert {r["machine"] for r in crashed} == {kinds[1].label}
    assert data["figures"].keys() == {"speedup"}


def test_a_page_of_very_many_results_draws_none(monkeypatch):
    monkeypatch.setattr("rnnbench.report.machines.MAX_DRAWN", 31)
    assert 'data-figure="speedup"' not in machines_page("some-run", machines())


def test_a_page_without_anything_to_compare():
    nothing = KindOfMachine("none", [], {}, [])
    text = machines_page("some-run", [nothing])
    assert "No two backends were measured in one case." in text
    assert "nothing was measured" in text


def test_a_case_that_is_not_everywhere(kinds):
    lonely = KindOfMachine("small", ["a"], {"cpu": ONE}, [s for s in kinds[0].summaries if s.case.workload == "parity"])
    text = markdown(machines_sections([lonely, kinds[1]]), {})
    assert "not measured" in text
