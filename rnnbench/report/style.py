"""One colour, marker, line and hatch for each backend, everywhere; told apart by the colour-blind and in grey print."""

from __future__ import annotations

import logging
import os
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from rnnbench import backends
from rnnbench.backends import Look as Look

INK, FAINT, GRID = "#222222", "#6B6B6B", "#DDDDDD"
WRONG = "#B00020"


_SPARE_COLOURS = ("#882255", "#999933", "#117733", "#AA4499", "#44AA99", "#661100")
_SPARE_MARKERS = ("<", "p", "h", "d", "H", "8")
_SPARE_LINES: tuple[Any, ...] = ((0, (3, 1)), (0, (1, 2)), (0, (7, 3)), (0, (3, 1, 1, 1, 1, 1)))


def look(backend: str) -> Look:
    """The look of a backend as the registry has it; of one without, always the same by its name."""
    entry = backends.REGISTRY.get(backend)
    if entry and entry.look:
        return entry.look
    name, mark, _ = backend.partition("#")
    if mark:  # its replica: the same colour, all else its own
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


def load_matplotlib() -> Any:
    """Matplotlib, imported as if the user had no settings: a backend of a notebook that is not installed, or a damaged
    `matplotlibrc`, in the current folder too, would make the import fail or fill the screen.
    """
    if "matplotlib" in sys.modules:
        import matplotlib

        return matplotlib
    kept = {name: os.environ.pop(name, None) for name in ("MPLBACKEND", "MATPLOTLIBRC")}
    log, here = logging.getLogger("matplotlib"), None
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        if os.path.exists("matplotlibrc"):
            here = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
            os.chdir("/")
        import matplotlib
    finally:
        if here is not None:
            os.fchdir(here)
            os.close(here)
        log.setLevel(level)
        os.environ.update({name: value for name, value in kept.items() if value is not None})
    return matplotlib


@contextmanager
def own_style() -> Iterator[None]:
    """Matplotlib's defaults and our style on them, whatever the user's settings are; those are back afterwards."""
    matplotlib = load_matplotlib()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(RC)
        yield
