"""The browser of the tests, and a page opened in it: `browser` of conftest.py, for whatever page is to be looked at."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(sys.prefix) / "browser"
AXE = FOLDER / "node_modules" / "axe-core" / "axe.min.js"
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
WIDTHS = (360, 1024, 1920)


def executable() -> str | None:
    own = FOLDER / "chromium"
    return str(own) if own.exists() else next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def started() -> Iterator[Any]:
    """A headless browser; the test is skipped where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make browser")
    found = executable()
    if found is None:
        pytest.skip(f"no browser: make browser, or one of {', '.join(NAMES)} on the path")
    libraries = {"LD_LIBRARY_PATH": str(FOLDER / "al2023" / "lib")} if found.startswith(str(FOLDER)) else {}
    with sync_api.sync_playwright() as playwright:
        options = ["--no-sandbox", "--no-zygote", "--disable-gpu"]
        made = playwright.chromium.launch(executable_path=found, args=options, env={**os.environ, **libraries})
        yield made
        made.close()


class Opened:
    """A page from disk; whatever it complains of, and whatever it asks a network for, is kept."""

    def __init__(self, browser, path: Path, width: int = 1024, **options):
        self.page = browser.new_page(viewport={"width": width, "height": 800}, **options)
        self.complaints: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on(
            "request", lambda r: None if r.url.startswith(("file:", "data:")) else self.complaints.append(r.url)
        )
        self.page.goto(path.as_uri())

    def __enter__(self):
        return self.page

    def __exit__(self, failed, *_):
        self.page.close()
        assert failed or self.complaints == []


def visible(page, selector: str) -> int:
    return page.locator(f"{selector}:visible").count()


def complaints_of_axe(page) -> list[tuple[str, str]]:
    """What axe-core finds on the page with all of it unfolded: rule and element."""
    if not AXE.exists():
        pytest.skip("axe-core is not installed: make browser")
    page.evaluate("for (const e of document.querySelectorAll('details')) e.open = true")
    page.add_script_tag(content=AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run()")
    assert len(found["passes"]) > 20
    return [(v["id"], v["nodes"][0]["html"][:120]) for v in found["violations"]]
