"""The download, from a server on this machine: right, wrong, slow, broken off, absent, switched off."""

from __future__ import annotations

import http.server
import socket
import sys
import threading
import time
from contextlib import contextmanager

import pytest

from rnnbench import workloads
from rnnbench.harness.tasks import load_rows
from rnnbench.workloads import imdb_files
from rnnbench.workloads.base import WorkloadUnavailable
from tests.workloads.fake_imdb import check

pytest.importorskip("pooch")
pytest.importorskip("requests")


@pytest.fixture(autouse=True)
def online(places, monkeypatch):
    for name in ("RNNBENCH_OFFLINE", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@contextmanager
def server(body: bytes, status: int = 200, promised: int | None = None, wait_s: float = 0.0):
    """A web server that answers every request alike; yields its address."""
    stop = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            stop.wait(wait_s)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body) if promised is None else promised))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args) -> None:
            return

    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=web.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{web.server_port}/imdb.npz"
    finally:
        stop.set()
        web.shutdown()
        thread.join()
        web.server_close()


def unavailable() -> str:
    """The one-sentence message of a load that fails."""
    with pytest.raises(WorkloadUnavailable) as caught:
        imdb_files.load_imdb()
    message = str(caught.value)
    assert "\n" not in message
    assert "--data-dir or $RNNBENCH_DATA" in message
    return message


def test_a_download_is_checked_and_cached(places, monkeypatch):
    with server(places.content) as url:
        monkeypatch.setattr(imdb_files, "URL", url)
        corpus, where = imdb_files.load_imdb()
    assert where == "download"
    check(corpus)
    assert imdb_files.load_imdb()[1] == "the cache"


def test_the_size_of_a_download_is_said_before_it_begins_and_by_no_load_from_the_cache(places, monkeypatch):
    said = []
    with server(places.content) as url:
        monkeypatch.setattr(imdb_files, "URL", url)
        for _ in range(2):
            load_rows(workloads.get("imdb-50"), 0, None, said.append)
    assert said == [f"downloading IMDB (imdb.npz, 17 MB) from {url}"]


def test_a_download_of_another_file_is_refused(places, monkeypatch):
    with server(b"<html>please log in</html>") as url:
        monkeypatch.setattr(imdb_files, "URL", url)
        message = unavailable()
    assert "26 bytes, sha256" in message
    assert f"not {imdb_files.SHA256[:8]}..." in message
    assert not places.cache.exists()


def test_a_download_that_breaks_off(places, monkeypatch):
    with server(places.content[:-500], promised=len(places.content)) as url:
        monkeypatch.setattr(imdb_files, "URL", url)
        assert "the download from" in unavailable()


def test_an_error_of_the_server(monkeypatch):
    with server(b"", status=503) as url:
        monkeypatch.setattr(imdb_files, "URL", url)
        assert "503" in unavailable()


def test_a_server_that_does_not_answer(places, monkeypatch):
    monkeypatch.setattr(imdb_files, "TIMEOUT_S", 0.2)
    with server(places.content, wait_s=30) as url:
        monkeypatch.setattr(imdb_files, "URL", url)
        start = time.monotonic()
        assert "ReadTimeout" in unavailable()
    assert time.monotonic() - start < 5


def test_more_than_the_file_can_have_or_longer_than_it_may_take(places, monkeypatch):
    with server(places.content) as url:
        monkeypatch.setattr(imdb_files, "URL", url)
        monkeypatch.setattr(imdb_files, "MAX_BYTES", 1000)
        assert "more than 1000 bytes came" in unavailable()
        monkeypatch.setattr(imdb_files, "MAX_BYTES", 1 << 20)
        monkeypatch.setattr(imdb_files, "DEADLINE_S", -1.0)
        assert "not complete after" in unavailable()


def test_no_network(monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        monkeypatch.setattr(imdb_files, "URL", f"http://127.0.0.1:{closed.getsockname()[1]}/imdb.npz")
        start = time.monotonic()
        assert "failed (ConnectionError)" in unavailable()
    assert time.monotonic() - start < 5


def test_pooch_that_is_not_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    assert "pooch" in unavailable()


def test_switched_off(places, monkeypatch):
    monkeypatch.setenv("RNNBENCH_OFFLINE", "1")
    with server(places.content) as url:
        monkeypatch.setattr(imdb_files, "URL", url)
        assert "switched off by $RNNBENCH_OFFLINE" in unavailable()
        monkeypatch.setenv("RNNBENCH_OFFLINE", "0")
        assert imdb_files.load_imdb()[1] == "download"
