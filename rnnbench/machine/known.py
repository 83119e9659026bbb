"""What a system does not tell, or raises at, is unknown: no fact of the machine ends a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

Found = TypeVar("Found")
Given = ParamSpec("Given")


def known(find: Callable[Given, Found], *args: Given.args, **kwargs: Given.kwargs) -> Found | None:
    """What it finds; None where it raises, whatever that is: libraries parse what they read, and a line may be odd."""
    try:
        return find(*args, **kwargs)
    except Exception:
        return None
