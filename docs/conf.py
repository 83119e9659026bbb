"""The documentation site, by Sphinx: `make docs`. The pages are Markdown that reads as well where it lies.

The source folder is that of the repository, so that links between README, docs/, decisions and the kernels' page are
the same there and here. Nothing on the site asks for a network: no fonts, no scripts, no formulas from elsewhere.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

import rnnbench  # noqa: E402

project = "rnnbench"
version = release = rnnbench.__version__
copyright = "the rnnbench authors, MIT licence"

extensions = ["myst_parser", "sphinx.ext.autodoc", "command_line"]
root_doc = "docs/index"
include_patterns = [
    "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/**", "rnnbench/kernels/README.md", "reports/*/report.md",
]  # fmt: skip
exclude_patterns = [".*", "build", "docs/html", "docs/site", "runs"]

myst_heading_anchors = 3
smartquotes = False  # --help is two hyphens

# Docstrings are plain text in which `this` is code.
default_role = "code"
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 80
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = "rnnbench"
html_extra_path = ["site"]  # index.html, which leads to docs/index.html
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}


def readable_defaults(app: Sphinx, what: str, name: str, obj: object, options: object, signature: str, returns: str):
    """`<Init.KERAS: 'keras'>` as `Init.KERAS`, and a function as dots: else the signature cannot be laid out."""
    if signature is None:
        return None
    plain = re.sub(r"<(\w+\.\w+): '[^']*'>", r"\1", re.sub(r"<function .*?>+", "...", signature))
    return plain, returns


def setup(app: Sphinx) -> None:
    """What Sphinx calls."""
    app.connect("autodoc-process-signature", readable_defaults)
