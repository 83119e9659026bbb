"""What a reader should bear in mind of a run: each warning with its number, its threshold and its remedy.

Pure functions of records and of the facts in `machine.json`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rnnbench.analysis.stats import summaries
from rnnbench.analysis.warnings.base import Severity, Warned, grouped
from rnnbench.analysis.warnings.machine import of_machine
from rnnbench.analysis.warnings.samples import of_answers, of_records
from rnnbench.records.record import Record

MAX_NAMED = 8  # networks of a run that were chosen one by one; of more the remedies are those of a sweep

__all__ = ["Severity", "Warned", "warnings_of"]


def warnings_of(records: Sequence[Record], machine: Mapping[str, Any]) -> list[Warned]:
    """All warnings of a run, most severe first; those of one kind stand in one."""
    found = summaries(records)
    signs = [*of_records(records, machine), *of_machine(records, machine), *of_answers(found, machine)]
    return grouped(signs, swept=len({r.case.name for r in records}) > MAX_NAMED)
