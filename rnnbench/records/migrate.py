"""Lines of older files in the newest form: one step from each schema to the next.

A step takes a line as decoded JSON and gives it the fields that the next schema has and this one has not. Where a
field was not known then, it stays at its default.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from rnnbench.model import Case
from rnnbench.records.record import SCHEMA
from rnnbench.work import work_of

Raw = dict[str, Any]


def to_2(raw: Raw) -> Raw:
    """What a record's case needs, from its sizes. Its share of peak is not known: none was measured then."""
    if "case" not in raw:  # an epoch of a training, which did not change
        return raw
    work = work_of(msgspec.convert(raw["case"], Case))
    return {**raw, "flops": work.flops, "least_bytes": work.bytes}


def to_3(raw: Raw) -> Raw:
    """No device, energy or disturbance was looked for: unknown, which is what the defaults say."""
    return raw


STEPS: dict[int, Callable[[Raw], Raw]] = {1: to_2, 2: to_3}


def migrated(raw: Raw) -> Raw:
    """The line in the newest schema. One that has it already comes back as it is.

    Raises msgspec.ValidationError for a line whose case cannot be read.
    """
    for schema in range(raw["schema"], SCHEMA):
        raw = {**STEPS[schema](raw), "schema": schema + 1}
    return raw
