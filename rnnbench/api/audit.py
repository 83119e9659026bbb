"""`rnnbench verify --audit`: whether what is timed is all of the work, each backend in its own process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from rnnbench import backends
from rnnbench.correctness.timing_audit import Finding
from rnnbench.files import temporary_folder
from rnnbench.harness.observer import Observer
from rnnbench.harness.worker_client import WorkerFailure
from rnnbench.harness.worker_pool import WorkerPool
from rnnbench.model import DType, Pass


@dataclass(frozen=True)
class Audited:
    """Findings by backend and type, and why there are none."""

    findings: dict[tuple[str, DType], list[Finding]]
    reasons: dict[str, str]
    failures: dict[str, str]

    @property
    def code(self) -> int:
        """0 all hold; 1 one does not, or a backend failed; 3 no backend could be audited."""
        if not self.findings:
            return 1 if self.failures else 3
        return 1 if self.failures or any(not f.ok for found in self.findings.values() for f in found) else 0

    def as_json(self) -> dict[str, Any]:
        """Every finding, and the backends that could not be audited."""
        rows = [
            {"backend": name, "dtype": str(dtype), **msgspec.to_builtins(f), "ok": f.ok}
            for (name, dtype), found in self.findings.items()
            for f in found
        ]
        return {"findings": rows, "missing": self.reasons, "failed": self.failures}


def audit_backends(
    names: Sequence[str], dtypes: Sequence[DType], passes: Sequence[Pass], threads: int, timeout: float, show: Observer,
    env: Mapping[str, str] | None = None,
) -> Audited:  # fmt: skip
    """Audit backend after backend: beside others their times would be those of the others too."""
    findings: dict[tuple[str, DType], list[Finding]] = {}
    reasons = {name: why for name in names if (why := backends.missing(name, env))}
    failures: dict[str, str] = {}
    here = [name for name in names if name not in reasons]
    with temporary_folder("rnnbench-audit-") as folder:
        pool = WorkerPool(here, Path(folder), threads, timeout, cache=None, env=env)
        try:
            for i, name in enumerate(here):
                show.show(f"audit of {name}", i / len(here))
                try:
                    for dtype in dtypes:
                        said = pool.ask(name, "audit", dtype=dtype, passes=list(passes))
                        if said["reason"]:
                            reasons[name] = said["reason"]
                        else:
                            findings[name, dtype] = msgspec.convert(said["findings"], list[Finding])
                except WorkerFailure as failure:
                    failures[name] = failure.reason
        finally:
            pool.kill()
    return Audited(findings, reasons, failures)
