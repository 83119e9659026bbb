"""The command line under fault: real processes, real signals. What was measured stays, what failed is named."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from rnnbench.harness.plan import EFFORTS
from rnnbench.records import store
from rnnbench.records.folder import SCRATCH
from rnnbench.records.record import Mode, turns_in
from tests.calling import called

ROOT = Path(__file__).resolve().parents[2]
RUN = [sys.executable, "-m", "tests.driver", "run", "-w", "parity", "--threads", "1"]


def start(*arguments: str, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*RUN, *arguments],
        cwd=ROOT, env={**os.environ, **env}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finish(*arguments: str, **env: str) -> tuple[int, str]:
    process = start(*arguments, **env)
    out, err = process.communicate(timeout=120)
    assert "Traceback" not in out + err, out + err
    return process.returncode, out + err


def wait_for_samples(folder: Path, count: int, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        path = folder / store.RECORDS
        if path.exists() and path.read_bytes().count(b'"samples_ns"') >= count:
            return
        time.sleep(0.05)
    raise AssertionError(f"no {count} turns within {seconds} s")


def samples(folder: Path) -> list[tuple[object, ...]]:
    records = store.load_run(folder).records
    return [(r.backend, r.case, r.launch, r.round) for r in turns_in(records) if r.samples_ns and not r.attempt]


def children_are_gone(pids: list[int], seconds: float = 5) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end and any(psutil.pid_exists(pid) for pid in pids):
        time.sleep(0.05)
    return not any(psutil.pid_exists(pid) for pid in pids)


SLOW = ["-b", "numpy,slow", "--pass", "forward,gradient", "--no-training"]
ALL = 2 * 2 * EFFORTS[Mode.DEFAULT].launches * EFFORTS[Mode.DEFAULT].rounds  # its turns


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_keeps_what_was_measured_and_says_how_to_go_on(tmp_path, sent):
    process = start(*SLOW, "-o", str(tmp_path / "run"))
    wait_for_samples(tmp_path / "run", 3)
    pids = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
    process.send_signal(sent)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "--resume" in err
    assert "Traceback" not in err
    assert len(samples(tmp_path / "run")) >= 3
    assert (tmp_path / "run" / "report.md").exists()
    assert pids
    assert children_are_gone(pids)


def test_a_killed_parent_leaves_no_worker_and_is_resumed(tmp_path):
    folder = tmp_path / "run"
    process = start(*SLOW, "-o", str(folder))
    wait_for_samples(folder, 3)
    pids = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
    process.kill()
    process.communicate(timeout=10)
    assert pids
    assert children_are_gone(pids)
    with (folder / store.RECORDS).open("ab") as file:
        file.write(b'{"run_id": "cut in mid-li')
    before = samples(folder)
    code, text = finish_resume(folder)
    assert code == 0, text
    assert "ended in the middle of a line" in text
    after = samples(folder)
    assert after[: len(before)] == before
    assert len(after) == len(set(after)) == ALL
    run = json.loads((folder / store.RUN).read_text())
    assert len(run["resumed"]) == 1
    assert sorted(path.name for path in (folder / SCRATCH).iterdir()) == ["CACHEDIR.TAG", "logs"]


def finish_resume(folder: Path) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.driver", "run", "--resume", str(folder)],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout + done.stderr


def test_a_disk_that_fills_up_ends_the_run_and_keeps_what_was_written(tmp_path):
    folder = tmp_path / "run"
    code, text = finish(*SLOW, "-o", str(folder), TEST_FILE_SIZE_LIMIT="26000")
    assert code == 4, text
    assert "make room" in text
    loaded = store.load_run(folder)
    assert loaded.records
    assert not loaded.problems
    code, text = finish_resume(folder)
    assert code == 0, text
    assert len(samples(folder)) == ALL


@pytest.mark.parametrize("folder", ["/proc/rnnbench", "file/run"])
def test_a_folder_that_cannot_be_written_is_said_before_anything_is_measured(tmp_path, folder):
    (tmp_path / "file").write_text("not a folder")
    path = folder if folder.startswith("/") else str(tmp_path / folder)
    code, text = finish("-b", "numpy", "--quick", "-o", path)
    assert code == 4
    assert "cannot be written" in text
    assert "choose another folder with -o" in text


def test_failures_give_exit_code_1_and_stand_in_the_report(tmp_path):
    folder = tmp_path / "run"
    arguments = ("-b", "numpy,raises,scaled,absent", "--quick", "--no-training", "-o", str(folder))
    code, text = finish(*arguments)
    assert code == 1, text
    report = (folder / "report.md").read_text().replace("\\", "")
    for words in ("the kernel has no such step", "wrong", "no_such_module_here not installed"):
        assert words in report, words


def test_a_worker_that_a_nameless_signal_ends_costs_its_case_and_the_run_goes_on(tmp_path):
    folder = tmp_path / "run"
    code, text = finish("-b", "signal-35,numpy", "--no-training", "--pass", "forward,gradient", "-o", str(folder))
    assert code == 1, text
    assert "killed by signal 35" in text
    assert {backend for backend, *_ in samples(folder)} == {"signal-35", "numpy"}
    assert (folder / "report.md").exists()


def test_nothing_measured_is_an_error(tmp_path):
    code, text = finish("-b", "absent", "--quick", "-o", str(tmp_path / "run"))
    assert code == 3, text
    assert "no_such_module_here not installed" in text


def test_two_runs_in_one_folder_are_refused(tmp_path):
    process = start(*SLOW, "-o", str(tmp_path / "run"))
    wait_for_samples(tmp_path / "run", 1)
    code, text = finish(*SLOW, "-o", str(tmp_path / "run"))
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert code == 4
    assert "in use by another run" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-w", "imdb50"], "there is no workload 'imdb50'; did you mean imdb-50"),
        (["-b", "nunba"], "did you mean numba"),
        (["--pass", "train-step"], "did you mean train_step"),
        (["-w", "running-parity", "-E", "9"], "E is 1 in running-parity, the width of its rows"),
        (["-B", "0"], "'-B': '0' is not a whole number from 1 to"),
        (["-B", "801"], "batch size 801 is more than the 800 training rows"),
        (["--truncation", "3:4"], "1 <= stride <= window"),
        (["--truncation", "x"], "'--truncation': 'x' is not a whole number from 1"),
        (["--threads", "999"], "--threads 999 is more than the"),
    ],
)
def test_wrong_options_get_one_sentence(tmp_path, arguments, words):
    asked = ("run", "-w", "parity", "-b", "numpy", "--quick", "-o", tmp_path / "run", *arguments)
    assert words in " ".join(called(*asked, code=2).output.split())


def test_resuming_nothing_is_an_error(tmp_path):
    code, text = finish_resume(tmp_path / "nothing")
    assert code == 4
    assert "cannot be resumed" in text
