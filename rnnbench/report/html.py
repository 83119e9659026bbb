"""A page as one HTML file that needs nothing else: its sections, filters over them, figures to look into.

The template, the styles and the script lie in `web`; what the script draws is in `interactive`.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import msgspec

from rnnbench.report import interactive
from rnnbench.report.data import ReportData
from rnnbench.report.grid import WORDS
from rnnbench.report.interactive import Interactive
from rnnbench.report.section import TONES, Figure, Markdown, Section, anchor, footnotes, tone_of

if TYPE_CHECKING:
    import pandas as pd
    from markupsafe import Markup

    from rnnbench.report.plots import Drawing

FIRST = "<!DOCTYPE html>\n<!-- rnnbench report -->"  # by which a page is known as ours
COLOURS = 64  # of a picture: flat areas and a few lines


def page(
    data: ReportData, shown: Sequence[Section], title: str, drawings: Mapping[str, Sequence[Drawing]] | None = None
) -> str:
    """The report of a run as one file."""
    return document(shown, title, interactive.of_report(data), drawings)


def document(
    shown: Sequence[Section], title: str, script: Interactive, drawings: Mapping[str, Sequence[Drawing]] | None = None
) -> str:
    """Any sections as one file; the first is the answer, which the filters stand below.

    Pictures stand where no figure is drawn by the script.
    """
    from jinja2 import Environment, StrictUndefined

    web = files("rnnbench.report") / "web"
    read = {name: (web / f"page.{name}").read_text(encoding="utf-8") for name in ("html", "css", "js")}
    drawn = script.figures
    pictures = {name: of for name, of in (drawings or {}).items() if name not in (*drawn, *interactive.LEFT_OUT)}
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"kind": _kind, "tone": _tone, "prose": _prose, "footnotes": _notes}
    environment.filters |= {"attributes": _attributes, "columns": _columns, "rows": _rows, "uri": _uri}
    environment.globals |= {"seen": _Ids(), "words_in": WORDS}
    return environment.from_string(read["html"]).render(
        first=_safe(FIRST),
        title=title,
        sections=shown,
        css=_safe(read["css"]),
        js=_safe(read["js"]),
        choices=script.choices,
        backends=interactive.looks(script.backends),
        names=script.backends,
        data=_safe(_json({"results": script.results, "reference": script.reference, "figures": drawn})),
        drawn=drawn,
        pictures=pictures,
        reference=script.reference,
    )


def _safe(text: str) -> Markup:
    from markupsafe import Markup

    return Markup(text)


def _json(value: Any) -> str:
    """JSON that cannot end the element it stands in."""
    return msgspec.json.encode(value).decode().replace("<", "\\u003c")


class _Ids:
    """Ids, each given once."""

    def __init__(self) -> None:
        self.given: dict[str, int] = {}

    def __call__(self, title: str) -> str:
        name = anchor(title) or "section"
        self.given[name] = self.given.get(name, 0) + 1
        return name if self.given[name] == 1 else f"{name}-{self.given[name]}"


def _kind(block: Any) -> str:
    kinds = {Section: "section", Figure: "figure", Markdown: "markdown", str: "text", list: "items"}
    return next((name for kind, name in kinds.items() if isinstance(block, kind)), "table")


def _tone(text: str, default: str = "") -> str:
    """The class of a piece of text: its tone."""
    tone = tone_of(text) or default
    assert tone in TONES
    return tone


def _prose(text: str) -> Markup:
    """A paragraph that is Markdown, as HTML; none of HTML's own signs pass."""
    from markdown_it import MarkdownIt

    return _safe(MarkdownIt("commonmark", {"html": False}).render(str(text)))


def _notes(frame: pd.DataFrame) -> list[str]:
    return footnotes(" ".join(map(str, frame.to_numpy().ravel())))


def _attributes(keys: Mapping[str, str]) -> Markup:
    """`data-network="parity" data-cell="rnn"`."""
    from markupsafe import escape

    return _safe("".join(f' data-{name}="{escape(value)}"' for name, value in keys.items()))


def _columns(frame: pd.DataFrame, names: Sequence[str]) -> list[tuple[str, dict[str, str]]]:
    """Each heading with the pass, the kind of machine or the backend that its column is of."""
    passes, machines = frame.attrs.get("passes", {}), frame.attrs.get("machines", ())
    found = []
    for heading in map(str, frame.columns):
        keys = {"pass": passes[heading]} if heading in passes else {"backend": heading} if heading in names else {}
        keys = {"machine": heading} if heading in machines else keys
        found.append((heading, keys))
    return found


def _rows(frame: pd.DataFrame, names: Sequence[str]) -> list[tuple[dict[str, str], tuple[str, ...]]]:
    """Each row with what filters know it by: the keys that the table gives it, and its backend."""
    place = list(frame.columns).index("backend") if "backend" in frame.columns else None
    keys = frame.attrs.get("keys") or [{}] * len(frame)
    found = []
    for given, row in zip(keys, frame.itertuples(index=False, name=None), strict=True):
        backend = "" if place is None else str(row[place]).removesuffix(" (wrong)")
        found.append((given | ({"backend": backend} if backend in names else {}), row))
    return found


def _uri(drawing: Drawing) -> str:
    """A picture within the file, in few colours."""
    from PIL import Image

    held = io.BytesIO()
    with Image.open(drawing.paths[0]) as image:
        image.convert("RGB").quantize(COLOURS).save(held, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(held.getvalue()).decode()}"
