"""The parent's end of a worker: start it, ask, wait no longer than allowed, say what became of it."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rnnbench.measure.limits import Limit
from rnnbench.results.record import Status

LAST_LINES = 3
THREAD_COUNTS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
)


class WorkerFailure(Exception):
    """A request that brought no answer. `alive` says whether the worker can be asked again."""

    def __init__(self, status: Status, reason: str, *, alive: bool) -> None:
        super().__init__(reason)
        self.status, self.reason, self.alive = status, reason, alive


def allowed_cores() -> list[int]:
    """The cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def environment(threads: int, cache: Path | None) -> dict[str, str]:
    """The worker's environment: thread counts and cores, known before anything is imported, and where compilers cache.

    `cache` None leaves the compilers their own folders.
    """
    env = dict(os.environ)
    for name in THREAD_COUNTS:
        env[name] = str(threads)
    env["RNNBENCH_CORES"] = ",".join(str(core) for core in allowed_cores()[:threads])
    env["PYTHONUNBUFFERED"] = "1"
    env.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # else JAX takes three quarters of a GPU from the others
    env.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # that of the driver's own tools, by which its clocks are read
    if cache is not None:
        env["NUMBA_CACHE_DIR"] = str(cache / "numba")
        env["TORCHINDUCTOR_CACHE_DIR"] = str(cache / "inductor")
        xla = cache / "xla"
        xla.mkdir(parents=True, exist_ok=True)  # TensorFlow, unlike the others, makes no folder
        flag = f"--tf_xla_persistent_cache_directory={xla}"
        env["TF_XLA_FLAGS"] = f"{env.get('TF_XLA_FLAGS', '')} {flag}".strip()
        env["JAX_COMPILATION_CACHE_DIR"] = str(cache / "jax")
        env["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        env["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    return env


def last_lines(path: Path, count: int = LAST_LINES) -> str:
    """The last lines of a log in one line, for a reason."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 4096))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " | ".join(lines[-count:])[:500]


class Worker:
    """A worker process. Everything it prints goes to `log`.

    `serve` is what Python runs: `rnnbench.measure.worker`, or another program that answers as it does.
    """

    def __init__(
        self,
        name: str,
        target: str,
        log: Path,
        env: dict[str, str],
        serve: Sequence[str] = ("-m", "rnnbench.measure.worker"),
    ) -> None:
        self.name, self.log = name, log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, *serve, name, target],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=env,
                start_new_session=True,  # Ctrl-C is the parent's to handle
            )
        assert self.process.stdout is not None
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.process.stdout, selectors.EVENT_READ)
        self.waiting = b""

    def ask(self, op: str, limit: Limit, **arguments: Any) -> dict[str, Any]:
        """The reply, within the limit. Raises WorkerFailure; a worker that takes longer is gone.

        OSError where the worker finds no room on the disk: that befalls the run and not the backend.
        """
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps({"op": op, **arguments}).encode() + b"\n")
            self.process.stdin.flush()
            reply = json.loads(self._line(op, limit))
        except BrokenPipeError as error:
            raise self._died(op) from error
        if not reply.pop("ok"):
            if reply["kind"] == "disk_full":
                raise OSError(reply["errno"], reply["reason"], f"a file of {self.name}")
            status = Status.OUT_OF_MEMORY if reply["kind"] == "out_of_memory" else Status.CRASHED
            raise WorkerFailure(status, f"{op}: {reply['reason']}", alive=True)
        return dict(reply)

    def _line(self, op: str, limit: Limit) -> bytes:
        assert self.process.stdout is not None
        end = time.monotonic() + limit.seconds
        while b"\n" not in self.waiting:
            if not self.selector.select(max(0.0, end - time.monotonic())):
                self.kill()
                raise WorkerFailure(limit.status, limit.reason(op), alive=False)
            chunk = os.read(self.process.stdout.fileno(), 1 << 20)
            if not chunk:
                raise self._died(op)
            self.waiting += chunk
        line, _, self.waiting = self.waiting.partition(b"\n")
        return line

    def _died(self, op: str) -> WorkerFailure:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=1)  # its own exit code is the one to tell
        self.kill()
        code = self.process.returncode
        how = f"ended with exit code {code}"
        if code < 0:
            how = f"was killed by signal {-code} ({signal.Signals(-code).name})"
            if code == -signal.SIGKILL:
                how += ", which the system does when memory runs out"
        said = last_lines(self.log)
        reason = f"{op}: the worker {how}" + (f"; it said: {said}" if said else "")
        return WorkerFailure(Status.CRASHED, reason, alive=False)

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self.process.poll() is None

    def kill(self) -> None:
        """End the process and all it started, now, and wait until it is gone."""
        self.signal()
        self.process.wait()
        self._close_pipes()

    def signal(self) -> None:
        """End the process and all it started, now."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def let_go(self) -> None:
        """Let the process end by itself."""
        if self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()

    def stop(self) -> None:
        """Let the process end by itself; after two seconds, end it."""
        if self.alive:
            self.let_go()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=2)
        self.kill()

    def _close_pipes(self) -> None:
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):  # what was left to write has no reader any more
                    stream.close()
        self.selector.close()
