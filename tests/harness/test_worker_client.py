"""The parent's end of a worker: no wait is longer than its limit, and no answer of a worker ends a run."""

from __future__ import annotations

import os
import signal
import time

import pytest

import rnnbench
from rnnbench import backends
from rnnbench.harness import worker_client
from rnnbench.harness.worker_client import Limit, WorkerClient, WorkerFailure
from rnnbench.harness.worker_pool import WorkerPool
from rnnbench.machine.environment import environment, passed
from rnnbench.records.record import Status

SOON = 30.0  # seconds that none of this takes, on a machine however busy
LONG = Limit(120.0)
ORDER = list(range(300_000))  # far more than a pipe or a socket holds

# A worker that does what the test says with its end of the socket.
SAYS = """
import os, socket, sys, time
channel = socket.socket(fileno=int(os.environ["RNNBENCH_CHANNEL"]))
channel.recv(1 << 20)
"""


@pytest.fixture
def started(tmp_path):
    """Start workers; none is left."""
    workers = []

    def start(code: str | None = None) -> WorkerClient:
        target = backends.entry_of("numpy").target
        serve = None if code is None else ("-c", SAYS + code)
        workers.append(WorkerClient("numpy", target, tmp_path / "worker.log", environment(1, None), serve))
        return workers[-1]

    yield start
    for worker in workers:
        worker.kill()


def refused(worker: WorkerClient, limit: Limit = LONG, **arguments) -> WorkerFailure:
    begun = time.monotonic()
    with pytest.raises(WorkerFailure) as caught:
        worker.ask("first", limit, **arguments)
    assert time.monotonic() - begun < SOON
    assert not caught.value.alive
    assert not worker.alive
    return caught.value


@pytest.mark.parametrize(("budget", "status"), [(None, Status.TIMEOUT), ("the budget is spent", Status.SKIPPED)])
@pytest.mark.parametrize("order", [None, ORDER], ids=["small", "large"])
def test_a_stopped_worker_is_ended_at_the_limit_whatever_is_asked_of_it(started, order, budget, status):
    worker = started()
    worker.ask("hello", LONG)
    os.kill(worker.process.pid, signal.SIGSTOP)
    assert refused(worker, Limit(0.5, budget), pass_="epoch", order=order, out="nowhere").status is status


def test_a_worker_that_dies_while_a_request_is_written_crashed(started):
    worker = started("time.sleep(0.3); os._exit(7)")
    failure = refused(worker, order=ORDER)
    assert failure.status is Status.CRASHED
    assert "ended with exit code 7" in failure.reason


@pytest.mark.parametrize(
    "line",
    [b"hello from a library", b"[]", b"7", b'{"ok": 1}', b'{"ok": false}', b"[" * 100_000, b"\xff", b"", b"1" * 5000],
)
def test_an_answer_that_is_no_reply_is_a_crash_of_its_worker(started, line):
    failure = refused(started(f"channel.sendall({line!r} + b'\\n'); time.sleep(1000)"))
    assert failure.status is Status.CRASHED
    assert "which is no reply" in failure.reason
    assert len(failure.reason) < 200


@pytest.mark.parametrize("number", [35, signal.SIGRTMAX - 1, signal.SIGTERM, signal.SIGSEGV, signal.SIGKILL])
def test_a_worker_that_a_signal_ends_crashed_by_that_number(started, number):
    failure = refused(started(f"os.kill(os.getpid(), {int(number)}); time.sleep(1000)"))
    assert failure.status is Status.CRASHED
    assert f"killed by signal {int(number)}" in failure.reason
    assert ("memory runs out" in failure.reason) == (number == signal.SIGKILL)


def test_a_worker_that_closes_its_channel_and_lives_on_is_not_blamed_for_memory(started):
    failure = refused(started("channel.close(); time.sleep(1000)"))
    assert failure.status is Status.CRASHED
    assert "closed its channel without an answer" in failure.reason


def test_a_process_that_cannot_be_killed_is_not_waited_for(started, monkeypatch):
    worker = started("time.sleep(1000)")
    monkeypatch.setattr(worker_client, "MAX_SECONDS_TO_DIE", 0.2)
    with monkeypatch.context() as patch:
        patch.setattr(os, "killpg", lambda group, number: None)  # as of one that hangs in a driver
        begun = time.monotonic()
        with pytest.raises(WorkerFailure):
            worker.ask("hello", Limit(0.2))
        worker.stop()
        assert time.monotonic() - begun < SOON
        assert worker.alive


@pytest.mark.parametrize("own", [False, True], ids=["ours", "the user's"])
def test_a_worker_s_folder_is_that_of_its_log_but_the_user_s_own_code_reads_beside_itself(tmp_path, own):
    """Numba would read a .numba_config.yaml of the current folder, and a core would be left there."""
    target = f"{tmp_path}/mine.py:Mine" if own else "rnnbench.backends.numpy:NumpyBackend"
    code = (
        SAYS
        + """import json; channel.sendall(json.dumps({"ok": True, "at": os.getcwd()}).encode() + b"\\n"); input()"""
    )
    worker = WorkerClient("numpy", target, tmp_path / "logs" / "a log", environment(1, None), ("-c", code))
    try:
        assert worker.ask("hello", LONG)["at"] == (os.getcwd() if own else str(tmp_path / "logs"))
    finally:
        worker.kill()


def test_limits_beyond_what_the_system_can_wait(started):
    for seconds in (3e6, float("inf")):
        assert started().ask("hello", Limit(seconds))["package"]["version"] == rnnbench.__version__


@pytest.mark.parametrize(("name", "value"), [("__version__", "0.0.7"), ("__file__", "/elsewhere/rnnbench/__init__.py")])
def test_a_worker_of_another_package_is_refused_in_one_sentence(tmp_path, monkeypatch, name, value):
    pool = WorkerPool(("numpy",), tmp_path, 1, 60.0, None)
    launched = worker_client.command("rnnbench.harness.worker")
    monkeypatch.setattr(worker_client, "command", lambda module: launched)
    monkeypatch.setattr(rnnbench, name, value)
    with pytest.raises(WorkerFailure, match=r"^hello: the worker has rnnbench .* and this process .*") as caught:
        pool.ask("numpy", "contract", problem={})
    assert caught.value.status is Status.CRASHED
    assert pool.place("numpy").worker is None
    assert not pool.libraries


def test_folders_of_the_path_are_named_in_full_and_empty_ones_are_left_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = str(tmp_path)
    known = {"": None, ":": None, "a": f"{here}/a", "::a/b:": f"{here}/a/b", ".": here, "/x:a": f"/x:{here}/a"}
    for given, kept in known.items():
        monkeypatch.setenv("PYTHONPATH", given)
        assert passed({}).get("PYTHONPATH") == kept, given
    assert passed({})["PYTHONSAFEPATH"] == "1"


def test_a_worker_that_can_start_no_thread_says_so_in_a_line(tmp_path):
    hook = 'import threading\ndef refused(*_):\n    raise RuntimeError("can\'t start new thread")\n'
    (tmp_path / "sitecustomize.py").write_text(f"{hook}threading._start_new_thread = refused\n")
    env = environment(1, None) | {"PYTHONPATH": str(tmp_path)}
    client = WorkerClient("numpy", backends.REGISTRY["numpy"].target, tmp_path / "log", env)
    try:
        with pytest.raises(WorkerFailure) as caught:
            client.ask("hello", Limit(60))
    finally:
        client.kill()
    assert caught.value.reason == "hello: RuntimeError: can't start new thread"
