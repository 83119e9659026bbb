"""The steps that take a GPU, with made-up steps: who fails, hangs or is not there is told, and the next goes on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from functools import partial
from pathlib import Path

import pytest

import gpu
import gpu_steps
from gpu_steps import Ending, Outcome, Step, run_steps, steps
from tests import calling

DEVICE = {"refusal": None, "name": "Some GPU 80GB", "capability": [9, 0], "driver": [13, 0]}


def python(name: str, code: str, limit: float = 60.0, **rest) -> Step:
    return Step(name, (sys.executable, "-S", "-c", code), limit, **rest)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.fixture
def device(monkeypatch, tmp_path):
    """A machine with a GPU whose steps are those in the list that this gives; the folder of the results beside it."""
    made: list[Step] = []
    monkeypatch.setattr(gpu, "look", lambda: DEVICE)
    monkeypatch.setattr(gpu, "steps", lambda folder, names: made)
    return made, tmp_path / "results"


called = partial(calling.called, command=gpu.main)


def test_a_step_that_fails_hangs_or_is_missing_is_told_and_the_next_goes_on(tmp_path):
    child = tmp_path / "child"
    hang = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        f"p = subprocess.Popen(['sleep', '600']); open({str(child)!r}, 'w').write(str(p.pid)); time.sleep(600)"
    )
    todo = [
        python("fails", "print('what was seen'); raise SystemExit(7)"),
        python("hangs", hang, limit=3.0),
        Step("nowhere", ("/no/such/program",), 60.0),
        python("tool", "", program="no-such-sanitizer"),
        python("passes", "import os; print(os.environ['PYTHONPATH'].split(os.pathsep)[0])"),
    ]
    told: list[Outcome] = []
    outcomes = run_steps(todo, tmp_path, 600.0, told.append, grace=0.2)
    assert told == outcomes
    endings = {outcome.name: outcome.ending for outcome in outcomes}
    assert endings == {
        "fails": Ending.FAILED, "hangs": Ending.STOPPED, "nowhere": Ending.FAILED, "tool": Ending.LEFT_OUT,
        "passes": Ending.PASSED,
    }  # fmt: skip
    assert outcomes[0].code == 7
    assert "what was seen" in (tmp_path / "fails.log").read_text()
    assert outcomes[1].reason == "still busy after 3 s"
    assert not alive(int(child.read_text()))
    assert outcomes[2].reason == "/no/such/program: No such file or directory"
    assert "no-such-sanitizer is not on the PATH" in outcomes[3].reason
    assert gpu_steps.last_lines(tmp_path / "passes.log")[-1] == str(gpu_steps.ROOT)


def test_a_step_may_end_in_order_when_its_time_is_up(tmp_path):
    code = (
        "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: (print('report written'), sys.exit(130)))\n"
        "print('ready', flush=True); time.sleep(600)"
    )
    (outcome,) = run_steps([python("run", code, limit=3.0)], tmp_path, 600.0, lambda outcome: None, grace=60.0)
    assert outcome.ending is Ending.STOPPED
    assert gpu_steps.last_lines(tmp_path / "run.log")[-2:] == ["ready", "report written"]


def test_steps_that_find_no_time_are_not_begun(tmp_path):
    began = time.monotonic()
    outcomes = run_steps([python("late", "raise SystemExit(1)")], tmp_path, 4.0, lambda outcome: None, grace=0.0)
    assert outcomes == [Outcome("late", Ending.NOT_BEGUN, reason="no time was left")]
    assert time.monotonic() - began < 4.0
    assert not list(tmp_path.iterdir())


def test_results_are_kept_step_by_step_and_gone_on_with(device):
    made, folder = device
    made += [python("good", ""), python("bad", "print('the cause'); raise SystemExit(1)")]
    first = called("-o", str(folder), code=1)
    assert "bad          failed" in first.output
    assert "    the cause" in first.output
    assert "1 of 2 steps ended well" in first.output
    kept = json.loads((folder / "steps.json").read_text())
    assert kept["device"]["name"] == "Some GPU 80GB"
    assert {name: step["ending"] for name, step in kept["steps"].items()} == {"good": "passed", "bad": "failed"}
    made[1] = python("bad", "")
    second = called("-o", str(folder), "--continue", code=0)
    assert "good " not in second.output
    assert "1 of 1 steps ended well" in second.output


def packed(folder: Path) -> set[str]:
    with tarfile.open(folder.with_name(f"{folder.name}.tar.gz")) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


def test_results_are_packed_after_each_step_and_what_is_cut_keeps_them(device):
    made, folder = device
    archive = folder.with_name("results.tar.gz")
    look = f"import tarfile; print(sorted(tarfile.open({str(archive)!r}).getnames()))"
    cut = (
        f"import os, signal, time; open({str(folder / 'half')!r}, 'w').close(); "
        "os.kill(os.getppid(), signal.SIGTERM); time.sleep(600)"
    )
    made += [python("first", "print('seen')"), python("second", look), python("cut", cut), python("never", "")]
    said = called("-o", str(folder), code=130).output
    assert "interrupted; what was measured is kept" in said
    assert "results/logs/first.log" in (folder / "logs" / "second.log").read_text()
    assert {"steps.json", "half", "logs/first.log", "logs/second.log", "logs/cut.log"} <= packed(folder)
    assert set(json.loads((folder / "steps.json").read_text())["steps"]) == {"first", "second"}
    assert not list(folder.parent.glob("*.part"))


def test_what_only_a_device_can_tell_comes_first():
    every = steps(Path("results"), ["cuda"])
    assert [step.name for step in every] == [
        "smoke", "seeds", "seeds-gates", "sweep-T50", "sweep-gates", "tests", "verify", "memcheck", "racecheck",
        "sweep-T200",
    ]  # fmt: skip
    assert all(0 < step.expected < step.limit for step in every)
    said = called("--plan", "--only", "smoke,seeds", code=0).output
    assert "smoke, about 55 s, at most 120 s:" in said
    assert "2 steps, about 4 minutes (predicted), at most 11; nothing was run." in said


def test_a_run_is_resumed_and_never_written_over(device):
    made, folder = device
    made.append(next(step for step in steps(folder, ["cuda"]) if step.name == "sweep-T50"))
    assert made[0].line == made[0].command
    assert "-b cuda -o" in " ".join(made[0].line)
    (folder / "sweep-T50").mkdir(parents=True)
    (folder / "sweep-T50" / "run.json").write_text("{}")
    (folder / "steps.json").write_text('{"steps": {}}')
    assert made[0].line == (sys.executable, "-m", "rnnbench", "sweep", "--resume", str(folder / "sweep-T50"))
    said = called("-o", str(folder), code=2).output
    assert "sweep-T50 holds a run: --continue resumes it" in said


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_make_gpu_says_what_is_lacking_and_how_much_comes(tmp_path):
    """With an interpreter that tells its modules as they are, and of everything else only that it was asked."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(gpu.ROOT / name, tmp_path)
    fake = tmp_path / "fake"
    fake.write_text(f'#!/bin/sh\n[ "$1" = -c ] && exec {sys.executable} -S "$@"\necho asked "$@"\n[ "$2" != venv ]\n')
    fake.chmod(0o755)
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}

    def make(modules: str) -> tuple[str, str]:
        command = ["make", "-s", "gpu", f"PYTHON={fake}", f"GPU_MODULES={modules}", "ARGS=--plan"]
        done = subprocess.run(command, cwd=tmp_path, env=outside, capture_output=True, text=True, timeout=60)
        return done.stdout.strip(), done.stderr

    assert make("json math") == ("asked benchmarks/gpu.py --plan", "")
    asked, said = make("json no_such_module nor_such")
    assert asked == "asked -m venv .venv-gpu"
    assert f"{fake} lacks no_such_module, nor_such\nmaking .venv-gpu: about 6 GB" in said
    assert f"{fake} -m pip install -e '.[cuda,test]'" in said
    assert f"nothing was run: with no network, bring what {fake} lacks here by other means" in said
    (tmp_path / ".venv-gpu" / "bin").mkdir(parents=True)
    shutil.copy(fake, tmp_path / ".venv-gpu" / "bin" / "python")
    (tmp_path / ".venv-gpu" / "stamp").touch()
    asked, said = make("no_such_module")
    assert asked == "asked benchmarks/gpu.py --plan"
    assert said == f"{fake} lacks no_such_module\nusing .venv-gpu, as it is\n"


def test_a_folder_of_somebody_is_not_written_to(device):
    made, folder = device
    made.append(python("mine", ""))
    (folder / "logs").mkdir(parents=True)
    (folder / "logs" / "mine.log").write_text("precious")
    said = " ".join(called("-o", str(folder), code=2).output.split())
    assert "results holds logs, and no steps.json; choose another folder with -o" in said
    assert (folder / "logs" / "mine.log").read_text() == "precious"
    assert [path.name for path in folder.iterdir()] == ["logs"]


def test_no_gpu_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr(gpu, "look", lambda: {"refusal": "no CUDA device can be used: no driver"})
    result = called("-o", str(tmp_path / "results"), code=3)
    assert result.output == "Error: no CUDA device can be used: no driver\n"
    assert not (tmp_path / "results").exists()


def test_a_look_that_fails_or_hangs_is_a_refusal(monkeypatch):
    monkeypatch.setattr(gpu, "LOOK", "raise ImportError('no such library')")
    assert gpu.look() == {"refusal": "the device cannot be asked: ImportError: no such library"}
    monkeypatch.setattr(gpu, "LOOK", "import time; time.sleep(60)")
    monkeypatch.setattr(gpu, "LOOKED_WITHIN", 0.5)
    assert "did not answer within 0 s" in gpu.look()["refusal"]


def test_a_folder_that_cannot_be_written(device, tmp_path):
    made, _ = device
    made.append(python("good", ""))
    (tmp_path / "file").write_text("")
    assert "choose another folder" in called("-o", str(tmp_path / "file" / "under"), code=4).output


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "Input data was truncated"),
        (b"\xff", "JSON is malformed"),
        (b"[]", "Expected `object`, got `array`"),
        (b"{}", "missing required field `steps`"),
        (b'{"steps": ["tests"]}', "Expected `object`, got `array` - at `$.steps`"),
        (b'{"steps": {"tests": "passed"}}', "Expected `object`, got `str` - at `$.steps[...]`"),
        (b'{"steps": {"tests": {"name": "tests"}}}', "missing required field `ending`"),
        (b'{"steps": {"tests": {"name": "tests", "ending": "won"}}}', "Invalid enum value 'won'"),
    ],
)
def test_damaged_outcomes_are_said_and_not_written_over(device, content, words):
    made, folder = device
    made.append(python("good", ""))
    folder.mkdir()
    (folder / "steps.json").write_bytes(content)
    for rest in ([], ["--continue"]):
        said = " ".join(called("-o", folder, *rest, code=2).output.split())
        assert "steps.json does not hold the outcomes of steps" in said
        assert words in said
        assert "move it away, or choose another folder with -o" in said
    assert (folder / "steps.json").read_bytes() == content


def test_usage(monkeypatch):
    monkeypatch.setattr(gpu, "look", lambda: pytest.fail("the device was asked"))
    assert "did you mean racecheck" in called("--only", "racechek", code=2).output
    assert "Invalid value for '--within'" in called("--within", "0", code=2).output


def test_the_plan_needs_no_gpu_and_names_every_step(monkeypatch):
    monkeypatch.setattr(gpu, "look", lambda: pytest.fail("the device was asked"))
    said = called("--plan", code=0).output
    for name in gpu.STEPS:
        assert f"\n{name}, about" in f"\n{said}"
    assert "10 steps" in said
    assert "verify" not in called("--plan", "--only", "tests,seeds", code=0).output
    assert max(step.limit for step in steps(Path("."), ["cuda"])) + gpu_steps.GRACE < 600


def test_every_option_of_a_step_is_known_to_the_command_line():
    from rnnbench.cli import main

    for step in steps(Path("folder"), ["cuda", "numpy"]):
        if "rnnbench" in step.command:
            arguments = list(step.command[step.command.index("rnnbench") + 1 :])
            dry = [] if step.name == "verify" else ["--dry-run"]
            command = main.commands[arguments[0]]
            command.make_context(arguments[0], [*arguments[1:], *dry])


def test_folders_have_plain_names():
    assert gpu.folder_of("NVIDIA H200").name == "nvidia-h200"
    assert gpu.folder_of("NVIDIA H100 80GB HBM3/").name == "nvidia-h100-80gb-hbm3"
    assert gpu.folder_of("?").name == "gpu"
