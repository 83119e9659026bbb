"""`rnnbench verify --audit`: whether what is timed is all of the work, each backend in its own process."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table

from rnnbench import backends
from rnnbench.cli.progress import Display
from rnnbench.correctness.audit import Finding
from rnnbench.harness.worker_client import WorkerFailure
from rnnbench.harness.worker_pool import Crew
from rnnbench.model import DType, Pass


@dataclass(frozen=True)
class Audited:
    """Findings by backend and type, and why there are none."""

    findings: dict[tuple[str, DType], list[Finding]]
    reasons: dict[str, str]
    failures: dict[str, str]

    @property
    def code(self) -> int:
        """0 all hold; 1 one does not, or a backend failed; 3 nobody could be audited."""
        if not self.findings:
            return 1 if self.failures else 3
        return 1 if self.failures or any(not f.ok for found in self.findings.values() for f in found) else 0

    def as_json(self) -> dict[str, Any]:
        """Every finding, and who could not be audited."""
        rows = [
            {"backend": name, "dtype": str(dtype), **msgspec.to_builtins(f), "ok": f.ok}
            for (name, dtype), found in self.findings.items()
            for f in found
        ]
        return {"findings": rows, "missing": self.reasons, "failed": self.failures}

    def print(self, console: Console) -> None:
        """A line for each check of a backend, with the pass that is nearest to the limit or furthest over it."""
        table = Table("backend", "dtype", "check", "holds", "worst pass", "found", "limit", "what", box=box.SIMPLE_HEAD)
        for (name, dtype), found in self.findings.items():
            for check in dict.fromkeys(f.check for f in found):
                same = [f for f in found if f.check == check]
                table.add_row(name, dtype, *_line(check, same))
        console.print(table)
        for name, reason in (self.reasons | self.failures).items():
            console.print(f"{name}: {reason}", markup=False, highlight=False)
        every = [f for found in self.findings.values() for f in found]
        console.print(f"{sum(f.ok for f in every)} of {len(every)} findings are within their limits.")


def _line(check: str, found: list[Finding]) -> tuple[str, ...]:
    worst = max(found, key=lambda f: float("inf") if f.value is None else f.value - f.limit)
    value = "none" if worst.value is None else f"{worst.value:.2g}"
    return check, "yes" if all(f.ok for f in found) else "NO", worst.pass_, value, f"{worst.limit:.2g}", worst.what


def audit(
    names: Sequence[str], dtypes: Sequence[DType], passes: Sequence[Pass], threads: int, timeout: float, show: Display
) -> Audited:
    """Audit backend after backend: beside others their times would be those of the others too."""
    findings: dict[tuple[str, DType], list[Finding]] = {}
    reasons = {name: why for name in names if (why := backends.missing(name))}
    failures: dict[str, str] = {}
    here = [name for name in names if name not in reasons]
    with tempfile.TemporaryDirectory(prefix="rnnbench-audit-") as folder:
        crew = Crew(here, Path(folder), threads, timeout, cache=None)
        try:
            for i, name in enumerate(here):
                show.show(f"audit of {name}", i / len(here))
                try:
                    for dtype in dtypes:
                        said = crew.ask(name, "audit", dtype=dtype, passes=list(passes))
                        if said["reason"]:
                            reasons[name] = said["reason"]
                        else:
                            findings[name, dtype] = msgspec.convert(said["findings"], list[Finding])
                except WorkerFailure as failure:
                    failures[name] = failure.reason
        finally:
            crew.kill()
    return Audited(findings, reasons, failures)
