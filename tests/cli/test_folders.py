"""Folders: a run takes none that holds anything, deletes nothing but its own, and keeps its label."""

from __future__ import annotations

import errno
import json
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Barrier

import pytest

from rnnbench.api import run as running
from rnnbench.api.run_session import RunSession
from rnnbench.records import store
from rnnbench.records.folder import SCRATCH, held, scratch_of
from rnnbench.records.record import turns_in
from tests.calling import called
from tests.records.test_schema import FIXTURE

ROOT = Path(__file__).resolve().parents[2]
RUN = ("run", "-w", "parity", "-b", "numpy", "--pass", "forward", "--quick", "--no-training", "--threads", "1")
SWEEP = ("sweep", "--H", "2,3", "--T", "2", "--B", "1", "-b", "numpy", "--pass", "forward", "--quick", "--threads", "1")
TRAIN = ("train", "parity", "-b", "numpy", "--epochs", "1")
WRITERS = {"run": RUN, "sweep": SWEEP, "train": TRAIN}


def said(*arguments: object, code: int) -> str:
    return " ".join(called(*arguments, code=code).output.split())


def snapshot(folder: Path) -> dict[str, tuple[bytes | None, int]]:
    """Everything below: content and time of every file, and where links lead."""
    return {
        str(path.relative_to(folder)): (
            str(path.readlink()).encode() if path.is_symlink() else path.read_bytes() if path.is_file() else None,
            path.lstat().st_mtime_ns,
        )
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture(autouse=True)
def _no_peak(monkeypatch):
    monkeypatch.setattr(RunSession, "look_for_peak", lambda self: None)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A run and a sweep, made once."""
    folder = tmp_path_factory.mktemp("kept")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunSession, "look_for_peak", lambda self: None)
        called(*RUN, "--timeout", "77", "-o", folder / "run", code=0)
        called(*SWEEP, "-o", folder / "sweep", code=0)
    return folder


@pytest.fixture
def folder(kept, tmp_path):
    """A copy of the run, half of whose records are still to be measured."""
    shutil.copytree(kept / "run", tmp_path / "run")
    lines = (tmp_path / "run" / store.RECORDS).read_bytes().splitlines(keepends=True)
    assert len(lines) == 3
    (tmp_path / "run" / store.RECORDS).write_bytes(b"".join(lines[:2]))
    return tmp_path / "run"


def owned_by_somebody(home: Path) -> Path:
    """What a user may have in a folder, with the names that a run uses."""
    for name in ("cache", "arrays", "logs", "figures", "tables", SCRATCH):
        (home / name).mkdir(parents=True)
        (home / name / "mine").write_text("precious")
    for name in ("report.md", "machine.json", "records.jsonl", "run.tmp"):
        (home / name).write_text("mine\n")
    (home / "run.json").write_text('{"id": "wandb", "schema": 1, "run_id": "x", "plan": {"steps": 3}}')
    return home


@pytest.mark.parametrize("command", WRITERS)
@pytest.mark.parametrize("here", [True, False])
def test_a_folder_that_holds_anything_is_refused_and_left_as_it_is(tmp_path, monkeypatch, command, here):
    home = owned_by_somebody(tmp_path / "home")
    monkeypatch.chdir(home)
    before = snapshot(home)
    text = said(*WRITERS[command], "-o", "." if here else home, code=4)
    assert "holds arrays, cache, figures and 8 more; choose another folder with -o, a new or an empty one" in text
    assert snapshot(home) == before


@pytest.mark.parametrize("command", WRITERS)
def test_one_file_of_somebody_is_enough(tmp_path, command):
    (tmp_path / ".notes").write_text("mine")
    assert f"{tmp_path} holds .notes; choose" in said(*WRITERS[command], "-o", tmp_path, code=4)
    assert [path.name for path in tmp_path.iterdir()] == [".notes"]


def test_a_run_has_its_scratch_in_one_folder_and_keeps_the_logs_of_it(kept):
    names = {path.name for path in (kept / "run").iterdir()}
    files = {*store.ANSWERS, store.RUN, store.MACHINE, "report.md", "report.html"}
    assert names == {*files, "tables", "figures", SCRATCH}
    assert {path.name for path in (kept / "run" / SCRATCH).iterdir()} == {"CACHEDIR.TAG", "logs"}
    tag = (kept / "run" / SCRATCH / "CACHEDIR.TAG").read_text()
    assert tag.startswith("Signature: 8a477f597d28d172789f06886806bc55\n")  # https://bford.info/cachedir/


def test_an_empty_folder_is_taken(tmp_path):
    called(*RUN, "-o", tmp_path, code=0)
    assert store.is_run(tmp_path)


@pytest.mark.parametrize("command", WRITERS)
def test_a_folder_that_holds_a_run_is_refused_with_both_ways_out(kept, command):
    before = snapshot(kept)
    for name in ("run", "sweep"):
        text = said(*WRITERS[command], "--seed", "7", "-o", kept / name, code=4)
        assert f"{name} holds a run; continue it with python -m rnnbench run --resume {kept / name}, or choose" in text
        assert "another folder with -o" in text
    assert snapshot(kept) == before


def test_a_command_to_resume_can_be_pasted(kept, tmp_path):
    shutil.copytree(kept / "run", tmp_path / "my run")
    assert f"--resume '{tmp_path / 'my run'}'" in said(*RUN, "-o", tmp_path / "my run", code=4)


def test_a_merged_run_is_refused_without_a_way_to_resume(folder):
    run = json.loads((folder / store.RUN).read_text())
    (folder / store.RUN).write_text(json.dumps({**run, "merged": {"a": {}}}))
    text = said(*RUN, "-o", folder, code=4)
    assert "holds a run; choose another folder" in text
    assert "--resume" not in text


def test_a_second_training_does_not_add_to_the_first(tmp_path):
    called(*TRAIN, "-o", tmp_path / "t", code=0)
    before = snapshot(tmp_path)
    text = said(*TRAIN, "--seed", "5", "-o", tmp_path / "t", code=4)
    assert "holds curves.jsonl, machine.json; choose another" in text
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("number", range(5))
def test_of_runs_that_begin_at_one_moment_one_has_the_folder(tmp_path, number):
    count, place = 8, tmp_path / "run"
    begin, refused = Barrier(count), []

    def begin_one(i):
        begin.wait()
        try:
            with held(place, new=True):
                (place / f"made by {i}").touch()
                while len(refused) < count - 1:
                    pass
        except store.StoreError as error:
            refused.append(str(error))

    with ThreadPoolExecutor(count) as pool:
        list(pool.map(begin_one, range(count)))
    assert refused == [f"{place} is in use by another run; wait for it or choose another folder"] * (count - 1)
    assert len(list(place.iterdir())) == 1


def test_a_file_system_without_locks_is_not_another_run(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    with held(tmp_path / "run", new=True):
        store.Journal(tmp_path / "run").close()


def test_a_folder_is_held_while_it_is_resumed(folder):
    with held(folder, new=False):
        before = snapshot(folder)
        assert "is in use by another run" in said("run", "--resume", folder, code=4)
        assert "is in use by another run" in said(*RUN, "-o", folder, code=4)
        assert snapshot(folder) == before


@pytest.mark.parametrize(
    ("command", "arguments", "code", "words"),
    [
        ("run", ("-B", "801"), 2, "batch size 801 is more than the 800"),
        ("run", ("-w", "imdb-200-pre", "--data-dir", "/proc/nowhere"), 3, "imdb"),
        ("train", ("-B", "801"), None, ""),
    ],
)
@pytest.mark.parametrize("there", [True, False])
def test_what_fails_at_once_takes_back_what_it_wrote(tmp_path, monkeypatch, command, arguments, code, words, there):
    if "imdb-200-pre" in arguments:
        monkeypatch.setattr("rnnbench.api.run_session.tasks_of", unavailable)
    place = tmp_path / "run"
    if there:
        place.mkdir()
    result = called(*WRITERS[command], *arguments, "-o", place, code=code)
    assert result.exit_code
    assert words in " ".join(result.output.split())
    assert place.exists() == there
    assert not there or list(place.iterdir()) == []


def unavailable(*_):
    from rnnbench.workloads.base import WorkloadUnavailable

    raise WorkloadUnavailable("imdb cannot be had")


def test_what_somebody_put_there_meanwhile_stays(tmp_path):
    place = tmp_path / "run"
    with suppress(ValueError), held(place, new=True):
        scratch_of(place)
        (place / store.RUN).write_text("{}")
        (place / "notes.md").write_text("mine")
        raise ValueError
    assert [path.name for path in place.iterdir()] == ["notes.md"]


def test_a_resumed_run_that_fails_at_once_loses_nothing(folder, monkeypatch):
    before = snapshot(folder)
    monkeypatch.setattr("rnnbench.api.run_session.tasks_of", unavailable)
    said("run", "--resume", folder, code=3)
    after = snapshot(folder)
    changed = {name for name in before if before[name] != after.get(name)}
    assert changed <= {store.RUN, store.MACHINE, SCRATCH, f"{SCRATCH}/CACHEDIR.TAG"}
    assert store.is_run(folder)


def test_a_run_that_was_killed_before_it_measured_is_resumed(folder, monkeypatch):
    for name in (store.RECORDS, store.CURVES, store.MACHINE):
        (folder / name).unlink()
    called("run", "--resume", folder, code=0)
    assert len(store.load_run(folder).records) == 3


def test_what_somebody_put_beside_a_run_stays_when_it_is_resumed(folder):
    for name in ("arrays", "cache", "logs", "data"):
        (folder / name).mkdir()
        (folder / name / "mine.npz").write_text("precious")
    for name in ("mine.md", "run.tmp", "tables/mine.csv", "figures/mine.png", "figures/mine.svg"):
        (folder / name).write_text("mine")
    before = {name: value for name, value in snapshot(folder).items() if "mine" in name or name == "run.tmp"}
    assert len(before) == 4 + 5
    called("run", "--resume", folder, code=0)
    called("report", folder, code=0)
    after = snapshot(folder)
    assert {name: after.get(name) for name in before} == before
    assert sum(bool(r.samples_ns) for r in turns_in(store.load_run(folder).records)) == 2


@pytest.mark.parametrize("which", ["scratch", "arrays", "cache", "logs"])
def test_a_link_out_of_the_folder_is_not_followed(folder, tmp_path, which):
    (tmp_path / "precious" / "arrays").mkdir(parents=True)
    (tmp_path / "precious" / "0-parity-float32.npz").write_text("mine")
    (tmp_path / "precious" / "arrays" / "mine").write_text("mine")
    shutil.copy(folder / SCRATCH / "CACHEDIR.TAG", tmp_path / "precious")
    link = folder / SCRATCH if which == "scratch" else folder / SCRATCH / which
    if link.exists():
        shutil.rmtree(link)
    link.symlink_to(tmp_path / "precious")
    before = snapshot(tmp_path)
    text = said("run", "--resume", folder, code=4)
    assert f"{link} was not made by this run; move it away" in text or f"{link} is a link" in text
    assert snapshot(tmp_path / "precious") == {
        name.removeprefix("precious/"): value for name, value in before.items() if name.startswith("precious/")
    }
    link.unlink()
    called("run", "--resume", folder, code=0)


def test_a_folder_of_the_name_that_somebody_else_made_is_not_used(folder):
    shutil.rmtree(folder / SCRATCH)
    (folder / SCRATCH / "arrays").mkdir(parents=True)
    (folder / SCRATCH / "arrays" / "mine.npz").write_text("precious")
    text = said("run", "--resume", folder, code=4)
    assert f"{folder / SCRATCH} was not made by this run; move it away, and continue with --resume" in text
    assert (folder / SCRATCH / "arrays" / "mine.npz").read_text() == "precious"


def test_arrays_of_an_earlier_part_are_not_read_again(folder):
    """They may be of other rows, and everybody would be called wrong."""
    (folder / SCRATCH / "arrays").mkdir()
    (folder / SCRATCH / "arrays" / "0-parity-float32.npz").write_text("no arrays at all")
    called("run", "--resume", folder, code=0)
    assert {r.status for r in store.load_run(folder).records} == {"ok"}


UNLIKE = [
    (("--seed", "7"), "--seed 7 (there: 0)"),
    (("-b", "numba,jax"), "--backend numba,jax (there: numpy)"),
    (("-w", "imdb-50"), "--workload imdb-50 (there: parity)"),
    (("--pass", "gradient,forward"), "--pass gradient,forward (there: forward)"),
    (("--dtype", "float64"), "--dtype float64 (there: float32)"),
    (("--rigorous",), "--rigorous (there: quick)"),
    (("--threads", "2"), "--threads 2 (there: 1)"),
    (("--timeout", "9"), "--timeout 9 (there: 77)"),
    (("-k", "!epoch"), "-k !epoch (there: none)"),
    (("--memory",), "--memory (there: no)"),
    (("--training",), "--training (there: no)"),
    (("--aa",), "--aa (there: no)"),
    (("--precision", "5%"), "--precision 0.05 (there: none)"),
    (("-T", "9"), "--time-steps 9 (there: none)"),
    (("-B", "9"), "--batch-size 9 (there: none)"),
    (("--truncation", "3:2"), "--truncation 3:2 (there: none)"),
    (("--epoch-batches", "0"), "--epoch-batches 0 (there: none)"),
    (("--reference", "numpy"), "--reference numpy (there: none)"),
    (("--data-dir", "here"), "--data-dir here (there: none)"),
    (("-o", "elsewhere"), "-o elsewhere (there: "),
    (("--dry-run",), "--dry-run (there: no)"),
    (("--seed", "7", "--budget", "1h", "-B", "9"), "--batch-size 9 (there: none), --seed 7 (there: 0)"),
]


@pytest.mark.parametrize(("options", "words"), UNLIKE)
def test_a_run_is_not_resumed_as_another_one(kept, options, words, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    before = snapshot(kept)
    text = said("run", "--resume", kept / "run", *options, code=2)
    assert f"{kept / 'run'} is a run of something else: " in text
    assert words in text
    assert "--budget" not in text
    assert "leave these out, or measure into another folder" in text
    assert snapshot(kept) == before
    assert list(tmp_path.iterdir()) == []


def test_every_option_of_a_run_is_known_to_the_check():
    from rnnbench.cli import cluster
    from rnnbench.cli.resuming import _IN_PLAN
    from rnnbench.cli.run import run
    from rnnbench.cli.stopping import BUDGETS
    from rnnbench.cli.sweep import sweep
    from rnnbench.harness.plan import Plan

    known = {*_IN_PLAN, *Plan.__dataclass_fields__, *BUDGETS, *cluster.NAMES, "output", "resume"}
    assert {option.name for command in (run, sweep) for option in command.params} <= known


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--H", "2:8"), "--hidden 2,4,8 (there: 2,3)"),
        (("--T", "5"), "--time-steps 5 (there: 2)"),
        (("--E", "5"), "--input-width 5 (there: none)"),
        (("--grid",), "--grid (there: no)"),
        (("--seed", "7"), "--seed 7 (there: 0)"),
    ],
)
def test_a_sweep_is_not_resumed_as_another_one(kept, options, words):
    before = snapshot(kept)
    assert words in said("sweep", "--resume", kept / "sweep", *options, code=2)
    assert words.partition(" (")[0] in said("sweep", "--resume", kept / "run", *options[:1], *options[1:], code=2)
    assert snapshot(kept) == before


def test_options_that_agree_with_the_plan_are_taken(folder, kept, tmp_path):
    called(*RUN, "--timeout", "77", "--seed", "0", "--budget", "1h", "--resume", folder, "-o", folder, code=0)
    run = json.loads((folder / store.RUN).read_text())
    assert (run["plan"]["seed"], run["plan"]["budget"], len(run["resumed"])) == (0, 3600.0, 1)
    shutil.copytree(kept / "sweep", tmp_path / "sweep")
    called(*SWEEP, "--H", "3,2", "--resume", tmp_path / "sweep", code=0)


def older(folder, change):
    """The folder as if other conditions had been recorded when it began."""
    machine = json.loads((folder / store.MACHINE).read_text())
    change(machine)
    (folder / store.MACHINE).write_text(json.dumps(machine))
    text = (folder / store.RECORDS).read_text()
    before = store.load_run(folder).records[0].machine_id
    (folder / store.RECORDS).write_text(text.replace(before, machine["machine_id"]))


def other_cpu(machine):
    machine["machine_id"], machine["hashes"]["processor"], machine["cpu"]["model"] = "other", "other", "CPU 9000"


def other_library(machine):
    machine["machine_id"], machine["hashes"]["software"], machine["libraries"]["numpy"] = "other", "other", "1.0"


def other_version(machine):
    machine["machine_id"], machine["hashes"]["software"], machine["rnnbench"] = "other", "other", "0.0.1"


def other_commit(machine):
    machine["git"] = {"commit": "abc1234", "dirty": False}


def other_id(machine):
    machine["machine_id"] = "other"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (other_cpu, "cpu model CPU 9000 / "),
        (other_library, "numpy 1.0 / "),
        (other_version, "rnnbench 0.0.1 / "),
        (other_commit, "commit abc1234 / "),
        (other_id, "machine id other / "),
    ],
)
def test_a_run_is_not_resumed_under_other_conditions(folder, change, words):
    older(folder, change)
    before = snapshot(folder)
    text = said("run", "--resume", folder, code=4)
    assert "cannot be resumed, as the machine or the versions are others now: " in text
    assert words in text
    assert "measure the rest into another folder with -o" in text
    assert snapshot(folder) == before


def test_records_without_the_facts_of_their_machine_are_not_taken_for_this_one(folder):
    (folder / store.MACHINE).unlink()
    text = (folder / store.RECORDS).read_text()
    (folder / store.RECORDS).write_text(text.replace(store.load_run(folder).records[0].machine_id, "other"))
    assert "machine id other / " in said("run", "--resume", folder, code=4)


@pytest.mark.parametrize("command", ["run", "sweep"])
def test_what_cannot_be_resumed_is_said_in_one_sentence(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    owned_by_somebody(tmp_path / "home")
    called(*TRAIN, "-o", "training", code=0)
    shutil.copytree(FIXTURE, tmp_path / "cut")
    run = json.loads((tmp_path / "cut" / store.RUN).read_text())
    run["plan"]["mode"] = "hasty"
    (tmp_path / "cut" / store.RUN).write_text(json.dumps(run))
    before = snapshot(tmp_path)
    for name, words in {
        "nowhere": "it is not there", "file": "it is not a folder", "file/below": "it is not there",
        "empty": "it has no run.json of a run", "home": "it has no run.json of a run",
        "training": "it has no run.json of a run",
    }.items():  # fmt: skip
        text = said(command, "--resume", name, code=4)
        assert text == f"Error: {name} cannot be resumed: {words}; give the folder of an interrupted run"
    assert "cut cannot be resumed: its plan is damaged" in said(command, "--resume", "cut", code=4)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("command", WRITERS)
def test_what_cannot_be_a_folder_is_said_in_one_sentence(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    before = snapshot(tmp_path)
    for name, code, words in [
        ("file", 4, "file is not a folder; choose another folder with -o"),
        ("dangling", 4, "dangling is not a folder; choose another folder with -o"),
        ("file/below", 4, "file/below cannot be written: Not a directory; choose another folder with -o"),
        ("/proc/rnnbench", 4, "/proc/rnnbench cannot be written: No such file or directory; choose another"),
        ("", 2, "the name of the folder is empty; give one, or . for the current folder"),
    ]:
        assert words in said(*WRITERS[command], "-o", name, code=code)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("arguments", [("report", ""), ("run", "--resume", ""), ("history", "-o", "")])
def test_an_empty_name_is_not_the_current_folder(arguments):
    assert "the name of the folder is empty" in said(*arguments, code=2)


@pytest.mark.parametrize("command", ["run", "sweep"])
def test_a_dry_run_makes_nothing(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    called(*WRITERS[command], "--dry-run", code=0)
    called(*WRITERS[command], "--dry-run", "-o", "there/run", code=0)
    assert list(tmp_path.iterdir()) == []


def test_a_report_is_written_over_one_of_ours_alone(kept, tmp_path):
    folder = shutil.copytree(kept / "run", tmp_path / "run")
    (folder / "notes.md").write_text("mine")
    called("report", folder, code=0)
    assert (folder / "notes.md").read_text() == "mine"
    (folder / "report.md").write_text("# My own words\n")
    before = snapshot(folder)
    text = said("report", folder, code=4)
    assert f"cannot be written to {folder}: report.md there was not made by rnnbench, move it away" in text
    assert snapshot(folder) == before
    (folder / "report.md").unlink()
    called("report", folder, code=0)


def test_no_report_is_written_where_there_is_no_run(kept, tmp_path):
    foreign = owned_by_somebody(tmp_path / "home")
    (foreign / store.MACHINE).unlink()
    before = snapshot(foreign)
    assert "home holds no record that can be read; its report stays as it is" in said("report", foreign, code=4)
    assert snapshot(foreign) == before
    (tmp_path / "paper" / "figures").mkdir(parents=True)
    (tmp_path / "paper" / "figures" / "time.png").write_text("mine")
    shutil.copy(kept / "run" / store.RECORDS, tmp_path / "paper")
    assert "figures there was not made by rnnbench" in said("report", tmp_path / "paper", code=4)
    assert (tmp_path / "paper" / "figures" / "time.png").read_text() == "mine"


def test_a_history_is_written_over_one_of_ours_alone(kept, tmp_path):
    called("history", kept / "run", "-o", tmp_path / "out", code=0)
    called("history", kept / "run", "-o", tmp_path / "out", code=0)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "history.md").write_text("# History of Rome\n")
    before = snapshot(tmp_path / "mine")
    text = said("history", kept / "run", "-o", tmp_path / "mine", code=4)
    assert f"{tmp_path / 'mine'}: history.md there was not made by rnnbench, move it away" in text
    assert snapshot(tmp_path / "mine") == before


KEPT = [FIXTURE, *(path.parent for path in sorted((ROOT / "reports").glob("*/run.json")))]


@pytest.mark.parametrize("source", KEPT, ids=lambda path: path.name)
@pytest.mark.usefixtures("no_figures")
def test_runs_of_every_age_are_recognised_and_read(source, tmp_path):
    assert store.is_run(source)
    folder = shutil.copytree(source, tmp_path / "run")
    assert "holds a run; continue it with" in said(*RUN, "-o", folder, code=4)
    called("report", folder, code=0)
    if source.name.startswith("to-accuracy"):
        for command in (("check", folder), ("compare", folder, folder)):
            assert "holds times to an accuracy and no pass; its report shows them" in said(*command, code=4)
    else:
        assert called("check", folder).exit_code in (0, 1)
        assert "not comparable" not in said("compare", folder, folder, code=3 if source.name.startswith("sweep") else 0)
        assert "run on a line at most" in said("history", folder, code=0)
    words = "cannot be resumed(: its plan is damaged or of another version|, as the machine or the versions are others)"
    assert re.search(words, said("run", "--resume", folder, code=4))  # of another version, or a run of this one


def test_an_object_is_written_beside_no_file_of_somebody_and_leaves_none(tmp_path, monkeypatch):
    (tmp_path / "run.tmp").write_text("mine")
    store.write_json(tmp_path / store.RUN, {"a": 1})
    monkeypatch.setattr("os.replace", full)
    with pytest.raises(store.StoreError, match="No space left"):
        store.write_json(tmp_path / store.RUN, {"a": 2})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.json", "run.tmp"]
    assert (tmp_path / "run.tmp").read_text() == "mine"


def full(*_):
    raise OSError(28, "No space left on device")


def test_an_interrupt_before_anything_was_measured_can_be_resumed(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rnnbench.api.run_session.tasks_of", interrupted)
        text = said(*RUN, "-o", tmp_path / "my run", code=running.INTERRUPTED)
    assert f"--resume '{tmp_path / 'my run'}'" in text
    called("run", "--resume", tmp_path / "my run", code=0)
