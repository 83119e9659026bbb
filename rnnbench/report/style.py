"""One colour, marker, line and hatch for each backend, everywhere; told apart by the colour-blind and in grey print."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from typing import Any

INK, FAINT, GRID = "#222222", "#6B6B6B", "#DDDDDD"
WRONG = "#B00020"


@dataclass(frozen=True)
class Look:
    """How a backend is drawn. `line` is a matplotlib dash pattern; `hatch` fills bars."""

    colour: str
    marker: str
    line: Any
    hatch: str


# Okabe and Ito (2002), with its yellow, too pale for lines on white, replaced by a dark brown, and an indigo added.
_LOOKS: dict[str, Look] = {
    "numpy": Look("#8C8C8C", "s", (0, (1, 1)), "..."),
    "numba": Look("#D55E00", "o", "-", ""),
    "numba+subnormal": Look("#CC79A7", "<", (0, (3, 1)), "**"),
    "cuda": Look("#000000", "P", (0, (8, 1)), "xx"),
    "torch-cuda": Look("#AA3377", "p", (0, (9, 2)), "//"),
    "torch-cuda+tf32": Look("#EE6677", "h", (0, (9, 2, 1, 2)), "\\\\"),
    "jax-cuda": Look("#A67C00", "H", (0, (5, 3)), "oo"),
    "torch": Look("#0072B2", "^", "--", "//"),
    "torch+flush": Look("#56B4E9", "v", (0, (5, 1, 1, 1)), "\\\\"),
    "torch+compile": Look("#332288", ">", "-.", "||"),
    "tensorflow": Look("#E69F00", "D", (0, (4, 2, 1, 2, 1, 2)), "--"),
    "tensorflow+xla": Look("#6B4A00", "X", (0, (2, 2)), "++"),
    "jax": Look("#009E73", "*", (0, (6, 2)), "oo"),
}

_SPARE_COLOURS = ("#882255", "#999933", "#117733", "#AA4499", "#44AA99", "#661100")
_SPARE_MARKERS = ("<", "p", "h", "d", "H", "8")
_SPARE_LINES: tuple[Any, ...] = ((0, (3, 1)), (0, (1, 2)), (0, (7, 3)), (0, (3, 1, 1, 1, 1, 1)))


def look(backend: str) -> Look:
    """The look of a backend; of an unknown one, always the same by its name."""
    if backend in _LOOKS:
        return _LOOKS[backend]
    name, mark, _ = backend.partition("#")
    if mark:  # its twin: the same colour, all else its own
        return replace(look(name), marker="d", line=(0, (1, 3)), hatch="--")
    n = zlib.crc32(backend.encode())
    return Look(
        _SPARE_COLOURS[n % len(_SPARE_COLOURS)],
        _SPARE_MARKERS[n // 7 % len(_SPARE_MARKERS)],
        _SPARE_LINES[n // 42 % len(_SPARE_LINES)],
        "**",
    )


RC: dict[Any, Any] = {
    "font.size": 8,
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same on every machine
    "text.parse_math": False,
    "text.hinting": "none",  # at this resolution it only takes time
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titley": 1.0,  # nothing stands between: not looked for
    "axes.labelsize": 8,
    "axes.edgecolor": FAINT,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.color": FAINT,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.hashsalt": "rnnbench",  # the same figure gives the same file
}
