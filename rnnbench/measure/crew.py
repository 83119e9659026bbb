"""The workers of a run: one place per backend, its process started when first asked and replaced when it died."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rnnbench import backends
from rnnbench.measure.client import Worker, WorkerFailure, environment


@dataclass
class Place:
    """Where a backend stands: its process, what the import took, and the keys of the cases it is ready for."""

    worker: Worker | None = None
    import_ns: int | None = None
    start_seconds: float = 0.0
    ready: set[str] = field(default_factory=set)
    lives: int = 0  # processes it may still be given for the present problem


class Crew:
    """Workers by backend name, in a folder for their logs, arrays and compiler caches.

    `cache` None leaves the compilers their own caches.
    """

    def __init__(self, names: Iterable[str], folder: Path, threads: int, timeout: float, cache: Path | None) -> None:
        self.folder, self.timeout = folder, timeout
        self.env = environment(threads, cache)
        self.places = {name: Place() for name in names}
        self.libraries: dict[str, Any] = {}

    def worker(self, name: str) -> Worker:
        """A running worker with its library imported. Raises WorkerFailure where that fails."""
        place = self.places[name]
        if place.worker is None:
            start = time.monotonic()
            log = self.folder / "logs" / f"{name}.log"
            place.worker = Worker(name, backends.REGISTRY[name].target, log, self.env)
            hello = place.worker.ask("hello", self.timeout)
            place.import_ns = hello.pop("import_ns")
            place.start_seconds = time.monotonic() - start
            self.libraries[name] = hello
        return place.worker

    def ask(self, name: str, op: str, **arguments: Any) -> dict[str, Any]:
        """The reply. Raises WorkerFailure; a worker that is dead then leaves its place, and is ready for nothing."""
        try:
            return self.worker(name).ask(op, self.timeout, **arguments)
        except WorkerFailure as failure:
            place = self.places[name]
            if not failure.alive or place.import_ns is None:
                self._dismiss(place)
            raise

    def stop(self) -> None:
        """Let all workers end by themselves."""
        for place in self.places.values():
            if place.worker is not None:
                place.worker.stop()
                place.worker = None

    def kill(self) -> None:
        """End all workers now."""
        for place in self.places.values():
            self._dismiss(place)

    def _dismiss(self, place: Place) -> None:
        if place.worker is not None:
            place.worker.kill()
        place.worker = None
        place.ready = set()
