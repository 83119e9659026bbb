"""The compare command: what it takes, what it prints, how it ends; and a busy loop in a real worker, found."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from rnnbench.api.exit_codes import EXIT_CODES
from rnnbench.contract import Contract
from rnnbench.model import Pass
from rnnbench.records import store
from rnnbench.records.record import Mode, Status
from tests.calling import called
from tests.report.fake import case, check, failure, record

ROOT = Path(__file__).resolve().parents[2]
CASES = [case("imdb-50", p) for p in (Pass.FORWARD, Pass.TRAIN_STEP)]
STEADY = (1.00, 1.01, 1.02)


def invoke(*arguments: object) -> tuple[int, str]:
    result = called("compare", *arguments)
    return result.exit_code, result.output


def times(scale, backend="numba", cases=CASES, **fields):
    contract = Contract(fields.pop("threads", 2), "kept", False, {})
    return [
        r
        for c in cases
        for i, s in enumerate(STEADY)
        for r in (
            record(c, backend, [scale * s * 1e-3], launch=i, **fields),
            check(c, backend, launch=i, contract=contract, **fields),
        )
    ]


CRASH = failure(CASES[0], "numba", Status.CRASHED, "killed by signal 9")
SIDES = {
    "same": (times(1), times(1), 0, "2 same"),
    "slower": (times(1), times(1, cases=CASES[:1]) + times(1.2, cases=CASES[1:]), 1, "1 slower, 1 same"),
    "faster": (times(1), times(0.5), 0, "2 faster"),
    "nothing alike": (times(1), times(1, threads=1), 3, "unlike: threads 2 / 1"),
    "nothing in common": (times(1), times(1, "jax"), 3, "4 missing"),
    "one launch": (times(1)[:1], times(1, cases=CASES[:1])[:1], 3, "an interval needs 3 a side"),
    "broken": (times(1), [CRASH, *times(1, cases=CASES[1:])], 5, "new: crashed: killed by signal 9"),
    "slower and broken": (times(1), [CRASH, *times(2, cases=CASES[1:])], 1, "1 slower, 1 not comparable"),
    "one more in new": (times(1, cases=CASES[:1]), times(1), 0, "base has no such case"),
}


@pytest.mark.parametrize("name", SIDES)
def test_the_exit_code_says_what_was_found(name, folder):
    base, new, code, words = SIDES[name]
    found, text = invoke(folder("base", base), folder("new", new))
    assert found == code, text
    assert words in " ".join(text.split())
    assert code in EXIT_CODES["compare"]


def test_every_exit_code_is_documented():
    text = " ".join(called("compare", "--help").output.split())
    for code, words in EXIT_CODES["compare"].items():
        assert f"{code} {words}" in text


def test_a_baseline_can_be_required(folder):
    base, new = folder("base", times(1, cases=CASES[:1])), folder("new", times(1))
    assert invoke(base, new)[0] == 0
    assert invoke(base, new, "--require-baseline")[0] == 6
    assert invoke(new, base, "--require-baseline")[0] == 0  # base may know more
    assert invoke(base, new, "--require-baseline", "-k", "forward")[0] == 0


def test_the_gate_moves_the_verdict(folder):
    base, new = folder("base", times(1)), folder("new", times(1.2))
    assert invoke(base, new, "--fail-on", "median:5%")[0] == 1
    assert invoke(base, new, "--fail-on", "min:5")[0] == 1
    code, text = invoke(base, new, "--fail-on", "mean:30%")
    assert (code, "2 same; by mean:30%" in text) == (0, True)


WIDE = [record(c, "numba", [s * 1e-3], launch=i)
        for c in CASES[:1] for i, s in enumerate((1.0, 1.5, 2.0))]  # fmt: skip


@pytest.mark.parametrize(
    ("new", "code"),
    [
        (WIDE + times(1, cases=CASES[1:]), 7),
        (WIDE + times(1.2, cases=CASES[1:]), 1),
        ([*WIDE, replace(CRASH, launch=7)], 5),
        (times(1), 0),
        (times(0.5), 0),
        (times(1)[:1], 3),
        (times(1, cases=CASES[:1])[:1] + times(1, cases=CASES[1:]), 7),
    ],
    ids=["one of two", "slower too", "broken too", "same", "faster", "nothing compared", "one launch of one"],
)
def test_what_is_inconclusive_can_fail(new, code, folder):
    base, new = folder("base", times(1)), folder("new", new)
    for gate in (["--fail-on", "median:5%,inconclusive"], ["--fail-on", "inconclusive", "--fail-on", "median:5%"]):
        found, text = invoke(base, new, *gate)
        assert found == code, text
        assert "by median:5%" in text or code == 3
    assert invoke(base, new, "--fail-on", "inconclusive")[0] == code
    assert invoke(base, new)[0] == (0 if code == 7 else code)


def test_folders_files_and_run_ids_are_the_same_to_it(folder, tmp_path, monkeypatch):
    folder("reports/before", times(1), {"python": "3.11"})
    new = folder("new", times(1.2))
    monkeypatch.chdir(tmp_path)
    answers = [invoke("before", new, "--json"), invoke("reports/before", new / store.RECORDS, "--json")]
    assert answers[0] == answers[1]
    assert answers[0][0] == 1


def test_json_holds_every_finding(folder):
    base = folder("base", times(1) + times(1, "jax"))
    _, text = invoke(base, folder("new", times(1.2)), "--json")
    found = json.loads(text)
    assert found["counts"] == {"slower": 2, "missing": 2}
    assert (found["metric"], found["margin"]) == ("median", 0.05)
    first, *_, last = found["findings"]
    assert first["ratio"] == pytest.approx(1.2)
    assert first["low"] < 1.2 < first["high"]
    assert 0 < first["p"] <= first["q"] < 0.05
    assert first["launches"] == [3, 3]
    assert (last["verdict"], last["ratio"], last["reason"]) == ("missing", None, "new has no such case")


def test_markdown_folds_what_needs_no_reader(folder):
    base, new = folder("base", times(1)), folder("new", times(1, cases=CASES[:1]) + times(1.2, cases=CASES[1:]))
    code, text = invoke(base, new, "--markdown")
    assert code == 1
    loud, _, quiet = text.partition("<details>")
    assert "**rnnbench: slower.** 1 slower, 1 same; by median:5%" in loud
    assert r"imdb-50 train\_step" in loud
    assert "1.20x (1.17 to 1.23)" in loud
    assert "forward" not in loud
    assert "forward" in quiet


def test_a_page_and_the_comment_are_written(folder, tmp_path):
    base, new, out = folder("base", times(1)), folder("new", times(1.2)), tmp_path / "out"
    code, text = invoke(base, new, "-o", out)
    assert code == 1
    assert f"Comparison: {out / 'compare.html'} and compare.md" in " ".join(text.split())
    assert "<h1>rnnbench" in (out / "compare.html").read_text()
    result = called("compare", base, new, "-o", out, "--markdown", code=1)
    assert result.stdout == (out / "compare.md").read_text()
    assert json.loads(called("compare", base, new, "-o", out, "--json", code=1).stdout)["counts"] == {"slower": 2}
    (out / "compare.html").write_text("mine")
    assert "compare.html there was not made by rnnbench" in " ".join(invoke(base, new, "-o", out)[1].split())
    assert invoke(base, new, "-o", tmp_path / "out" / "compare.md")[0] == 2


@pytest.mark.parametrize("width", [80, 40])
def test_the_table_keeps_case_backend_and_verdict_whole(width, folder, monkeypatch):
    import rich.console

    backends = ("tensorflow+xla", "numba")
    sides = [[r for name in backends for r in times(by, name)] for by in (1, 1.2)]
    monkeypatch.setattr("rnnbench.cli.compare.console_of", lambda: rich.console.Console(width=width))
    _, text = invoke(*(folder(name, side) for name, side in zip(("base", "new"), sides, strict=True)))
    assert "…" not in text
    assert all(f"imdb-50 train_step  {name}" in re.sub(" {2,}", "  ", text) for name in backends)
    assert text.count("slower") >= 4
    assert max(map(len, text.splitlines())) <= width


def test_what_to_bear_in_mind_is_said(folder):
    base, new = folder("base", times(1, mode=Mode.QUICK)), folder("new", times(1))
    assert "one of them is a quick run" in invoke(base, new)[1]
    assert "both hold records of run new: their launches are not independent" in invoke(new, new)[1]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["{base}", "nowhere"], 4, "nowhere is neither a folder, nor a file, nor a run under reports"),
        (["{base}", "{empty}"], 4, "holds no run"),
        (["{base}", "{damaged}"], 4, "holds no record; nothing was measured there"),
        (["{base}", "{newer}"], 4, "this rnnbench reads 1; upgrade"),
        (["{base}"], 2, "Missing argument 'NEW'"),
        (["{base}", "{base}", "--fail-on", "median"], 2, "'median' is not METRIC:PERCENT, such as median:5%"),
        (["{base}", "{base}", "--fail-on", "medan:5%"], 2, "did you mean median"),
        (["{base}", "{base}", "--fail-on", "median:-5%"], 2, "has -5 %; above 0 and at most 1000 is allowed"),
        (["{base}", "{base}", "--fail-on", "median:nan"], 2, "above 0 and at most 1000 is allowed"),
        (["{base}", "{base}", "--fail-on", "inconclusiv"], 2, "did you mean inconclusive"),
        (["{base}", "{base}", "--fail-on", "median:5%,min:3%"], 2, "gives both median:5% and min:3%; choose one"),
        (["{base}", "{base}", "--json", "--markdown"], 2, "choose one of them"),
        (["{base}", "{base}", "-k", "nothing-like-it"], 2, "the filter 'nothing-like-it' leaves no case"),
    ],
)
def test_wrong_use_gets_one_sentence(arguments, code, words, folder, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged.jsonl").write_bytes(b"\x00\xff\n" * 9 + b"{}\n")
    (tmp_path / "newer.jsonl").write_text('{"schema": 999}\n')
    places = {"base": folder("base", times(1)), "empty": tmp_path / "empty",
              "damaged": tmp_path / "damaged.jsonl", "newer": tmp_path / "newer.jsonl"}  # fmt: skip
    found, text = invoke(*(a.format(**places) for a in arguments))
    assert found == code, text
    assert words in " ".join(text.split())
    assert text.count("was left out: it is cut or damaged") <= 3


@pytest.mark.slow
def test_a_busy_loop_in_a_worker_is_found(tmp_path):
    """Two backends in one real run, one of which loops for 30 times its own work: seen through any neighbours."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.driver", "run", "-w", "imdb-synthetic-50", "-b", "numpy,busy",
         "--pass", "forward", "--threads", "1", "--no-training", "-o", str(tmp_path / "run")],
        cwd=ROOT, env={**os.environ, "RNNBENCH_TEST_BUSY": "30"}, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    records = store.load_run(tmp_path / "run").records
    for name in ("numpy", "busy"):
        mine = [replace(r, backend="numpy", run_id=name) for r in records if r.backend == name]
        (tmp_path / f"{name}.jsonl").write_bytes(b"".join(map(store.encode, mine)))
    code, text = invoke(tmp_path / "numpy.jsonl", tmp_path / "busy.jsonl", "--json")
    (finding,) = json.loads(text)["findings"]
    assert (code, finding["verdict"]) == (1, "slower"), finding
    assert 5 < finding["ratio"] < 200
