"""Where a run over a cluster is kept: a folder, and in it the run of each kind of machine, as any run's folder is."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from rnnbench.analysis.roofline import Peak
from rnnbench.api.run_session import now, write_noise
from rnnbench.cluster.known import Known
from rnnbench.cluster.unit import FILES
from rnnbench.data import ROWS
from rnnbench.harness.plan import Plan
from rnnbench.records import store


def kinds_in(folder: Path) -> dict[str, Path]:
    """The folders of the kinds of machines in a run over a cluster, by machine id. Raises StoreError."""
    if not (folder / store.MACHINES).is_file():
        raise store.StoreError(f"{folder} is no run over a cluster; leave out the cluster, or give the folder of one")
    described = store.read_json(folder / store.MACHINES).get("kinds")
    if not isinstance(described, dict):
        raise store.StoreError(f"{folder / store.MACHINES} names no kinds of machines; put back a copy")
    return {str(facts["machine_id"]): folder / label for label, facts in described.items()}


class KindFolder:
    """The run of one kind of machine: what arrives of it goes into its journals, each line once.

    `machines` are the names of its machines, `machine` the facts that they have in common. A folder that is there
    already is gone on with.
    """

    def __init__(self, folder: Path, plan: Plan, run: Mapping[str, Any], machine: Mapping[str, Any]) -> None:
        self.folder, self.plan = folder, plan
        self.run = {**store.read_run(folder), **run, "plan": msgspec.to_builtins(plan)}
        self.machine = {**machine, **store.read_json(folder / store.MACHINE)}
        self.known, self.lines = Known(), dict[int, dict[str, list[bytes]]]()
        self.done: set[int] = set(self.run.get("done", ()))
        self.run["beside"] = list(self.run.get("beside", ()))
        self.numbers = {name: n for n, spec in enumerate(plan.workloads) for name in _names(spec)}
        self.journals: dict[str, store.Journal] = {}
        for file in FILES:
            self.journals[file] = store.Journal(folder, file)
            for line in (folder / file).read_bytes().splitlines(keepends=True):
                if (item := self.known.add(file, line)) is not None:
                    name = item.case.workload if hasattr(item, "case") else item.workload
                    self._remember(self.numbers.get(name, -1), file, line)
        self.write()

    def _remember(self, number: int, file: str, line: bytes) -> None:
        if number not in self.done:
            self.lines.setdefault(number, {}).setdefault(file, []).append(line)

    def keep(self, number: int, file: str, lines: Sequence[bytes]) -> int:
        """Lines of a problem; how many of them are new. Raises StoreError where the folder does not take them."""
        fresh = [(line, item) for line in lines if (item := self.known.add(file, line)) is not None]
        self.journals[file].append([item for _, item in fresh])
        for line, _ in fresh:
            self._remember(number, file, line)
        return len(fresh)

    def kept(self, number: int) -> Mapping[str, tuple[bytes, ...]]:
        """The lines of a problem by file."""
        return {file: tuple(lines) for file, lines in self.lines.get(number, {}).items()}

    def facts(self, message: Mapping[str, Any]) -> None:
        """Add what is known of a machine after a problem."""
        seconds = self.run.setdefault("seconds", {})
        for kind, spent in message["seconds"].items():
            seconds[kind] = round(seconds.get(kind, 0.0) + spent, 3)
        if message["stops"]:
            self.run.setdefault("stops", {}).update(message["stops"])
        self.run["beside"] += [name for name in message["beside"] if name not in self.run["beside"]]
        self.machine.setdefault("workers", {}).update(message["workers"])
        measured = self.run.setdefault("machines", {}).setdefault(message["machine"], [])
        if (name := self.plan.workloads[message["unit"]].name) not in measured:
            measured.append(name)
        if message["peak"] is not None:
            peak = msgspec.convert(message["peak"], Peak)
            before = self.machine.get("peak")
            best = peak if before is None else msgspec.convert(before, Peak).best_of(peak)
            self.machine["peak"] = msgspec.to_builtins(best)

    def finished(self, number: int) -> None:
        """Nothing is left of a problem."""
        self.done.add(number)
        self.lines.pop(number, None)

    def write(self, **more: Any) -> None:
        """`run.json` and `machine.json` as they are now."""
        self.run = {**self.run, **more, "done": sorted(self.done)}
        store.write_json(self.folder / store.RUN, self.run)
        store.write_json(self.folder / store.MACHINE, self.machine)

    def close(self, whole: bool) -> None:
        """The end of the run; `whole` where nothing is left of it."""
        try:
            self.write(**({"finished": now()} if whole else {}))
            if whole:
                self._put_in_order()
            write_noise(self.plan, self.folder)
        finally:
            for journal in self.journals.values():
                journal.close()

    def _number_of(self, line: bytes) -> int:
        with suppress(msgspec.DecodeError):
            return self.numbers.get(store.decode_record(line).case.workload, -1)
        return -1

    def _put_in_order(self) -> None:
        """The records as one machine would have made them: problem by problem, as planned, and not as they arrived."""
        path = self.folder / store.RECORDS
        lines = path.read_bytes().splitlines(keepends=True)
        lines.sort(key=self._number_of)
        scratch = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            scratch.write_bytes(b"".join(lines))
            os.replace(scratch, path)
        except OSError:  # there is no room for a second one: they stay as they are
            scratch.unlink(missing_ok=True)


def _names(spec: Any) -> list[str]:
    """What the records of a problem may call it: by its own name, or by that of its stand-in."""
    return [spec.name, *([spec.stand_in + spec.name.removeprefix(spec.origin)] if spec.stand_in else [])]


def share_rows(folder: Path, kind: Path) -> None:
    """The rows of a user's own workloads in the folder of a kind, so that its run can be read and resumed alone."""
    if (folder / ROWS).is_dir():
        (kind / ROWS).mkdir(parents=True, exist_ok=True)
        for path in (folder / ROWS).iterdir():
            if not (target := kind / ROWS / path.name).exists():
                try:
                    os.link(path, target)
                except OSError:
                    shutil.copy(path, target)
