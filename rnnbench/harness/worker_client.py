"""The parent's end of a worker: start it, ask, wait no longer than allowed, say how it ended."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rnnbench
from rnnbench.files import temporary_folder
from rnnbench.records.record import Status

LAST_LINES = 3
MAX_WAIT = 1e6  # seconds that one call of the system waits; it could wait longer
NO_SIGNAL = getattr(socket, "MSG_NOSIGNAL", 0)  # for writing to a dead worker, where SIGPIPE is not ignored
MAX_SECONDS_TO_DIE = 5.0  # of a killed process


@dataclass(frozen=True)
class Limit:
    """How long a request may take, in seconds from now. `budget`: which one ends there, how spent it is, the way out.

    Without it a worker that takes longer hangs: that is a fault of the backend, where a spent budget is none.
    """

    seconds: float
    budget: str | None = None

    @property
    def status(self) -> Status:
        """The status of a request that took longer."""
        return Status.TIMEOUT if self.budget is None else Status.SKIPPED

    def reason(self, op: str) -> str:
        """Why a request was ended."""
        if self.budget is None:
            return f"{op} took longer than the limit of {self.seconds:g} s; raise it with --timeout"
        return f"{op} was ended after {self.seconds:.3g} s: {self.budget}"


class WorkerFailure(Exception):
    """A request that brought no answer. `alive` says whether the worker can be asked again."""

    def __init__(self, status: Status, reason: str, *, alive: bool) -> None:
        super().__init__(reason)
        self.status, self.reason, self.alive = status, reason, alive


def command(module: str) -> list[str]:
    """Arguments of Python for running a module of this very package, with the switches that this process was given.

    What is imported besides comes from where it does here, but for the current folder.
    """
    switches = {
        "-E": sys.flags.ignore_environment,
        "-s": sys.flags.no_user_site,
        "-S": sys.flags.no_site,
    }
    launcher = Path(rnnbench.__file__).resolve().with_name("harness") / "launcher.py"
    return ["-P", *(switch for switch, given in switches.items() if given), str(launcher), module]


def decoded(line: bytes) -> dict[str, Any] | None:
    """A worker's reply, or None where a line is none."""
    try:
        reply = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(reply, dict) or not isinstance(reply.get("ok"), bool):
        return None
    return reply if reply["ok"] or {"kind", "reason"} <= reply.keys() else None


def signal_name(number: int) -> str:
    """A signal by its number, and its name where it has one: those for real time have none."""
    with contextlib.suppress(ValueError):
        return f"{number} ({signal.Signals(number).name})"
    return str(number)


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


class WorkerClient:
    """A worker process. Everything it prints goes to `log`; requests and replies go over a socket of their own.

    Its current folder is that of `log`: libraries read settings in the current folder, and leave things there.

    `serve` is what Python runs: `rnnbench.harness.worker`, or another program that answers as it does. It finds the
    number of its end of the socket in RNNBENCH_CHANNEL.
    """

    def __init__(
        self, name: str, target: str, log: Path, env: dict[str, str], serve: Sequence[str] | None = None
    ) -> None:
        self.name, self.log = name, log.absolute()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.channel, theirs = socket.socketpair()
        serve = command("rnnbench.harness.worker") if serve is None else serve
        with theirs, self.log.open("ab") as printed:
            self.process = subprocess.Popen(
                [sys.executable, *serve, name, target],
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=printed,
                env=env | {"RNNBENCH_CHANNEL": str(theirs.fileno())},
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is the parent's to handle
                cwd=None if ".py:" in target else self.log.parent,  # of the user's own code, the user's own
            )
        self.channel.setblocking(False)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.channel, selectors.EVENT_READ)
        self.waiting = b""

    def ask(self, op: str, limit: Limit, **arguments: Any) -> dict[str, Any]:
        """The reply, within the limit. Raises WorkerFailure; a worker that takes longer is gone.

        OSError where the worker finds no room on the disk: that is a fault of the machine, not of the backend.
        """
        end = time.monotonic() + limit.seconds
        self._send(json.dumps({"op": op, **arguments}).encode() + b"\n", op, limit, end)
        line = self._line(op, limit, end)
        reply = decoded(line)
        if reply is None:
            self.kill()
            reason = f"{op}: the worker answered {line[:60]!r}, which is no reply"
            raise WorkerFailure(Status.CRASHED, reason, alive=False)
        if not reply.pop("ok"):
            if reply["kind"] == "disk_full":
                raise OSError(reply["errno"], reply["reason"], f"a file of {self.name}")
            status = Status.OUT_OF_MEMORY if reply["kind"] == "out_of_memory" else Status.CRASHED
            raise WorkerFailure(status, f"{op}: {reply['reason']}", alive=True)
        return reply

    def _send(self, data: bytes, op: str, limit: Limit, end: float) -> None:
        """Hand over a request. A worker that is stopped takes none: longer than the limit is not waited for it."""
        left = memoryview(data)
        while left:
            self._wait(selectors.EVENT_WRITE, op, limit, end)
            try:
                left = left[self.channel.send(left, NO_SIGNAL) :]
            except BlockingIOError:
                continue
            except ConnectionError as error:
                raise self._died(op) from error

    def _line(self, op: str, limit: Limit, end: float) -> bytes:
        while b"\n" not in self.waiting:
            self._wait(selectors.EVENT_READ, op, limit, end)
            try:
                chunk = self.channel.recv(1 << 20)
            except BlockingIOError:
                continue
            except ConnectionError:
                chunk = b""
            if not chunk:
                raise self._died(op)
            self.waiting += chunk
        line, _, self.waiting = self.waiting.partition(b"\n")
        return line

    def _wait(self, event: int, op: str, limit: Limit, end: float) -> None:
        """Until the socket can be written to or read from. Raises WorkerFailure at the end of the time."""
        self.selector.modify(self.channel, event)
        while not self.selector.select(max(0.0, min(end - time.monotonic(), MAX_WAIT))):
            if time.monotonic() >= end:
                self.kill()
                raise WorkerFailure(limit.status, limit.reason(op), alive=False)

    def _died(self, op: str) -> WorkerFailure:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=1)  # its own exit code is the one to tell
        code = self.process.returncode
        self.kill()
        if code is None:
            how = "closed its channel without an answer"
        elif code >= 0:
            how = f"ended with exit code {code}"
        else:
            how = f"was killed by signal {signal_name(-code)}"
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
        with contextlib.suppress(subprocess.TimeoutExpired):  # it hangs in a driver: there is no use in waiting
            self.process.wait(timeout=MAX_SECONDS_TO_DIE)
        self.selector.close()
        self.channel.close()

    def signal(self) -> None:
        """End the process and all it started, now."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def let_go(self) -> None:
        """Let the process end by itself."""
        with contextlib.suppress(OSError):  # it is gone already
            self.channel.shutdown(socket.SHUT_WR)

    def stop(self) -> None:
        """Let the process end by itself; after two seconds, end it."""
        if self.alive:
            self.let_go()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=2)
        self.kill()


def asked(module: str, op: str, limit: Limit, env: dict[str, str], **arguments: Any) -> dict[str, Any]:
    """The reply of a process of its own to one request. Raises WorkerFailure, and OSError where none can be started."""
    with temporary_folder() as folder:
        worker = WorkerClient(op, "", Path(folder) / "log", env, command(module))
        try:
            return worker.ask(op, limit, **arguments)
        finally:
            worker.kill()
