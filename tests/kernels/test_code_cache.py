"""Compiled kernels on disk: what is damaged is made anew, and what cannot be kept is compiled nevertheless."""

from __future__ import annotations

import errno
import logging
import os
import pickle
from pathlib import Path

import numba
import pytest

from rnnbench.kernels import code_cache


def double(x):
    return 2 * x + 1


@pytest.fixture(autouse=True)
def _nothing_was_said():
    code_cache._say_once.cache_clear()


def call(place: Path | None) -> int:
    """What a new process makes of the function: how often its code was found in the folder."""
    kernel = code_cache.keep(numba.njit(double), double, place)
    assert kernel(20) == 41
    return sum(kernel.stats.cache_hits.values())


def flipped(data: bytes, at: int) -> bytes:
    at %= len(data)
    return data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :]


DAMAGE = {
    "empty": lambda data: b"",
    "cut after a byte": lambda data: data[:1],
    "cut in half": lambda data: data[: len(data) // 2],
    "cut at the end": lambda data: data[:-1],
    "a bit at the head": lambda data: flipped(data, 5),
    "a bit in the middle": lambda data: flipped(data, len(data) // 2),
    "a bit at the end": lambda data: flipped(data, -1),
    "no pickle": lambda data: b"\xff" * len(data),
    "another version": lambda data: pickle.dumps("0.1.0") + b"whatever that one wrote",
}


@pytest.mark.parametrize("ending", [".nbi", ".nbc"])
def test_a_damaged_file_is_made_anew(tmp_path, ending):
    assert (call(tmp_path), call(tmp_path)) == (0, 1)
    (file,) = tmp_path.glob(f"*{ending}")
    for name, damage in DAMAGE.items():
        file.write_bytes(damage(file.read_bytes()))
        assert (call(tmp_path), call(tmp_path)) == (0, 1), name


def test_code_of_another_source_is_not_taken(tmp_path, monkeypatch):
    call(tmp_path)
    monkeypatch.setattr(code_cache, "_content_of", lambda file: b"another")
    assert (call(tmp_path), call(tmp_path)) == (0, 1)


def test_a_second_user_reads_what_the_first_has_compiled(tmp_path, monkeypatch, caplog):
    before = os.umask(0o022)
    try:
        call(tmp_path / "shared")
    finally:
        os.umask(before)
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / "shared").iterdir()} == {0o644}
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    place = code_cache.code_folder("shared", Path(__file__))
    assert place == tmp_path / "shared"
    assert call(place) == 1
    assert not caplog.records


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_without_room_kernels_compile_and_one_line_says_so(tmp_path, monkeypatch, caplog, number):
    def refuse(self, path):
        raise OSError(number, os.strerror(number), f"{path}.tmp.{os.urandom(4).hex()}")  # as Numba names it

    monkeypatch.setattr(code_cache.IndexDataCacheFile, "_open_for_write", refuse)
    with caplog.at_level(logging.WARNING):
        assert (call(tmp_path), call(tmp_path)) == (0, 0)
    (said,) = caplog.messages
    assert os.strerror(number) in said
    assert str(tmp_path) in said


def test_a_folder_that_cannot_be_made_is_done_without_and_named(monkeypatch, caplog):
    monkeypatch.setattr(numba.config, "CACHE_DIR", "/dev/null/numba")
    with caplog.at_level(logging.WARNING):
        assert code_cache.code_folder("kernels", Path(__file__)) is None
        assert code_cache.code_folder("kernels", Path(__file__)) is None
    (said,) = caplog.messages
    assert "/dev/null/numba cannot be written" in said
    assert call(None) == 0


def test_beside_sources_that_cannot_be_written_the_home_s_cache_is_taken_and_none_is_called_tilde(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home").mkdir()
    source = Path("/dev/null/module.py")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert code_cache.code_folder("kernels", source) == tmp_path / "home/.cache/rnnbench/kernels"
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # no home, and a user of no name
    assert code_cache.code_folder("kernels", source) is None
    assert not (tmp_path / "~").exists()
    assert code_cache.code_folder("kernels", tmp_path / "module.py") == tmp_path / "__pycache__/kernels"
