"""Exceptions as what they are: a sentence with the way out and an exit code, or a fault of ours."""

from __future__ import annotations

import errno
import os
import shlex
import tempfile
import threading

import pytest

from rnnbench.api.errors import STDOUT, command_line, told
from rnnbench.api.exit_codes import EXIT_CODES, FOLDER, NOTHING, SYSTEM, USAGE
from rnnbench.api.planning import allowed_threads
from rnnbench.files import NoTemporaryFolder, temporary_folder
from rnnbench.records.store import StoreError
from rnnbench.workloads.base import WorkloadUnavailable


def system(number: int, file: object = None) -> OSError:
    return OSError(number, os.strerror(number), file) if file else OSError(number, os.strerror(number))


TOLD = {
    "no room": (system(errno.ENOSPC), FOLDER, "make room"),
    "no room in a file": (system(errno.ENOSPC, "a/b"), FOLDER, "a/b: No space left"),
    "a folder": (system(errno.EACCES, "a/b"), FOLDER, "a/b: Permission denied; choose another folder"),
    "no such file": (system(errno.ENOENT, "a/b"), FOLDER, "a/b: No such file or directory; check the path, or"),
    "a file as a folder": (system(errno.ENOTDIR, "a/b"), FOLDER, "check the path"),
    "a folder as a file": (system(errno.EISDIR, "a"), FOLDER, "a: Is a directory; give a file"),
    "a long name": (system(errno.ENAMETOOLONG, "a"), FOLDER, "give a shorter name"),
    "a name that is no text": (system(errno.EACCES, b"a\xff"), FOLDER, "a\udcff: "),
    "open files": (system(errno.EMFILE, "a/b"), SYSTEM, "ulimit -n"),
    "processes": (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), SYSTEM, "ulimit -u"),
    "threads": (RuntimeError("can't start new thread"), SYSTEM, "ulimit -u"),
    "memory": (MemoryError(), SYSTEM, "smaller sizes"),
    "memory of a fork": (system(errno.ENOMEM), SYSTEM, "smaller sizes"),
    "the answer": (system(errno.EIO, STDOUT), FOLDER, "standard output cannot be written"),
    "a store": (StoreError("it is no run"), FOLDER, "it is no run"),
    "rows": (WorkloadUnavailable("no rows"), NOTHING, "no rows"),
}


@pytest.mark.parametrize(("error", "code", "words"), TOLD.values(), ids=TOLD)
def test_what_the_user_or_the_system_caused_is_told(error, code, words):
    found = told(error)
    assert found is not None
    assert found.code == code
    assert words in found.text
    assert len(found.text) <= 360
    assert all(code in codes for codes in EXIT_CODES.values() if code == SYSTEM)
    if getattr(error, "errno", None) == errno.EMFILE:
        assert "folder" not in found.text


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyError("x"), BrokenPipeError(32, "Broken pipe"), TypeError()])
def test_all_else_is_a_fault(error):
    assert told(error) is None


def test_a_value_error_is_an_option_s_where_a_line_of_ours_raised_it():
    with pytest.raises(ValueError, match="threads") as ours:
        allowed_threads(0)
    assert told(ours.value).code == USAGE
    with pytest.raises(ValueError, match="invalid literal") as others:
        int("x")
    assert told(others.value) is None


def test_without_a_folder_for_temporary_files_one_sentence_says_so(monkeypatch):
    def nowhere():
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "_get_default_tempdir", nowhere)
    monkeypatch.setattr(tempfile, "tempdir", None)
    with pytest.raises(NoTemporaryFolder) as caught:
        temporary_folder()
    assert told(caught.value).code == FOLDER
    assert "set TMPDIR" in told(caught.value).text


def test_a_printed_command_can_be_pasted():
    odd = ["run", "-k", "imdb !epoch", "-o", "my run's $HOME"]
    assert shlex.split(command_line(*odd)) == ["python", "-m", "rnnbench", *odd]
    assert "'imdb !epoch'" in command_line(*odd)


def test_a_thread_that_cannot_be_started_is_what_python_says(monkeypatch):
    def refused(*_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading, "_start_new_thread", refused)
    with pytest.raises(RuntimeError) as caught:
        threading.Thread(target=print).start()
    assert told(caught.value).code == SYSTEM
