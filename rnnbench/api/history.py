"""`rnnbench history`: find and read runs, put them into lines, name the commit of each step, and the exit code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rnnbench.analysis.changepoints import MIN_RUNS
from rnnbench.analysis.history import DatedRun, Line, in_order, lines_of_runs, runs_of
from rnnbench.api.compare import kept
from rnnbench.api.exit_codes import NOTHING, OK, SLOWER
from rnnbench.api.runs import ROOTS, places_of, read_runs
from rnnbench.machine.fingerprint import answer_of
from rnnbench.records import store


@dataclass(frozen=True)
class History:
    """The lines, what is said of each step by line and step, and sentences on what to bear in mind."""

    lines: Sequence[Line]
    margin: float
    origins: dict[tuple[int, int], str]
    notes: Sequence[str] = ()

    def code(self, fail: bool) -> int:
        """One of EXIT_CODES."""
        if not self.lines:
            return NOTHING
        return SLOWER if fail and any(line.steps and line.steps[-1].ratio > 1 for line in self.lines) else OK


def folders_of(names: Sequence[str]) -> list[tuple[Path, ...]]:
    """Every folder of a run under the places named, or the file of records itself; those of a pooled run together.

    Raises StoreError for none.
    """
    found: list[tuple[Path, ...]] = []
    for paths in [places_of(name, names) for name in names] or [[root] for root in ROOTS]:
        if len(paths) > 1:
            found.append(tuple(paths))
        else:
            path = paths[0]
            found += [(path,)] if path.is_file() else sorted((p.parent,) for p in path.rglob(store.RECORDS))
    if not found:
        where = ", ".join(names) or " and ".join(map(str, ROOTS))
        raise store.StoreError(f"no run lies under {where}; give the folders that `run -o` was given")
    return list(dict.fromkeys(found))


def _read(folders: Sequence[Sequence[Path]], say: Callable[[str], None]) -> list[DatedRun]:
    """All runs that can be read, in order of time, each of a folder or pooled of several.

    Raises StoreError where none can be read, and ValueError where several cannot be pooled.
    """
    runs: list[DatedRun] = []
    for paths in folders:
        try:
            loaded = read_runs(paths, say)
        except (store.StoreError, OSError) as error:
            say(f"{error}; it was left out")
            continue
        runs += runs_of(loaded, ",".join(map(str, paths)), pooled=len(paths) > 1)
    if not runs:
        raise store.StoreError(f"none of {len(folders)} runs holds a record that can be read")
    return in_order(runs)


def history_of(names: Sequence[str], words: str, margin: float, say: Callable[[str], None]) -> History:
    """The history of the runs under some names; smoke tests are left out unless they are named."""
    runs = _read(folders_of(names), say)
    notes = []
    if not names and (quick := sum(run.quick for run in runs)):
        runs = [run for run in runs if not run.quick]
        notes.append(f"{quick} quick {'run is' if quick == 1 else 'runs are'} left out; name their folders to see them")
    found = lines_of_runs([replace(run, side=kept(run.side, words)) for run in runs], margin)
    if words and not found:
        raise ValueError(f"the filter {words!r} leaves no timed case of {len(runs)} runs")
    origins = {(i, j): origin(*line.around(step)) for i, line in enumerate(found) for j, step in enumerate(line.steps)}
    return History(found, margin, origins, [*notes, *_notes(found)])


def _notes(found: Sequence[Line]) -> list[str]:
    reasons: dict[str, int] = {}
    for line in found:
        if line.apart:
            reason = "; ".join(line.apart)
            reasons[reason] = reasons.get(reason, 0) + 1
    notes = [f"unlike runs are kept apart ({n} {'line' if n == 1 else 'lines'}): {r}" for r, n in reasons.items()]
    most = max((len(line.points) for line in found), default=0)
    if found and most < MIN_RUNS:
        notes.append(
            f"{most} {'run' if most == 1 else 'runs'} on a line at most: a step is looked for from {MIN_RUNS} on; "
            "until then `compare` two of them"
        )
    return notes


def origin(before: DatedRun, after: DatedRun) -> str:
    """The commit that a step came with, or between which two it came."""
    runs = f"between runs {before.id} and {after.id}"
    if before.commit is None or after.commit is None:
        known = [f"{run.id} is of {run.version}" for run in (before, after) if run.commit]
        return f"{runs}; {'; '.join(known) or 'no commit was recorded'}"
    if before.commit == after.commit:
        changed = "files were changed beside it" if before.dirty or after.dirty else "look at the machine"
        return f"{runs}, both of commit {after.commit[:7]}: {changed}"
    between = commits_between(before.commit, after.commit)
    changed = "; files were changed beside a commit" if before.dirty or after.dirty else ""
    if between is not None and len(between) == 1:
        return f"with commit {between[0]}{changed}"
    count = "" if between is None else f", {len(between)} commits"
    return f"between commits {before.version} and {after.version}{count}{changed}"


def commits_between(before: str, after: str) -> list[str] | None:
    """Commits that `after` has and `before` has not, as `digits subject`; None where git does not know."""
    done = answer_of(["git", "log", "--format=%h %s", "--end-of-options", f"{before}..{after}"], 10)
    return (done.stdout.splitlines() or None) if done and done.returncode == 0 else None
