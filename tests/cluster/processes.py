"""A scheduler and workers as processes on this machine, each worker a machine by its own name and cores."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

from distributed import Client

ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def until(true: Callable[[], object], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.05)


class Processes:
    """Starts them in `folder`, and ends them when it is left."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.stack, self.logs = ExitStack(), ExitStack()

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()
        for name in list(self.running):
            self.kill(name)
        self.logs.close()

    def _start(
        self, name: str, *arguments: object, env: Mapping[str, str] | None = None,
        before: Callable[[], None] | None = None, quiet: bool = False,
    ) -> None:  # fmt: skip
        log = None if quiet else self.logs.enter_context((self.folder / f"{name}.log").open("ab"))
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **(env or {})}
        where = log or subprocess.DEVNULL
        self.running[name] = subprocess.Popen(
            [sys.executable, "-m", *map(str, arguments)], env=environment, stdout=where, stderr=where,
            preexec_fn=before, cwd=self.folder, start_new_session=True,
        )  # fmt: skip

    def scheduler(self) -> None:
        self._start("scheduler", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", self.port,
                    "--no-dashboard")  # fmt: skip

    def worker(
        self, name: str, *, cores: Iterable[int] = (0,), resources: str = "rnnbench=1", machine: str | None = "",
        env: Mapping[str, str] | None = None, before: Callable[[], None] | None = None, local: Path | None = None,
        quiet: bool = False,
    ) -> None:  # fmt: skip
        """`machine`: its name, None for none; else that of the worker."""
        runtime = self.folder / f"runtime-{name}"
        runtime.mkdir(exist_ok=True)
        named = {} if machine is None else {"RNNBENCH_MACHINE": machine or name, "XDG_RUNTIME_DIR": str(runtime)}
        own = set(cores)

        def begin() -> None:
            os.sched_setaffinity(0, own)
            if before is not None:
                before()

        given = ["--resources", resources] if resources else []
        self._start(name, "distributed.cli.dask_worker", self.address, "--nthreads", 1, "--name", name, "--no-nanny",
                    "--no-dashboard", "--local-directory", local or self.folder / f"local-{machine or name}", *given,
                    env={**named, **(env or {})}, before=begin, quiet=quiet)  # fmt: skip

    def kill(self, name: str) -> None:
        """At once, with all that it has started."""
        process = self.running.pop(name)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def client(self, workers: int) -> Client:
        client = self.stack.enter_context(Client(self.address, timeout=60, set_as_default=False))
        client.wait_for_workers(workers, timeout=60)
        return client
