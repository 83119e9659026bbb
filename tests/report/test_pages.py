"""Pages of comparisons and histories, the comment for a pull request, the badge: what they say; pages are whole."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest

from rnnbench.analysis.compare import Verdict
from rnnbench.model import Pass
from rnnbench.records.record import Mode, Status
from rnnbench.report.badge import badge
from rnnbench.report.comment import comment
from rnnbench.report.compare_page import comparison_page, write_comparison
from rnnbench.report.data import ReportData
from rnnbench.report.history_page import history_page
from tests.report.compared import compared, history
from tests.report.fake import make
from tests.report.test_html import Elements, embedded

COMPARED = compared()
HISTORY = history()


@pytest.fixture(scope="module", params=["comparison", "history"])
def whole(request) -> str:
    return comparison_page(*COMPARED) if request.param == "comparison" else history_page(*HISTORY)


def test_a_page_is_whole_by_itself_and_outlined(whole):
    elements = Elements(whole)
    places = [a[name] for _, a in elements.found for name in ("src", "href", "action") if a.get(name)]
    assert all(place.startswith(("#", "data:")) for place in places)
    assert not re.search(r"@import|url\(|fetch\(|https?://(?!www\.w3\.org/2000/svg)", whole)
    ids = Counter(a["id"] for _, a in elements.found if a.get("id"))
    assert max(ids.values()) == 1
    assert {a["href"][1:] for a in elements.all("a")} <= set(ids)
    headings = [int(tag[1]) for tag, _ in elements.found if re.fullmatch(r"h\d", tag)]
    assert headings[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(headings))
    regions = Counter(a["aria-label"] for _, a in elements.found if a.get("role") == "region")
    assert max(regions.values()) == 1
    assert elements.text[elements.text.index("Answer") :]


def test_the_page_of_a_comparison_names_what_changed_first():
    text = " ".join(" ".join(Elements(comparison_page(*COMPARED)).text).split())
    answer, _, rest = text.partition("What changed")
    assert re.search(r"Slower: 1 of 16 cases by more than 5 %: imdb-50 train_step numba 1\.30x \(", answer)
    assert re.search(r"Faster: 1 of 16 cases by more than 5 %: parity train_step torch 0\.50x", answer)
    assert "Broken: 2 of 16 cases failed or gave a wrong answer in new: parity forward jax" in answer
    assert "killed by signal 9" in rest
    assert re.search(r"commit a{12} b{12}, files were changed beside it", rest)
    page = embedded(comparison_page(*COMPARED))
    found = {(r["network"], r["pass"], r["backend"]): r for r in page["results"]}
    slower = found["imdb-50", "train_step", "numba"]
    assert slower["verdict"] == "slower"
    assert slower["change"]["low"] < slower["change"]["value"] == pytest.approx(1.3, rel=0.01)
    assert slower["change"]["text"].startswith("1.30x (")
    assert found["parity", "forward", "jax"]["missing"].startswith("not comparable: new: crashed")
    assert {r["network"] for r in page["results"] if r["main"]} == {"parity", "imdb-50"}
    assert page["figures"]["changed"]["band"] == pytest.approx([1 / 1.05, 1.05])


def test_where_nothing_changed_the_page_says_so_and_shows_the_main_pass():
    findings, *rest = compared(("imdb-50",), ("numba", "torch"), {})
    page = comparison_page(findings, *rest)
    assert "No change." in Elements(page).text
    assert {r["pass"] for r in embedded(page)["results"] if r["main"]} == {"train_step"}


def test_the_page_of_a_history_names_the_step_and_its_commit():
    page = history_page(*HISTORY)
    text = " ".join(" ".join(Elements(page).text).split())
    assert re.search(r"1 case became slower\. imdb-50 train_step numba: slower, 1\.\d\dx", text)
    assert "with commit 0000008 Change it" in text
    assert "14, 2026-01-01 to 2026-01-14, commits 0000000 to 0000013" in text
    figures = embedded(page)["figures"]
    (panel,) = figures["stepped"]["panels"]
    (line,) = [line for line in panel["lines"] if line["steps"]]
    assert (line["backend"], line["steps"][0][0]) == ("numba", 8)
    assert line["points"][0][1] == pytest.approx(1, rel=0.05)
    assert line["points"][-1][1] == pytest.approx(1.3, rel=0.05)
    assert len(figures["history"]["panels"]) == 4
    assert figures["history"]["x"]["names"][2] == "0000002+"


def test_many_runs_and_cases_stay_below_two_megabytes():
    lines, _, margin, notes = history(12)
    points = [
        tuple(replace(p, run=replace(p.run, id=f"run-{n}-{p.run.id}")) for n in range(12) for p in line.points)
        for line in lines
    ]
    many = [
        replace(line, case=replace(line.case, workload=f"{line.case.workload}-{n}"), points=of, steps=())
        for n in range(8)
        for line, of in zip(lines, points, strict=True)
    ]
    page = history_page(many, {}, margin, notes)
    assert 1e5 < len(page) < 2e6
    assert "of each line the last 31 runs; tables/history.csv has all" in page.lower()
    assert "No step was found." in Elements(page).text


def test_a_comment_has_the_verdict_first_and_the_rest_folded():
    text = comment(*COMPARED)
    loud, _, folded = text.partition("<details>")
    assert text.startswith("**rnnbench: slower.** 1 slower, 2 not comparable, 1 faster, ")
    assert re.search(r"\| imdb-50 train\\_step +\| +numba +\| +\*\*slower\*\* ", loud)
    assert "imdb-50 forward" not in loud
    assert re.search(r"\| imdb-50 train\\_step +\| +\*\*1\.30x slower\*\*", folded)
    assert "**broken**" in folded
    last = text.splitlines()[-1]
    sides = "base run-base at commit aaaaaaa; new run-new at commit bbbbbbb+"
    assert last == f"A processor, 2 cores; {sides}; margin 5 %, by no A/A run."
    findings, gate, _, *rest = COMPARED
    noisy = comment(findings, gate, ["margin 2 %: the noise of 9 pairs"], *rest)
    assert noisy.endswith(f"{sides}; margin 2 %: the noise of 9 pairs.")
    assert noisy.count("margin 2 %") == 1


@pytest.mark.parametrize("change", [1.0, 1.4])
def test_a_comment_of_any_comparison_is_below_60_lines(change):
    some, gate, _, *sides = compared(
        ("imdb-50",), changes={("imdb-50", name): change for name in ("numpy", "numba", "jax")}
    )
    findings = [replace(f, case=replace(f.case, workload=f"imdb-{n}")) for n in range(30) for f in some]
    findings = [replace(f, reason=f"reason {i}") if i % 3 else f for i, f in enumerate(findings)]
    text = comment(findings, gate, [f"note {n}" for n in range(30)], *sides)
    assert len(text.splitlines()) < 60
    assert len(text) < 65_536  # GitHub's limit
    for what in ("reasons", "notes", "cases"):
        assert re.search(rf"^\d+ more {what} in the page", text, re.MULTILINE), what
    assert ("changed cases in the page" in text) is (change > 1)


def test_a_page_of_another_origin_stays(tmp_path):
    write_comparison(tmp_path, *COMPARED)
    assert sorted(p.name for p in write_comparison(tmp_path, *COMPARED)) == ["compare.html", "compare.md"]
    (tmp_path / "compare.md").write_text("mine")
    with pytest.raises(FileExistsError, match=r"compare\.md there was not made by rnnbench"):
        write_comparison(tmp_path, *COMPARED)
    assert (tmp_path / "compare.md").read_text() == "mine"


def badge_of(*names: str, backends=("numba", "jax"), records=None, **options) -> dict:
    made = make(names, backends, (Pass.FORWARD, Pass.TRAIN_STEP), rounds=2, launches=3, samples=2, **options).records
    return badge(ReportData(made if records is None else records(made)))


def test_a_badge():
    one = badge_of("imdb-50")
    assert (one["schemaVersion"], one["label"], one["color"]) == (1, "rnnbench imdb-50 train_step", "brightgreen")
    assert re.fullmatch(r"numba 0\.2\d+ ms, 3\.\dx ahead of jax", one["message"])
    several = badge_of("imdb-50", "parity")
    assert re.fullmatch(r"numba fastest in 2 of 2 networks, 3\.\dx( to 3\.\dx)? ahead", several["message"])
    assert badge_of("imdb-50", backends=("numba",))["color"] == "blue"
    smoke = badge_of("imdb-50", records=lambda found: [replace(r, mode=Mode.QUICK) for r in found])
    assert (smoke["color"], smoke["message"].rpartition(", ")[2]) == ("yellow", "smoke run")
    wrong = badge_of("imdb-50", failures={("*", "jax"): (Status.WRONG, "loss is off")})
    assert (wrong["color"], wrong["message"].rpartition(", ")[2]) == ("red", "some answers wrong")
    assert badge_of("imdb-50", failures={("*", "*"): (Status.CRASHED, "no")}, backends=()) == {}


def test_every_verdict_has_its_words():
    findings, gate, notes, *rest = COMPARED
    for verdict in Verdict:
        of = [replace(f, verdict=verdict, broken=False) for f in findings]
        said = comment(of, gate, notes, *rest).partition("**rnnbench: ")[2].partition(".**")[0]
        expected = {"same": "no change", "not comparable": "nothing could be compared"}
        assert said == expected.get(verdict, "nothing could be compared" if verdict == "missing" else verdict)
