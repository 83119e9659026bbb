"""Each answer is ranked with the number of threads that is the better for it, and which one that is, is found."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from dataclasses import replace

import pytest

from rnnbench import backends
from rnnbench.analysis.stats import summaries
from rnnbench.analysis.trial import CLEAR, MOST_PAIRS, TIE, Decision, better, decision_of, trial_of
from rnnbench.analysis.warnings import disturbing, warnings_of
from rnnbench.api.planning import plan_of as asked_plan
from rnnbench.harness import run_loop, worker_client
from rnnbench.harness import trials as trials_of_a_run
from rnnbench.harness.clock import Turn
from rnnbench.harness.plan import EFFORTS, Effort, Plan
from rnnbench.harness.worker_pool import WorkerPool
from rnnbench.machine.cores import allowed_cores, cores_for
from rnnbench.model import USUAL_PASSES, DType, Pass
from rnnbench.records.account import TimeKind
from rnnbench.records.record import CheckRecord, Mode, Status, TrialRecord, TurnRecord, checks_in, trials_in, turns_in
from rnnbench.workloads import get
from tests.harness.test_repeats import Watched
from tests.harness.test_run_loop import Listener, loop_of, run, task_of
from tests.helpers import small_problem
from tests.report import fake

STEPS = (Pass.FORWARD, Pass.GRADIENT, Pass.TRAIN_STEP)


@pytest.fixture(autouse=True)
def _short(monkeypatch, faulty_backends):
    effort = Effort(launches=2, rounds=2, turn=Turn(0.005, 2, 4), trial=Turn(0.002, 2, 3))
    monkeypatch.setitem(EFFORTS, Mode.DEFAULT, effort)


def plan_of(*names: str, trial: bool = True, timeout: float = 60.0, **rest) -> Plan:
    return Plan(("test",), names, USUAL_PASSES, (DType.FLOAT64,), Mode.DEFAULT, 2, 0, timeout, trial=trial, **rest)


def short_task(passes=USUAL_PASSES):
    return task_of(small_problem(), passes)


def ranked(records) -> dict[tuple[str, Pass], set[int]]:
    """Backend and pass -> the threads of the turns that count."""
    found: dict[tuple[str, Pass], set[int]] = {}
    for r in turns_in(records):
        if r.samples_ns:
            found.setdefault((r.backend, r.case.pass_), set()).add(r.threads)
    return found


def test_the_better_number_of_threads_is_ranked_and_the_trial_is_not(tmp_path):
    names = ("slower-together", "faster-together")
    records, listener, runner = run(tmp_path, plan_of(*names), [short_task()])
    assert {r.status for r in records} == {Status.OK}
    assert ranked(records) == {(name, p): {n} for name, n in zip(names, (1, 2), strict=True) for p in USUAL_PASSES}
    assert {r.tried for r in records} == {(1, 2)}
    for s in summaries(records):
        turns = [r for r in turns_in(s.records) if r.samples_ns]
        assert len(turns) == len(s.turns) == 2 * 2  # launches, rounds: none of them of the trial
        best, other = (1, 2) if s.backend == "slower-together" else (2, 1)
        assert s.threads == (best,)
        trial = trial_of(s)
        counts = Counter(r.threads for r in trials_in(s.records))
        assert counts[best] == counts[other] == trial.pairs >= 2
        assert (trial.ratio > 2) if best == 1 else (trial.ratio < 0.5)
        assert {r.contract.threads for r in checks_in(s.records)} == {best}
        assert [r.launch for r in checks_in(s.records)] == [0, 1]
        assert all(r.errors for r in checks_in(s.records))
    assert listener.said == []
    assert runner.pool.ledger.seconds()[TimeKind.TRIAL] > 0
    assert not any(place.worker for place in runner.pool.places.values())


def test_the_turns_of_a_pair_follow_one_another_and_come_in_both_orders(tmp_path):
    records, *_ = run(tmp_path, plan_of("slower-together", "faster-together"), [short_task(STEPS)])
    trials = trials_in(records)
    pairs = [trials[i : i + 2] for i in range(0, len(trials), 2)]
    assert all((a.backend, a.case, a.pair) == (b.backend, b.case, b.pair) for a, b in pairs)
    assert {(a.threads, b.threads) for a, b in pairs} == {(1, 2), (2, 1)}
    kinds = [type(r) for r in records if r.case.pass_ is Pass.FORWARD]
    assert kinds.index(TurnRecord) > max(i for i, kind in enumerate(kinds) if kind is TrialRecord)


def test_the_costs_are_those_of_the_process_that_compiled_first(tmp_path):
    records, *_ = run(tmp_path, plan_of("slower-together"), [short_task()])
    first = [r for r in checks_in(records) if r.launch == 0]
    assert {(r.threads, r.costs.cache) for r in first} == {(1, "cold")}
    assert all(r.costs.import_ns and r.costs.first_call_ns for r in first)


def test_where_threads_are_given_nothing_is_tried(tmp_path):
    records, _, runner = run(tmp_path, plan_of("slower-together", trial=False), [short_task()])
    assert {(r.threads, r.tried) for r in records} == {(2, ())}
    assert not trials_in(records)
    assert runner.pool.places.keys() == {("slower-together", 2)}


def starts_of(monkeypatch) -> list[tuple[str, str]]:
    """Backend and threads of each process that is started from now on."""
    seen = []

    class Seen(worker_client.WorkerClient):
        def __init__(self, name, target, log, env, serve=None):
            seen.append((name, env["OMP_NUM_THREADS"]))
            super().__init__(name, target, log, env, serve)

    monkeypatch.setattr("rnnbench.harness.worker_pool.WorkerClient", Seen)
    return seen


@pytest.mark.parametrize("on_gpu", [False, True], ids=["one thread", "a GPU"])
def test_who_has_no_use_for_threads_has_no_trial_and_no_second_process(tmp_path, monkeypatch, on_gpu):
    name = "slower-together" if on_gpu else "single"
    if on_gpu:
        monkeypatch.setitem(backends.REGISTRY, name, replace(backends.REGISTRY[name], gpu=True))
    seen = starts_of(monkeypatch)
    records, *_ = run(tmp_path, plan_of(name), [short_task()])
    assert seen == [(name, "2")] * 2
    assert {type(r) for r in records} == {CheckRecord, TurnRecord}
    assert {(r.status, r.threads, r.tried) for r in records} == {(Status.OK, 2, ())}
    assert {s.threads for s in summaries(records)} == {(2,) if on_gpu else (1,)}


def test_a_later_launch_starts_only_what_is_ranked(tmp_path, monkeypatch):
    seen = starts_of(monkeypatch)
    run(tmp_path, plan_of("slower-together", "faster-together"), [short_task()])
    assert sorted(seen[:4]) == sorted(itertools.product(("slower-together", "faster-together"), "12"))
    assert sorted(seen[4:]) == [("faster-together", "2"), ("slower-together", "1")]


@pytest.mark.parametrize(
    ("name", "turned", "best", "said"),
    [
        ("raises-together", False, 1, "crashed with 2 threads: first: RuntimeError: the parts do not fit together"),
        ("raises-together", True, 2, "crashed with 1 thread: first: RuntimeError: the parts do not fit together"),
        ("wrong-together", False, 1, "wrong with 2 threads: "),
    ],
)
def test_who_fails_with_one_number_is_ranked_with_the_other_and_that_is_told(
    tmp_path, monkeypatch, name, turned, best, said
):
    if turned:
        monkeypatch.setenv("RNNBENCH_TEST_TURNED", "1")
    records, listener, _ = run(tmp_path, plan_of(name), [short_task((Pass.FORWARD, Pass.GRADIENT))])
    assert {r.status for r in records if not isinstance(r, TrialRecord)} == {Status.OK}
    forward, gradient = summaries(records)
    assert forward.ranked
    assert gradient.ranked
    assert gradient.threads == (best,)
    assert len(gradient.turns) == 4
    assert gradient.reason.startswith(said)
    assert trial_of(gradient).failed == gradient.reason
    assert trial_of(gradient).ratio is None
    assert [line for line in listener.said if name in line and "gradient" in line]


def test_who_dies_in_the_trial_is_ranked_with_the_other_number(tmp_path):
    records, *_ = run(tmp_path, plan_of("dies-together", "numpy"), [short_task((Pass.FORWARD,))])
    (found,) = [s for s in summaries(records) if s.backend == "dies-together"]
    assert (found.status, found.threads) == (Status.OK, (1,))
    assert "with 2 threads: turn: the worker was killed by signal 9" in found.reason
    assert len(found.turns) == 4


def test_an_epoch_is_tried_by_itself(tmp_path):
    """The train step is better by one thread, and the epoch fails by one."""
    records, *_ = run(tmp_path, plan_of("epoch-fails-alone"), [short_task((Pass.TRAIN_STEP, Pass.EPOCH))])
    step, epoch = summaries(records)
    assert (step.threads, epoch.threads) == ((1,), (2,))
    assert epoch.reason == "crashed with 1 thread: first: RuntimeError: no epoch by one"
    assert len(epoch.turns) == 4


def test_who_fails_with_both_fails_once_with_the_reason_of_all_threads(tmp_path):
    records, *_ = run(tmp_path, plan_of("raises-anyway"), [short_task((Pass.FORWARD, Pass.GRADIENT))])
    gradient = next(s for s in summaries(records) if s.case.pass_ is Pass.GRADIENT)
    assert (gradient.status, gradient.time) == (Status.CRASHED, None)
    assert gradient.reason == "first: RuntimeError: no gradient by 2"
    failed = [r for r in checks_in(records) if r.status is not Status.OK]
    assert [(r.case.pass_, r.launch) for r in failed] == [(Pass.GRADIENT, 0)]


def interrupted(folder, plan, tasks, after, kind) -> list:
    """The records of a run that is interrupted when it hands on the record of a kind with this number."""
    records = []

    def emit(record):
        records.append(record)
        if sum(isinstance(r, kind) for r in records) == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop_of(plan, tasks, folder, emit, Listener(), run_id="r", machine_id="m").run()
    return records


@pytest.mark.parametrize(("after", "kind"), [(1, TurnRecord), (4, TurnRecord), (8, TrialRecord)])
def test_a_resumed_run_keeps_what_was_chosen(tmp_path, monkeypatch, after, kind):
    """Even where the trial would now come out the other way."""
    plan, tasks = plan_of("slower-together", "faster-together"), [short_task((Pass.FORWARD,))]
    before = interrupted(tmp_path / "a", plan, tasks, after, kind)
    monkeypatch.setenv("RNNBENCH_TEST_TURNED", "1")
    records, *_ = run(tmp_path / "b", plan, tasks, before)
    assert not trials_in(records)
    assert ranked(records) == {("slower-together", Pass.FORWARD): {1}, ("faster-together", Pass.FORWARD): {2}}
    assert {r.tried for r in records} == {(1, 2)}
    for s in summaries([*before, *records]):
        assert len({key[1:] for key in s.turns}) == len(s.turns) == 4


def test_a_trial_that_was_interrupted_is_made_again(tmp_path):
    plan, tasks = plan_of("slower-together"), [short_task((Pass.FORWARD,))]
    before = interrupted(tmp_path / "a", plan, tasks, 3, TrialRecord)
    records, *_ = run(tmp_path / "b", plan, tasks, before)
    assert len(trials_in(records)) >= 4
    assert ranked(records) == {("slower-together", Pass.FORWARD): {1}}
    (whole,) = summaries([*before, *records])
    assert trial_of(whole).pairs == 1 + len(trials_in(records)) / 2


def test_a_replica_has_the_threads_of_its_original(tmp_path):
    name = "slower-together"
    records, *_ = run(tmp_path, plan_of(name, name + backends.REPLICA), [short_task((Pass.FORWARD,))])
    assert {r.backend for r in trials_in(records)} == {name}
    assert set(map(tuple, ranked(records).values())) == {(1,)}
    assert {s.threads for s in summaries(records)} == {(1,)}


def test_memory_is_that_of_what_is_ranked(tmp_path):
    from rnnbench.harness.memory import measure_memory

    records = []
    tasks = [short_task((Pass.FORWARD,))]
    plan = plan_of("slower-together", memory=True)
    loop = loop_of(plan, tasks, tmp_path, records.append, Listener(), run_id="r", machine_id="m")
    loop.run()
    measure_memory(tasks, loop.state)
    assert (records[-1].threads, records[-1].status) == (1, Status.OK)
    assert records[-1].peak_memory_bytes > 0


def test_a_spent_budget_ends_the_trial_and_takes_all_threads(tmp_path):
    records, *_ = run(tmp_path, plan_of("slower-together", case_budget=1e-3), [short_task((Pass.FORWARD,))])
    assert (records[-1].status, records[-1].threads) == (Status.SKIPPED, 2)
    assert "checks and compiling took" in records[-1].reason
    assert not any(r.samples_ns for r in trials_in(records))


def test_the_time_of_a_trial_is_predicted(tmp_path):
    tasks = [short_task()]

    def predicted(trial):
        plan = plan_of("slower-together", "single", trial=trial)
        return loop_of(plan, tasks, tmp_path, print, Listener(), run_id="r", machine_id="m").expected_seconds()

    assert predicted(True) > predicted(False) + 1.0


def test_a_default_run_tries_and_a_smoke_run_does_not():
    workload = [get("parity")]
    of = {mode: asked_plan(workload, ["numpy"], mode=mode, seed=0, timeout=1.0) for mode in Mode}
    assert {mode: plan.trial for mode, plan in of.items()} == {
        Mode.QUICK: False, Mode.DEFAULT: True, Mode.RIGOROUS: True,
    }  # fmt: skip
    fixed = asked_plan(workload, ["numpy"], mode=Mode.DEFAULT, threads=1, seed=0, timeout=1.0)
    assert (fixed.trial, fixed.counts) == (False, (1,))
    assert replace(of[Mode.DEFAULT], threads=1).counts == (1,)
    assert replace(of[Mode.DEFAULT], threads=3).counts == (1, 3)


def pairs(*ratios: float) -> list[dict[int, float]]:
    """`ratios`: of the time by 4 threads over that by 1."""
    return [{1: 0.01, 4: 0.01 * ratio} for ratio in ratios]


@pytest.mark.parametrize(
    ("ratios", "last", "found"),
    [
        ((), False, None),
        ((5.0,), False, None),
        ((CLEAR, CLEAR), False, 1),
        ((1 / CLEAR, 1 / CLEAR), False, 4),
        ((5.0, 1.05), False, None),
        ((5.0, 0.2), False, None),
        ((1.05, 0.5, 9.0), False, 1),
        ((1.02, 1.02, 9.0), False, 4),
        ((0.99, 1.0, 1.3), False, 4),
        ((5.0, 1.05), True, 1),
        ((1.02,), True, 4),
    ],
)
def test_the_rule(ratios, last, found):
    assert better(pairs(*ratios), last=last) == found


def test_a_tie_goes_to_all_threads():
    assert better(pairs(*[TIE] * MOST_PAIRS)) == 4
    assert better(pairs(*[TIE + 1e-6] * MOST_PAIRS)) == 1


def test_processes_of_one_thread_start_on_different_cores_and_compute_on_the_same(tmp_path):
    if len(allowed_cores()) < 2:
        pytest.skip("one core is allowed here")

    def cores(worker) -> set[int]:
        return {
            core for task in os.listdir(f"/proc/{worker.process.pid}/task") for core in os.sched_getaffinity(int(task))
        }

    pool = WorkerPool(("numpy", "chatty"), tmp_path, 1, 60.0, None)
    try:
        pool.side_by_side(pool.start, ["numpy", "chatty"])
        begun = [cores(pool.place(name).worker) for name in ("numpy", "chatty")]
        assert begun == [{pool.place(name).cores[0]} for name in ("numpy", "chatty")]
        assert {tuple(place.cores) for place in pool.places.values()} <= {tuple(cores_for(1, i)) for i in (0, 1)}
        for name in ("numpy", "chatty"):
            pool.ask(name, "hello")
            assert cores(pool.place(name).worker) == set(cores_for(1)), name
    finally:
        pool.kill()
    assert cores_for(1, 1) == [allowed_cores()[1]]
    assert cores_for(1, len(allowed_cores())) == cores_for(1)
    assert cores_for(len(allowed_cores()), 1) == allowed_cores()


def disturbed_run(folder, monkeypatch, judge, *names, launches=1, emit=lambda record: None, **of_effort):
    """`judge`: what is said of a turn by so many threads, of which so many were judged before."""
    asked = itertools.count()
    effort = Effort(launches, rounds=1, turn=Turn(0.0, 1, 1), trial=Turn(0.002, 2, 3), **{"extra": 50.0} | of_effort)
    monkeypatch.setitem(EFFORTS, Mode.DEFAULT, effort)
    monkeypatch.setattr(
        run_loop, "Judge", lambda: lambda answer, contention, cores, calls: judge(answer[2], next(asked))
    )
    monkeypatch.setattr(run_loop, "OthersWatch", Watched)
    records = []

    def keep(record):
        records.append(record)
        emit(record)

    loop = loop_of(plan_of(*names), [short_task((Pass.FORWARD,))], folder, keep, Listener(), run_id="r", machine_id="m")
    loop.run()
    return records, loop


def test_pairs_that_others_disturb_are_measured_again_and_have_no_part_in_the_choice(tmp_path, monkeypatch):
    """The first three, of the time that the better number then has."""
    records, loop = disturbed_run(tmp_path, monkeypatch, lambda n, k: 0.5 * (k < 6 and n == 1), "faster-together")
    trials = trials_in(records)
    assert [r.pair for r in trials] == sorted([*range(5)] * 2)
    assert [r.disturbed for r in trials if r.threads == 1] == [0.5] * 3 + [0.0] * 2
    assert all(r.contention is not None for r in trials)
    (answer,) = summaries(records)
    assert ranked(records) == {("faster-together", Pass.FORWARD): {2}}
    assert (trial_of(answer).pairs, trial_of(answer).disturbed) == (2, False)
    assert loop.state.doubtful == set()
    assert loop.pool.ledger.seconds()[TimeKind.AGAIN] > 0
    assert "its trial of threads" not in str(warnings_of(records, {}))


@pytest.mark.parametrize(("name", "best"), [("slower-together", 1), ("faster-together", 2), ("numpy", 1)])
def test_where_all_pairs_stay_disturbed_the_fewest_threads_are_ranked_unless_more_are_faster_even_so(
    tmp_path, monkeypatch, name, best
):
    records, loop = disturbed_run(tmp_path, monkeypatch, lambda n, k: 0.5, name)
    assert {r.pair for r in trials_in(records)} == set(range(4 * MOST_PAIRS))
    (answer,) = summaries(records)
    assert answer.threads == (best,)
    assert trial_of(answer).disturbed
    assert {key[1] for key in loop.state.doubtful} == {name}
    warned = disturbing(warnings_of(records, {}))
    assert warned.title == "disturbed"
    assert "disturbed its trial of threads; ranked by" in disturbing(warnings_of(replaced(records), {})).text


def replaced(records) -> list:
    """As if no turn that counts had been disturbed."""
    return [replace(r, disturbed=0.0) if isinstance(r, TurnRecord) else r for r in records]


def test_disturbed_pairs_are_not_measured_again_where_no_time_is_left_for_it(tmp_path, monkeypatch):
    records, _ = disturbed_run(tmp_path, monkeypatch, lambda n, k: 0.5, "slower-together", extra=1e-9)
    assert {r.pair for r in trials_in(records)} == set(range(MOST_PAIRS))
    assert trial_of(summaries(records)[0]).disturbed


def test_a_later_launch_decides_anew_and_turns_by_the_other_number_are_left_out(tmp_path, monkeypatch):
    """Beside others the other number seemed the better one."""
    quiet, name = [], "faster-together"

    def turned(record):
        if isinstance(record, TurnRecord) and not quiet:
            quiet.append(True)

    def decided(trials, *, last=False):
        found = decision_of(trials, last=last)
        return found if quiet or found is None else Decision(1, sure=False)

    monkeypatch.setattr(trials_of_a_run, "decision_of", decided)
    records, loop = disturbed_run(
        tmp_path, monkeypatch, lambda n, k: 0.0 if quiet else 0.5, name, launches=5, emit=turned
    )
    assert {r.launch for r in trials_in(records)} == {0, 1}
    assert {(r.launch, r.threads) for r in turns_in(records)} == {(0, 1), (1, 2), (2, 2), (3, 2), (4, 2)}
    assert loop.state.doubtful == set()
    (answer,) = summaries(records)
    assert {key.launch for key in answer.turns} == {1, 2, 3, 4}
    assert answer.threads == (2,)
    assert (trial_of(answer).ratio < 0.5, trial_of(answer).disturbed) == (True, False)
    again = loop_of(loop.plan, loop.tasks, tmp_path, print, Listener(), run_id="r", machine_id="m", before=records)
    assert {choice.threads for choice in again.state.choices.values()} == {2}
    assert again.state.doubtful == set()


def test_a_trial_that_stays_disturbed_is_made_in_no_launch_of_the_last_three(tmp_path, monkeypatch):
    name = "slower-together"
    records, loop = disturbed_run(tmp_path, monkeypatch, lambda n, k: 0.5, name, launches=4)
    assert {r.launch for r in trials_in(records)} == {0, 1}
    assert ranked(records) == {(name, Pass.FORWARD): {1}}
    assert len(loop.state.doubtful) == 1
    again = loop_of(loop.plan, loop.tasks, tmp_path, print, Listener(), run_id="r", machine_id="m", before=records)
    assert again.state.doubtful == loop.state.doubtful


def tried(ratios, disturbed=()) -> list[TrialRecord]:
    """Trial records of pairs: seconds by 2 threads over those by 1; some disturbed."""
    made = fake.record(fake.case(), "numba", [1.0])
    common = {name: getattr(made, name) for name in ("run_id", "case", "backend", "status", "mode")}
    return [
        TrialRecord(**common, tried=(1, 2), launch=0, pair=i, threads=n, samples_ns=(round(1e6 * x),),
                    disturbed=0.5 * (n == 2 and i in disturbed))
        for i, ratio in enumerate(ratios) for n, x in ((1, 1.0), (2, ratio))
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("ratios", "disturbed", "last", "found"),
    [
        ((0.5, 0.5), (), False, (2, True)),
        ((0.5, 0.5, 9.0), (2,), False, (2, True)),
        ((0.5, 9.0, 9.0), (1, 2), False, None),
        ((0.5, 9.0, 9.0), (1, 2), True, (1, False)),
        ((0.5, 0.6, 0.7), (0, 1, 2), True, (2, False)),
        ((0.5, 0.95, 0.7), (0, 1, 2), True, (1, False)),
        ((0.5, 1.5, 9.0), (2,), False, None),
        ((0.5, 1.5, 9.0), (2,), True, (2, True)),  # 0.87
        ((1.01,), (), True, (2, True)),  # a budget was spent
        ((), (), True, None),
    ],
)
def test_the_rule_beside_others(ratios, disturbed, last, found):
    assert decision_of(tried(ratios, disturbed), last=last) == found
