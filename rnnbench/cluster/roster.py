"""The workers of a cluster that may measure: each is looked at before it gets a problem, and told why where it may not.

A worker may measure where it has the resource `rnnbench=1`, this very rnnbench, and a lock in common with every other
worker of its host. Those of alike machines, by their fingerprint, are of one kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from distributed import Client, Future

from rnnbench.cluster import machine as there
from rnnbench.cluster.rows import SentFile
from rnnbench.machine.fingerprint import git

RESOURCE = "rnnbench"
PIECE = 16 << 20  # bytes of rows in one message
START = "dask worker {scheduler} --nthreads 1 --resources rnnbench=1"

# What is asked of processes that may have another rnnbench or none: expressions, as they need no module of ours.
_VERSIONS = {
    "Python": "__import__('platform').python_version()",
    "Dask": "__import__('distributed').__version__",
    "rnnbench": "__import__('rnnbench').__version__",
}


class SchedulerLost(OSError):
    """What was submitted is no longer known."""


class ClusterError(ValueError):
    """A cluster cannot be used. One sentence for the user, with the way out."""


class ClusterLost(ClusterError):
    """A cluster that was used answers no more."""


@dataclass(frozen=True)
class Host:
    """A worker that may measure, and its machine."""

    address: str
    name: str
    named: bool
    host: str
    lock: tuple[int, int]
    cores: int
    machine: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """What alike machines have in common."""
        return str(self.machine["machine_id"])

    @property
    def label(self) -> str:
        """The kind in a few letters, for a folder."""
        model = there.slug(str(self.machine["cpu"].get("model") or "machine"))[:40].strip("-")
        return f"{model}-{self.cores}-core{'s' * (self.cores > 1)}-{self.kind[:6]}"


@dataclass
class Roster:
    """Who may measure for a run. `rows`: sha256 -> a file that each machine gets once."""

    client: Client
    run_id: str
    env: Mapping[str, str]
    rows: Mapping[str, SentFile]
    say: Callable[[str], None]
    hosts: dict[str, Host] = field(default_factory=dict)  # by address
    refused: set[str] = field(default_factory=set)  # addresses
    unfit: set[str] = field(default_factory=set)  # names of machines that cannot go on with this run
    told: set[str] = field(default_factory=set)
    scheduler: str = ""  # its id: another one has the same address after it was started anew
    wanted: Future | None = None  # a task that no worker can have

    def forget(self) -> None:
        """Another scheduler has to be asked for its workers."""
        self.hosts.clear()
        self.refused.clear()
        self.scheduler = ""

    def want_workers(self) -> None:
        """Give a cluster that grows by need something to grow for, and to keep what it has, until it has problems."""
        if self.wanted is None:
            self.wanted = self.client.submit(int, resources={RESOURCE: 1, f"{RESOURCE}-none": 1}, pure=False)

    def has_problems(self) -> None:
        """The cluster has them now."""
        if self.wanted is not None:
            self.client.cancel([self.wanted], force=True)
            self.wanted = None

    def tell(self, text: str) -> None:
        """Say something once."""
        if text not in self.told:
            self.told.add(text)
            self.say(text)

    def compare_versions(self) -> None:
        """Say which versions of the scheduler are others than here; tasks pass through it, and it runs none."""
        for name, expression in _VERSIONS.items():
            try:
                theirs = self.client.run_on_scheduler(eval, expression)
            except ImportError:
                continue  # a scheduler needs no rnnbench
            if theirs != (ours := eval(expression)):
                self.tell(f"the scheduler has {name} {theirs}, here it is {ours}")

    def look(self) -> tuple[list[Host], list[Host]]:
        """The workers that may measure from now on, and those that are gone."""
        found = self.client.scheduler_info(n_workers=-1)
        if self.scheduler not in ("", found["id"]):
            raise SchedulerLost
        self.scheduler, present = found["id"], found["workers"]
        gone = [host for address, host in self.hosts.items() if address not in present]
        for host in gone:
            del self.hosts[host.address]
        self.refused &= present.keys()
        fresh = {a: facts for a, facts in present.items() if a not in self.hosts and a not in self.refused}
        return (self._enlisted(fresh) if fresh else []), gone

    def _refuse(self, address: str, name: object, why: str) -> None:
        self.refused.add(address)
        self.tell(f"worker {name} at {address} is left out: {why}")

    def _enlisted(self, fresh: Mapping[str, Mapping[str, Any]]) -> list[Host]:
        for address, facts in fresh.items():
            amount = facts["resources"].get(RESOURCE, 0)
            start = START.format(scheduler=self.client.scheduler.address)
            if not amount:
                self._refuse(address, facts["name"], f"it has no resource {RESOURCE}; start it with: {start}")
            elif amount != 1:
                self._refuse(address, facts["name"], f"it has {RESOURCE}={amount:g}, and on one machine measurements "
                             f"never overlap; start it with: {start}")  # fmt: skip
        able = self._alike([address for address in fresh if address not in self.refused])
        found = self._run(able, there.facts_of_worker, self.env, self.run_id)
        added = []
        for address, facts in found.items():
            rows = set(facts.pop("rows"))
            host = Host(address, **{**facts, "lock": tuple(facts["lock"])})
            if self._may_measure(host) and self._has_rows(host, rows):
                self.hosts[address] = host
                added.append(host)
        return added

    def _run(self, addresses: Iterable[str], function: Any, *arguments: Any) -> dict[str, Any]:
        """What workers answer; those that do not are looked at again later."""
        workers = list(addresses)
        if not workers:
            return {}
        found = self.client.run(function, *arguments, workers=workers, on_error="return")
        failed = {a: answer for a, answer in found.items() if isinstance(answer, BaseException)}
        for address, error in failed.items():
            if address not in self.hosts and not isinstance(
                error, OSError | KeyError
            ):  # with which one that is gone answers
                self._refuse(address, address, f"{type(error).__name__}: {error}")
        return {address: answer for address, answer in found.items() if address not in failed}

    def _alike(self, addresses: list[str]) -> list[str]:
        """Those with the rnnbench of this process; other versions of Python and Dask are told."""
        able = []
        mine = {name: eval(expression) for name, expression in _VERSIONS.items()}
        found = self.client.run(eval, _VERSIONS["rnnbench"], workers=addresses, on_error="return") if addresses else {}
        for address, theirs in found.items():
            if isinstance(theirs, ImportError):
                install = f"pip install rnnbench[dask]=={mine['rnnbench']}"
                self._refuse(address, address, f"it has no rnnbench; there: {install}")
            elif isinstance(theirs, str) and theirs != mine["rnnbench"]:
                self._refuse(
                    address, address, f"it has rnnbench {theirs}, here it is {mine['rnnbench']}; have the same"
                )
            elif isinstance(theirs, str):
                able.append(address)
        for name in ("Python", "Dask"):
            for address, theirs in self._run(able, eval, _VERSIONS[name]).items():
                if theirs != mine[name]:
                    self.tell(f"worker {address} has {name} {theirs}, here it is {mine[name]}")
        return able

    def _may_measure(self, host: Host) -> bool:
        commits = [(facts or {}).get("commit") for facts in (host.machine.get("git"), git())]
        if commits[0] != commits[1]:
            here, this = (f"commit {c[:7]}" if c else "no commit" for c in commits)
            self._refuse(host.address, host.name, f"it has rnnbench of {here}, here it is of {this}; have the same")
            return False
        if host.name in self.unfit:
            self._refuse(host.address, host.name, "its machine could not go on with this run")
            return False
        for other in self.hosts.values():
            if host.host == other.host and not (host.named and other.named and host.name != other.name):
                if host.lock != other.lock:
                    self._refuse(host.address, host.name, f"it shares a host with {other.name} at {other.address} and "
                                 "cannot see its lock, so both would measure at once; have one worker on a host, or "
                                 f"give workers with cores of their own names, each by {there.NAME}")  # fmt: skip
                    return False
                self.tell(
                    f"workers at {other.address} and {host.address} are on one host, {host.name}: they take turns"
                )
        return True

    def _has_rows(self, host: Host, there_already: set[str]) -> bool:
        """Send what the machine lacks, in pieces. Whether all of it is there."""
        for sha256, file in self.rows.items():
            if (file.path.name if file.lasting else sha256) in there_already:
                continue
            name = file.path.name if file.lasting else None
            size, offset = file.path.stat().st_size, 0
            with file.path.open("rb") as stream:
                while piece := stream.read(PIECE):
                    last = offset + len(piece) == size
                    answer = self._run([host.address], there.receive, self.run_id, sha256, name, offset, piece, last)
                    if host.address not in answer:
                        return False
                    if why := answer[host.address]:
                        self._refuse(host.address, host.name, f"it cannot take the rows of this run: {why}")
                        return False
                    offset += len(piece)
        return True

    def offer(
        self, hosts: Iterable[Host], resource: str, amount: int, topic: str = "", left: float | None = None
    ) -> None:
        """Let hosts have the problems that ask for a resource, or no more; `left`: seconds of the budget of a run."""
        self._run([host.address for host in hosts], there.offer, resource, amount, topic, left)

    def on_all(self, function: Any, *arguments: Any) -> None:
        """Ask all hosts for something, with no care for an answer."""
        self._run(self.hosts, function, *arguments)
