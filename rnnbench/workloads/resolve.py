"""From what a user names to workloads: a built-in name, a file of their own, or sizes alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rnnbench import workloads
from rnnbench.model import Head, Loss, Model
from rnnbench.names import unknown
from rnnbench.workloads import files, made_up
from rnnbench.workloads.base import MADE_UP, Dataset, Source, Workload, WorkloadUnavailable

DEFAULT = ("parity", "imdb-50", "imdb-200")
RECURRENCE = ("cell", "layers", "bidirectional")
OPTIONS = {"head": "--head", "loss": "--loss"}  # of the others the option is the letter


@dataclass(frozen=True)
class Asked:
    """What is asked of a problem besides its name; None where nothing is. The letters are those of `Model`.

    Of several cells each makes a workload of its own.
    """

    cell: tuple[str, ...] = ()
    V: int | None = None
    E: int | None = None
    H: int | None = None
    T: int | None = None
    B: int | None = None
    O: int | None = None
    head: Head | None = None
    loss: Loss | None = None
    layers: int | None = None
    bidirectional: bool | None = None

    @property
    def given(self) -> dict[str, Any]:
        """Only what is asked, in the order of the fields; of the cells the first."""
        cell = {"cell": self.cell[0]} if self.cell else {}
        return cell | {name: value for name, value in asdict(self).items() if value is not None and name != "cell"}


NOTHING = Asked()


def alone(asked: Asked) -> bool:
    """Whether these sizes make a problem without a name; -T, -B and what is asked of the recurrence alone change the
    default workloads.
    """
    return bool(asked.given.keys() - {"T", "B", *RECURRENCE})


def _silent(text: str) -> None:
    pass


def resolve(
    names: Iterable[str | Workload] | None,
    asked: Asked = NOTHING,
    say: Callable[[str], None] = _silent,
    *,
    default: Iterable[str] = DEFAULT,
    seed: int = 0,
) -> list[Workload]:
    """The workloads that are meant: names, files, workloads as they are, or sizes alone; else the default ones.

    Raises ValueError, in one sentence, for a name that is not known, a file that cannot be used, sizes that do not
    fit, and two workloads of one name; and WorkloadUnavailable where a function of the user's gives no rows.
    """
    if len(asked.cell) > 1:
        every = list(names) if names is not None else None
        found = []
        for cell in dict.fromkeys(asked.cell):
            found += resolve(every, replace(asked, cell=(cell,)), say, default=default, seed=seed)
            say = _silent  # of the same files for another cell
        return found
    given = list(names) if names is not None else []
    if not given and alone(asked):
        found = [sizes_alone(asked)]
    else:
        found = [_with_rows(_one(name, asked, say), seed, say) for name in given or default]
    seen: dict[str, Workload] = {}
    for workload in found:
        if not workload.origin and workload.name in workloads.REGISTRY:
            raise ValueError(f"{workload.name} is the name of a built-in workload; give yours another name")
        before = seen.setdefault(workload.name, workload)
        if before is not workload and not (before.origin and before.origin == workload.origin):
            raise ValueError(f"two workloads are called {workload.name}; give one of them another name")
    return _kept_apart(list(seen.values()))


def _kept_apart(found: list[Workload]) -> list[Workload]:
    """Workloads of which no two with other rows would share a file in the folder of a run."""
    first: dict[str, Workload] = {}
    apart = []
    for workload in found:
        if not callable(workload.data):
            other = first.setdefault(workload.kept, workload)
            if not callable(other.data) and any(
                getattr(other.data, name) is not getattr(workload.data, name) for name in ("inputs", "lengths")
            ):
                workload = replace(workload, kept=workload.name)
        apart.append(workload)
    return apart


def is_file(name: str) -> bool:
    """Whether a name is that of a user's file: rows.npz, mine.toml or mine.py:NAME."""
    return Path(name.partition(".py:")[0] + ".py" if ".py:" in name else name).suffix in (".npz", ".toml", ".py")


def unknown_workload(name: str) -> str:
    """One sentence for a name that is neither built in nor a file."""
    known = unknown("workload", name, workloads.REGISTRY)
    return f"{known}; your own are rows.npz, mine.toml, mine.py:NAME, or sizes alone, such as -H 256"


def _one(name: str | Workload, asked: Asked, say: Callable[[str], None]) -> Workload:
    if not isinstance(name, str):
        return _resized(name, asked)
    if name.endswith(".npz"):
        sizes = asked.given
        recurrence = {name: sizes.pop(name, None) for name in RECURRENCE}
        return files.from_npz(Path(name), sizes, say).resized(**recurrence)
    if is_file(name):
        workload = files.from_toml(Path(name), say) if name.endswith(".toml") else files.from_python(name)
        return _resized(workload, asked)
    if name == MADE_UP:
        return sizes_alone(asked)
    if name not in workloads.REGISTRY:
        raise ValueError(unknown_workload(name))
    return _resized(workloads.get(name), asked)


def _with_rows(workload: Workload, seed: int, say: Callable[[str], None]) -> Workload:
    """The workload; where a function of the user's makes its rows, with those."""
    if workload.origin or not callable(workload.data):
        return workload
    try:
        made = workload.load(Source(workload.T, seed, say=say))
    except WorkloadUnavailable:
        raise
    except Exception as error:
        said = (str(error).splitlines() or [""])[0]
        raise ValueError(f"the data of {workload.name} failed: {type(error).__name__}: {said}") from error
    if not isinstance(made, Dataset):
        raise ValueError(f"the data of {workload.name} made {type(made).__name__}; a Dataset of rows is needed")
    return replace(workload, data=made.train, test=made.test, T=0, source=made.source)


def _resized(workload: Workload, asked: Asked) -> Workload:
    sizes = asked.given
    for name in ("V", "O", "head", "loss"):
        if name in sizes and sizes[name] != getattr(workload.model, name):
            option = OPTIONS.get(name, f"-{name}")
            raise ValueError(
                f"{workload.name} has {name} = {getattr(workload.model, name)}; {option} {sizes[name]} is for rows "
                "from a .npz file and for sizes alone"
            )
        sizes.pop(name, None)
    return workload.resized(**sizes)


def sizes_alone(asked: Asked) -> Workload:
    """Made-up rows of these sizes; `made_up` has what is taken for those that are left out."""
    sizes = asked.given
    B, T = sizes.pop("B", made_up.B), sizes.pop("T", made_up.T)
    loss = sizes.get("loss") or (Loss.CATEGORICAL_CROSS_ENTROPY if sizes.get("O", 1) > 1 else None)
    if loss is Loss.CATEGORICAL_CROSS_ENTROPY:
        sizes = {"O": 2, **sizes}
    sizes = {"E": made_up.E, "H": made_up.H, "O": made_up.O, **sizes, **({"loss": loss} if loss else {})}
    for letter, size in (*((k, v) for k, v in sizes.items() if isinstance(v, int)), ("B", B), ("T", T)):
        if size < 1 and letter != "bidirectional":
            raise ValueError(f"{letter} is {size}; it must be at least 1")
    return made_up.made_up(Model(**sizes), B, T)
