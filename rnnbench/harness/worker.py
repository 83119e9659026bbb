"""The worker process: one backend that answers requests, JSON lines.

`rnnbench.harness.worker NAME MODULE:CLASS`, started by `harness.worker_client`. Requests and replies go over a socket
of their own, whose number is in RNNBENCH_CHANNEL: what libraries and hooks print is no reply. The process ends when
the parent's end of the socket is closed.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import json
import os
import queue
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

OUT_OF_MEMORY_WORDS = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "resource_exhausted",
    "out_of_memory",
    "oom",
)


def limit_cores() -> None:
    """Stay on as many cores as the parent says. XLA's thread pool is limited in no other way."""
    wanted = os.environ.get("RNNBENCH_CORES")
    if wanted and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(core) for core in wanted.split(",")})


def failure(error: BaseException) -> dict[str, Any]:
    """A reply that says what went wrong, in one line, and the whole of it on standard error."""
    with contextlib.suppress(Exception):  # of a full disk, which the reply says, or for want of memory
        traceback.print_exc()
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return {"ok": False, "kind": "disk_full", "reason": error.strerror, "errno": error.errno}
    lines = [line for line in str(error).splitlines() if line.strip()]
    text = f"{type(error).__name__}: {lines[0].strip() if lines else 'no message'}"
    memory = isinstance(error, MemoryError) or any(word in text.lower() for word in OUT_OF_MEMORY_WORDS)
    return {"ok": False, "kind": "out_of_memory" if memory else "error", "reason": text[:500]}


def channel() -> socket.socket:
    """The socket to the parent. What this process starts does not get it, and so does not hold it open."""
    found = socket.socket(fileno=int(os.environ.pop("RNNBENCH_CHANNEL")))
    found.set_inheritable(False)
    return found


def requests(lines: socket.socket) -> queue.Queue[dict[str, Any]]:
    """Requests as they come. A thread reads them, so that the process ends at once when its parent is gone."""
    waiting: queue.Queue[dict[str, Any]] = queue.Queue()

    def read() -> None:
        with contextlib.suppress(OSError):
            for line in lines.makefile("rb"):
                waiting.put(json.loads(line))
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return waiting


def serve(make: Callable[[], Any]) -> None:
    """Answer requests, each by the method of its name, until the parent is gone. What has them is made at the first.

    Where the system starts no thread, that is the one answer: what computes would need more of them.
    """
    replies = channel()
    limit_cores()
    try:
        waiting = requests(replies)
    except RuntimeError as error:
        replies.sendall(json.dumps(failure(error)).encode() + b"\n")
        return
    served = None
    while True:
        request = waiting.get()
        operation = request.pop("op")
        try:
            if served is None:
                served = make()
            reply = {"ok": True, **getattr(served, operation)(**request)}
        except Exception as error:
            reply = failure(error)
        replies.sendall(json.dumps(reply).encode() + b"\n")


def operations(target: str) -> Any:
    """Import a backend, and then what is asked of it.

    Without collections where nobody keeps what that takes: of TensorFlow's import they are a fifth.
    """
    if not os.environ.get("RNNBENCH_TIMES_IMPORT"):
        gc.disable()
    start = time.perf_counter_ns()
    from rnnbench.backends import class_of

    backend = class_of(target)()
    import_ns = time.perf_counter_ns() - start
    from rnnbench.harness.operations import Operations

    if not gc.isenabled():
        gc.freeze()  # the first collections pass over what has been there all along, as they do after others
        gc.enable()
    return Operations(backend, import_ns)


if __name__ == "__main__":
    serve(lambda: operations(sys.argv[2]))
