"""What `import rnnbench` offers: the commands as functions, and their results as objects with pandas DataFrames.

Times are seconds, memory bytes, ratios plain numbers. Nothing here imports a framework: backends compute in worker
processes of their own, but for `session`, which computes in this one.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnnbench import backends as registry
from rnnbench.analysis.accuracy import to_accuracy_frame
from rnnbench.analysis.compare import Gate
from rnnbench.analysis.latency import latencies_frame
from rnnbench.analysis.ranking import ranking, speedups
from rnnbench.analysis.stats import Metric, times_frame
from rnnbench.api import compare as comparing
from rnnbench.api import learning, planning
from rnnbench.api import run as running
from rnnbench.api import sweep as sweeping
from rnnbench.api import train as training
from rnnbench.api import verify as verifying
from rnnbench.api.exit_codes import INTERRUPTED
from rnnbench.api.runs import place_of
from rnnbench.api.to_accuracy import with_seeds
from rnnbench.harness.observer import Lines, Observer, Silent
from rnnbench.harness.tasks import check_sizes, too_large_here
from rnnbench.machine.environment import variables_of
from rnnbench.model import Case, DType, Pass, Truncation
from rnnbench.params import cast, init_params
from rnnbench.records import store
from rnnbench.records.record import Mode
from rnnbench.report.data import ReportData
from rnnbench.report.tables import errors_frame
from rnnbench.workloads.base import Source, Workload
from rnnbench.workloads.resolve import DEFAULT, Asked, resolve

if TYPE_CHECKING:
    import pandas as pd

    from rnnbench.backends.base import Session
    from rnnbench.harness.plan import Plan

Problems = str | Workload | Iterable[str | Workload] | None
WIDTH = 100  # of an answer as text


class Run:
    """A measured run: its folder, and what it says. The columns of the tables are those of `tables/*.csv`."""

    def __init__(self, folder: Path, loaded: store.Loaded) -> None:
        self.folder, self.loaded = folder, loaded

    @cached_property
    def _data(self) -> ReportData:
        return ReportData.of(self.loaded, self.loaded.run.get("reference"))

    @cached_property
    def times(self) -> pd.DataFrame:
        """One row for each case and backend: status, reason, seconds of a call with the 95 % interval low to high."""
        return times_frame(self._data.summaries)

    @cached_property
    def ranking(self) -> pd.DataFrame:
        """One row for each case and backend that was right, fastest first: rank, seconds, times behind the fastest."""
        return ranking(self._data.summaries)

    @property
    def ratios(self) -> pd.DataFrame:
        """Speed-ups of each backend over the run's reference, by shared rounds, or the reason why there is none."""
        return self.ratios_over(None)

    def ratios_over(self, reference: str | None) -> pd.DataFrame:
        """Speed-ups over another backend. Raises ValueError for one that is not in the run."""
        import pandas as pd

        data = self._data
        if reference is not None:
            data = replace(data, wanted=reference)
        return pd.DataFrame() if data.reference is None else speedups(data.summaries, data.reference)

    @cached_property
    def to_accuracy(self) -> pd.DataFrame:
        """One row for each problem and backend of a run with `until_accuracy`: seconds to it, the median over seeds."""
        return to_accuracy_frame(self._data.to_reach)

    @cached_property
    def errors(self) -> pd.DataFrame:
        """One row for each case, backend and array: the largest error against the oracle, and its limit."""
        return errors_frame(self._data.summaries)

    @cached_property
    def latencies(self) -> pd.DataFrame:
        """One row for each backend and case of the step pass: seconds within which 50, 99, 99.9 % of the steps end."""
        return latencies_frame(self._data.summaries)

    @cached_property
    def warnings(self) -> pd.DataFrame:
        """What to bear in mind, most severe first: severity, title, text with number and threshold, remedy."""
        import pandas as pd

        columns = ["severity", "title", "text", "remedy"]
        rows = [{name: str(getattr(w, name)) for name in columns} for w in self._data.warnings]
        return pd.DataFrame(rows, columns=columns)

    def report(self, *, svg: bool = False) -> Path:
        """Write `report.md`, `report.html`, tables and figures into the folder of the run; the path of the first."""
        from rnnbench.report.page import write_report

        write_report(self.folder, self._data, vector=svg)
        return self.folder / "report.md"

    def __repr__(self) -> str:
        from rnnbench.report.terminal import text_of

        return f"{text_of(self._data, WIDTH)}\n{self.folder}"

    def _repr_html_(self) -> str:
        shown = self.ranking[["workload", "pass", "dtype", "rank", "backend", "seconds", "behind"]]
        warned = "".join(f"<li>{html.escape(text)}</li>" for text in self.warnings["text"])
        failed = self.times[self.times["status"] != "ok"][["case", "backend", "status", "reason"]]
        parts = [shown.to_html(index=False, float_format="{:.3g}".format)]
        parts += [failed.to_html(index=False)] if len(failed) else []
        parts += [f"<ul>{warned}</ul>"] if warned else []
        return f"{''.join(parts)}<p>{html.escape(str(self.folder))}</p>"


def run(
    workloads: Problems = None,
    backends: Iterable[str] | None = None,
    *,
    passes: Iterable[str] | None = None,
    dtypes: Iterable[str] | None = None,
    output: str | Path | None = None,
    resume: str | Path | None = None,
    mode: str = "default",
    precision: float | None = None,
    max_launches: int | None = None,
    budget: float | None = None,
    case_budget: float | None = None,
    truncation: tuple[int, int] | Truncation | None = None,
    threads: int | None = None,
    seed: int = 0,
    reference: str | None = None,
    filter: str = "",
    epoch_batches: int | None = None,
    training: bool | None = None,
    until_accuracy: float | None = None,
    seeds: int | None = None,
    memory: bool = False,
    aa: bool = False,
    timeout: float = 300.0,
    data_dir: str | Path | None = None,
    env: Mapping[str, str] | None = None,
    progress: bool | Observer = True,
    client: Any = None,
    **sizes: Any,
) -> Run | Any:  # a ClusterRun with a client
    """Check backends against the oracle and time those that are right: `python -m rnnbench run`.

    `workloads`: names, files (`rows.npz`, `mine.toml`, `mine.py:NAME`), `Workload` objects, or a mix of them; None with
    sizes (`V`, `E`, `H`, `T`, `B`, `O`, `cell`, `layers`, `bidirectional`, `head`, `loss`) is made-up rows, without any
    the default three.
    `backends`: names; None is all the usual ones, of which those that are not installed are `unavailable`, with the way
    to get them. `passes`: of forward, gradient, train_step, epoch and step; None is all but step. `mode`: quick,
    default or rigorous; `precision`,
    such as 0.05: launches until the intervals are within it; budgets and `timeout` in seconds; `threads`: of every
    backend, None ranks the better of one and all in each case; `output`: a new or empty folder, else one under
    `reports`; `until_accuracy`, such as 0.8: each backend is trained from so many `seeds` (5) until it is reached, in
    place of the passes unless they are given; `resume`: go on with an interrupted run as it was asked; `env`: variables
    of the environment that backends get besides the usual ones. `progress`: lines on standard error, or an observer.
    `client`: of a Dask cluster, on which each problem is measured on a machine of each kind; the result is then a
    `ClusterRun`, with a `Run` of each kind in `runs`.

    Ctrl-C raises KeyboardInterrupt as ever, once what was measured is kept: `load` reads it and `resume` goes on.
    Raises ValueError for what cannot be asked, StoreError for a folder that cannot be used, and WorkloadUnavailable
    where data cannot be had.
    """
    observer = _observer(progress)
    if resume is not None:
        folder = Path(resume)
        if client is not None:
            return _cluster().run_with(client, None, folder, observer, resume=True)
        plan, described = running.read_plan(folder)
        result = running.execute(plan, folder, described.get("command", ""), observer, resume=True)
        return _finished(result)
    found = _resolved(workloads, sizes, observer, seed)
    kind = Mode(_one_of("mode", mode, Mode))
    plan = planning.plan_of(
        found, _names(backends), _names(passes), _names(dtypes), mode=kind,
        threads=threads if client is None else None, reference=reference,
        seed=seed, timeout=timeout, truncation=_truncation(truncation), filter=filter, epoch_batches=epoch_batches,
        memory=memory or kind is Mode.RIGOROUS, data_dir=None if data_dir is None else str(data_dir),
        names=tuple(w.name for w in found), sizes=_asked(sizes), env=_variables(env), until_accuracy=until_accuracy,
    )  # fmt: skip
    plan = learning.with_trainings(with_seeds(plan, seeds), training)
    plan = planning.stopped(plan, precision, max_launches, budget, case_budget, aa)
    given = {workload.name: workload for workload in found}
    return _measured(plan, output, "rnnbench.run in Python", observer, threads, client, given)


def sweep(
    workload: str | Workload | None = None,
    backends: Iterable[str] | None = None,
    *,
    H: int | Iterable[int] | None = None,
    B: int | Iterable[int] | None = None,
    T: int | Iterable[int] | None = None,
    E: int | None = None,
    grid: bool = False,
    passes: Iterable[str] | None = None,
    dtypes: Iterable[str] | None = None,
    output: str | Path | None = None,
    mode: str = "default",
    threads: int | None = None,
    seed: int = 0,
    timeout: float = 300.0,
    data_dir: str | Path | None = None,
    env: Mapping[str, str] | None = None,
    progress: bool | Observer = True,
    client: Any = None,
    **sizes: Any,
) -> Run | Any:  # a ClusterRun with a client
    """Check and time backends at many sizes of one network, one axis at a time: `python -m rnnbench sweep`.

    `workload`: a name, a file or a `Workload`, whose sizes are changed; None is made-up rows.
    `H`, `B`, `T`: hidden units, rows of a batch, time steps. Several sizes sweep this axis; while another one is swept,
    it stays at its centre, which one size moves: that of the workload, else 128, 32 and 100. Without any that has
    several, those that are not given are swept. `E`: width of the inputs; None is as wide as H where they are dense
    and made up. `grid`: also each H with each B. `passes`: None is forward and gradient; there is no epoch. `mode`:
    quick or default. `sizes`: one `cell`, `layers`, `bidirectional`, `V`, `O`, `head`, `loss`. The other arguments,
    the result and what is raised are as of `run`, which also goes on with an interrupted sweep: `run(resume=folder)`.
    """
    observer, asked = _observer(progress), _asked(sizes)
    if len(asked.cell) > 1:
        raise ValueError(f"a sweep has one cell, not {', '.join(asked.cell)}; call it for each of them")
    axes = {name: _sizes_of(name, given) for name, given in (("H", H), ("B", B), ("T", T))}
    plan, given = sweeping.planned_sweep(
        workload, _names(backends), _names(passes), _names(dtypes), axes, E, grid, asked, observer.say, mode=mode,
        seed=seed, timeout=timeout, threads=threads if client is None else None,
        data_dir=None if data_dir is None else str(data_dir), env=_variables(env),
    )  # fmt: skip
    return _measured(plan, output, "rnnbench.sweep in Python", observer, threads, client, given)


def verify(
    workloads: Problems = None,
    backends: Iterable[str] | None = None,
    *,
    passes: Iterable[str] | None = None,
    dtypes: Iterable[str] | None = ("float32", "float64"),
    truncation: tuple[int, int] | Truncation | None = None,
    threads: int | None = None,
    seed: int = 0,
    filter: str = "",
    timeout: float = 300.0,
    data_dir: str | Path | None = None,
    env: Mapping[str, str] | None = None,
    progress: bool | Observer = True,
    client: Any = None,
    **sizes: Any,
) -> verifying.Checked | Any:  # one for each kind of machine with a client
    """Compare backends with the float64 oracle, array by array, and time nothing: `python -m rnnbench verify`.

    Arguments as of `run`. The result has `ok` and, as a DataFrame, `errors`; with a `client` there is one for each kind
    of machine.
    """
    observer = _observer(progress)
    found = _resolved(workloads, sizes, observer, seed, verifying.WORKLOADS)
    plan = planning.plan_of(
        found, _names(backends), _names(passes), _names(dtypes), mode=verifying.MODE,
        threads=threads if client is None else None, seed=seed, timeout=timeout, truncation=_truncation(truncation),
        filter=filter,
        data_dir=None if data_dir is None else str(data_dir), sizes=_asked(sizes), env=_variables(env),
    )  # fmt: skip
    given = {workload.name: workload for workload in found}
    if client is not None:
        return _cluster().verified_with(client, plan, observer, threads=threads, given=given)
    return verifying.verify_plan(plan, given, observer)


def train(
    workload: str | Workload,
    backend: str = "numba",
    *,
    epochs: int | None = None,
    dtype: str = "float32",
    output: str | Path | None = None,
    truncation: tuple[int, int] | Truncation | None = None,
    threads: int | None = None,
    seed: int = 0,
    timeout: float = 300.0,
    data_dir: str | Path | None = None,
    env: Mapping[str, str] | None = None,
    progress: bool | Observer = True,
    **sizes: Any,
) -> training.Trained:
    """Train one workload with one backend: `python -m rnnbench train`. The result has `curve`, a DataFrame, and `test`.

    Arguments as of `run`. Raises TrainingFailed, a ValueError, where the backend cannot.
    """
    observer = _observer(progress)
    found = _resolved(workload, sizes, observer, seed)
    plan = planning.plan_of(
        found, [backend], None, [dtype], mode=Mode.DEFAULT, threads=threads, seed=seed, timeout=timeout,
        truncation=_truncation(truncation), data_dir=None if data_dir is None else str(data_dir), sizes=_asked(sizes),
        env=_variables(env),
    )  # fmt: skip
    given = {each.name: each for each in found}
    return training.run_training(plan, given, epochs, None if output is None else Path(output), observer, observer.say)


def load(folder: str | Path) -> Run | Any:
    """A run from its folder, or by its id under `reports`; a `ClusterRun` of one over a cluster.

    Raises StoreError where it cannot be read.
    """
    path = place_of(str(folder))
    if (path / store.MACHINES).is_file():
        return _cluster().load_cluster_run(path)
    return Run(path if path.is_dir() else path.parent, store.load_run(path) if path.is_dir() else store.load_file(path))


def compare(
    base: str | Path | Run,
    new: str | Path | Run,
    *,
    margin: float | None = None,
    metric: str = "median",
    filter: str = "",
    noise: str | Path | None = None,
    progress: bool | Observer = True,
) -> comparing.Compared:
    """Two runs, case by case: faster, slower, same, or not to be told: `python -m rnnbench compare`.

    `margin`, such as 0.05, is what counts as a change; None takes the noise of the machine, by the A/A run `noise` or
    one beside the two. The result has `table`, a DataFrame.
    """
    a, b = (str(side.folder if isinstance(side, Run) else side) for side in (base, new))
    gate = None if margin is None else Gate(Metric(_one_of("metric", metric, Metric)), margin)
    say = _observer(progress).say
    return comparing.compared(a, b, gate, filter, say, None if noise is None else str(noise))


@contextmanager
def session(
    backend: str,
    workload: str | Workload,
    *,
    dtype: str = "float32",
    truncation: tuple[int, int] | Truncation | None = None,
    params: Mapping[str, Any] | None = None,
    seed: int = 0,
    data_dir: str | Path | None = None,
    **sizes: Any,
) -> Iterator[Session]:
    """A backend with a workload's training rows staged, in this process and with its threads as they are.

    `forward`, `gradient`, `train_step` work on the batch of `select`, `train_epoch` on an order of rows, `predict` on
    rows; `fetch` gives the outputs of the last. `params`: arrays by name that replace the initial ones, all or some.
    Raises ValueError where the backend is not here or cannot do it, where `params` do not fit, and where memory does
    not hold it.
    """
    _one_of("backend", backend, registry.REGISTRY)
    if reason := registry.missing(backend):
        raise ValueError(f"{backend}: {reason}")
    (found,) = _resolved(workload, sizes, Silent(), seed)
    asked = DType(_one_of("dtype", dtype, DType)), _truncation(truncation)
    problem = found.spec.problem(*asked)
    made = registry.load(backend)
    reasons = [made.unsupported(Case(**vars(problem), pass_=pass_)) for pass_ in Pass]
    if reason := made.unavailable() or (reasons[0] if all(reasons) else None):
        raise ValueError(f"{backend} on {problem.name}: {reason}")
    if reason := too_large_here(found.spec, problem):
        raise ValueError(reason)
    rows = found.load(Source(found.T, seed, None if data_dir is None else Path(data_dir))).train
    initial = {**init_params(found.model, found.init, seed), **(params or {})}
    staged = made.prepare(found.spec.problem(*asked, rows), cast(initial, problem.dtype), rows)
    try:
        yield staged
    finally:
        staged.close()


def _cluster() -> Any:
    """The room that knows Dask. Raises ValueError where Dask is not installed."""
    from rnnbench.cluster import need_dask

    need_dask()
    from rnnbench.cluster import result

    return result


def _measured(
    plan: Plan, output: str | Path | None, command: str, observer: Observer, threads: int | None, client: Any,
    given: Mapping[str, Workload],
) -> Run | Any:  # fmt: skip
    """A plan measured into a new folder, here or over a cluster."""
    run_id = store.new_run_id()
    folder = Path("reports") / run_id if output is None else Path(output)
    if client is not None:
        return _cluster().run_with(client, plan, folder, observer, threads=threads, run_id=run_id, given=given)
    check_sizes(plan)
    return _finished(running.execute(plan, folder, command, observer, run_id=run_id, given=given))


def _finished(result: running.Result) -> Run:
    if result.code == INTERRUPTED:
        raise KeyboardInterrupt(f"what was measured is kept: rnnbench.load({str(result.folder)!r})")
    return Run(result.folder, result.loaded)


def _observer(progress: bool | Observer) -> Observer:
    return (Lines() if progress else Silent()) if isinstance(progress, bool) else progress


def _resolved(
    workloads: Problems, sizes: dict[str, Any], observer: Observer, seed: int, default: Iterable[str] = DEFAULT
) -> list[Workload]:
    given = [workloads] if isinstance(workloads, str | Workload) else workloads
    return resolve(given, _asked(sizes), observer.say, default=default, seed=seed)


def _asked(sizes: dict[str, Any]) -> Asked:
    """The sizes as keywords; `cell` is a name or several."""
    cell = sizes.get("cell") or ()
    return Asked(**sizes | {"cell": (cell,) if isinstance(cell, str) else tuple(cell)})


def _sizes_of(name: str, given: int | Iterable[int] | None) -> tuple[int, ...] | None:
    """One size or several. Raises ValueError for what is none."""
    if given is None:
        return None
    try:
        found = tuple(map(index, given if isinstance(given, Iterable) else (given,)))
    except TypeError:
        found = ()
    if not found:
        raise ValueError(f"{name} is {given!r}; give a whole number or several, such as [16, 64]")
    return tuple(dict.fromkeys(found))


def _variables(env: Mapping[str, str] | None) -> dict[str, str]:
    return variables_of(f"{name}={value}" for name, value in (env or {}).items())


def _names(names: str | Iterable[str] | None) -> Iterable[str] | None:
    return [names] if isinstance(names, str) else names


def _one_of(kind: str, name: str, known: Iterable[str]) -> str:
    return planning.known_names(kind, [name], known)[0]


def _truncation(cut: tuple[int, int] | Truncation | None) -> Truncation | None:
    return cut if cut is None or isinstance(cut, Truncation) else Truncation(*cut)
