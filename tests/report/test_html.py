"""`report.html` as a file: whole by itself, everything in it that the page has, safe, legible in light and dark."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from itertools import pairwise

import pytest

from rnnbench.model import DType, Pass
from rnnbench.records.record import Status
from rnnbench.report import html, page
from rnnbench.report.page import write_report
from tests.report.fake import BACKENDS, MIXED, Fake, make
from tests.report.fake_gpu import make_gpu
from tests.report.test_report import context_of
from tests.report.test_sweep import fake_of

VOID = {"meta", "link", "img", "br", "hr", "input", "path"}


class Elements(HTMLParser):
    """All elements with their attributes, and the text; every one that was begun has ended."""

    def __init__(self, text: str):
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def html_of(fake: Fake) -> str:
    data = context_of(fake)
    return html.page(data, page.sections_of(data), "fake")


def embedded(text: str) -> dict:
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)
    return json.loads(found)


@pytest.fixture(scope="module")
def whole() -> str:
    return html_of(make(failures=MIXED, dtypes=tuple(DType)))


def test_it_needs_nothing_else(tmp_path):
    fake = make(("parity",), passes=(Pass.FORWARD, Pass.TRAIN_STEP))
    write_report(tmp_path, context_of(fake))
    text = (tmp_path / "report.html").read_text()
    assert len(text) < 2e6
    elements = Elements(text)
    places = [a[name] for _, a in elements.found for name in ("src", "href", "action", "data") if a.get(name)]
    assert places
    assert all(place.startswith(("#", "data:image/png;base64,")) for place in places)
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|https?://(?!www\.w3\.org/2000/svg)", text)
    assert all(a["alt"] for a in elements.all("img"))
    assert elements.all("img")  # of figures that the script does not draw


def test_ids_are_given_once_and_what_is_named_is_there(whole):
    elements = Elements(whole)
    ids = [a["id"] for _, a in elements.found if a.get("id")]
    assert max(Counter(ids).values()) == 1
    for name in ("aria-labelledby", "for"):
        assert {a[name] for _, a in elements.found if a.get(name)} <= set(ids)
    assert {a["href"][1:] for a in elements.all("a")} <= set(ids)
    headings = [int(tag[1]) for tag, _ in elements.found if re.fullmatch(r"h\d", tag)]
    assert headings[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(headings))
    assert all(a.get("scope") for a in elements.all("th"))
    regions = [a["aria-label"] for _, a in elements.found if a.get("role") == "region"]
    assert max(Counter(regions).values()) == 1


def test_it_has_all_that_the_page_has(whole):
    """Both are made of the same sections: each word of the one is in the other."""
    data = context_of(make(failures=MIXED, dtypes=tuple(DType)))
    markdown = page.text(page.sections_of(data), "fake", {}).replace("\\", "")
    there = " ".join(" ".join(Elements(whole).text).split())
    cells = {cell.strip(" *") for line in markdown.splitlines() if line.startswith("|") for cell in line.split("|")}
    cells = {cell for cell in cells if cell and not re.fullmatch(r":?-+:?", cell)}
    assert len(cells) > 500
    assert [cell for cell in cells if " ".join(cell.split()) not in there] == []
    for heading in re.findall(r"^#+ (.*)$", markdown, re.MULTILINE)[1:]:
        assert heading in there


def test_names_and_reasons_cannot_be_markup():
    fake = make(("parity",), ("numba", "jax"), (Pass.FORWARD,))
    bad = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
    records = [replace(r, case=replace(r.case, workload=bad)) for r in fake.records]
    records += [replace(r, backend="x", status=Status.CRASHED, reason=bad) for r in records if not hasattr(r, "round")]
    text = html_of(replace(fake, records=records, epochs=[], machine={"cpu": {"model": bad}}, run={"run_id": bad}))
    assert len(Elements(text).all("script")) == 2
    assert Elements(text).all("img") == []
    assert "<script>alert" not in text
    assert bad in "".join(Elements(text).text)
    assert embedded(text)["results"][0]["network"] == bad


def test_results_are_those_of_the_tables(whole):
    found = embedded(whole)["results"]
    data = context_of(make(failures=MIXED, dtypes=tuple(DType)))
    assert len(found) == len(data.summaries)
    speedups = data.speedups.set_index(["case", "backend"])["speedup"].to_dict()
    times = {(s.case.key, s.backend): s for s in data.summaries}
    by_name = {(p.label, str(q)): case.key for p in data.problems for q, case in p.cases.items()}
    checked = 0
    for r in found:
        key = (by_name[r["network"], r["pass"]], r["backend"])
        s = times[key]
        if s.time is None:
            assert r["missing"].startswith(str(s.status))
            continue
        assert r["time"]["value"] == pytest.approx(s.time.value / s.case.steps, rel=1e-3)
        assert r["wrong"] is (s.status is Status.WRONG)
        if s.ranked and "torch" in r["over"]:
            assert r["over"]["torch"]["value"] == pytest.approx(speedups[key], rel=1e-3)
            checked += 1
    assert checked > 100
    assert {r["cell"] for r in found} == {"rnn"}


@pytest.mark.parametrize(
    ("fake", "choices"),
    [
        (make(("parity",), ("numba", "jax"), (Pass.FORWARD,)), set()),
        (make(("parity", "imdb-50"), ("numba", "jax")), {"network", "pass"}),
        (make(("parity",), ("numba", "jax"), dtypes=tuple(DType)), {"network", "dtype", "pass"}),
        (make_gpu(("parity",), ("numba", "cuda", "torch-cuda"), (Pass.GRADIENT,)), set()),
        (fake_of(), {"pass"}),
        (Fake([], []), set()),
        (Fake([], make(("parity",)).epochs), set()),
        (make(("parity",), failures={("*", name): (Status.CRASHED, "no") for name in BACKENDS}), {"pass"}),
    ],
    ids=["one case", "networks", "types", "gpu", "sweep", "nothing", "training", "all failed"],
)
def test_only_what_can_be_chosen_is_a_filter(fake, choices):
    text = html_of(fake)
    names = {a["name"] for a in Elements(text).all("select") if "name" in a} - {"reference"}
    assert names == choices
    assert "nan" not in json.dumps(embedded(text)).lower()


@pytest.mark.usefixtures("no_figures")
def test_a_page_of_another_origin_stays(tmp_path):
    fake = make(("parity",), ("numba", "jax"), (Pass.FORWARD,))
    write_report(tmp_path, context_of(fake))
    write_report(tmp_path, context_of(fake))
    (tmp_path / "report.html").write_text("<!DOCTYPE html>\nmine")
    with pytest.raises(FileExistsError, match=r"report\.html there was not made by rnnbench"):
        write_report(tmp_path, context_of(fake))
    assert (tmp_path / "report.html").read_text().endswith("mine")


def test_text_can_be_read_on_its_ground_in_light_dark_and_print():
    css = (files("rnnbench.report") / "web" / "page.css").read_text()
    light, dark, printed = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    base = dict(re.findall(r"--([\w-]+): (#\w{6})", light))
    for scheme in (light, dark, printed):
        colours = base | dict(re.findall(r"--([\w-]+): (#\w{6})", scheme))
        for text in ("ink", "faint", "link", "good", "unsure", "wrong"):
            for ground in ("paper", "raised") if scheme is not printed or text != "link" else ():
                assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
        assert contrast(colours["paper"], colours["ink"]) >= 4.5  # the tip


def contrast(one: str, other: str) -> float:
    """As WCAG 2 has it."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_a_stored_run_of_any_shape_stays_below_two_megabytes():
    fake = make(tuple(f"imdb-{n}" for n in range(20)), BACKENDS, rounds=1, launches=3, samples=1)
    assert len(html_of(Fake(fake.records, [], fake.machine, fake.run))) < 2e6
