"""Pages of comparisons, histories and machines in a real browser, as `report.html` is: layout, filters, print, axe."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rnnbench.report.compare_page import comparison_page
from rnnbench.report.history_page import history_page
from rnnbench.report.machines import machines_page
from tests.report.browsing import WIDTHS, Opened, complaints_of_axe, visible
from tests.report.compared import compared, history, machines

pytestmark = pytest.mark.timeout(120)
NAMES = ("compare", "history", "machines")


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    made = {
        "compare": comparison_page(*compared()),
        "history": history_page(*history()),
        "machines": machines_page("20260101-000000-abcd", machines()),
    }
    for name, text in made.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in made}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", NAMES)
def test_it_fits_its_width_and_the_answer_is_first(browser, pages, name, width):
    with Opened(browser, pages[name], width, color_scheme="dark" if width == 1024 else "light") as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator("h2").first.inner_text() == "Answer"
        assert page.locator("section li").first.bounding_box()["y"] < 320
        boxes = page.evaluate(
            "[...document.querySelectorAll('.panel svg')].map((e) => e.getBoundingClientRect().toJSON())"
        )
        assert boxes
        assert all(box["left"] >= 0 and box["right"] <= width and box["width"] > 250 for box in boxes)
        # No word of a row lies on another one; no word leaves its panel.
        crossed = page.evaluate("""() => [...document.querySelectorAll('.panel svg')].flatMap((svg) => {
            const frame = svg.getBoundingClientRect();
            const rows = [...svg.querySelectorAll('[role=listitem]')].filter((row) => {
                const [a, b] = [...row.querySelectorAll('text')].map((t) => t.getBoundingClientRect());
                return a.right > b.left;
            });
            const out = [...svg.querySelectorAll('text')].filter((t) => {
                const box = t.getBoundingClientRect();
                return box.left < frame.left - 1 || box.right > frame.right + 8;
            });
            return [...rows, ...out].map((e) => e.textContent);
        })""")
        assert crossed == []


def test_a_comparison_is_filtered_by_verdict_pass_and_backend(browser, pages):
    with Opened(browser, pages["compare"]) as page:
        assert visible(page, "[data-figure=changed] .panel") == 3  # parity crashed in both passes, imdb-50 slower
        assert "1.30x slower" in page.locator("[data-figure=changed] .severe").all_text_contents()
        assert page.locator("[data-figure=changed] .band").count() == 3
        output = page.locator("#filters output")
        assert output.inner_text() == "16 of 16 results"
        page.locator("#filters [name=verdict]").select_option("slower")
        assert output.inner_text() == "1 of 16 results"
        assert visible(page, "tr[data-verdict=slower]") == 2  # among what changed, and among every case
        assert visible(page, "tr[data-verdict=same]") == 0
        page.locator("#filters [name=verdict]").select_option("")
        page.locator("#filters [name=pass]").select_option("forward")
        assert visible(page, "tr[data-pass=train_step]") == 0
        page.get_by_role("button", name="jax", exact=True).click()
        assert visible(page, "tr[data-backend=jax]") == 0
        assert visible(page, "tr[data-backend=numba]") > 0


def test_a_history_shows_steps_and_values_by_keys(browser, pages):
    with Opened(browser, pages["history"]) as page:
        stepped = page.locator("[data-figure=stepped]")
        assert stepped.locator(".panel").count() == 1
        assert stepped.locator("text.severe").first.text_content().startswith("numba slower, 1.")
        svg = stepped.locator("svg").first
        svg.focus()
        page.keyboard.press("ArrowLeft")
        said = page.locator("#tip").inner_text().splitlines()
        assert said[0] == "imdb-50 train_step, run run-012, 2026-01-13, 0000012"
        assert len(said) == 4
        assert re.fullmatch(
            r"numba: 0\.\d+ \([\d.]+ to [\d.]+\) ms, 1\.[23]\dx", next(line for line in said if "numba" in line)
        )
        assert page.locator("[data-figure=history] .panel").count() == 4
        page.locator("#filters [name=network]").select_option("parity")
        assert page.locator("[data-figure=history] .panel").count() == 2
        assert visible(page, "tr[data-network=imdb-50]") == 0


def test_the_page_over_machines_is_filtered_by_machine_and_takes_another_reference(browser, pages):
    with Opened(browser, pages["machines"]) as page:
        one, other = (kind.label for kind in machines())
        assert page.locator("[data-figure=speedup] .panel p").all_text_contents() == [
            f"{name}: train_step, on {label}" for name in ("parity", "imdb-50") for label in (one, other)
        ]
        output = page.locator("#filters output")
        assert output.inner_text() == "32 of 32 results"
        page.locator("#filters [name=machine]").select_option(other)
        assert output.inner_text() == "16 of 32 results"
        assert visible(page, "[data-figure=speedup] .panel") == 2
        assert (visible(page, f"th[data-machine={one}]"), visible(page, f"th[data-machine={other}]")) == (0, 1)
        assert visible(page, "[data-figure=speedup] text:has-text('killed by signal 9')") == 2
        page.locator("#filters [name=reference]").select_option("numpy")
        said = page.locator("[data-figure=speedup] [aria-label^='numpy: ']").first.get_attribute("aria-label")
        assert said == "numpy: 1 (reference)"
        page.locator("#filters [name=machine]").select_option("")
        page.locator("#filters [name=pass]").select_option("forward")
        assert visible(page, "tr[data-pass=train_step]") == 0


@pytest.mark.parametrize("name", NAMES)
def test_in_print_it_is_black_on_white(browser, pages, name):
    with Opened(browser, pages[name], color_scheme="dark") as page:
        page.emulate_media(media="print")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert visible(page, "#filters") == visible(page, ".tools") == 0
        assert visible(page, ".panel svg") > 0


@pytest.mark.parametrize(("name", "scheme"), [("compare", "dark"), ("history", "light"), ("machines", "dark")])
def test_axe_finds_nothing(browser, pages, tmp_path, name, scheme):
    small = {
        "compare": lambda: pages["compare"].read_text(encoding="utf-8"),
        "history": lambda: history_page(*history(12, ("imdb-50",), ("numpy", "numba"))),
        "machines": lambda: pages["machines"].read_text(encoding="utf-8"),
    }
    (tmp_path / "page.html").write_text(small[name](), encoding="utf-8")
    with Opened(browser, tmp_path / "page.html", color_scheme=scheme) as page:
        assert complaints_of_axe(page) == []
