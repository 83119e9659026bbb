"""The margin of `compare` from an A/A run: which one counts, and what it says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypedDict

from msgspec import Meta

from rnnbench.analysis.comparable import Side
from rnnbench.analysis.compare import MIN_LAUNCHES, Gate
from rnnbench.analysis.noise import MIN_MARGIN, NOISE
from rnnbench.api.names import MAX_PERCENT
from rnnbench.records import store

REPORTS = Path("reports")  # where `run` puts its folders


def place_of(name: str) -> Path:
    """The folder or file that is meant: a path, else the id of a run under `reports`. Raises StoreError for neither."""
    for path in (Path(name), REPORTS / name):
        if path.exists():
            return path
    raise store.StoreError(
        f"{name} is neither a folder, nor a file, nor a run under {REPORTS}; give what `run -o` was given, or its "
        f"{store.RECORDS}"
    )


def gate_of(asked: str | None, places: Sequence[Path], base: Side, new: Side) -> tuple[Gate, list[str]]:
    """The gate by the noise of the machine, and a sentence on where it is from; the usual one where none is known.

    Raises StoreError where the A/A run that was asked for holds no noise, or that of another machine.
    """
    machines = {r.machine_id for side in (base, new) for r in side.records}
    damaged: list[str] = []
    if asked is not None:
        folder = place_of(asked)
        found = _checked(folder, machines)
    elif (newest := _newest(places, machines, damaged)) is not None:
        folder, found = newest
    else:
        return Gate(), damaged
    margin = float(f"{max(MIN_MARGIN, found['floor']):.3g}")
    pairs = len(found["pairs"])
    told = f"margin {100 * margin:.3g} %: the noise of {pairs} pairs, {found['launches']} launches each, in {folder}"
    if found["floor"] < MIN_MARGIN:
        told += f" (it is {100 * found['floor']:.2g} %, and no margin is below {100 * MIN_MARGIN:g} %)"
    return Gate(margin=margin), [*damaged, told]


def _checked(folder: Path, machines: set[str]) -> dict[str, Any]:
    found = _read(folder)
    if found is None:
        raise store.StoreError(
            f"{folder} holds no noise of {MIN_LAUNCHES} launches or more; make it by: "
            "python -m rnnbench run --aa -o reports/aa, and give that folder"
        )
    if machines != {found["machine_id"]}:
        raise store.StoreError(
            f"{folder} tells the noise of machine {found['machine_id']}, the runs are of "
            f"{' and '.join(sorted(machines))}; give an A/A run of that machine, or a margin with --fail-on"
        )
    return found


def _newest(places: Iterable[Path], machines: set[str], damaged: list[str]) -> tuple[Path, dict[str, Any]] | None:
    """The latest A/A run of the one machine of both sides, in the folders that they lie in; `damaged` ones are told."""
    parents = {(place if place.is_dir() else place.parent).resolve().parent for place in places}
    files = [file for parent in parents for file in parent.glob(f"*/{NOISE}")]
    for file in sorted(files, key=lambda f: f.stat().st_mtime, reverse=True):
        try:
            found = _read(file.parent)
        except store.StoreError as error:
            damaged.append(f"{error}; its noise was left out")
            continue
        if found is not None and machines == {found["machine_id"]}:
            return file.parent, found
    return None


class _Noise(TypedDict):
    floor: Annotated[float, Meta(ge=0, le=MAX_PERCENT / 100)]
    launches: Annotated[int, Meta(ge=1)]
    pairs: list[dict[str, Any]]
    machine_id: str


def _read(folder: Path) -> dict[str, Any] | None:
    """What an A/A run says; None where it is none, or too short. Raises StoreError for a damaged one."""
    found = store.read_json(folder / NOISE, _Noise)
    return found if found and found["launches"] >= MIN_LAUNCHES else None
