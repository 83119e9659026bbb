"""`rnnbench list --contract`: what each backend would have inside the clock, as it says itself in its own process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from rnnbench import backends
from rnnbench.contract import Contract
from rnnbench.files import temporary_folder
from rnnbench.harness.worker_client import WorkerFailure
from rnnbench.harness.worker_pool import WorkerPool
from rnnbench.model import Case, Pass, Problem


@dataclass(frozen=True)
class ContractAnswer:
    """What a backend said, or why it said nothing; `unsupported`: passes that it does not do, and why."""

    contract: Contract | None = None
    libraries: dict[str, str] | None = None
    missing: str | None = None
    unsupported: dict[str, str] | None = None


def ask(names: Sequence[str], problem: Problem, threads: int, timeout: float) -> dict[str, ContractAnswer]:
    """Ask all of them, side by side: importing a framework takes seconds."""
    answers: dict[str, ContractAnswer] = {}
    with temporary_folder("rnnbench-list-") as folder:
        pool = WorkerPool(names, Path(folder), threads, timeout, cache=None)

        def one(name: str) -> None:
            try:
                answers[name] = _asked(pool, name, problem)
            except WorkerFailure as failure:
                answers[name] = ContractAnswer(missing=failure.reason)

        try:
            pool.side_by_side(one, names)
        finally:
            pool.kill()
    return {name: answers[name] for name in names}


def _asked(pool: WorkerPool, name: str, problem: Problem) -> ContractAnswer:
    if reason := backends.missing(name):
        return ContractAnswer(missing=reason)
    unsupported = {}
    for pass_ in Pass:
        case = msgspec.to_builtins(Case(**vars(problem), pass_=pass_))
        said = pool.ask(name, "unsupported", case=case)
        if said["unavailable"]:
            return ContractAnswer(missing=said["reason"])
        if said["reason"]:
            unsupported[str(pass_)] = said["reason"]
    said = pool.ask(name, "contract", problem=msgspec.to_builtins(problem))
    libraries = pool.libraries[name]["libraries"]
    return ContractAnswer(msgspec.convert(said["contract"], Contract), libraries, unsupported=unsupported)


def contract_rows(answer: ContractAnswer, problem: Problem) -> list[tuple[str, str]]:
    """A contract as names and texts."""
    contract = answer.contract
    if contract is None:
        return [("missing", answer.missing or "unknown")]
    rows = [
        *((pass_, (answer.unsupported or {}).get(pass_) or text) for pass_, text in contract.timed.items()),
        ("outside the clock", contract.staged),
        ("waits", contract.waits),
        ("threads", str(contract.threads)),
        ("dtype", str(problem.dtype)),
        ("TF32", "yes" if contract.tf32 else "no"),
        ("subnormals", contract.subnormals),
        ("notes", contract.notes),
        ("libraries", ", ".join(f"{name} {version}" for name, version in (answer.libraries or {}).items())),
    ]
    return [(name, text) for name, text in rows if text]


def contracts_json(answers: dict[str, ContractAnswer], problem: Problem) -> dict[str, Any]:
    """The contracts for programs."""
    return {
        "problem": msgspec.to_builtins(problem),
        "backends": {name: {"dtype": str(problem.dtype), **msgspec.to_builtins(t)} for name, t in answers.items()},
    }
