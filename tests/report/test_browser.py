"""`report.html` in a real browser: how it is laid out, filters, values on hover and by keys, print, accessibility.

The browser is the one of `make browser`, which comes in a package, else one on the path; without any they are skipped.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rnnbench.model import DType
from rnnbench.report import html, page
from tests.report.browsing import WIDTHS, Opened, complaints_of_axe, visible
from tests.report.fake import MIXED, make
from tests.report.test_report import context_of
from tests.report.test_sweep import fake_of

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    """The report of a run with two types, and with failures of all kinds."""
    return written(tmp_path_factory, make(("parity", "imdb-50"), dtypes=tuple(DType), failures=MIXED))


def written(tmp_path_factory, fake) -> Path:
    data = context_of(fake)
    made = tmp_path_factory.mktemp("report") / "report.html"
    made.write_text(html.page(data, page.sections_of(data), "fake"), encoding="utf-8")
    return made


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_its_width(browser, path, width, scheme):
    with Opened(browser, path, width, color_scheme=scheme) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (ground == "rgb(255, 255, 255)") == (scheme == "light")
        boxes = page.evaluate(
            "[...document.querySelectorAll('[role=list]')].map((e) => e.getBoundingClientRect().toJSON())"
        )
        assert len(boxes) > 16
        assert all(box["left"] >= 0 and box["right"] <= width and box["width"] > 250 for box in boxes)
        columns = len({round(box["left"]) for box in boxes})
        assert columns == {360: 1, 1024: 3, 1920: 3}[width]
        # No word of a row lies on another one, nor leaves its panel.
        crossed = page.evaluate("""() => [...document.querySelectorAll('[role=list]')].flatMap((svg) => {
            const frame = svg.getBoundingClientRect();
            return [...svg.querySelectorAll('[role=listitem]')].filter((row) => {
                const [a, b] = [...row.querySelectorAll('text')].map((t) => t.getBoundingClientRect());
                return a.right > b.left || a.left < frame.left - 1 || b.right > frame.right + 8;
            }).map((row) => row.getAttribute('aria-label'));
        })""")
        assert crossed == []


def test_the_answer_and_its_picture_come_first(browser, path):
    with Opened(browser, path) as page:
        titles = page.locator("h2").all_inner_texts()
        assert titles[0] == "Answer"
        assert page.locator("section li").first.bounding_box()["y"] < 250
        picture, form = (page.locator(s).bounding_box()["y"] for s in ("[data-figure=speedup]", "#filters"))
        assert picture < form < page.locator("h2", has_text="Time per step").bounding_box()["y"]


def test_filters_hold_tables_and_figures_together(browser, path):
    with Opened(browser, path) as page:
        results = page.locator("#filters output")
        everything = int(re.findall(r"\d+", results.inner_text())[1])
        panels = visible(page, "[data-figure=time] .panel")
        assert panels == 16  # two networks, two types, four passes
        page.locator("#filters [name=network]").select_option("imdb-50 float32")
        page.locator("#filters [name=pass]").select_option("gradient")
        assert visible(page, "[data-figure=time] .panel") == 1
        assert page.locator("[data-figure=time] .panel p").inner_text() == "imdb-50 float32: gradient"
        assert visible(page, "td[data-pass=gradient]") > 0
        assert visible(page, "td[data-pass=forward]") == visible(page, "[data-network='parity float32'] td") == 0
        assert results.inner_text() == f"8 of {everything} results"
        page.get_by_role("button", name="jax", exact=True).click()
        assert visible(page, "tr[data-backend=jax]") == 0
        assert visible(page, "tr[data-backend=numba]") > 0
        assert page.locator("[data-figure=time] [role=listitem]").count() == 7
        assert results.inner_text() == f"7 of {everything} results"
        page.get_by_role("button", name="jax", exact=True).press("Enter")
        assert visible(page, "tr[data-backend=jax]") > 0
        page.locator("#filters [name=dtype]").select_option("float64")
        assert "0 of" in results.inner_text()
        for name in ("network", "pass", "dtype"):
            page.locator(f"#filters [name={name}]").select_option("")
        assert results.inner_text() == f"{everything} of {everything} results"


def test_the_reference_moves_ratios_in_tables_and_figures(browser, path):
    with Opened(browser, path) as page:
        cell = page.locator(
            "[data-ratio] [data-network='imdb-50 float32'] tr[data-backend=jax] td[data-pass=train_step]"
        )
        row = page.locator("[data-figure=speedup] [role=listitem][aria-label^='numba:']").first
        over_torch, drawn = cell.inner_text(), row.get_attribute("aria-label")
        page.locator("#filters [name=reference]").select_option("numpy")
        assert page.locator("[data-ratio] h2").inner_text() == "Speed-up over numpy"
        assert cell.inner_text() != over_torch
        assert re.fullmatch(r"4\.\dx \([\d.]+ to [\d.]+\)", cell.inner_text())
        assert (
            page.locator("[data-figure=speedup] [role=listitem][aria-label^='numba:']").first.get_attribute(
                "aria-label"
            )
            != drawn
        )
        page.locator("#filters [name=reference]").select_option("torch")
        assert cell.inner_text() == over_torch


def test_values_on_hover_and_by_keys(browser, path):
    with Opened(browser, path) as page:
        tip, rows = (
            page.locator("#tip"),
            page.locator("[data-figure=time] [role=list]").first.locator("[role=listitem]"),
        )
        assert tip.is_hidden()
        rows.first.hover()
        assert re.fullmatch(r"numba, parity float32: forward\n[\d.]+ \([\d.]+ to [\d.]+\) µs", tip.inner_text())
        page.mouse.move(0, 0)
        assert tip.is_hidden()
        rows.first.focus()
        page.keyboard.press("ArrowDown")
        assert tip.inner_text().startswith("jax, parity float32: forward\nwrong: error of grad W_hh is 0.31")
        page.keyboard.press("Escape")
        assert tip.is_hidden()
        line = page.locator("[data-figure=break-even] svg").first
        line.focus()
        page.keyboard.press("ArrowLeft")
        said = tip.inner_text().splitlines()
        assert re.fullmatch(r"parity float32 train_step, steps done [\d.,kM]+", said[0])
        assert len(said) == 1 + len(page.locator("[data-figure=break-even] svg").first.locator("polyline").all())
        line.hover()
        assert tip.is_visible()
        box = tip.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 1024


def test_log_or_linear_and_another_number(browser, path):
    with Opened(browser, path) as page:
        figure = page.locator("[data-figure=time]")
        places = "(f) => [...f.querySelectorAll('[role=listitem] path')].map((p) => p.getAttribute('transform'))"
        before = figure.evaluate(places)
        figure.get_by_label("scale").select_option("linear")
        after = figure.evaluate(places)
        assert len(before) == len(after)
        assert before != after
        assert "Linear scale" in figure.locator("figcaption").inner_text()
        metrics = figure.get_by_label("show").locator("option").all_inner_texts()
        assert metrics == [
            "speed-up over torch",
            "time a step",
            "share of the machine's peak",
            "largest error over its limit",
        ]
        for name in ("share", "error", "over"):
            figure.get_by_label("show").select_option(name)
            assert figure.locator("[role=listitem] path").count() > 50


def test_in_print_it_is_black_on_white_and_without_controls(browser, path):
    with Opened(browser, path, color_scheme="dark") as page:
        page.emulate_media(media="print")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert visible(page, "#filters") == visible(page, ".tools") == 0
        assert visible(page, ".panel svg") > 16
        assert page.pdf(format="A4").startswith(b"%PDF")


def test_without_the_script_all_tables_are_there(browser, path):
    with Opened(browser, path, java_script_enabled=False) as page:
        assert visible(page, "table") > 10
        assert page.locator(".panels").first.inner_text().startswith("This figure is drawn by a script")


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (1024, "dark")])
def test_axe_finds_nothing(browser, tmp_path_factory, width, scheme):
    path = written(tmp_path_factory, make(("parity",), failures=MIXED))
    with Opened(browser, path, width, color_scheme=scheme) as page:
        assert complaints_of_axe(page) == []


def test_a_sweep(browser, tmp_path_factory):
    with Opened(browser, written(tmp_path_factory, fake_of())) as page:
        assert visible(page, "[data-figure=sweep-time] svg") == 4  # two axes, two passes
        page.locator("#filters [name=pass]").select_option("forward")
        assert visible(page, "[data-figure=sweep-time] svg") == 2
        assert page.locator("h2:visible", has_text="Time of a call").all_inner_texts() == [
            "Time of a call: forward float32"
        ]
        page.get_by_role("button", name="jax", exact=True).click()
        assert visible(page, "td[data-backend=jax]") == visible(page, "th[data-backend=jax]") == 0
        assert visible(page, "td[data-backend=numba]") > 0
        assert page.locator("[data-figure=sweep-time] svg").first.locator("polyline").count() == 2
